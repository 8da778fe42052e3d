"""Reading the showdown's files, and its two figures."""

import math
from dataclasses import asdict, replace

import matplotlib.pyplot as plt
import pytest
from scipy.stats import spearmanr

from nanoq.files import data_dir, write_csv
from nanoq.teach.showdown import (
    GROUPS,
    RACERS,
    WIDTHS,
    Correlation,
    Measured,
    Sensitivity,
    beats,
    by_budget,
    chance,
    column,
    costs_of,
    mean_delta,
    over_uniform,
    plot_correlations,
    plot_showdown,
    read_rows,
    uniform_at,
    values_of,
)

CORRELATION = Correlation("linear", "gptq", "kl", 3, "HAWQ-V2", 0.6, 0.3, 0.8, 0.55, 0.65)
MEASURED = Measured("uniform", 2.0, 0, 1000, 2.0, 1100, 2.5, 0.16, 0.15, 0.17, (2, 2, 2))


def model(method, budget, size, deltas):
    return [replace(MEASURED, method=method, budget=budget, linear_bytes=size, bytes=size + 100, seed=seed,
                    delta_nats=delta) for seed, delta in enumerate(deltas)]


@pytest.fixture
def rows():
    uniform = [model("uniform", float(bits), 1000 * bits, [4.0**-bits] * 3) for bits in (2, 3, 4)]
    others = [model(method, budget, int(1000 * budget), [0.02, 0.03, 0.04])
              for methods in GROUPS.values() for method in (*methods, "random") for budget in (2.5, 3.0)]
    clusters = [replace(MEASURED, method="CMPQ, 3-means", budget=None)]
    return sum(uniform + others, clusters)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("row", [
    CORRELATION, MEASURED, replace(MEASURED, method="CMPQ, 3-means", budget=None, widths=(16, 8, 4)),
    Sensitivity("block", "PMPQ", 2, "blocks.0", None, 0.25), Sensitivity("linear", "HAWQ-V2", 0, "blocks.0", 3, 1e-9),
])  # fmt: skip
def test_what_was_written_is_read(row, tmp_path):
    as_text = {k: "" if v is None else " ".join(map(str, v)) if isinstance(v, tuple) else v
               for k, v in asdict(row).items()}
    write_csv(tmp_path / "rows.csv", [as_text, as_text])
    assert read_rows(tmp_path / "rows.csv", type(row)) == [row, row]


def test_a_file_that_is_missing_or_another_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"benchmarks/showdown\.py"):
        read_rows(tmp_path / "showdown.csv", Measured)
    write_csv(tmp_path / "showdown.csv", [asdict(CORRELATION)])
    with pytest.raises(ValueError, match="columns"):
        read_rows(tmp_path / "showdown.csv", Measured)


def test_the_shipped_sensitivities_can_be_read():
    rows = read_rows(data_dir() / "results" / "tinystories" / "sensitivity.csv", Sensitivity)
    assert len(values_of(rows, "linear", "random")) == 24
    costs = values_of(rows, "block", "GPTQ error", seed=1)
    assert list(costs) == [f"blocks.{i}" for i in range(6)] and list(costs["blocks.0"]) == [2, 3, 4, 8]


def test_chance_is_what_random_orders_stay_within():
    assert chance(24) == pytest.approx(0.404, abs=0.001)
    # the correlation at which Student's test of 24 pairs gives 5 %
    a, b = list(range(24)), [*range(16, 24), *range(16)]
    found = spearmanr(a, b)
    assert (abs(found.statistic) > chance(24)) == (found.pvalue < 0.05)


def test_uniform_is_interpolated_in_its_logarithm(rows):
    assert uniform_at(rows, 3000) == pytest.approx(4.0**-3)
    assert uniform_at(rows, 2500) == pytest.approx(math.sqrt(4.0**-2 * 4.0**-3))


def test_budgets_are_sorted_and_hold_all_seeds(rows):
    groups = by_budget(rows[::-1], "uniform")
    assert list(groups) == [2, 3, 4] and all(len(group) == 3 for group in groups.values())
    assert mean_delta(by_budget(rows, "PMPQ")[2.5]) == pytest.approx(0.03)
    assert by_budget(rows, "CMPQ, 3-means") == {}


def test_who_beats_whom_does_so_in_every_seed():
    def method(name, *intervals):
        return [replace(MEASURED, method=name, seed=seed, ci_low=low, ci_high=high)
                for seed, (low, high) in enumerate(intervals)]
    good, bad = method("good", (0.1, 0.2), (0.3, 0.4)), method("bad", (0.25, 0.3), (0.5, 0.6))
    close = method("close", (0.25, 0.3), (0.35, 0.6))
    rows = good + bad[::-1] + close
    assert beats(rows, "good", "bad", 2) and not beats(rows, "bad", "good", 2)
    assert not beats(rows, "good", "close", 2) and not beats(rows, "good", "good", 2)
    for other, budget in (("bad", 3), ("nobody", 2)):
        with pytest.raises(ValueError, match="not both measured"):
            beats(rows, "good", other, budget)
    with pytest.raises(ValueError, match="same seeds"):
        beats(good + bad[:1], "good", "bad", 2)


def test_each_line_of_a_column_can_be_told_apart(rows):
    figure = plot_showdown(rows, "made up")
    upper = figure.axes[: len(GROUPS)]
    for axes, methods in zip(upper, GROUPS.values(), strict=True):
        lines = [bars.lines[0] for bars in axes.containers]
        assert [bars.get_label() for bars in axes.containers] == ["uniform", "random", *methods]
        looks = {(line.get_color(), line.get_marker()) for line in lines}
        assert len(looks) == len(lines) <= 7
    uniform = figure.axes[len(GROUPS)].containers[0].lines[0]
    assert uniform.get_ydata() == pytest.approx([1, 1, 1])  # below, uniform is the measure


def test_a_method_without_rows_is_left_out(rows):
    figure = plot_showdown([row for row in rows if row.method != "PMPQ"], "made up")
    assert "PMPQ" not in [bars.get_label() for bars in figure.axes[0].containers]


def test_correlations_are_sorted_and_the_best_is_on_top():
    rows = [CORRELATION, replace(CORRELATION, score="random", rho=0.1, low=-0.3, high=0.5),
            replace(CORRELATION, score="CMPQ", rho=-0.5, low=-0.8, high=-0.1)]
    axes = plot_correlations(rows, "made up").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["CMPQ", "random", "HAWQ-V2"]


def test_one_row_for_each_score_is_needed():
    for rows in ([], [CORRELATION, replace(CORRELATION, bits=4)]):
        with pytest.raises(ValueError, match="one row for each score"):
            plot_correlations(rows, "made up")


def sensitivities(score, bits):
    return [Sensitivity("linear", score, 0, f"blocks.{i}.mlp.up", b, (i + 1.0) * 4.0 ** -(b or 0))
            for i in range(3) for b in bits]


def test_a_column_has_the_matrices_in_their_order_at_the_width_that_is_asked_for():
    rows = sensitivities("HAWQ-V2", (2, 3)) + sensitivities("PMPQ", (None,))
    assert column(rows, "HAWQ-V2") == [4.0**-3, 2 * 4.0**-3, 3 * 4.0**-3]
    assert column(rows, "HAWQ-V2", bits=2) == [4.0**-2, 2 * 4.0**-2, 3 * 4.0**-2]
    assert column(rows, "PMPQ", bits=8) == [1.0, 2.0, 3.0]


def test_costs_are_those_that_were_measured_or_follow_from_the_score():
    rows = sensitivities("HAWQ-V2", (2, 3)) + sensitivities("PMPQ", (None,))
    assert costs_of(rows, "HAWQ-V2") == values_of(rows, "linear", "HAWQ-V2")
    assert costs_of(rows, "PMPQ")["blocks.1.mlp.up"] == pytest.approx({bits: 2 * 4.0**-bits for bits in WIDTHS})


def test_the_racers_were_measured_on_both_texts():
    for corpus in ("tales", "tinystories"):
        rows = read_rows(data_dir() / "results" / corpus / "showdown.csv", Measured)
        assert set(RACERS.values()) < {row.method for row in rows}


def test_a_method_is_compared_with_uniform_of_its_own_draw():
    found = over_uniform("tinystories/mixed_rates")
    assert "uniform" not in found and {len(ratios) for ratios in found.values()} == {3}
    assert max(found["measured"]) < 1 < min(found["CMPQ"])
