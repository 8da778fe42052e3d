import json
import math
import socket

import pytest
import torch
import torch.nn.functional as F
from tiny import make, make_masked_tokenizer, make_tokenizer
from tiny_tokenizers import byte_level, sentencepiece
from tokenizers import processors

import nanoq
from nanoq.hf import (
    HFModel,
    enclose_windows,
    encode,
    features,
    fill_losses,
    fine_tune,
    gptq_losses,
    gptq_windows,
    linear_probe,
    masked_losses,
    probe_accuracy,
    reviews,
    start_windows,
    tasks,
    text_tokens,
    wikitext,
)
from nanoq.lm import paired_difference, perplexity
from nanoq.quant import Recipe, quantize_model
from nanoq.store import load, save

GOOD, BAD = "the film was great and good .", "the film was awful and bad ."


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder that NANOQ_DATA names, with a little of everything."""
    lines = "".join(f" = cat {i} = \n \n the film was good . \n" for i in range(40))
    (tmp_path / "wikitext2_valid.tokens").write_text(lines, encoding="utf-8")
    for split, count in (("train", 40), ("test", 30)):
        rows = [{"text": f"{GOOD if i % 3 else BAD} {i}", "label": int(i % 3 > 0)} for i in range(count)]
        path = tmp_path / f"imdb_{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setenv("NANOQ_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("split", ["train", "test"])
def test_wikitext_is_its_lines_joined_by_blank_lines_and_cut(split, data, tokenizer):
    text = (data / "wikitext2_valid.tokens").read_text(encoding="utf-8")
    cut = text.index("\n", int(len(text) * 0.9)) + 1
    text = text[:cut] if split == "train" else text[cut:]
    joined = "\n\n".join(line if line.strip() else "" for line in text.splitlines(keepends=True))
    tokens = tokenizer(joined).input_ids
    windows = wikitext(tokenizer, 8, split)
    assert windows[:, 1:].tolist() == torch.tensor(tokens[: len(tokens) // 8 * 8]).view(-1, 8)[:, 1:].tolist()
    assert tokens[0] == 2 and windows[:, 0].unique().tolist() == [2]  # each window begins as the text
    with pytest.raises(ValueError, match="split must be"):
        wikitext(tokenizer, 8, "valid")


def test_wikitext_from_the_hub_is_its_rows_joined(monkeypatch, tokenizer):
    monkeypatch.delenv("NANOQ_DATA", raising=False)
    asked = []

    def rows(*arguments):
        asked.append(arguments[1:4])
        yield from [{"text": ""}, {"text": " the cat \n"}, {"text": " was good \n"}]
    monkeypatch.setattr("nanoq.hf.tasks.hub_rows", rows)
    expected = tokenizer("\n\n the cat \n\n\n was good \n").input_ids
    assert wikitext(tokenizer, len(expected)).tolist() == [expected]
    assert asked == [("Salesforce/wikitext", "wikitext-2-raw-v1", "test")]


def test_windows_share_no_token_and_drop_the_rest():
    assert gptq_windows(torch.arange(11), 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(ValueError, match="3 tokens are too few for one window of 4"):
        gptq_windows(torch.arange(3), 4)


@pytest.mark.parametrize("make_one", [byte_level, sentencepiece])
def test_windows_begin_with_the_token_that_the_tokeniser_puts_before_a_text_and_no_other(make_one):
    tokenizer, text = make_one(), "the cat was not once upon a time"
    bos = tokenizer.bos_token_id
    plain = gptq_windows(encode(tokenizer, text), 3)
    assert bos is not None and torch.equal(start_windows(tokenizer, plain), plain)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokenizer.bos_token} $A", special_tokens=[(tokenizer.bos_token, bos)])
    assert encode(tokenizer, text)[0] == bos
    started = start_windows(tokenizer, plain)
    assert started[:, 0].tolist() == [bos] * len(plain) and torch.equal(started[:, 1:], plain[:, 1:])
    assert bos not in plain  # which was not changed
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<x> $A", special_tokens=[("<x>", bos + 1)])
    assert torch.equal(start_windows(tokenizer, plain), plain)
    assert torch.equal(start_windows(None, plain), plain)


def test_losses_are_of_the_same_tokens_with_a_start_as_without():
    model = HFModel(make("llama")).eval()
    windows = torch.randint(4, 97, (3, 6), generator=torch.Generator().manual_seed(0))
    started = start_windows(make_tokenizer(), windows)
    expected = F.cross_entropy(model(started)[:, :-1].flatten(0, 1), windows[:, 1:].flatten(), reduction="none")
    assert gptq_losses(model, started).tolist() == pytest.approx(expected.view(3, -1).mean(1).tolist(), abs=1e-5)


@pytest.mark.parametrize("family", ["opt", "gpt2", "llama"])
def test_perplexity_is_that_of_the_loss_of_transformers(family, tokenizer):
    original = make(family)
    windows = torch.randint(4, 97, (5, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        losses = [float(original(input_ids=row[None], labels=row[None]).loss) for row in windows]
    model = HFModel(original)
    assert gptq_losses(model, windows).tolist() == pytest.approx(losses, abs=1e-5)
    assert gptq_losses(model, windows, batch=2).tolist() == pytest.approx(losses, abs=1e-5)
    assert gptq_losses(model, windows, limit=3).tolist() == pytest.approx(losses[::2], abs=1e-5)
    assert perplexity(gptq_losses(model, windows)) == pytest.approx(math.exp(sum(losses) / 5), rel=1e-4)


def test_a_masked_language_model_has_no_perplexity_and_others_no_pseudo_perplexity():
    with pytest.raises(ValueError, match="kind 'masked-lm' predicts no next token.*by `masked_losses`"):
        gptq_losses(HFModel(make("bert")), torch.full((2, 8), 5))
    for family, kind in (("opt", "causal-lm"), ("bert encoder", "encoder")):
        with pytest.raises(ValueError, match=f"kind '{kind}' fills no masks"):
            masked_losses(HFModel(make(family)), make_masked_tokenizer(), torch.full((2, 8), 5))


def masked_one_by_one(model, tokenizer, row, places):
    """The losses of a row's tokens, a forward pass for each, by the model of transformers itself."""
    losses = []
    for place in places:
        read = row.clone()
        read[place] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = model(input_ids=read[None]).logits[0, place]
        losses.append(float(-logits.double().log_softmax(0)[row[place]]))
    return losses


@pytest.fixture(scope="module")
def masked():
    """Windows of text between the special tokens."""
    windows = torch.randint(4, 14, (5, 12), generator=torch.Generator().manual_seed(0))
    windows[:, 0], windows[:, -1] = 2, 3
    return windows


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "modernbert", "distilbert", "albert", "fnet"])
@pytest.mark.parametrize("batch", [1, 7, 99])
def test_pseudo_perplexity_masks_each_token_by_itself(family, batch, masked):
    original, tokenizer = make(family), make_masked_tokenizer()
    expected = [masked_one_by_one(original, tokenizer, row, range(1, 11)) for row in masked]
    found = masked_losses(HFModel(original), tokenizer, masked, batch=batch)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([sum(losses) / 10 for losses in expected], abs=1e-5)
    assert perplexity(found) == pytest.approx(math.exp(sum(map(sum, expected)) / 50), rel=1e-5)


def test_a_model_that_knows_nothing_has_a_pseudo_perplexity_of_its_vocabulary(masked):
    model = make("bert")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert perplexity(masked_losses(HFModel(model), make_masked_tokenizer(), masked)) == pytest.approx(97)


def test_a_model_that_copies_what_it_reads_is_not_shown_the_token_that_it_is_to_find(masked):
    """One that sees only the token itself gives each masked token the same chances."""
    model, tokenizer = HFModel(make("bert")).eval(), make_masked_tokenizer()
    with torch.no_grad():
        for block in model.blocks:
            for parameter in (*block.attention.output.dense.parameters(), *block.output.dense.parameters()):
                parameter.zero_()
        model.model.bert.embeddings.position_embeddings.weight.zero_()
        losses = -model(torch.tensor([[tokenizer.mask_token_id]])).log_softmax(-1)[0, 0]
    expected = losses[masked[:, 1:-1]].mean(1)
    assert masked_losses(model, tokenizer, masked).tolist() == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_padding_and_special_tokens_are_not_measured_and_change_nothing(family, masked):
    model, tokenizer = HFModel(make(family)).eval(), make_masked_tokenizer()
    padded = torch.full((5, 20), tokenizer.pad_token_id)
    padded[:, :12] = masked
    padded[0, 5:] = tokenizer.pad_token_id  # one that is short
    assert text_tokens(tokenizer, padded).sum(1).tolist() == [4, 10, 10, 10, 10]
    assert text_tokens(tokenizer, torch.tensor([[tokenizer.unk_token_id, tokenizer.mask_token_id]])).tolist() == [
        [True, False]]
    found = masked_losses(model, tokenizer, padded)
    assert (found[1:] * 44 / 50).tolist() == pytest.approx(masked_losses(model, tokenizer, masked)[1:].tolist())
    rows = [row[row != tokenizer.pad_token_id] for row in padded]
    every = [loss for row in rows for loss in masked_one_by_one(
        model.model, tokenizer, row, text_tokens(tokenizer, row).nonzero()[:, 0].tolist())]
    assert len(every) == 44 and float(found.mean()) == pytest.approx(sum(every) / 44, abs=1e-5)


def test_a_part_of_the_tokens_is_measured_all_through_the_windows(masked):
    model, tokenizer = HFModel(make("bert")).eval(), make_masked_tokenizer()
    places = [[1, 4, 7, 10], [3, 6, 9], [2, 5, 8], [1, 4, 7, 10], [3, 6, 9]]  # every third of ten in each window
    expected = [sum(masked_one_by_one(model.model, tokenizer, row, chosen))
                for row, chosen in zip(masked, places, strict=True)]
    found = masked_losses(model, tokenizer, masked, every=3)
    assert (found * 17 / 5).tolist() == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="every must be at least 1, not 0"):
        masked_losses(model, tokenizer, masked, every=0)
    with pytest.raises(ValueError, match="no text in the windows"):
        masked_losses(model, tokenizer, masked[:, :1])


def test_tokens_that_are_masked_together_do_not_see_each_other(masked):
    original, tokenizer = make("bert"), make_masked_tokenizer()
    chosen = torch.zeros(masked.shape, dtype=torch.bool)
    chosen[0, [2, 7]] = chosen[3, 5] = True
    read = masked.masked_fill(chosen, tokenizer.mask_token_id)
    with torch.no_grad():
        expected = F.cross_entropy(original(input_ids=read).logits[chosen], masked[chosen], reduction="none")
        found = fill_losses(HFModel(original).eval(), tokenizer, masked, chosen)
    torch.testing.assert_close(found, expected)


def test_a_quantised_model_has_the_same_pseudo_perplexity_from_its_file(tmp_path, masked):
    make("bert").save_pretrained(tmp_path / "original")
    make_masked_tokenizer().save_pretrained(tmp_path / "original")
    original = nanoq.load(tmp_path / "original")
    before = masked_losses(original.model, original.tokenizer, masked)
    changes = []
    for bits in (8, 2):
        small = nanoq.quantize(original, "nearest", bits=bits)
        loaded = load(save(tmp_path / str(bits), small))
        losses = masked_losses(loaded.model, loaded.tokenizer, masked)
        assert torch.equal(losses, masked_losses(small.model, small.tokenizer, masked))
        changes.append((losses - before).abs().mean())
        assert paired_difference(losses, before).mean == pytest.approx(float((losses - before).mean()))
    assert 0 < changes[0] < changes[1] / 10


def test_measuring_leaves_the_model_as_it_was(masked):
    model, tokenizer = HFModel(make("bert")), make_masked_tokenizer()
    assert model.training
    expected = model.eval()(masked)
    masked_losses(model.train(), tokenizer, masked)
    assert model.training
    torch.testing.assert_close(model.eval()(masked), expected)
    with pytest.raises(ValueError, match="tokeniser has no mask token"):
        masked_losses(model, make_tokenizer(), masked)
    with pytest.raises(ValueError, match="not in the vocabulary|vocabulary of"):
        masked_losses(model, tokenizer, masked + 90)
    assert not model.model.get_output_embeddings()._forward_pre_hooks


def test_windows_of_a_masked_language_model_stand_between_its_special_tokens(data):
    tokenizer = make_masked_tokenizer()
    windows = wikitext(tokenizer, 8)
    enclosed = enclose_windows(tokenizer, windows)
    assert enclosed[:, [0, -1]].unique(dim=0).tolist() == [[2, 3]]
    assert torch.equal(enclosed[:, 1:-1], windows[:, 1:-1]) and 3 not in windows
    plain = make_tokenizer()
    assert torch.equal(enclose_windows(plain, wikitext(plain, 8)), wikitext(plain, 8))


def test_reviews_are_balanced_and_seeded(data):
    some = reviews("imdb", train=10, test=8, seed=1)
    assert (sum(some.train_labels), len(some.train), sum(some.test_labels), len(some.test)) == (5, 10, 4, 8)
    assert len(set(some.train)) == 10
    assert all((GOOD in text) == bool(label) for text, label in zip(some.train, some.train_labels, strict=True))
    assert some == reviews("imdb", train=10, test=8, seed=1) != reviews("imdb", train=10, test=8, seed=2)
    every = reviews("imdb", train=None, test=None)
    assert (len(every.train), len(every.test)) == (28, 20)  # twice the 14 and 10 bad ones


@pytest.mark.parametrize(("train", "test", "message"), [
    (30, 8, "30 reviews, .* at most 28"), (10, 7, "7 reviews, .* to be even"), (0, 8, "0 reviews"),
])
def test_numbers_of_reviews_that_cannot_be_had_are_errors(data, train, test, message):
    with pytest.raises(ValueError, match=message):
        reviews("imdb", train=train, test=test)


def test_reviews_from_the_hub(monkeypatch):
    monkeypatch.delenv("NANOQ_DATA", raising=False)
    asked = []

    def rows(*arguments):
        asked.append(arguments[1:4])
        yield from ({"text": f"{arguments[3]} {i}", "label": i % 2} for i in range(6))
    monkeypatch.setattr("nanoq.hf.tasks.hub_rows", rows)
    data = reviews("rotten-tomatoes", train=4, test=2)
    assert all(text.startswith("train ") for text in data.train) and data.test[0].startswith("test ")
    assert asked == [("cornell-movie-review-data/rotten_tomatoes", None, split) for split in ("train", "test")]


def test_reviews_that_are_nowhere_are_one_sentence(monkeypatch):
    monkeypatch.delenv("NANOQ_DATA", raising=False)
    monkeypatch.setattr("nanoq.hub.find_hub", lambda: socket.getaddrinfo("nowhere.invalid", 443))
    with pytest.raises(FileNotFoundError, match=r"Three ways .*stanfordnlp/imdb; or set NANOQ_DATA .*imdb_train"):
        reviews("imdb")
    with pytest.raises(FileNotFoundError, match=r"Three ways .*Salesforce/wikitext; or set NANOQ_DATA .*gptq_windows"):
        wikitext(make_tokenizer())
    with pytest.raises(FileNotFoundError, match="no reviews 'yelp': give one of imdb, rotten-tomatoes"):
        reviews("yelp")


@pytest.mark.parametrize("line", ["{", "[]", '{"text": "a"}', '{"text": "a", "label": "x"}'])
def test_a_damaged_file_of_reviews_is_named(data, line):
    with open(data / "imdb_test.jsonl", "a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"line 31 of .*imdb_test\.jsonl is no review"):
        reviews("imdb", train=4, test=4)


@pytest.mark.parametrize("family", ["bert encoder", "roberta", "gpt2", "llama"])
def test_features_are_the_mean_over_the_tokens_of_each_text(family, tokenizer):
    model = HFModel(make(family))
    texts = ["the cat .", GOOD, "bad", BAD + " " + GOOD]
    found = features(model, tokenizer, texts, batch=3)
    for text, row in zip(texts, found, strict=True):
        with torch.no_grad():
            hidden = model.model.base_model(torch.tensor([tokenizer(text).input_ids]))[0]
        torch.testing.assert_close(row, hidden[0].mean(0), atol=1e-5, rtol=1e-5)
    assert torch.equal(features(model, tokenizer, texts, max_length=2), features(model, tokenizer, texts, max_length=2))
    narrow = features(HFModel(make(family).bfloat16()), tokenizer, texts)
    assert narrow.dtype == torch.float32 and float((narrow - found).abs().max()) < 0.1 * float(found.abs().max())
    short = features(model, tokenizer, [GOOD], max_length=3)
    torch.testing.assert_close(short, features(model, tokenizer, ["the film"]), atol=1e-5, rtol=1e-5)


def test_features_of_a_long_text_fit_the_context(tokenizer):
    assert features(HFModel(make("opt")), tokenizer, ["the cat " * 100]).shape == (1, 32)


def test_a_linear_probe_tells_reviews_apart_also_after_quantisation(data, tokenizer):
    some = reviews("imdb", train=20, test=20)
    model = HFModel(make("bert encoder"))
    probe = linear_probe(features(model, tokenizer, some.train), some.train_labels)
    assert probe_accuracy(probe, features(model, tokenizer, some.test), some.test_labels) == 1
    assert probe_accuracy(probe, features(model, tokenizer, some.test), [1 - label for label in some.test_labels]) == 0
    quantize_model(model, Recipe(bits=8))
    assert probe_accuracy(probe, features(model, tokenizer, some.test), some.test_labels) == 1


@pytest.mark.parametrize("size", [0.03, 1, 30])
def test_a_probe_is_regularised_by_a_hundredth_over_the_mean_variance(size):
    found = size * torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 0.5])
    labels = (found[:, 0] > found[:, 1]).int()
    probe = linear_probe(found, labels.tolist())
    weight = torch.from_numpy(probe.coef_[0]).float()
    # The least of |w|**2 / 2 + C * (sum of the losses) is where w is C times the losses' slope.
    slope = (labels - torch.from_numpy(probe.predict_proba(found.numpy())[:, 1])).float() @ found
    torch.testing.assert_close(weight, 0.01 / found.var(0).mean() * slope, rtol=0.01, atol=0.01 * float(weight.norm()))


def test_a_column_that_hardly_varies_does_not_count():
    found = torch.randn(600, 4, generator=torch.Generator().manual_seed(0))
    labels = (found[:, 0] > 0).int().tolist()
    found[:, 3] = 1e-33 * found[:, 0]
    probe = linear_probe(found, labels)
    moved = found.clone()
    moved[:, 3] = 0.001  # as by rounding
    assert probe_accuracy(probe, moved, labels) == probe_accuracy(probe, found, labels) > 0.9


def test_fine_tuning_lowers_the_loss_and_is_seeded(tokenizer):
    texts, labels = ["cat", "film", "good", "bad", "great", "awful", "and", "."] * 2, [0, 1, 1, 0, 0, 1, 0, 1] * 2
    model, again = HFModel(make("bert encoder")), HFModel(make("bert encoder"))
    losses = fine_tune(model, tokenizer, texts, labels, epochs=20, batch=8, lr=3e-3)
    assert len(losses) == 40
    assert losses[-1] < losses[0] / 2
    assert fine_tune(again, tokenizer, texts, labels, epochs=20, batch=8, lr=3e-3) == losses
    assert torch.equal(model.blocks[0].output.dense.weight, again.blocks[0].output.dense.weight)
    for wrong in ([0, 1, 0], [0] * 16, [1, 2] * 8):
        with pytest.raises(ValueError, match="16 texts need as many labels, 0 or 1, and some of each"):
            fine_tune(model, tokenizer, texts, wrong)


def test_texts_that_cannot_be_read_are_errors(tokenizer):
    model = HFModel(make("gpt2"))
    with pytest.raises(ValueError, match="without a tokeniser"):
        features(model, None, ["a"])
    with pytest.raises(ValueError, match="without a tokeniser"):
        encode(None, "a")
    with pytest.raises(ValueError, match="no texts"):
        features(model, tokenizer, [])


def test_a_long_text_is_encoded_without_a_warning(tokenizer, caplog):
    tokens = encode(tokenizer, "the cat " * 100)
    assert tokens.dtype == torch.long and len(tokens) == 201
    assert not caplog.records
    assert F.one_hot(tokens[1:3], 14).argmax(1).tolist() == [4, 12]


@pytest.mark.parametrize("between", [" ", "\n", ""])
def test_calibration_text_needs_no_spaces(between, monkeypatch):
    monkeypatch.setattr(tasks, "token_ids", lambda _, texts: [list(map(ord, text[::7])) for text in texts])
    rows = tasks.sample_text(None, ("abcdef" + (between or "g")) * 14_000, 128, 50)
    assert rows.shape == (50, 128)
