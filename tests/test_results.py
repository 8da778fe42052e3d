"""What the README and the course say of the shipped results, against the files that hold them."""

import csv
import itertools
import statistics
from pathlib import Path

import pytest

from nanoq.lm.checkpoint import load_checkpoint
from nanoq.numbers import BLOCKS
from nanoq.teach.leaderboard import Row, table_cells

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "data" / "results"
CORPORA = ("tinystories", "tales")


def leaderboard(corpus):
    with open(RESULTS / corpus / "leaderboard.csv", newline="") as file:
        return [Row(**{k: v if k == "method" else float(v) if "." in v or "e" in v else int(v) for k, v in row.items()})
                for row in csv.DictReader(file)]


def order(corpus):
    """Methods and widths from the least to the most added loss, where there is a loss to speak of."""
    rows = [row for row in leaderboard(corpus) if row.bits <= 4]
    return [(row.method, row.bits) for row in sorted(rows, key=lambda row: row.delta_nats)]


def test_generated_text_orders_the_methods_as_real_text_does():
    assert order("tales") == order("tinystories")
    assert len(order("tales")) == 6


@pytest.mark.parametrize("corpus", CORPORA)
def test_no_two_neighbours_of_that_order_are_a_tie(corpus):
    rows = sorted((row for row in leaderboard(corpus) if row.bits <= 4), key=lambda row: row.delta_nats)
    assert all(better.ci_high < worse.ci_low for better, worse in itertools.pairwise(rows))


@pytest.mark.parametrize("corpus", CORPORA)
def test_eight_bits_cost_next_to_nothing(corpus):
    assert all(abs(row.delta_nats) < 0.001 for row in leaderboard(corpus) if row.bits == 8)


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_table_in_the_readme_is_the_shipped_leaderboard(corpus):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in table_cells(leaderboard(corpus)):
        assert f"| {' | '.join(line)} |" in readme


def formats():
    with open(RESULTS / "tinystories" / "formats.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_of_block_formats_in_the_readme_is_the_file():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [row for row in formats() if row["method"] in ("nearest", "gptq")]
    assert len(rows) == 2 * len(BLOCKS)
    for row in rows:
        delta, low, high = (f"{float(row[key]):+.5f}" for key in ("delta_nats", "ci_low", "ci_high"))
        line = (f"| {row['format']} | {row['method'].replace('gptq', 'GPTQ')} | {float(row['average_bits']):.2f} | "
                f"{float(row['perplexity']):.4f} | {delta} | {low} … {high} |")
        assert line in readme


def test_gptq_helps_on_every_block_format():
    delta = {(row["format"], row["method"]): float(row["delta_nats"]) for row in formats()}
    assert all(delta[name, "gptq"] < delta[name, "nearest"] / 2 for name in BLOCKS)


def test_a_block_scale_beats_a_scale_for_each_tensor_at_four_bits():
    delta = {(row["format"], row["method"]): float(row["delta_nats"]) for row in formats()}
    assert delta["mxfp4", "nearest"] < delta["e2m1", "cast, scaled"] < delta["e2m1", "cast"]


def test_the_speeds_in_the_readme_are_those_of_the_files():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    with open(RESULTS / "gptq.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    ratios = [float(row["ratio"]) for row in rows]
    assert all(abs(float(row["error_ratio"]) - 1) < 1e-3 for row in rows)
    assert f"GPTQ is {min(ratios):.1f} to {max(ratios):.1f} times as fast" in readme
    with open(RESULTS / "kernels.csv", newline="") as file:
        speedup = {(row["in"], row["tokens"], row["way"]): f"{float(row['speedup_min']):.1f}"
                   for row in csv.DictReader(file)}
    one, many = (speedup["2048", "1", "int4"], speedup["2048", "1", "int8"]), speedup["768", "256", "w8a8"]
    assert "int4 codes {} and int8 codes {} times less".format(*one) in readme
    assert f"W8A8 {many} times less" in readme


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_checkpoint_is_the_one_that_was_measured(corpus):
    first = leaderboard(corpus)[0]
    folder = ROOT / "data" / "checkpoints" / f"{corpus}-2.7m"
    assert first.bytes == (folder / "model.safetensors").stat().st_size
    card = load_checkpoint(folder).card
    assert card["corpus"] == corpus
    # Validation and test are different stories of the same kind.
    assert card["validation_perplexity"] == pytest.approx(first.perplexity, rel=0.05)


def test_the_real_checkpoint_is_as_good_as_promised():
    assert leaderboard("tinystories")[0].perplexity < 2.4


def ternary(name):
    with open(RESULTS / name / "ternary.csv", newline="") as file:
        return list(csv.DictReader(file))


TERNARY_OPERATORS = ("naive", "tquant", "mquant", "lloyd")
TERNARY_METHODS = ("data-free", "data-free, refit", "gptq", "adaround", "brecq", "qat")


def digits_cell(method, operator):
    """Mean and standard deviation over the seeds of the share of digits that are right, in per cent."""
    shares = [100 * float(row["accuracy"]) for row in ternary("digits")
              if (row["method"], row["operator"]) == (method, operator)]
    assert len(shares) >= 5
    return f"{statistics.mean(shares):.1f} ± {statistics.stdev(shares):.1f}"


def gpt_cell(method, operator):
    rows = [row for row in ternary("tinystories") if (row["method"], row["operator"]) == (method, operator)]
    if not rows:
        return "–"
    (row,) = rows
    half = (float(row["ci_high"]) - float(row["ci_low"])) / 2
    return f"+{float(row['delta_nats']):.3f} ± {half:.3f}"


@pytest.mark.parametrize("cell", [digits_cell, gpt_cell])
@pytest.mark.parametrize("method", TERNARY_METHODS)
def test_the_tables_of_ternary_weights_in_the_readme_are_the_files(cell, method):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"| {method} | {' | '.join(cell(method, operator) for operator in TERNARY_OPERATORS)} |" in readme


def test_all_ternary_models_are_measured_alike():
    rows = [row for row in ternary("tinystories") if row["bits"] == "1.58"]
    assert len({row["bytes"] for row in rows if row["method"] != "bitnet, from scratch"}) == 1
    assert {row["windows"] for row in rows} == {"512"}
    assert all(float(row["average_bits"]) < 2.1 for row in rows)
