"""Quizzes: reproducible, fair, with keys that the package itself confirms."""

import math
import random
from collections import Counter

import pytest
import torch
from typer.testing import CliRunner

from nanoq.cli import app
from nanoq.mixed import expected_squared_correlation
from nanoq.numbers import FLOATS, FloatFormat, IntFormat
from nanoq.quant import affine_grid, packed_bytes
from nanoq.teach.checks import CheckFailed, find_exercise
from nanoq.teach.course import BY_NUMBER, COURSE
from nanoq.teach.quiz import LETTERS, TEMPLATES, draw, grade, numbers_with_questions, quiz, render

every_template = pytest.mark.parametrize("template", TEMPLATES, ids=[template.exercise for template in TEMPLATES])


def test_each_notebook_has_four_questions_or_more():
    assert set(numbers_with_questions()) == {f"{notebook.number:02}" for notebook in COURSE}
    assert len(TEMPLATES) >= 24
    counts = Counter(template.exercise[:2] for template in TEMPLATES)
    assert min(counts[f"{notebook.number:02}"] for notebook in COURSE) >= 4
    assert len({template.exercise for template in TEMPLATES}) == len(TEMPLATES)


@every_template
def test_options_are_distinct_and_each_wrong_one_is_a_known_mistake(template):
    hints = {mistake.hint for mistake in find_exercise(template.exercise).mistakes}
    for seed in range(40):
        question = draw(template, seed)
        assert len(set(question.options)) == len(LETTERS) and all(isinstance(text, str) for text in question.options)
        assert set(question.hints) == set(LETTERS) - {question.key}
        assert len(set(question.hints.values())) == 3 and hints >= set(question.hints.values())


@every_template
def test_the_seed_decides(template):
    assert draw(template, 2027) == draw(template, 2027)
    assert len({draw(template, seed).text for seed in range(40)}) > 3


def test_the_sheet_is_the_same_on_every_machine():
    """If this fails, sheets that lecturers have printed no longer fit the key that the command gives them."""
    affine, noise, *_ = quiz(["04"], 2027)
    assert affine.options == ("0.4 and 11", "0.4 and 8", "0.375 and 12", "0.4 and 2") and affine.key == "a"
    assert noise.options == ("0.113", "0.454", "0.0972", "0.0638") and noise.key == "a"


def test_rounding_cannot_make_a_wrong_option_look_right():
    """350 columns in groups of 32: key 4.629, and 4.625 for who takes the groups to come out even."""
    (template,) = (template for template in TEMPLATES if template.exercise == "04.average_bits")
    for seed in range(60):
        question = draw(template, seed)
        values = dict(zip(LETTERS, map(float, question.options), strict=True))
        key = values.pop(question.key)
        assert all(abs(value - key) > 0.015 * key for value in values.values()), question


def test_sizes_and_fractions_do_not_give_the_answer_away_where_there_are_other_options():
    (template,) = (template for template in TEMPLATES if template.exercise == "00.bytes")
    shares = []
    for seed in range(60):
        question = draw(template, seed)
        values = [float(option.replace(",", "")) for option in question.options]
        shares.append(all(value == round(value) and max(values) / value <= 50 * 50 for value in values))
    assert sum(shares) > 40


def test_the_right_answer_may_stand_anywhere():
    cheap = [template for template in TEMPLATES if template.exercise in ("00.bytes", "04.average_bits", "13.worth")]
    for template in cheap:
        places = Counter(draw(template, seed).key for seed in range(400))
        assert set(places) == set(LETTERS)
        assert all(abs(count - 100) < 4 * math.sqrt(400 * 0.25 * 0.75) for count in places.values()), places


# ---- the keys, computed once more with the package ----


def _largest(exponent, mantissa, specials):
    return FloatFormat("x", exponent, mantissa, specials=specials).max


def _affine(low, high, bits):
    grid = affine_grid(torch.tensor([[low, high]], dtype=torch.float32), bits)
    return float(grid.scale), int(grid.zero_point)


def _enough(width, level):
    count = width + 1
    while math.sqrt(expected_squared_correlation(count, width, width)) > level:
        count += 1
    return count


BY_THE_PACKAGE = {
    "00.bytes": packed_bytes,
    "01.signed": lambda digits: int(IntFormat(8).decode(int(digits, 2))),
    "01.wrap": lambda total, bits: IntFormat(bits).add(total // 2, total - total // 2).value,
    "01.decode": lambda pattern: float(FLOATS["fp16"].decode(torch.tensor(pattern))),
    "01.largest": _largest,
    "04.affine": _affine,
    "04.noise": lambda low, high, bits: _affine(low, high, bits)[0] ** 2 / 12,
    "10.enough": _enough,
}


@pytest.mark.parametrize("exercise_id", BY_THE_PACKAGE)
def test_the_package_gives_the_same_key(exercise_id):
    (template,) = (template for template in TEMPLATES if template.exercise == exercise_id)
    reference, rng = find_exercise(exercise_id).reference, random.Random(0)
    for _ in range(20):
        arguments = template.draw(rng)
        by_package = BY_THE_PACKAGE[exercise_id](*arguments)
        assert by_package == pytest.approx(reference(*arguments), rel=2e-3)  # scales are stored in float16


# ---- the sheet and the command ----


def test_the_sheet_has_the_key_only_if_asked_for():
    questions = quiz(["04", "07"], 1)
    plain, key = render(questions, 1), render(questions, 1, key=True)
    assert "Key" not in plain and not any(hint in plain for question in questions for hint in question.hints.values())
    assert key.count("**Key: ") == len(questions)
    assert all(hint in key for question in questions for hint in question.hints.values())
    assert BY_NUMBER[4].label in plain


def test_grading_draws_the_question_anew():
    question = quiz(["04"], 5)[0]
    assert "correct" in grade(question.id, 5, question.key.upper())
    wrong, hint = next(iter(question.hints.items()))
    with pytest.raises(CheckFailed, match="quiz 04") as failed:
        grade(question.id, 5, wrong)
    assert hint in str(failed.value)
    with pytest.raises(CheckFailed, match="not attempted"):
        grade(question.id, 5, ...)


def test_the_command(tmp_path):
    out = tmp_path / "quiz.md"
    result = CliRunner().invoke(app, ["quiz", "4", "07", "--seed", "2027", "--out", str(out)])
    assert result.exit_code == 0 and out.read_text(encoding="utf-8") == render(quiz(["04", "07"], 2027), 2027)
    printed = CliRunner().invoke(app, ["quiz", "04", "--seed", "2027", "--key"])
    assert printed.stdout.count("**Key: ") == len(quiz(["04"], 2027))
    unknown = CliRunner().invoke(app, ["quiz", "42", "--seed", "1"])
    assert unknown.exit_code == 2 and "no quiz questions about notebook '42'" in unknown.stderr
