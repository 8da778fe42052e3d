"""What a model is calibrated on and measured by: text for language models, images, reviews for encoders of text."""

import math
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.decoding import decoded_once
from nanoq.lm.corpus import Corpus, corpus_of
from nanoq.lm.evaluate import (
    AgainstOriginal,
    Divergence,
    PairedDifference,
    Watch,
    bits_per_char,
    evenly_spread,
    paired_difference,
    perplexity,
    row_losses,
)
from nanoq.lm.evaluate import windows as cut
from nanoq.lm.model import GPT
from nanoq.quant.calibrate import sample_windows
from nanoq.running import device_of, evaluating
from nanoq.store import Checkpoint
from nanoq.vision.data import load_images
from nanoq.vision.model import ResNet

__all__ = ["CharacterText", "Evaluation", "Images", "MaskedText", "ReviewProbe", "Task", "TokenText", "task_for"]

LONGEST = 2048  # tokens: what papers report, and more takes a computer's memory
CALIBRATION_TOKENS, CALIBRATION_CONTEXT = 2**16, 128  # of all windows of a model of transformers, and of one
# Of a masked language model, which reads a window once for each token that is measured: tokens in a window, and the
# step from one that is masked to the next. So as many are read as if a causal model read windows of `LONGEST`.
SHORT, EVERY = 128, 8


@dataclass(frozen=True)
class Evaluation:
    """What was measured of a model.

    Attributes:
        losses: nats per unit, of each window of text, image or review: float64 (N,).
        unit: what is predicted: "character", "token", "image" or "review".
        data: the text or images, in one line.
        more: further figures, by name.
        speed: units per second.
        delta: added loss against another model on the same windows, if there is one, in nats per unit.
        divergence: of the predictions from that model's, where there are any.
    """

    losses: Tensor
    unit: str
    data: str
    more: dict[str, str]
    speed: float
    delta: PairedDifference | None = None
    divergence: Divergence | None = None

    @property
    def perplexity(self) -> float:
        """Exp of the mean loss."""
        return perplexity(self.losses)

    def __str__(self) -> str:
        lines = {"perplexity": f"{self.perplexity:.4f} per {self.unit} on {self.data}"} | self.more
        if self.delta is not None:
            delta = self.delta
            lines["added loss"] = (f"{delta.mean:+.5f} nats per {self.unit}, 95 % interval {delta.low:+.5f} to "
                                   f"{delta.high:+.5f}")
        if self.divergence is not None:
            kl = self.divergence
            lines["KL divergence"] = (f"{kl.mean:.5f} nats per {self.unit} in the mean, {kl.median:.5f} in the median; "
                                      f"one in a thousand is above {kl.tail:.3f}")
            lines["same top 1"] = f"{kl.top1:.2%}"
        return "\n".join(f"{name:20}{value}" for name, value in lines.items())


@dataclass
class Task:
    """Data for one kind of model, with the windows that every model of that kind is measured on.

    Attributes:
        checkpoint: whose tokeniser and context count.
        data: the name of a corpus or of a data set, or a path; by default what the card or the kind of model says.
        windows: how many held-out windows, images or reviews; None for all.
        context: tokens in a window; by default the model's, at most `LONGEST`.
        calibration_windows: how many windows, or images, to calibrate on where nobody says.
    """

    checkpoint: Checkpoint
    data: str | Path | Corpus | None = None
    windows: int | None = 128
    context: int | None = None
    unit: str = field(init=False, default="token")
    calibration_windows = 128

    def __post_init__(self):
        if self.context is not None and self.context < 1:
            raise ValueError(f"context must be at least 1 token, not {self.context}")
        model = self.checkpoint.model
        self.context = self.context or min(getattr(model.config, "context", LONGEST), LONGEST)

    def given(self, entry: str, otherwise: str) -> str:
        """The name of the data: what was asked for, or an entry of the card, or that of the usual data."""
        return str(self.checkpoint.card.get(entry, otherwise) if self.data is None else self.data)

    def calibration(self, count: int | None = None, seed: int = 0) -> Tensor:
        """What to calibrate on, from the training split: tokens (count, context) or images (count, channels, H, W)."""
        count = self.calibration_windows if count is None else count
        if count < 1:
            raise ValueError(f"windows to calibrate on must be at least 1, not {count}")
        return self._calibration(count, seed)

    def _calibration(self, count: int, seed: int) -> Tensor:
        raise NotImplementedError

    def outputs(self, model: nn.Module, watch: Watch | None = None) -> Tensor:
        """What is measured of a model: the losses of the held-out windows, or what `loss_of` makes them of.

        Where the model predicts classes, `watch` is shown the logits: see `nanoq.lm.evaluate`.
        """
        raise NotImplementedError

    def loss_of(self, outputs: Tensor) -> Tensor:
        """Nats per unit of each held-out window: float64 (N,)."""
        return outputs

    def losses(self, model: nn.Module, watch: Watch | None = None) -> Tensor:
        """Nats per unit of each held-out window: float64 (N,)."""
        return self.loss_of(self.outputs(model, watch))

    def caption(self, count: int) -> str:
        """What was measured on, in one line."""
        raise NotImplementedError

    def more(self, outputs: Tensor) -> dict[str, str]:
        """Further figures, by name."""
        return {}

    @property
    def predictions(self) -> float:
        """Units in a window: tokens of a text, one image."""
        return self.context if self.unit in ("character", "token") else 1

    def evaluate(self, model: nn.Module, against: nn.Module | None = None) -> Evaluation:
        """Measure a model, and what it loses against another one on the same windows."""
        watch = None if against is None else AgainstOriginal(against)
        _ = self.held_out  # is read before the clock starts
        started = time.perf_counter()
        with nullcontext() if against is None else decoded_once(against):
            outputs = self.outputs(model, watch)
        seconds = time.perf_counter() - started - (watch.seconds if watch else 0)
        speed = len(outputs) * self.predictions / seconds
        losses, caption = self.loss_of(outputs), self.caption(len(outputs))
        delta = divergence = None
        if watch:
            others = self.loss_of(torch.cat(watch.measured)) if watch.measured else self.losses(against)
            delta, divergence = paired_difference(losses, others), watch.divergence()
        return Evaluation(losses, self.unit, caption, self.more(outputs), speed, delta, divergence)


class CharacterText(Task):
    """Text for our GPT, character by character; consecutive windows share one, so that each is predicted."""

    def __post_init__(self):
        super().__post_init__()
        self.unit = "character"
        self.corpus = corpus_of(self.checkpoint.card, self.data)

    @cached_property
    def held_out(self) -> Tensor:
        """Tokens of the test split: int64 (N,)."""
        return self.checkpoint.tokenizer.encode_known(self.corpus.test, self.corpus.name)

    def _calibration(self, count: int, seed: int) -> Tensor:
        """Random windows of the training split."""
        tokens = self.checkpoint.tokenizer.encode_known(self.corpus.train, self.corpus.name)
        return sample_windows(tokens, self.context, count, seed)

    def outputs(self, model: nn.Module, watch: Watch | None = None) -> Tensor:
        """The loss of each window."""
        return row_losses(model, cut(self.held_out, self.context, self.windows), watch=watch)

    def caption(self, count: int) -> str:
        """As "tales (generated text): 128 held-out windows of 256"."""
        generated = " (generated text)" if self.corpus.floor is not None else ""
        unknown = int((self.held_out == 0).sum())
        note = f"; {unknown:,} of {len(self.held_out):,} characters are unknown to the checkpoint" if unknown else ""
        return f"{self.corpus.name}{generated}: {count:,} held-out windows of {self.context}{note}"

    def more(self, outputs: Tensor) -> dict[str, str]:
        """Bits per character, and what of the text the model does not know."""
        unknown, floor = self.checkpoint.tokenizer.unknown(self.corpus.test), self.corpus.floor
        return {"bits per character": f"{bits_per_char(outputs):.4f}" + (f"; floor {floor:.4f}" if floor else ""),
                "unknown characters": f"{sum(unknown.values())} of {len(self.corpus.test):,}" + _most(unknown)}


def _most(unknown: dict[str, int], count: int = 10) -> str:
    """The most frequent characters with their numbers, and how many others there are; nothing of none."""
    if not unknown:
        return ""
    others = f", and {len(unknown) - count:,} others" if len(unknown) > count else ""
    return f": {dict(Counter(unknown).most_common(count))}{others}"


class TokenText(Task):
    """Text for a causal language model of transformers, on the protocol of GPTQ.

    Where no context is given, calibration text comes in short windows. Llama's kind attends to the first token of a
    window whatever it is, and longer windows leave too few first tokens in the statistics
    (`benchmarks/window_length.py`).

    Attributes:
        calibration_context: tokens in a window of calibration text.
    """

    def __post_init__(self):
        asked = self.context
        super().__post_init__()
        self.calibration_context = asked or min(self.context, CALIBRATION_CONTEXT)

    @property
    def calibration_windows(self) -> int:
        """As many as have `CALIBRATION_TOKENS`."""
        return math.ceil(CALIBRATION_TOKENS / self.calibration_context)

    @property
    def name(self) -> str:
        """Of the corpus."""
        return self.data.name if isinstance(self.data, Corpus) else self.given("corpus", "wikitext-2")

    @cached_property
    def corpus(self) -> Corpus:
        """The text."""
        return corpus_of({"corpus": "wikitext-2"} | self.checkpoint.card, self.data)

    def _calibration(self, count: int, seed: int) -> Tensor:
        """Random windows of the training split."""
        from nanoq.hf.tasks import sample_text, start_windows  # not every user has transformers

        tokenizer, text, length = self.checkpoint.tokenizer, self.corpus.train, self.calibration_context
        return start_windows(tokenizer, sample_text(tokenizer, text, length, count, seed))

    @cached_property
    def held_out(self) -> Tensor:
        """The held-out windows (W, context)."""
        from nanoq.hf.tasks import encode, gptq_windows, start_windows, wikitext

        if self.name == "wikitext-2":
            rows = wikitext(self.checkpoint.tokenizer, self.context)
        else:
            rows = gptq_windows(encode(self.checkpoint.tokenizer, self.corpus.test), self.context)
            rows = start_windows(self.checkpoint.tokenizer, rows)
        return rows[evenly_spread(len(rows), self.windows)]

    def outputs(self, model: nn.Module, watch: Watch | None = None) -> Tensor:
        """The loss of each window, but for its first token."""
        from nanoq.hf.tasks import gptq_losses

        return gptq_losses(model, self.held_out, watch=watch)

    def caption(self, count: int) -> str:
        """As "wikitext-2: 128 held-out windows of 2048 tokens"."""
        return f"{self.name}: {count:,} held-out windows of {self.context} tokens"

    def more(self, outputs: Tensor) -> dict[str, str]:
        """Bits per byte of the text, which models with other tokenisers can be compared by."""
        text = self.checkpoint.tokenizer.batch_decode(self.held_out[:, 1:])
        size = sum(len(part.encode()) for part in text)
        nats = float(outputs.sum()) * (self.held_out.shape[1] - 1)
        return {"bits per byte": f"{nats / math.log(2) / size:.4f}"}


class MaskedText(TokenText):
    """Text for a masked language model: windows of `SHORT` tokens or the context given, one token in eight masked."""

    def __post_init__(self):
        asked = self.context
        super().__post_init__()
        self.calibration_context, self.context = self.context, asked or min(self.context, SHORT)

    def _calibration(self, count: int, seed: int) -> Tensor:
        """Random windows of the training split, as long as the model can read."""
        from nanoq.hf.tasks import sample_text

        return sample_text(self.checkpoint.tokenizer, self.corpus.train, self.calibration_context, count, seed)

    def outputs(self, model: nn.Module, watch: Watch | None = None) -> Tensor:
        """The loss of each window, each measured token masked by itself: nothing is shown."""
        from nanoq.hf.tasks import enclose_windows, masked_losses

        tokenizer = self.checkpoint.tokenizer
        return masked_losses(model, tokenizer, enclose_windows(tokenizer, self.held_out), EVERY)

    def caption(self, count: int) -> str:
        """As "wikitext-2: 128 held-out windows of 128 tokens, every 8th masked by itself (pseudo-perplexity)"."""
        return f"{super().caption(count)}, every {EVERY}th masked by itself (pseudo-perplexity)"

    def more(self, outputs: Tensor) -> dict[str, str]:
        """Nothing: bits per byte are for models that write the text."""
        return {}

    @property
    def predictions(self) -> float:
        """Tokens of a window that are masked."""
        return self.context / EVERY


class Images(Task):
    """Images for a classifier."""

    def __post_init__(self):
        self.unit, self.images = "image", load_images(self.given("data", "digits"))

    def _calibration(self, count: int, seed: int) -> Tensor:
        """Random images of the training split."""
        order = torch.randperm(len(self.images.train), generator=torch.Generator().manual_seed(seed))
        return self.images.train[order[:count]]

    @cached_property
    def held_out(self) -> tuple[Tensor, Tensor]:
        """Images of the test split, and their labels."""
        chosen = evenly_spread(len(self.images.test), self.windows)
        return self.images.test[chosen], self.images.test_labels[chosen]

    @torch.inference_mode()
    def outputs(self, model: nn.Module, watch: Watch | None = None) -> Tensor:
        """The logits of each image (N, classes)."""
        device, logits = device_of(model), []
        with evaluating(model), decoded_once(model):
            for part in self.held_out[0].split(256):
                logits.append(model(part.to(device)).cpu())
                if watch:
                    watch(part, logits[-1], Tensor.cpu)
        return torch.cat(logits)

    def loss_of(self, outputs: Tensor) -> Tensor:
        """The cross-entropy of each image."""
        return F.cross_entropy(outputs.double(), self.held_out[1], reduction="none")

    def caption(self, count: int) -> str:
        """As "digits: 1,000 held-out images"."""
        return f"{self.images.name}: {count:,} held-out images"

    def more(self, outputs: Tensor) -> dict[str, str]:
        """How many are told right."""
        right = outputs.argmax(1) == self.held_out[1]
        return {"accuracy": _share(float(right.double().mean()), len(right))}


class ReviewProbe(Task):
    """Film reviews for an encoder of text: a linear probe on its features, fitted anew for each model."""

    def __post_init__(self):
        super().__post_init__()
        self.unit = "review"

    def _calibration(self, count: int, seed: int) -> Tensor:
        """Random windows of a corpus: `data`, if it is one, or WikiText-2."""
        from nanoq.hf.tasks import sample_text

        corpus = corpus_of({"corpus": "wikitext-2"} | self.checkpoint.card, self.data)
        return sample_text(self.checkpoint.tokenizer, corpus.train, self.context, count, seed)

    @cached_property
    def held_out(self):
        """Reviews with their labels, those of the probe, too."""
        from nanoq.hf.tasks import reviews

        return reviews(self.given("corpus", "imdb"), test=self.windows)

    def _probe(self, model: nn.Module) -> tuple[object, Tensor]:
        from nanoq.hf.tasks import features, linear_probe

        train, test = (features(model, self.checkpoint.tokenizer, texts, max_length=self.context)
                       for texts in (self.held_out.train, self.held_out.test))
        return linear_probe(train, self.held_out.train_labels), test

    def outputs(self, model: nn.Module, watch: Watch | None = None) -> Tensor:
        """The cross-entropy of each review under the probe, which is the model's no more: nothing is shown."""
        probe, test = self._probe(model)
        chances = torch.from_numpy(probe.predict_log_proba(test.cpu().numpy()))
        return -chances.gather(1, torch.tensor(self.held_out.test_labels)[:, None])[:, 0].double()

    def caption(self, count: int) -> str:
        """As "imdb: 1,000 held-out reviews, by a linear probe on 2,000 others"."""
        return (f"{self.held_out.name}: {count:,} held-out reviews, by a linear probe on "
                f"{len(self.held_out.train):,} others")

    def more(self, outputs: Tensor) -> dict[str, str]:
        """How many are told right: those that are given more than half of the probability."""
        return {"accuracy": _share(float((outputs < math.log(2)).double().mean()), len(outputs))}

    @property
    def predictions(self) -> float:
        """A review, and its share of those that are read for the probe."""
        return 1 + len(self.held_out.train) / len(self.held_out.test)


def _share(share: float, count: int) -> str:
    return f"{share:.4f}, standard error {(share * (1 - share) / count) ** 0.5:.4f}"


def task_for(checkpoint: Checkpoint, data: str | Path | Corpus | None = None, windows: int | None = 128,
             context: int | None = None) -> Task:
    """The task that fits a model; the arguments are attributes of `Task`.

    A masked language model is measured by its pseudo-perplexity, or by a probe if the data are reviews.

    Raises:
        FileNotFoundError, ValueError: if there is no such data, or nanoq has no task for a model of this kind.
    """
    model = checkpoint.model
    kinds = {"causal-lm": TokenText, "masked-lm": MaskedText, "encoder": ReviewProbe, "classifier": ReviewProbe}
    task = CharacterText if isinstance(model, GPT) else Images if isinstance(model, ResNet) else \
        kinds.get(getattr(model, "kind", ""))
    if task is MaskedText:
        from nanoq.hf.tasks import REVIEWS  # not every user has transformers

        task = ReviewProbe if isinstance(data, str) and data in REVIEWS else MaskedText
    if task is None:
        raise ValueError(f"nanoq has no text or images to measure a {type(model).__name__} of kind "
                         f"'{getattr(model, 'kind', 'unknown')}' by")
    return task(checkpoint, data, windows, context)
