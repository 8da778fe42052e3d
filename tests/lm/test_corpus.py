import json
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanoq.lm import corpus as module
from nanoq.lm import load_corpus, tales
from nanoq.lm.corpus import STORY_END


@pytest.fixture
def local(tmp_path, monkeypatch):
    """A folder that NANOQ_DATA names."""
    monkeypatch.setenv("NANOQ_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def hub(monkeypatch):
    """Stands in for `datasets`: rows by (repository, split), and a record of how many were read."""
    monkeypatch.delenv("NANOQ_DATA", raising=False)
    fake = SimpleNamespace(rows={}, read=dict.fromkeys(("train", "validation", "test"), 0))

    def load_dataset(repository, config, split, streaming):
        assert streaming
        for row in fake.rows[repository, config, split]:
            fake.read[split] += 1
            yield {"text": row}

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr("nanoq.hub.find_hub", lambda: None)
    return fake


@pytest.fixture
def generator(tmp_path, monkeypatch):
    """A tiny corpus in place of the generated one, and a list with an entry for every time it was made."""
    made = []

    def build_corpus(characters):
        made.append(characters)
        return tales.Corpus("a train", "a valid", "a test", {"train": 7.0, "valid": 7.0, "test": 12.0})

    monkeypatch.setenv("NANOQ_CACHE", str(tmp_path))
    monkeypatch.setattr(tales, "build_corpus", build_corpus)
    return made


def test_a_text_file_is_cut_at_90_and_95_percent_after_a_line_end(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("".join(f"line {i:04}\n" for i in range(1000)), encoding="utf-8")
    corpus = load_corpus(path)
    assert corpus.name == "mine" and corpus.source == str(path) and corpus.floor is None
    assert [len(corpus.train), len(corpus.valid), len(corpus.test)] == [9010, 500, 490]
    assert corpus.train + corpus.valid + corpus.test == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["", "\ufeff", "\n", "too short"])
def test_a_text_too_short_for_three_splits_is_an_error_that_names_its_file(tmp_path, text):
    (tmp_path / "mine.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.txt is empty, or too short to be cut into texts to train on"):
        load_corpus(tmp_path / "mine.txt")


def test_a_text_of_one_line_is_cut_within_it(tmp_path):
    (tmp_path / "mine.txt").write_text("x" * 999 + "\n")
    corpus = load_corpus(tmp_path / "mine.txt")
    assert [len(corpus.train), len(corpus.valid), len(corpus.test)] == [900, 50, 50]


@given(st.text(max_size=300))
def test_the_splits_of_a_file_are_its_text_in_order(text):
    corpus = module._by_position("x", text, "x", "x")
    assert corpus.train + corpus.valid + corpus.test == text
    assert len(corpus.train) >= int(0.9 * len(text))


def test_a_file_without_line_ends_is_cut_where_it_falls(tmp_path):
    (tmp_path / "a.txt").write_text("ab" * 50)
    corpus = load_corpus(str(tmp_path / "a.txt"))
    assert [len(corpus.train), len(corpus.valid), len(corpus.test)] == [90, 5, 5]


def test_a_file_that_is_not_utf8_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("Bäume".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8 text"):
        load_corpus(path)


def test_a_byte_order_mark_is_no_letter_of_the_text(local):
    text = "".join(f"Zeile {i}: schön\n" for i in range(99))
    (local / "mine.txt").write_text(text, encoding="utf-8")
    without = load_corpus(local / "mine.txt")
    for name in ("mine.txt", "wikitext2_valid.tokens", "tinystories_train.txt", "tinystories_valid.txt"):
        (local / name).write_text(text, encoding="utf-8-sig")
    assert load_corpus(local / "mine.txt") == without
    for name in ("wikitext-2", "tinystories"):
        corpus = load_corpus(name)
        assert "\ufeff" not in corpus.train + corpus.valid + corpus.test and corpus.train.startswith("Zeile 0")


@pytest.mark.parametrize("name", ["tale", "missing.txt", ""])
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(name):
    with pytest.raises(FileNotFoundError, match=f"no corpus '{name}': .* tales, tinystories, wikitext-2"):
        load_corpus(name)


def test_local_tinystories_share_the_held_out_stories_between_valid_and_test(local):
    (local / "tinystories_train.txt").write_text(f"One.{STORY_END}Two.{STORY_END}")
    (local / "tinystories_valid.txt").write_text(STORY_END.join(f"Story {i}." for i in range(5)) + STORY_END)
    corpus = load_corpus("tinystories")
    assert corpus.train == f"One.{STORY_END}Two.{STORY_END}"
    assert corpus.valid == f"Story 0.{STORY_END}Story 2.{STORY_END}Story 4.{STORY_END}"
    assert corpus.test == f"Story 1.{STORY_END}Story 3.{STORY_END}"
    assert corpus.licence == "CDLA-Sharing-1.0" and str(local) in corpus.source


def test_local_wikitext_is_cut_by_position(local):
    text = "".join(f" = {i} = \n" for i in range(200))
    (local / "wikitext2_valid.tokens").write_text(text)
    corpus = load_corpus("wikitext-2")
    assert corpus.name == "wikitext-2" and corpus.licence == "CC BY-SA 3.0"
    assert corpus.train + corpus.valid + corpus.test == text and corpus.test


def test_a_local_file_that_is_not_utf8_is_an_error_that_names_it(local):
    (local / "wikitext2_valid.tokens").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"wikitext2_valid\.tokens is not UTF-8"):
        load_corpus("wikitext-2")


def test_tinystories_from_the_hub_stop_when_there_is_enough(hub):
    for split in ("train", "validation"):
        hub.rows["roneneldan/TinyStories", None, split] = (f"{i}" + "a" * 1_000_000 for i in range(30))
    load_corpus("tinystories")
    assert hub.read == {"train": 10, "validation": 2, "test": 0}


def test_tinystories_from_the_hub_look_like_the_local_file(hub):
    hub.rows["roneneldan/TinyStories", None, "train"] = ["One.\n", "\nTwo."]
    hub.rows["roneneldan/TinyStories", None, "validation"] = [f"A story of the number {i}." for i in range(5)]
    corpus = load_corpus("tinystories")
    assert corpus.train == f"One.{STORY_END}Two.{STORY_END}"
    assert corpus.valid == "".join(f"A story of the number {i}.{STORY_END}" for i in (0, 2, 4))
    assert corpus.test == "".join(f"A story of the number {i}.{STORY_END}" for i in (1, 3))


def test_wikitext_from_the_hub_keeps_its_own_splits(hub):
    for split in ("train", "validation", "test"):
        hub.rows["Salesforce/wikitext", "wikitext-2-raw-v1", split] = ["", f" = {split} = \n", " text \n"]
    corpus = load_corpus("wikitext-2")
    assert corpus.train == " = train = \n text \n"
    assert corpus.valid == " = validation = \n text \n"
    assert corpus.test == " = test = \n text \n"


@pytest.mark.parametrize("name", ["tinystories", "wikitext-2"])
def test_without_a_network_one_sentence_names_the_three_ways(monkeypatch, name):
    def unreachable(*_, **__):
        raise ConnectionError("HTTPSConnectionPool(host='huggingface.co'): Max retries exceeded\n" * 9)

    monkeypatch.delenv("NANOQ_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=unreachable))
    monkeypatch.setattr("nanoq.hub.find_hub", lambda: None)  # a network that answers, and then fails
    with pytest.raises(FileNotFoundError) as error:
        load_corpus(name)
    message = str(error.value)
    assert message.startswith(f"cannot fetch '{name}' (ConnectionError). Three ways to get it: ")
    assert all(way in message for way in ("connect to the internet", "NANOQ_DATA", "`tales`"))
    assert "\n" not in message and "HTTPSConnectionPool" not in message


def test_a_hub_whose_name_is_unknown_is_not_tried_for_half_a_minute(monkeypatch, hub):
    def unknown():
        raise OSError("Name or service not known")

    hub.rows["roneneldan/TinyStories", None, "train"] = hub.rows["roneneldan/TinyStories", None, "validation"] = ["x"]
    monkeypatch.setattr("nanoq.hub.find_hub", unknown)
    with pytest.raises(FileNotFoundError, match="Three ways to get it"):
        load_corpus("tinystories")
    assert hub.read["train"] == 0


def test_without_the_datasets_library_the_sentence_is_the_same(monkeypatch):
    monkeypatch.delenv("NANOQ_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(FileNotFoundError, match="Three ways to get it"):
        load_corpus("tinystories")


def test_tales_are_made_once_and_then_read_from_the_cache(generator):
    first, second = load_corpus(), load_corpus("tales")
    assert generator == [module.CHARACTERS]
    assert first == second and first.test == "a test"


def test_tales_carry_the_floor_of_their_test_split(generator):
    assert load_corpus("tales").floor == 12 / len("a test")


DAMAGES = {
    "empty": lambda text: "", "half": lambda text: text[: len(text) // 2], "an object": lambda text: '{"a": 1}',
    "a list": lambda text: "[]", "null": lambda text: "null", "deep": lambda text: "[" * 100_000,
    "another text": lambda text: text.replace("a test", "a jest"),
    "another floor": lambda text: text.replace("2.0", "1.0"), "not unicode": lambda text: text + "\udcff",
    "without a checksum": lambda text: json.dumps(json.loads(text)["corpus"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_again(generator, tmp_path, damage):
    first = load_corpus("tales")
    (path,) = tmp_path.iterdir()
    whole = path.read_text(encoding="utf-8")
    path.write_bytes(DAMAGES[damage](whole).encode("utf-8", "surrogateescape"))
    assert path.read_bytes() != whole.encode()
    assert load_corpus("tales") == first and len(generator) == 2
    assert path.read_text(encoding="utf-8") == whole


@pytest.mark.parametrize("place", ["a folder of that name", "no room"])
def test_a_cache_out_of_reach_is_a_warning_and_the_text_is_there(generator, tmp_path, monkeypatch, place):
    if place == "a folder of that name":
        load_corpus("tales")
        (path,) = tmp_path.iterdir()
        path.unlink()
        path.mkdir()
    else:
        def full(*_):
            raise OSError(28, "No space left on device")
        monkeypatch.setattr(module, "write_text", full)
    with pytest.warns(UserWarning, match="cannot be kept for the next time .*: let NANOQ_CACHE name a folder"):
        assert load_corpus("tales").test == "a test"


@pytest.mark.parametrize("place", ["a file", "no home"])
def test_without_a_cache_folder_the_text_is_kept_in_a_temporary_one(generator, tmp_path, monkeypatch, place):
    monkeypatch.setattr("nanoq.files.private_dir", lambda: tmp_path)
    if place == "a file":
        (tmp_path / "taken").write_text("")
        monkeypatch.setenv("NANOQ_CACHE", str(tmp_path / "taken"))
    else:
        def homeless():
            raise RuntimeError("Could not determine home directory.")
        monkeypatch.delenv("NANOQ_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr("pathlib.Path.home", homeless)
    assert load_corpus("tales").test == load_corpus("tales").test == "a test"
    assert len(generator) == 1 and list(tmp_path.glob("tales-*.json"))


def test_the_cache_of_another_generator_is_not_read(generator, tmp_path, monkeypatch):
    load_corpus("tales")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "__init__.py").write_text("changed = True")
    monkeypatch.setattr(tales, "__file__", str(tmp_path / "code" / "__init__.py"))
    load_corpus("tales")
    assert len(generator) == 2


def test_the_splits_of_the_tales_share_no_story():
    made = tales.build_corpus(60_000)
    train, valid, test = (set(part.split(tales.SEPARATOR)[:-1]) for part in (made.train, made.valid, made.test))
    assert train and valid and test
    assert not (train & valid or train & test or valid & test)
