"""nanoq: learn how neural networks are quantised, with the real methods in small, tested code."""

__version__ = "0.1.0"
