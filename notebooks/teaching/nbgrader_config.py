"""Settings of nbgrader for this course: copy this file to the folder of your course, beside `source`."""

from nbconvert.filters import clean_html, markdown2html

c = get_config()  # noqa: F821 (nbgrader defines it)
c.ClearSolutions.code_stub = {"python": "...  # your code here"}  # nbgrader's own raises, and stops "Run all"

# A submission runs in a process of its own; what its answers do is judged in nbgrader's, which its cells cannot reach.
c.Autograde.autograde_preprocessors = ["nanoq.teach.marking.Mark", *(f"nbgrader.preprocessors.{name}" for name in (
    "IgnorePattern", "LimitOutput", "SaveAutoGrades", "AssignLatePenalties", "CheckCellMetadata"))]
c.Execute.timeout = 600  # seconds for a cell: nbgrader's 30 are too few where a model is trained, and none is a hang
c.Mark.notebook_timeout = 3600  # seconds for all cells of a notebook together
c.Mark.memory_gb = 8  # for each process of a submission; only Linux has such a limit

c.OverwriteCells.add_missing_cells = True  # a check that a student has deleted is put back, and graded

# Feedback shows what students wrote and what their code put out, and their HTML would run in your browser. nbgrader's
# template renders text cells as they are, whatever nbconvert is told.
c.HTMLExporter.sanitize_html = True
c.HTMLExporter.filters = {"markdown2html": lambda source: clean_html(markdown2html(source))}
