"""What a learner writes is what runs, and a challenge remembers what was reached."""

import json

import pytest
import torch

from nanoq.lm import GPT, GPTConfig
from nanoq.teach import challenge, use
from nanoq.teach.checks import find_exercise
from nanoq.teach.using import same

REFERENCE = find_exercise("00.levels").reference


def test_a_right_answer_is_the_one_that_runs(capsys):
    mine = lambda bits: 1 << bits
    assert use("00.levels", mine) is mine
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("answer", "state"), [(lambda bits: ..., "not written yet"), (lambda bits: bits, "not right yet")]
)
def test_any_other_answer_gives_way_to_the_course_s_and_that_is_said(answer, state, capsys):
    assert use("00.levels", answer) is REFERENCE
    assert f"Your answer to 00.levels is {state}" in capsys.readouterr().out


def test_a_value_can_be_used_as_well(capsys):
    assert use("12.swap", 12) == 12
    assert use("12.swap", ...) == 12.0


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOQ_RECORDS", str(tmp_path))
    return tmp_path / "challenges.json"


@pytest.mark.parametrize(
    ("score", "medal", "following"),
    [(0.5, "none yet", "bronze is at 0.4"), (0.4, "bronze", "silver is at 0.3"), (0.25, "silver", "gold is at 0.2"),
     (0.2, "gold", None)],
)  # fmt: skip
def test_a_score_earns_a_medal_and_says_what_the_next_one_takes(cache, capsys, score, medal, following):
    challenge("x", score, bronze=0.4, silver=0.3, gold=0.2)
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first == f"x: {score}, medal: {medal}"
    assert second == following if following else second.startswith("1.")


def test_a_high_score_is_good_where_gold_is_above_bronze(cache, capsys):
    challenge("x", 9, bronze=3, silver=5, gold=8)
    assert "medal: gold" in capsys.readouterr().out


def test_attempts_are_kept_and_the_best_come_first(cache, capsys):
    for score, by in ((0.5, "first"), (0.1, "second"), (0.3, "third")):
        challenge("x", score, bronze=0.4, silver=0.3, gold=0.2, by=by)
    challenge("y", 1, bronze=0.4, silver=0.3, gold=0.2, by="other")
    capsys.readouterr()
    challenge("x", 0.35, bronze=0.4, silver=0.3, gold=0.2, by="fourth")
    board = [line.split()[-1] for line in capsys.readouterr().out.splitlines() if line[0].isdigit()]
    assert board == ["second", "third", "fourth", "first"]
    assert set(json.loads(cache.read_text())) == {"x", "y"}


def test_an_attempt_that_is_made_again_is_one_attempt(cache, capsys):
    for score in (0.5, 0.5, 0.45):
        challenge("x", score, bronze=0.4, silver=0.3, gold=0.2, by="the same")
    assert [attempt["score"] for attempt in json.loads(cache.read_text())["x"]] == [0.5, 0.45]


def test_a_damaged_file_is_begun_anew(cache):
    cache.write_text("{")
    challenge("x", 1, bronze=3, silver=2, gold=1)
    assert len(json.loads(cache.read_text())["x"]) == 1


@pytest.mark.parametrize(
    ("score", "silver", "said"), [(float("nan"), 0.3, "finite"), (0.1, 0.5, "not in order")]
)
def test_what_is_no_attempt_is_not_kept(cache, score, silver, said):
    with pytest.raises(ValueError, match=said):
        challenge("x", score, bronze=0.4, silver=silver, gold=0.2)
    assert not cache.exists()


def test_same_says_how_far_two_modules_are_apart_with_the_same_weights(capsys):
    package, x = torch.nn.Linear(3, 2), torch.ones(4, 3)
    assert same(torch.nn.Linear(3, 2), package, x) == 0
    assert "Linear, input (4, 3): the outputs differ by at most 0e+00" in capsys.readouterr().out
    shifted = type("Shifted", (torch.nn.Linear,), {"forward": lambda self, x: x @ self.weight.T + self.bias + 0.5})
    assert same(shifted(3, 2), package, x) == pytest.approx(0.5)


@pytest.mark.parametrize(("name", "part"), [("attention", "blocks.0.attention"), ("block", "blocks.0"), ("gpt", "")])
def test_the_parts_of_notebook_03_are_those_of_the_package(name, part):
    package = GPT(GPTConfig(7, context=5, layers=2, heads=2, width=8))
    arguments = (package.config,) if name == "gpt" else (8, 2)
    x = torch.arange(5)[None] if name == "gpt" else torch.sin(torch.arange(80.0)).view(2, 5, 8)
    assert same(find_exercise(f"03.{name}").reference(*arguments), package.get_submodule(part), x) < 1e-6
