"""The competition: who reaches what, and that no folder of a participant stops it."""

import csv
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import nanoq
from nanoq.cli import app
from nanoq.files import data_dir, sha256
from nanoq.lm import GPT, CharTokenizer, GPTConfig
from nanoq.lm.evaluate import PairedDifference
from nanoq.store import CARD, WEIGHTS, Checkpoint
from nanoq.teach import judge as judging
from nanoq.teach.judge import Entry, judge, level_of, printable

TEXT = "the cat sat on the mat and the dog ran to the sun. " * 400


def checkpoint(seed=0, text=TEXT, **shape):
    """A small GPT that nobody has trained."""
    tokenizer = CharTokenizer.from_text(text)
    config = GPTConfig(tokenizer.vocab_size, **({"context": 16, "layers": 2, "heads": 2, "width": 16} | shape))
    return Checkpoint(GPT(config, seed), tokenizer, {"corpus": "tales"})


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A reference, a text, and a folder of participants."""
    folder = tmp_path_factory.mktemp("competition")
    (folder / "text.txt").write_text(TEXT)
    nanoq.save(folder / "reference", checkpoint())
    return folder


def enter(folder, name, model=None):
    """Hand in a model, by default the reference at 8 bits; return its folder."""
    small = nanoq.quantize(checkpoint(), "nearest", 8) if model is None else model
    nanoq.save(folder / name, small)
    return folder / name


def judged(places, folder):
    entries = judge(folder, places / "reference", str(places / "text.txt"), 16)
    return {entry.name: entry for entry in entries}, [entry.name for entry in entries]


def test_levels_go_by_bytes_and_added_loss_together():
    for name, (size, nats) in judging.LEVELS.items():
        assert level_of(size, nats) == name
        assert level_of(size, nats + 1) == level_of(size + 10**7, nats) == "none"
    sizes, losses = zip(*judging.LEVELS.values(), strict=True)
    assert list(judging.LEVELS) == ["gold", "silver", "bronze"]
    assert sorted(sizes) == list(sizes) and sorted(losses, reverse=True) == list(losses)


def test_the_table_goes_by_level_and_then_by_bytes(monkeypatch, tmp_path):
    made = {"a": (10, 0.5), "b": (900, 0.05), "c": (1000, 0.05), "d": (2000, 0.01), "e": (1500, 0.01), "f": None}
    for name in made:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(judging, "LEVELS", {"gold": (1000, 0.1), "bronze": (2000, 0.1)})

    def entry(path, *_):
        if made[path.name] is None:
            return Entry(path.name, problem="damaged")
        size, added = made[path.name]
        return Entry(path.name, level_of(size, added), size, PairedDifference(added, added, added))

    monkeypatch.setattr(judging, "_judged", entry)
    monkeypatch.setattr(judging, "task_for", lambda *_: type("Task", (), {"losses": lambda self, model: None})())
    entries = judge(tmp_path)
    assert [(each.name, each.level) for each in entries] == [
        ("b", "gold"), ("c", "gold"), ("e", "bronze"), ("d", "bronze"), ("a", "none"), ("f", "none")]
    assert judging.standings(entries).splitlines()[1].split() == ["1", "b", "gold", "900", "+0.0500", "+0.0500", "to",
                                                                  "+0.0500"]  # fmt: skip


def test_a_model_is_measured_on_the_windows_of_the_reference(places, tmp_path):
    folder = enter(tmp_path, "mine")
    found, _ = judged(places, tmp_path)
    expected = nanoq.evaluate(nanoq.load(folder), str(places / "text.txt"), windows=16,
                              against=nanoq.load(places / "reference")).delta
    assert found["mine"].delta == expected
    assert found["mine"].bytes == (folder / WEIGHTS).stat().st_size + (folder / CARD).stat().st_size
    assert found["mine"].level == "gold" and not found["mine"].problem  # a tiny model is a tiny file


# ---- hostile and damaged folders ----


def cut(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def not_a_number(folder):
    tensors = load_file(folder / WEIGHTS)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    save_file(tensors | {name: torch.full_like(tensors[name], torch.nan)}, folder / WEIGHTS)
    card = json.loads((folder / CARD).read_text()) | {"weights_sha256": sha256(folder / WEIGHTS)}
    (folder / CARD).write_text(json.dumps(card))


def linked(folder):
    (folder / WEIGHTS).rename(folder.parent.parent / "elsewhere")
    (folder / WEIGHTS).symlink_to(folder.parent.parent / "elsewhere")


def huge(folder):
    with open(folder / "model-00001-of-00002.safetensors", "wb") as file:
        file.truncate(10**12)  # a hole: it takes no room


def pipe(folder):
    (folder / CARD).unlink()
    os.mkfifo(folder / CARD)


def no_card(folder):
    (folder / CARD).write_text("[" * 20_000)


def code(folder):
    (folder / CARD).write_text(json.dumps({"family": "transformers", "config": {"auto_map": "evil.py"},
                                           "weights_sha256": sha256(folder / WEIGHTS)}))
    (folder / "evil.py").write_text("raise SystemExit")


DAMAGES = {cut: "damaged", not_a_number: "NaN", linked: "a link", huge: "more than", pipe: "is no file",
           no_card: "not a nanoq card", code: "no GPT"}  # fmt: skip
OTHERS = {
    "other characters": (checkpoint(text=TEXT + "!"), "other characters than the reference"),
    "short": (checkpoint(context=8), "fewer characters at once"),
    "large": (checkpoint(width=64), "twice those of the reference"),
}


def test_damaged_hostile_and_unfit_folders_get_a_sentence_at_the_end(places, tmp_path):
    entries = tmp_path / "entries"
    for damage in DAMAGES:
        damage(enter(entries, damage.__name__))
    for name, (model, _) in OTHERS.items():
        enter(entries, name, model)
    enter(entries, "sound")
    (entries / "empty").mkdir()
    (entries / "nested" / "deeper").mkdir(parents=True)
    (entries / "link").symlink_to(entries / "sound")
    (entries / "\x1b[31m=red\n").mkdir()
    (entries / ".hidden").mkdir()
    (entries / "README.md").write_text("no participant")
    found, order = judged(places, entries)
    assert order[0] == "sound" and found["sound"].level == "gold"
    for damage, words in DAMAGES.items():
        assert words in found[damage.__name__].problem, found[damage.__name__]
    for name, (_, words) in OTHERS.items():
        assert words in found[name].problem, found[name]
    assert "no model" in found["empty"].problem and "no file" in found["nested"].problem
    assert "a link" in found["link"].problem
    assert len(order) == len(DAMAGES) + len(OTHERS) + 5
    for entry in found.values():
        assert entry.name.isprintable() and len(entry.problem) <= 200 and "Traceback" not in entry.problem
        assert entry.name == "sound" or (entry.bytes, entry.delta, entry.level) == (None, None, "none")


def test_a_folder_that_takes_too_long_or_kills_its_process_gets_a_sentence(places, tmp_path, monkeypatch):
    enter(tmp_path, "slow")
    enter(tmp_path, "another")
    for seconds, after, problem in (
        (1, "while True: pass", "it took more than 1 seconds"), (100, "os.abort()", "ended without a result"),
        (100, "print('no JSON', flush=True)", "ended without a result"), (100, "print([])", "ended without a result"),
    ):  # fmt: skip
        monkeypatch.setattr(judging, "SECONDS", seconds)
        monkeypatch.setattr(judging, "_CHILD", f"import os\nprint('ready', flush=True)\ninput()\n{after}")
        entries, _ = judged(places, tmp_path)
        assert {entry.delta for entry in entries.values()} == {None}
        assert all(problem in entry.problem for entry in entries.values())


def test_a_process_that_cannot_start_is_no_fault_of_a_participant(places, tmp_path, monkeypatch):
    enter(tmp_path, "mine")
    monkeypatch.setattr(judging, "_CHILD", "raise SystemExit(1)")
    with pytest.raises(RuntimeError, match="no process could be started"):
        judged(places, tmp_path)


@pytest.mark.skipif(not hasattr(__import__("os"), "sched_getaffinity"), reason="only Linux has a limit of memory")
def test_a_process_that_wants_all_memory_does_not_get_it(places, tmp_path, monkeypatch):
    enter(tmp_path, "large")
    monkeypatch.setattr(judging, "_CHILD", "print('ready', flush=True)\ninput()\nx = bytearray(10**11)\nprint('{}')")
    assert "ended without a result" in judged(places, tmp_path)[0]["large"].problem


def test_names_are_no_commands_of_a_terminal_or_a_table():
    assert printable("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert printable("\x1b[2J\u202eada") == "?[2J?ada"
    assert printable("x" * 100) == "x" * 39 + "…"


# ---- the command ----


def run(*arguments):
    return CliRunner().invoke(app, ["judge", *map(str, arguments)])


def test_the_command_prints_the_table_and_writes_it(places, tmp_path):
    enter(tmp_path / "entries", "ada")
    (tmp_path / "entries" / "bob").mkdir()
    result = run(tmp_path / "entries", "--model", places / "reference", "--corpus", places / "text.txt", "--windows",
                 16, "--csv", tmp_path / "standings.csv")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "ada" in result.stdout and "it holds no model" in result.stdout and "at most" in result.stdout
    with open(tmp_path / "standings.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["place"], first["name"], first["level"], first["problem"]) == ("1", "ada", "gold", "")
    assert float(first["added_low"]) <= float(first["added_mean"]) <= float(first["added_high"])
    assert (second["name"], second["level"], second["bytes"]) == ("bob", "none", "")


def test_the_command_says_in_a_line_what_is_missing(places, tmp_path):
    for arguments, words in (((tmp_path,), "no folder of a participant"), ((tmp_path / "x",), "no folder of a"),
                             ((places, "--model", "gpt-9"), "no model at 'gpt-9'"),
                             ((places, "--model", "digits-resnet"), "no GPT")):
        result = run(*arguments)
        assert result.exit_code == 2 and words in result.stderr and len(result.stderr.splitlines()) == 1


# ---- the levels, and what was measured ----


def measured():
    """Level, and what else `nanoq judge` has said of each model that benchmarks/judge.py makes."""
    with open(data_dir() / "results" / "tales" / "judge.csv", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_the_levels_of_the_kit_are_those_of_the_judge():
    page = (data_dir().parent / "notebooks" / "teaching" / "README.md").read_text(encoding="utf-8")
    for name, (size, nats) in judging.LEVELS.items():
        assert f"| {name} | {size:,} | {nats:g} |" in page


def test_the_levels_ask_for_what_the_kit_says_of_them():
    found = measured()
    for row in found.values():
        assert row["level"] == level_of(int(row["bytes"]), float(row["added_mean"]))
    reached = {name: row["level"] for name, row in found.items()}
    assert reached["gptq-4"] == "bronze" and reached["nearest-4"] == reached["gptq-3"] == "none"
    assert reached["gptq-4-coded"] == reached["rate-3.23-equal"] == "silver"
    assert reached["rate-2.24-in-turn"] == reached["rate-2.24"] == "gold" and reached["rate-2.24-equal"] == "none"
    _, nats = judging.LEVELS["gold"]
    assert 0.7 * nats < float(found["rate-2.24-in-turn"]["added_mean"]) < 0.78 * nats  # a quarter to spare
