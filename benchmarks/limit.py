"""How near each method is to the limit: the same model at many sizes, every file loaded again before it is measured.

    NANOQ_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/limit.py

writes data/results/tinystories/limit.csv, a row after each model, and limit.png; rows that the file has are not
measured again. The text is real TinyStories: 128 windows of the training split to calibrate on, 128 held-out windows,
the same for all. Bits per parameter are of the whole file, "bits above bound" of the layers (`nanoq.quant.bound`).
"Tuned" models went through `nanoq.quant.tune` afterwards, on more of the training split, which with Block-AP is
EfficientQAT (arXiv 2407.11062); their "bits above bound" are those from before.
"""

import argparse
from copy import deepcopy
from dataclasses import asdict, replace
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from nanoq.files import atomic_path, data_dir, read_csv, write_csv
from nanoq.quant import Recipe, Vector, awq, entropy_code, quantize_model, tune
from nanoq.quant.bound import weight_bits
from nanoq.store import Checkpoint
from nanoq.teach.leaderboard import Leaderboard
from nanoq.teach.plots import COLORS

CODED = {"method": "gptq", "grid": "entropy-coded", "embeddings": 8}
IN_TURN = {"true_sequential": True, "match_original": True}
SIZES = (4.236, 3.231, 2.237, 1.374)  # rates whose files have 4.39, 3.41, 2.44 and 1.6 bits per parameter
GROUPS = {"group_size": 64}
# Its learning rates have the least error of the third block, of six pairs at 2 bits and four at 3, on 16 windows of the
# training split that are not among those it calibrates on.
BLOCK_AP = {"method": "block-ap", "steps": 200, "batch": 4, "lr": 0.01, "lr_range": 0.01} | GROUPS
TUNED = {"steps": 60, "batch": 8}  # of `tune`: 480 windows
BEST = "GPTQ, WaterSIC steps, in sequence"
MODELS = {  # by name, the most telling first: options of `Recipe`
    "float16": [{"bits": 16}],
    "RTN, row": [{"bits": bits} for bits in (4, 3, 2)],
    "GPTQ, row": [{"method": "gptq", "bits": bits} for bits in (4, 3, 2)],
    BEST: [CODED | IN_TURN | {"rate": rate} for rate in SIZES],
    "GPTQ, WaterSIC steps": [CODED | {"rate": rate} for rate in SIZES],
    "GPTQ, equal steps": [CODED | {"rate": rate, "spacing": "equal"} for rate in SIZES],
    "trellis, L = 12": [{"code": "trellis", "bits": bits, "embeddings": 8} for bits in (3, 2)],
    "E8P": [{"code": "e8p", "bits": 2, "embeddings": 8}],
    "RTN, groups of 64": [{"bits": bits} | GROUPS for bits in (4, 3, 2)],
    "GPTQ, groups of 64": [{"method": "gptq", "bits": bits} | GROUPS for bits in (4, 3, 2)],
    "AWQ, clipped, groups of 64": [{"awq": True, "bits": bits} | GROUPS for bits in (4, 3, 2)],
    "HQQ, groups of 64": [{"grid": "hqq", "bits": bits} | GROUPS for bits in (4, 3, 2)],
    "imatrix, groups of 64": [{"grid": "imatrix", "bits": bits} | GROUPS for bits in (4, 3, 2)],
    "k-means, row": [{"grid": "k-means", "bits": bits} for bits in (4, 3, 2)],
    "AutoRound, groups of 64": [{"method": "autoround", "bits": bits} | GROUPS for bits in (3, 2)],
    "Block-AP, groups of 64": [BLOCK_AP | {"bits": bits} for bits in (3, 2)],
    "Block-AP, groups of 64, tuned": [BLOCK_AP | {"bits": bits, "tuned": TUNED} for bits in (3, 2)],
    "GPTQ, groups of 64, tuned": [{"method": "gptq", "bits": bits, "tuned": TUNED} | GROUPS for bits in (3, 2)],
    "GPTQ, row, recoded": [{"method": "gptq", "bits": bits, "recoded": True} for bits in (4, 3, 2)],
    "GPTQ, groups of 64, clipped": [{"method": "gptq", "bits": bits, "search": "mse"} | GROUPS for bits in (3, 2)],
    "GPTQ, groups of 64, clipped, gain 1": [
        {"method": "gptq", "bits": bits, "search": "mse", "refit": "gain"} | GROUPS for bits in (3, 2)],
}


def made(board: Leaderboard, options: dict) -> Checkpoint:
    """The model of a row."""
    options, copy = dict(options), deepcopy(board.reference)
    recoded, scaled, tuned = (options.pop(extra, None) for extra in ("recoded", "awq", "tuned"))
    if "code" in options:
        recipe = Recipe(Vector(options["code"], options["bits"]), embeddings=options["embeddings"])
    else:
        recipe = Recipe(options.pop("method", "nearest"), **options)
    if scaled:
        awq(copy.model, board.calibration, recipe.default)
    copy.reports = quantize_model(copy.model, recipe, board.calibration, bound=True)
    if recoded:
        entropy_code(copy.model)
        copy.reports = [replace(report, bits_above_bound=report.bits_above_bound - report.bits + weight_bits(
            copy.model.get_submodule(report.layer))) for report in copy.reports]
    if tuned:
        text = board.reference.tokenizer.encode_known(board.corpus.train, board.corpus.name)
        tune(copy.model, board.reference.model, text, **tuned)
    return copy


def read(path: Path) -> dict[tuple[str, str], dict]:
    """The rows of a file by their names and widths."""
    return {(row["method"], row["bits"]): row for row in (read_csv(path) if path.is_file() else [])}


def in_order(rows: dict[tuple[str, str], dict]) -> list[dict]:
    """The rows as `MODELS` has them."""
    names = list(MODELS)
    return sorted(rows.values(), key=lambda row: (names.index(row["method"]), -float(row["bits"])))


def plot(rows: list[dict], caption: str) -> Figure:
    """Added loss against bits per parameter, a line for each method, and where the best one's errors meet the bound."""
    figure, axes = plt.subplots(figsize=(11, 5.5), constrained_layout=True)
    names = list(dict.fromkeys(row["method"] for row in rows if float(row["bits"]) < 16))
    looks = zip(names, cycle(COLORS.values()), cycle("osD^vPX*<>"), cycle(("-", "--", ":")), strict=False)
    for name, color, marker, line in looks:
        mine = sorted((float(row["average_bits"]), float(row["delta_nats"])) for row in rows if row["method"] == name)
        axes.plot(*zip(*mine, strict=True), color=color, marker=marker, linestyle=line, label=name)
    mine = sorted((float(row["average_bits"]) - float(row["bits_above_bound"]), float(row["delta_nats"]))
                  for row in rows if row["method"] == BEST)
    axes.plot(*zip(*mine, strict=True), color="gray", linewidth=4, alpha=0.4,
              label=f"{BEST}:\nas many bits fewer as its layers are above the bound")
    axes.set(xlabel="bits per parameter, whole file", ylabel="added loss (nats per character)", yscale="log")
    axes.set_title(caption, fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(alpha=0.3)
    return figure


def main() -> None:
    """Measure all models that the file does not have, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=data_dir() / "results" / "tinystories" / "limit.csv")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    board = Leaderboard("tinystories-2.7m", "tinystories")
    rows = read(out)
    for name, widths in MODELS.items():
        for options in widths:
            bits = options.get("rate", options.get("bits", 8))
            if (name, str(bits)) in rows:
                continue
            row = board.add_saved(name, bits, made(board, options))
            rows[name, str(bits)] = asdict(row)
            write_csv(out, in_order(rows))
            print(f"{name} {bits}: {row.average_bits:.3f} bits, {row.delta_nats:+.4f}, above {row.bits_above_bound}",
                  flush=True)
    with atomic_path(out.with_suffix(".png")) as path:
        plot(in_order(rows), board.caption).savefig(path, format="png", dpi=150)


if __name__ == "__main__":
    main()
