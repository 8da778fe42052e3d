"""Where a model is, and evaluation mode for as long as something is measured."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn


def device_of(model: nn.Module) -> torch.device:
    """Where a model is, parts of which may be without memory; it may have buffers alone."""
    places = (tensor.device for tensor in chain(model.parameters(), model.buffers()) if not tensor.is_meta)
    return next(places, torch.device("meta"))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode while the block of code runs; at the end each module gets its own back, whatever happened."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
