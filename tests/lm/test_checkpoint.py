import hashlib
import json
import random
import re
import shutil
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

from nanoq.lm import GPT, CharTokenizer, GPTConfig
from nanoq.store import CARD, WEIGHTS, Checkpoint, load, save, write_folder

TOKENIZER = CharTokenizer("\n !\"abcdefghijé…")
CONFIG = GPTConfig(TOKENIZER.vocab_size, context=16, layers=2, heads=2, width=16)
FOREIGN_JSON = ["", "null", "3", "[]", "{}", '"text"', "[" * 100_000, "{" + 10_000 * "9", "9" * 10_000, "\x00\xff"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A sound checkpoint: copy it before damaging it."""
    folder = tmp_path_factory.mktemp("sound") / "model"
    facts = {"corpus": "tales", "command": "nanoq train tales --out model", "validation_perplexity": 2.5}
    return save(folder, Checkpoint(GPT(CONFIG, seed=1), TOKENIZER, {}), **facts)


def edit_card(folder, **changes):
    """Change entries of a card as a program would that wrote it whole, with a digest that fits."""
    card = json.loads((folder / CARD).read_text(encoding="utf-8")) | changes
    card.pop("model_sha256", None)
    (folder / CARD).write_text(json.dumps(card), encoding="utf-8")


def truncate(folder, rng, file):
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: rng.randrange(len(content) - 1)])


def flip(folder, rng, file):
    content = bytearray((folder / file).read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    (folder / file).write_bytes(content)


def flip_config(folder, rng):
    """Another digit in the configuration."""
    text = (folder / CARD).read_text(encoding="utf-8")
    at = rng.choice([m.start() for m in re.finditer(r"\d", text) if m.start() < text.index("}")])
    digit = rng.choice([d for d in "0123456789" if d != text[at]])
    (folder / CARD).write_text(text[:at] + digit + text[at + 1 :], encoding="utf-8")


def wrong_type(folder, rng):
    config = asdict(CONFIG)
    config[rng.choice(list(config))] = rng.choice(["16", None, [], {}, -1, 1.5, "x", float("nan")])
    edit_card(folder, config=config)


def missing_key(folder, rng):
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    del card[rng.choice(["config", "characters", "weights_sha256"])]
    (folder / CARD).write_text(json.dumps(card), encoding="utf-8")


def missing_config_key(folder, rng):
    edit_card(folder, config={"context": 16, "layers": rng.randrange(1, 9)})


def wrong_vocabulary(folder, rng):
    edit_card(folder, characters=rng.choice([None, 7, [], "ab", "a" * len(TOKENIZER.characters), ["ab"], {"a": 1}]))


def swapped_card(folder, rng):
    other = save(folder.parent / "other", Checkpoint(GPT(CONFIG, seed=rng.randrange(2, 100)), TOKENIZER, {}))
    shutil.copy(other / CARD, folder / CARD)


def foreign_json(folder, rng):
    (folder / CARD).write_text(rng.choice(FOREIGN_JSON), encoding="latin-1")


def foreign_weights(folder, rng):
    """A sound safetensors file of something else, under a card that vouches for it."""
    tensors = {f"layer{rng.randrange(9)}.weight": torch.zeros(3, 3)}
    save_file(tensors, folder / WEIGHTS)
    edit_card(folder, weights_sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())


def not_safetensors(folder, rng):
    (folder / WEIGHTS).write_bytes(rng.randbytes(rng.randrange(200)))
    edit_card(folder, weights_sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())


def emptied(folder, rng):
    (folder / rng.choice([CARD, WEIGHTS])).write_bytes(b"")


def deleted(folder, rng):
    (folder / rng.choice([CARD, WEIGHTS])).unlink()


def truncated_card(folder, rng):
    truncate(folder, rng, CARD)


def truncated_weights(folder, rng):
    truncate(folder, rng, WEIGHTS)


def flipped_weights(folder, rng):
    flip(folder, rng, WEIGHTS)


DAMAGES = {
    truncated_card: 10, truncated_weights: 10, flipped_weights: 15, flip_config: 15, swapped_card: 5, emptied: 4,
    deleted: 4, foreign_json: 15, foreign_weights: 4, not_safetensors: 4, missing_key: 5, missing_config_key: 2,
    wrong_type: 15, wrong_vocabulary: 10,
}


@pytest.mark.parametrize(("damage", "times"), DAMAGES.items(), ids=[d.__name__ for d in DAMAGES])
def test_a_damaged_checkpoint_is_one_clear_error(saved, tmp_path, damage, times):
    for number in range(times):
        folder = shutil.copytree(saved, tmp_path / str(number) / "model")
        damage(folder, random.Random(number))
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(str(folder))):
            load(folder)


def test_a_flipped_bit_of_a_card_is_an_error_or_changes_nothing_that_a_model_is_made_of(saved, tmp_path):
    sound, loaded = load(saved), 0
    for number in range(60):
        folder = shutil.copytree(saved, tmp_path / str(number))
        flip(folder, random.Random(number), CARD)
        try:
            found = load(folder)
        except ValueError:
            continue
        loaded += 1
        assert found.model.config == sound.model.config
        assert found.tokenizer.characters == sound.tokenizer.characters
        assert all(torch.equal(t, found.model.state_dict()[name]) for name, t in sound.model.state_dict().items())
    assert 0 < loaded < 60


def test_a_card_of_a_model_larger_than_any_memory_is_an_error(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "model")
    edit_card(folder, config=asdict(CONFIG) | {"width": 2 * 10**12})
    with pytest.raises(ValueError, match="do not fit its card: Storage size"):
        load(folder)


def test_there_are_a_hundred_damages():
    assert sum(DAMAGES.values()) >= 100


@pytest.mark.parametrize("bias", [False, True])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, bias):
    model = GPT(GPTConfig(TOKENIZER.vocab_size, context=8, layers=1, heads=1, width=8, bias=bias), seed=3)
    found = load(save(tmp_path, Checkpoint(model, TOKENIZER, {}), corpus="tales", note="ä"))
    assert found.model.config == model.config and found.tokenizer.characters == TOKENIZER.characters
    assert found.model.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(t, found.model.state_dict()[name]) for name, t in model.state_dict().items())
    assert found.card["corpus"] == "tales" and found.card["note"] == "ä"


def test_a_loaded_model_is_ready_for_evaluation(saved):
    assert not load(saved).model.training


def test_a_model_is_saved_in_its_own_precision(tmp_path):
    tensors = {"x": torch.arange(4, dtype=torch.float16)}
    write_folder(tmp_path, tensors, {})
    save_file(tensors, tmp_path / "expected")
    assert (tmp_path / WEIGHTS).read_bytes() == (tmp_path / "expected").read_bytes()


def test_saving_again_replaces_the_old_checkpoint(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "model")
    model = GPT(CONFIG, seed=9)
    save(folder, Checkpoint(model, TOKENIZER, {}))
    assert torch.equal(load(folder).model.token_embedding.weight, model.token_embedding.weight)
    assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, WEIGHTS])


def test_the_card_says_what_wrote_it(saved):
    card = json.loads((saved / CARD).read_text(encoding="utf-8"))
    assert card["versions"]["torch"] == torch.__version__
    assert card["weights_sha256"] == hashlib.sha256((saved / WEIGHTS).read_bytes()).hexdigest()
    assert GPTConfig(**card["config"]) == CONFIG and card["command"].startswith("nanoq train")


def test_a_card_from_before_there_was_a_digest_of_it_still_loads(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "model")
    edit_card(folder)
    assert load(folder).model.config == CONFIG


def test_a_shipped_checkpoint_is_found_by_its_name(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("nanoq.store.data_dir", lambda: tmp_path)
    shutil.copytree(saved, tmp_path / "checkpoints" / "small-one")
    assert load("small-one").model.config == CONFIG


def test_an_unknown_name_is_an_error_that_lists_the_shipped_ones(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("nanoq.store.data_dir", lambda: tmp_path)
    shutil.copytree(saved, tmp_path / "checkpoints" / "small-one")
    with pytest.raises(FileNotFoundError, match=r"no model at 'big-one': .* \(small-one\)"):
        load("big-one")
