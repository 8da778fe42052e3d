"""nanoq: learn how neural networks are quantised, with the real methods in small, tested code.

Eight verbs do the whole work, for every model there is: `load`, `quantize`, `prune`, `evaluate`, `compare`, `generate`,
`save` and `export`. See `nanoq.verbs`.
"""

from importlib import import_module

__version__ = "0.1.0"

# What is imported when it is first asked for: torch alone takes seconds.
_HOMES = {name: "nanoq.verbs" for name in
          ("load", "quantize", "prune", "evaluate", "compare", "generate", "save", "export")}
_HOMES |= {"Checkpoint": "nanoq.store", "Recipe": "nanoq.quant", "Round": "nanoq.quant", "Prune": "nanoq.compress",
           "LowRank": "nanoq.compress"}
_ROOMS = ("compress", "hf", "lm", "mixed", "numbers", "quant", "store", "tasks", "teach", "verbs", "vision")

__all__ = [*_HOMES, *_ROOMS]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return import_module(f"nanoq.{name}")
    raise AttributeError(f"module 'nanoq' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
