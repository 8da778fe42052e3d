"""Training: Muon or AdamW, stopped and resumed without a trace."""

import json
import math
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nanoq.files import write_csv
from nanoq.lm.evaluate import window_losses
from nanoq.lm.model import GPT, check_tokens
from nanoq.lm.optim import Muon
from nanoq.progress import progress
from nanoq.store import save_tensors

STATE, HISTORY = "state.safetensors", "history.csv"


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults are the course's recipe; `tokens` sets the length.

    Attributes:
        tokens: to read in all; rounded down to whole steps.
        batch: sequences in a step.
        optimizer: "muon" (block matrices by Muon, the rest by AdamW) or "adamw" (everything).
        lr: peak learning rate of the block matrices.
        lr_rest: peak learning rate of embeddings, norms and biases; `lr` where it is None.
        weight_decay: decoupled, on matrices and embeddings.
        beta2: AdamW's decay of squared gradients.
        warmup: steps of linear growth.
        schedule: "linear" (constant to `decay_from` of the steps, then a line to zero) or "cosine" (to a tenth).
        decay_from: share of the steps after which the linear schedule decays.
        clip: largest gradient norm; 0 for none.
        precision: "fp32", or "bf16": products of matrices in bfloat16, weights and optimiser states in float32.
        seed: of the order of the data and of dropout.
        evaluate_every: steps between validations and saved states.
        valid_windows: windows of the validation split in each validation.
    """

    tokens: int = 4_000_000
    batch: int = 8
    optimizer: str = "muon"
    lr: float = 0.02
    lr_rest: float | None = 3e-3
    weight_decay: float = 0.0
    beta2: float = 0.95
    warmup: int = 50
    schedule: str = "linear"
    decay_from: float = 0.4
    clip: float = 1.0
    precision: str = "fp32"
    seed: int = 0
    evaluate_every: int = 100
    valid_windows: int = 128

    def __post_init__(self):
        if self.optimizer not in ("muon", "adamw"):
            raise ValueError(f"optimizer must be 'muon' or 'adamw', not {self.optimizer!r}")
        if self.schedule not in ("linear", "cosine"):
            raise ValueError(f"schedule must be 'linear' or 'cosine', not {self.schedule!r}")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be 'fp32' or 'bf16', not {self.precision!r}")
        if self.batch < 1 or self.evaluate_every < 1:
            raise ValueError("batch and evaluate_every must be at least 1")
        for name in ("lr", "lr_rest", "weight_decay", "warmup", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0, not {value!r}")

    def steps(self, context: int) -> int:
        """Optimiser steps that read all `tokens`."""
        return self.tokens // (self.batch * context)

    def lr_factor(self, step: int, steps: int) -> float:
        """Share of the peak learning rate at a step of 0..steps-1."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if self.schedule == "cosine":
            return 0.55 + 0.45 * math.cos(math.pi * (step - self.warmup) / max(1, steps - self.warmup))
        return min(1.0, (steps - step) / max(1.0, steps * (1 - self.decay_from)))


def batch_at(tokens: Tensor, step: int, batch: int, context: int, seed: int) -> Tensor:
    """The windows (batch, context + 1) of a step, a function of its arguments alone.

    Every epoch cuts the text at a new random offset into non-overlapping windows, and reads them in random order.
    """
    per_epoch = (len(tokens) - 1) // context - 1  # one window less than fit, so that any offset fits
    if per_epoch < 1:
        raise ValueError(f"{len(tokens)} tokens are too few to train with a context of {context}")
    rows = torch.arange(step * batch, (step + 1) * batch)
    starts = torch.empty_like(rows)
    for epoch in (rows // per_epoch).unique().tolist():
        offset, order = _epoch(per_epoch, context, seed, epoch)
        mine = rows // per_epoch == epoch
        starts[mine] = offset + context * order[rows[mine] % per_epoch]
    return tokens[starts[:, None] + torch.arange(context + 1)]


@lru_cache(maxsize=2)  # a batch may lie in two; the order of millions of windows takes a second
def _epoch(count: int, context: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """Where an epoch begins to cut the text, (1,), and the order in which it reads its windows, (count,)."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randint(context, (1,), generator=generator), torch.randperm(count, generator=generator)


def make_optimizers(model: GPT, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """One optimiser for the block matrices and one for the rest; each group remembers its peak rate."""
    matrices = [p for p in model.blocks.parameters() if p.dim() == 2]
    chosen = {id(p) for p in matrices}
    embeddings = [p for p in model.parameters() if p.dim() == 2 and id(p) not in chosen]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    lr_rest = config.lr if config.lr_rest is None else config.lr_rest
    rest = [{"params": embeddings, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    betas = (0.9, config.beta2)
    if config.optimizer == "muon":
        iterate_in = torch.bfloat16 if config.precision == "bf16" else torch.float32
        first = Muon(matrices, lr=config.lr, weight_decay=config.weight_decay, iterate_in=iterate_in)
    else:
        first = torch.optim.AdamW(matrices, lr=config.lr, betas=betas, weight_decay=config.weight_decay)
    optimizers = [first, torch.optim.AdamW(rest, lr=lr_rest, betas=betas)]
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["peak_lr"] = group["lr"]
    return optimizers


def train(
    model: GPT, train_tokens: Tensor, valid_tokens: Tensor, config: TrainConfig,
    out: Path | str | None = None, resume: bool = False,
    loss_fn: Callable[[GPT, Tensor], Tensor] | None = None,
) -> list[dict]:
    """Train `model` in place and return its history, a row for each validation.

    A row holds step, characters, train_loss and valid_loss (nats a character), lr_factor and seconds. With `out`
    the rows go to `history.csv` and the whole state to `state.safetensors`, so that `resume=True` goes on bit for
    bit (with dropout, on a CPU). Ctrl-C and SIGTERM end the step, save and return.
    `loss_fn` maps the model and windows (B, T + 1) to what is to become small, `next_token_loss` by default.

    Raises:
        ValueError: if `tokens` are fewer than one step reads, `valid_tokens` fill no window, a token is not in the
            model's vocabulary, the loss is no number any more (what was saved before stays), or `resume` finds a
            damaged state or one of another model or configuration.
        FileNotFoundError: if there is no state to resume from.
    """
    steps = config.steps(model.config.context)
    if steps < 1:
        raise ValueError(f"{config.tokens} tokens are less than one step of {config.batch} sequences")
    if isinstance(model, GPT):  # which looks at no token while it is trained
        check_tokens(train_tokens, model.config.vocab_size)
        check_tokens(valid_tokens, model.config.vocab_size)
    if len(valid_tokens) <= model.config.context:
        raise ValueError(f"{len(valid_tokens)} tokens of the validation text are too few for one window of "
                         f"{model.config.context} predictions")
    run = _Run(model, config, train_tokens, Path(out) if out else None)
    history = run.load() if resume else []
    loss_fn = loss_fn or next_token_loss
    started, recent = time.perf_counter() - (history[-1]["seconds"] if history else 0.0), []
    with (_interruptible() as interrupted, torch.random.fork_rng(devices=[]),
          progress(total=steps, initial=run.step, desc="train", unit="step") as bar):
        torch.set_rng_state(run.rng_state)
        model.train()
        stop = False
        while run.step < steps and not stop:
            rows = batch_at(train_tokens, run.step, config.batch, model.config.context, config.seed)
            recent.append(run.update(loss_fn, rows, config.lr_factor(run.step, steps)))
            bar.set_postfix_str(f"loss {recent[-1]:.3f}, {_rate(run, config, started)} char/s", refresh=False)
            bar.update()
            stop = interrupted.is_set()
            if run.step % config.evaluate_every == 0 or run.step == steps or stop:
                valid = float(window_losses(model, valid_tokens, limit=config.valid_windows).mean())
                if not math.isfinite(valid):
                    raise ValueError(f"the training went astray: the validation loss is {valid} at step {run.step}; "
                                     "train with a smaller learning rate")
                history.append({
                    "step": run.step, "characters": run.step * config.batch * model.config.context,
                    "train_loss": round(sum(recent) / len(recent), 5), "valid_loss": round(valid, 5),
                    "lr_factor": round(config.lr_factor(run.step, steps), 4),
                    "seconds": round(time.perf_counter() - started, 1),
                })
                recent.clear()
                run.save(history)
    model.eval()
    return history


def _rate(run: "_Run", config: TrainConfig, started: float) -> int:
    return round(run.step * config.batch * run.model.config.context / (time.perf_counter() - started))


def next_token_loss(model: GPT, rows: Tensor) -> Tensor:
    """Mean next-token loss of windows (B, T + 1), in nats."""
    logits = model(rows[:, :-1]).flatten(0, 1)
    return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), rows[:, 1:].flatten())


class _Run:
    """Everything that a resumed training needs: model, optimisers, step and random state."""

    def __init__(self, model: GPT, config: TrainConfig, train_tokens: Tensor, out: Path | None):
        self.model, self.config, self.out = model, config, out
        self.device = next(model.parameters()).device
        self.data = {"tokens": len(train_tokens), "crc32": zlib.crc32(train_tokens.cpu().contiguous().numpy())}
        self.optimizers = make_optimizers(model, config)
        self.step = 0
        self.rng_state = torch.Generator().manual_seed(config.seed).get_state()

    def update(self, loss_fn, rows: Tensor, lr_factor: float) -> float:
        """One optimiser step on the rows of a batch; returns their loss."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            loss = loss_fn(self.model, rows.to(self.device))
        loss.backward()
        if self.config.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * lr_factor
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return loss.item()

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": p for name, p in self.model.named_parameters()} | {"rng": torch.get_rng_state()}
        for name, state in self._optimizer_states():
            tensors |= {f"optimizer.{key}.{name}": value for key, value in state.items()}
        return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}

    def _optimizer_states(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Each parameter's name and its optimiser's live state."""
        names = {id(p): name for name, p in self.model.named_parameters()}
        for optimizer in self.optimizers:
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                yield names[id(p)], optimizer.state[p]

    def _facts(self) -> dict:
        return {"train": asdict(self.config), "model": self.model.config.entries(), "data": self.data}

    def save(self, history: list[dict]) -> None:
        """Write the state and the history, each atomically."""
        if self.out is None:
            return
        write_csv(self.out / HISTORY, history)
        facts = self._facts() | {"step": self.step, "history": history}
        save_tensors(self.out / STATE, self._tensors(), {"nanoq": json.dumps(facts)})

    def load(self) -> list[dict]:
        """Read the state back into model and optimisers; return the history up to it."""
        path = self.out / STATE if self.out else None
        if path is None or not path.is_file():
            raise FileNotFoundError(f"nothing to resume: there is no {path or STATE}; train without --resume first")
        try:
            with safe_open(path, framework="pt") as file:
                saved = json.loads((file.metadata() or {})["nanoq"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            if "characters" in saved["train"]:  # as `tokens` was called once
                saved["train"]["tokens"] = saved["train"].pop("characters")
            saved["train"].setdefault("precision", "fp32")  # all that there was once
            changed = [f"{key}: {saved[kind].get(key)} then, {value} now"
                       for kind, mine in self._facts().items() for key, value in mine.items()
                       if saved[kind].get(key) != value]
            if changed:
                raise ValueError(f"{path} was trained with another configuration ({'; '.join(changed)})")
            weights = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
            self.model.load_state_dict(weights)
            self.step, self.rng_state, history = saved["step"], tensors["rng"], saved["history"]
        except (SafetensorError, KeyError, TypeError, AttributeError, RuntimeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a training state ({error}); train again without --resume") from None
        for name, state in self._optimizer_states():
            for key in (key for key in tensors if key.startswith("optimizer.") and key.endswith(f".{name}")):
                state[key.split(".")[1]] = tensors[key]
        return history


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets, so that no step is cut in half; the second one interrupts."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    second = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}

    def on_signal(number: int, _):
        event.set()
        signal.signal(number, second[number])

    previous = {number: signal.signal(number, on_signal) for number in second}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
