"""What the README and the course say of the shipped results, against the files that hold them."""

import csv
import itertools
from pathlib import Path

import pytest

from nanoq.lm.checkpoint import load_checkpoint
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
