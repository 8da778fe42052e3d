"""The figures of the notebooks: `concepts` for all, `nbNN` for one. Each function shows its figure with its words."""
