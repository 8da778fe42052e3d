"""The exercises as data, one module `nbNN` for each notebook, each with a list `EXERCISES`."""
