import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanoq.lm import CharTokenizer
from nanoq.lm import tokenizer as module

ANY_TEXT = st.text(st.characters(codec=None))  # every code point, lone surrogates too


@given(ANY_TEXT)
def test_decoding_gives_back_any_text_of_the_vocabulary(text):
    tokenizer = CharTokenizer.from_text(text)
    ids = tokenizer.encode(text)
    assert ids.dtype == torch.int64 and ids.shape == (len(text),)
    assert tokenizer.decode(ids) == text


@given(known=ANY_TEXT, text=ANY_TEXT)
def test_every_unknown_character_becomes_id_0_and_is_counted(known, text):
    tokenizer = CharTokenizer.from_text(known)
    expected = [tokenizer.characters.index(c) + 1 if c in known else 0 for c in text]
    assert tokenizer.encode(text).tolist() == expected
    assert tokenizer.unknown(text) == {c: text.count(c) for c in text if c not in known}


def test_a_text_of_which_most_is_unknown_is_an_error_that_names_it():
    tokenizer = CharTokenizer("ab")
    assert tokenizer.encode_known("abxx", "mine").tolist() == [1, 2, 0, 0] and not len(tokenizer.encode_known("", "x"))
    with pytest.raises(ValueError, match="3 of 4 characters of mine are unknown to the model: give a text"):
        tokenizer.encode_known("axyz", "mine")


@given(text=ANY_TEXT, part=st.integers(1, 7))
def test_a_long_text_is_read_in_parts_to_the_same_end(text, part):
    expected = CharTokenizer.from_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PART", part)
        again = CharTokenizer.from_text(text)
        assert again.characters == expected.characters
        ids = again.encode(text)
    assert torch.equal(ids, expected.encode(text))


def test_only_a_long_text_has_a_bar(monkeypatch):
    shown = []
    monkeypatch.setattr(module, "progress", lambda parts, desc, **_: shown.append(desc) or parts)
    tokenizer = CharTokenizer.from_text("ab" * 4)
    monkeypatch.setattr(module, "PART", 3)
    CharTokenizer.from_text("ab" * 4).encode("ab" * 4)
    tokenizer.encode("aba")
    assert shown == ["vocabulary", "encode"]


def test_the_unknown_id_decodes_to_a_word_that_shows_it():
    assert CharTokenizer("ab").decode([1, 0, 2]) == "a<unk>b"


def test_ids_follow_the_code_points_of_the_text():
    assert CharTokenizer.from_text("banana").characters == ["a", "b", "n"]


def test_the_vocabulary_counts_the_unknown_character():
    assert CharTokenizer("abc").vocab_size == 4


def test_a_character_twice_is_an_error():
    with pytest.raises(ValueError, match="names a character twice"):
        CharTokenizer("aba")


@pytest.mark.parametrize("entry", ["ab", ""])
def test_an_entry_that_is_not_one_character_is_an_error(entry):
    with pytest.raises(ValueError, match="single characters"):
        CharTokenizer(["x", entry])
