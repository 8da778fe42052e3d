import csv
import json
import math
from dataclasses import fields, replace

import pytest
import torch

import nanoq
from nanoq.lm.corpus import Corpus
from nanoq.lm.evaluate import paired_difference, perplexity, window_losses
from nanoq.lm.model import GPT, GPTConfig
from nanoq.lm.tokenizer import CharTokenizer
from nanoq.quant import Recipe
from nanoq.store import WEIGHTS, Checkpoint, load, save
from nanoq.teach.leaderboard import Leaderboard, Row, compare


@pytest.fixture(scope="module")
def corpus():
    letters = torch.randint(5, (4000,), generator=torch.Generator().manual_seed(0))
    text = "".join("abcde"[i] for i in letters)
    return Corpus("letters", text[:2000], text[2000:2500], text[2500:], "made here", "none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    tokenizer = CharTokenizer("abcde")
    model = GPT(GPTConfig(tokenizer.vocab_size, context=16, layers=1, heads=2, width=32))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    save(path, Checkpoint(model, tokenizer, {}), corpus="letters")
    return path


@pytest.fixture(scope="module")
def board(folder, corpus):
    board = Leaderboard(folder, corpus, windows=None, bound=True)
    board.add("RTN", 2, Recipe(bits=2))
    return board


def test_the_first_row_is_the_checkpoint_itself(board, folder, corpus):
    row, model = board.rows[0], nanoq.load(folder).model
    losses = window_losses(model, board.held_out)
    assert len(losses) == (len(corpus.test) - 1) // 16
    assert (row.bits, row.delta_nats, row.ci_low, row.ci_high) == (32, 0, 0, 0)
    assert row.perplexity == perplexity(losses)
    assert row.bytes == (folder / WEIGHTS).stat().st_size
    assert row.average_bits == 8 * row.bytes / model.parameter_count()


def test_a_row_is_what_its_file_gives(board, corpus, tmp_path):
    row = board.add("RTN", 3, Recipe(bits=3), tmp_path)
    losses = window_losses(load(tmp_path).model, board.held_out)
    difference = paired_difference(losses, board.losses[0])
    assert row == Row("RTN", 3, row.average_bits, (tmp_path / WEIGHTS).stat().st_size, perplexity(losses),
                      difference.mean, difference.low, difference.high, row.kl, row.top1, row.bits_above_bound)
    assert 0 < row.kl < 1 and 0.5 < row.top1 < 1 and row.bits_above_bound > 0.25
    assert torch.equal(board.losses.pop(), losses)
    assert board.rows.pop() == row


def test_text_is_read_for_a_method_that_needs_none_only_if_the_bound_is_asked_for(folder, corpus):
    board = Leaderboard(folder, corpus, windows=2)
    above = [board.add(name, 3, Recipe(method, bits=3)).bits_above_bound for name, method in (
        ("RTN", "nearest"), ("GPTQ", "gptq"))]  # fmt: skip
    assert above[0] is None and above[1] > 0


def test_fewer_bits_are_smaller_and_what_they_cost_is_the_difference_of_the_losses(board):
    first, second = board.rows
    assert second.bytes < first.bytes
    assert second.delta_nats == pytest.approx(math.log(second.perplexity / first.perplexity))
    assert second.delta_nats != 0


def test_it_is_saved_as_csv_json_and_picture(board, tmp_path):
    board.save(tmp_path)
    names = [field.name for field in fields(Row)]
    assert names == ["method", "bits", "average_bits", "bytes", "perplexity", "delta_nats", "ci_low", "ci_high", "kl",
                     "top1", "bits_above_bound"]
    rows = json.loads((tmp_path / "leaderboard.json").read_text())
    assert [Row(**row) for row in rows] == board.rows
    with open(tmp_path / "leaderboard.csv", newline="") as file:
        assert [list(row) for row in csv.DictReader(file)] == [names] * 2
    assert (tmp_path / "leaderboard.png").read_bytes().startswith(b"\x89PNG")


def test_the_notebook_shows_a_table_that_names_the_text(board):
    html = board._repr_html_()
    assert html.count("<tr>") == 3
    assert "letters: the same 93 held-out windows of 16" in html
    assert "letters: the same 93 held-out windows of 16" in repr(board)
    assert len(repr(board).splitlines()) == 4


def test_the_caption_counts_characters_that_the_checkpoint_does_not_know(board, folder, corpus):
    assert "unknown" not in board.caption
    other = replace(corpus, test=corpus.test.replace("a", "z"))
    board = Leaderboard(folder, other, windows=2)
    assert board.caption.endswith(f"; {other.test.count('z'):,} of 1,500 characters are unknown to the checkpoint")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_text_of_which_most_is_unknown_is_an_error(folder, corpus, split):
    with pytest.raises(ValueError, match=r"800 of 1,500 characters of letters are unknown to the model"):
        Leaderboard(folder, replace(corpus, **{split: "a" * 700 + "未" * 800}))


def test_compare_measures_every_width_and_method(folder, corpus, tmp_path):
    board = compare(folder, corpus, bits=(4, 2), windows=10, out=tmp_path)
    assert [(row.method, row.bits) for row in board.rows] == [
        ("float32", 32), ("float16", 16), ("RTN", 4), ("RTN", 2), ("GPTQ", 4), ("GPTQ", 2),
        ("GPTQ, entropy-coded", 4), ("GPTQ, entropy-coded", 2)]
    assert {len(losses) for losses in board.losses} == {10}
    names = ["nearest-4-bit", "nearest-2-bit", "gptq-4-bit", "gptq-2-bit", "gptq-4-bit-entropy-coded",
             "gptq-2-bit-entropy-coded"]
    for row, name in zip(board.rows[2:], names, strict=True):
        assert row.bytes == (tmp_path / "models" / name / WEIGHTS).stat().st_size
