"""Evaluation that can be compared: every model on the same held-out windows, with the loss of each window kept."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.decoding import decoded_once
from nanoq.lm.model import check_tokens
from nanoq.progress import progress
from nanoq.running import device_of, evaluating


def windows(tokens: Tensor, context: int, limit: int | None = None) -> Tensor:
    """Cut tokens (N,) into non-overlapping windows (W, context + 1): `context` predictions each.

    Consecutive windows share one token, the last target of one being the first input of the next. What does not
    fill a window is dropped. With `limit`, that many windows spread evenly over the text.

    Raises:
        ValueError: if there is not a single window.
    """
    count = (len(tokens) - 1) // context
    if count < 1:
        raise ValueError(f"{len(tokens)} tokens are too few for one window of {context} predictions")
    return tokens[evenly_spread(count, limit)[:, None] * context + torch.arange(context + 1)]


def evenly_spread(count: int, limit: int | None) -> Tensor:
    """The numbers 0..count-1, or as many as `limit` says, spread evenly over them: int64.

    Raises:
        ValueError: if that is less than one.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"at least one window or picture is measured, not {limit}")
    if limit is None or limit >= count:
        return torch.arange(count)
    return torch.linspace(0, count - 1, limit).round().long()


def window_losses(
    model: nn.Module, tokens: Tensor, context: int | None = None, limit: int | None = None, batch: int = 16
) -> Tensor:
    """Mean cross-entropy of each window, in nats a token: float64 (W,).

    Args:
        model: maps tokens (B, T) to logits (B, T, V); is put into evaluation mode and back.
        tokens: the held-out split, int64 (N,).
        context: predictions in a window; the model's own context by default.
        limit: evaluate this many windows, evenly spread, instead of all.
        batch: windows in a forward pass.
    """
    return row_losses(model, windows(tokens, context or model.config.context, limit), batch)


MOST_NATS = math.log(sys.float_info.max)  # whose exp a float can hold


Measure = Callable[[Tensor], Tensor]  # what is measured of the logits that any model gives for a batch
Watch = Callable[[Tensor, Tensor, Measure], None]  # is shown each batch of inputs, and a model's logits for it


@torch.inference_mode()
def row_losses(model: nn.Module, rows: Tensor, batch: int = 16, watch: Watch | None = None) -> Tensor:
    """Mean cross-entropy of the T predictions in each row, in nats a token: float64 (W,).

    Args:
        model: maps tokens (B, T) to logits (B, T, V); is put into evaluation mode and back.
        rows: tokens (W, T + 1).
        batch: rows in a forward pass.
        watch: is shown the tokens (B, T) and logits of each pass, and what makes losses (B,) of logits.

    Raises:
        ValueError: if a token is not in the model's vocabulary, or there is none to predict.
    """
    if rows.dim() != 2 or rows.shape[1] < 2 or not len(rows) or batch < 1:
        raise ValueError(f"rows must be tokens (W, T + 1), at least one of two tokens, in batches of at least 1, not "
                         f"{tuple(rows.shape)} in batches of {batch}")
    device, losses = device_of(model), []
    with evaluating(model), decoded_once(model):
        for part in progress(rows.split(batch), desc="evaluate", unit="batch", leave=False, delay=1):
            part = part.to(device)
            logits, measure = model(part[:, :-1]), partial(_mean_losses, part[:, 1:])  # logits (B, T, V)
            check_tokens(part, logits.shape[-1])
            losses.append(measure(logits))
            if watch:
                watch(part[:, :-1], logits, measure)
    return torch.cat(losses)


def _mean_losses(targets: Tensor, logits: Tensor) -> Tensor:
    """Mean cross-entropy of each row, float64 (B,): targets (B, T), logits (B, T, V)."""
    targets = targets.to(logits.device)
    loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")  # (B * T,)
    return loss.view(targets.shape).double().mean(1).cpu()


def perplexity(losses: Tensor) -> float:
    """Exp of the mean loss: the number of equally likely next tokens that would surprise as much."""
    mean = float(losses.mean())
    return math.exp(mean) if mean < MOST_NATS else mean + math.inf  # inf, or NaN for NaN


def bits_per_char(losses: Tensor) -> float:
    """The mean loss in bits; for a character model, bits per character."""
    return float(losses.mean()) / math.log(2)


@dataclass(frozen=True)
class PairedDifference:
    """Mean loss of one model minus another's on the same windows, in nats, with a confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_difference(
    losses: Tensor, reference: Tensor, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> PairedDifference:
    """Bootstrap the mean of losses - reference over windows, both (W,) and on the same windows.

    What makes a window hard makes it hard for both models, so the difference varies far less than either loss.

    Raises:
        ValueError: if the two were not measured on the same number of windows, or on fewer than two, or the confidence
            is no share.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), not {confidence!r}")
    if losses.shape != reference.shape or losses.dim() != 1 or len(losses) < 2:
        shapes = f"{tuple(losses.shape)} and {tuple(reference.shape)}"
        raise ValueError(f"need two equal lists of window losses, at least 2, not {shapes}: take a longer text")
    difference = (losses - reference).double()
    generator = torch.Generator().manual_seed(seed)
    # In parts, because all draws at once would take resamples * windows numbers.
    means = []
    for size in [500] * (resamples // 500) + [resamples % 500] * (resamples % 500 > 0):
        chosen = torch.randint(len(difference), (size, len(difference)), generator=generator)
        means.append(difference[chosen].mean(1))
    tail = (1 - confidence) / 2
    low, high = torch.quantile(torch.cat(means), torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return PairedDifference(float(difference.mean()), low, high)


@dataclass(frozen=True)
class Divergence:
    """How far the predictions of one model are from another's, over all predictions.

    Attributes:
        mean, median, tail: of the Kullback-Leibler divergences D(original || model) in nats; the tail is what one in a
            thousand exceeds.
        top1: share of predictions whose likeliest class is the same.
    """

    mean: float
    median: float
    tail: float
    top1: float


class AgainstOriginal:
    """A `Watch` that compares a model's predictions with those of another on the same inputs.

    Where there are few, the other's are kept for the next model: call `divergence` between two.

    Attributes:
        measured: what is measured of the other model, batch by batch, so that it need not run once more for it.
        seconds: that it took.
    """

    KEPT = 2**26  # numbers

    def __init__(self, original: nn.Module):
        self.original = original
        self.known: list[Tensor] = []
        self.kept, self.kl, self.same = 0, [], []
        self.measured: list[Tensor] = []
        self.seconds = 0.0

    def begin(self) -> None:
        """Forget the batches of a run that was interrupted."""
        self.kl, self.same = [], []

    @torch.inference_mode()
    def __call__(self, inputs: Tensor, logits: Tensor, measure: Measure) -> None:
        """Compare one batch: logits (..., classes)."""
        number, started = len(self.kl), time.perf_counter()
        if number < len(self.known):
            p = self.known[number].to(logits.device).float()
        else:
            given = self.original.eval()(inputs.to(device_of(self.original)))
            if number == len(self.measured):
                self.measured.append(measure(given))
            p = given.float().log_softmax(-1).to(logits.device)
            self.kept += p.numel()
            if self.kept <= self.KEPT and number == len(self.known):
                self.known.append(p.cpu())
        q = logits.float().log_softmax(-1)
        self.kl.append((p.exp() * (p - q)).sum(-1).flatten().cpu())
        self.same.append((p.argmax(-1) == q.argmax(-1)).flatten().cpu())
        self.seconds += time.perf_counter() - started

    def divergence(self) -> Divergence | None:
        """Of all batches since the last call; None if there was none."""
        if not self.kl:
            return None
        kl, same = torch.cat(self.kl).double(), torch.cat(self.same).double()
        self.begin()
        ranked = kl.sort().values
        middle, tail = (float(ranked[round(share * (len(ranked) - 1))]) for share in (0.5, 0.999))
        return Divergence(float(kl.mean()), middle, tail, float(same.mean()))
