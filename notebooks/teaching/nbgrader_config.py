"""Settings of nbgrader for this course: copy this file to the folder of your course, beside `source`."""

c = get_config()  # noqa: F821 (nbgrader defines it)
c.ClearSolutions.code_stub = {"python": "...  # your code here"}  # nbgrader's own raises, and stops "Run all"
c.Execute.timeout = None  # nbgrader's 30 seconds for a cell are too few where a model is trained
c.OverwriteCells.add_missing_cells = True  # a check that a student has deleted is put back, and graded
