"""The eight verbs, for every kind of model there is."""

import subprocess
import sys
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch

import nanoq
from nanoq.compress import LowRank, Prune, SparseLinear, SparseQuantLinear
from nanoq.lm import GPT, CharTokenizer, GPTConfig, generate
from nanoq.quant import BLOCK_METHODS, QuantConv2d, QuantizedKVCache, QuantLinear, Recipe, Round, Vector
from nanoq.quant.export import count_parameters
from nanoq.store import WEIGHTS, Checkpoint
from nanoq.tasks import CharacterText, ReviewProbe, task_for

TEXT = "".join(f"The {color} {animal} sat on a {color} mat. " for color in ("red", "blue", "black", "green")
               for animal in ("cat", "dog", "hen", "fox", "cow", "pig"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "animals.txt"
    path.write_text(TEXT * 40)
    return str(path)


@pytest.fixture
def gpt(text):
    tokenizer = CharTokenizer.from_text(TEXT)
    return Checkpoint(GPT(GPTConfig(tokenizer.vocab_size, 16, 2, 2, 32), seed=0), tokenizer, {"corpus": text})


@pytest.fixture
def resnet():
    return nanoq.load("digits-resnet")


@pytest.fixture
def opt(text):
    loaded = nanoq.load("opt-tales")
    loaded.card["corpus"] = text
    return loaded


CASES = {"gpt": (QuantLinear, 16), "resnet": (QuantConv2d, None), "opt": (QuantLinear, 32)}


def test_quantize_rotates_a_copy(gpt):
    before = deepcopy(gpt.model.state_dict())
    small = nanoq.quantize(gpt, "gptq", bits=8, windows=16, context=16, rotate=True)
    assert gpt.model.config.norm == "layer" and "rotation" not in gpt.card
    assert all(torch.equal(before[key], value) for key, value in gpt.model.state_dict().items())
    tokens = torch.randint(5, (2, 16), generator=torch.Generator().manual_seed(0))
    assert small.model.config.norm == "rms" and small.card["rotation"] == {"seed": 0}
    torch.testing.assert_close(small.model(tokens), gpt.model(tokens), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("name", CASES)
def test_entropy_coding_makes_the_file_of_any_kind_smaller_and_changes_nothing(name, request, tmp_path):
    loaded = request.getfixturevalue(name)
    small = nanoq.quantize(loaded, "nearest", bits=8)
    plain, coded = nanoq.save(tmp_path / "plain", small), nanoq.save(tmp_path / "coded", small, entropy=True)
    assert (coded / WEIGHTS).stat().st_size < (plain / WEIGHTS).stat().st_size
    assert not any(hasattr(layer, "stream") for layer in small.model.modules())
    assert torch.equal(*(task_for(small, windows=8, context=16).outputs(nanoq.load(path).model)
                         for path in (plain, coded)))


@pytest.mark.parametrize("name", CASES)
def test_a_model_of_any_kind_is_quantised_measured_saved_and_loaded_again_bit_for_bit(name, request, tmp_path):
    checkpoint, (kind, context) = request.getfixturevalue(name), CASES[name]
    before = deepcopy(checkpoint.model.state_dict())
    small = nanoq.quantize(checkpoint, "gptq", bits=4, windows=16, context=context)
    assert all(torch.equal(before[key], value) for key, value in checkpoint.model.state_dict().items())
    assert any(isinstance(module, kind) for module in small.model.modules())
    assert len(small.reports) and all(0 <= report.output_error < 0.2 for report in small.reports)
    loaded = nanoq.load(nanoq.save(tmp_path, small))
    assert Recipe.from_json(loaded.card["recipe"]) == Recipe("gptq", bits=4, embeddings=8 if name == "opt" else 16)
    found = [nanoq.evaluate(model, windows=8, context=context, against=checkpoint) for model in (small, loaded)]
    assert torch.equal(found[0].losses, found[1].losses)
    assert found[0].delta.low <= found[0].delta.mean <= found[0].delta.high and found[0].delta.mean != 0
    assert f"per {found[0].unit} on" in str(found[0]) and "added loss" in str(found[0])


def test_every_image_goes_through_a_classifier_once(resnet):
    seen = []
    handle = resnet.model.register_forward_pre_hook(lambda _, rows: seen.append(len(rows[0])))
    found = nanoq.evaluate(resnet, windows=40)
    handle.remove()
    assert sum(seen) == 40 and "accuracy" in found.more


@pytest.mark.parametrize("name", ["gpt", "opt"])
@pytest.mark.parametrize(("bits", "kind"), [(16, SparseLinear), (4, SparseQuantLinear)])
def test_a_language_model_of_any_kind_is_pruned_saved_and_loaded_again(name, bits, kind, request, tmp_path):
    checkpoint, (_, context) = request.getfixturevalue(name), CASES[name]
    sparse = nanoq.prune(checkpoint, "sparsegpt", 0.5, bits=bits, windows=16, context=context)
    loaded = nanoq.load(nanoq.save(tmp_path, sparse))
    layers = [layer for layer in loaded.model.modules() if isinstance(layer, kind)]
    assert layers and all(0.4 < float((layer.dequantize() == 0).float().mean()) < 0.75 for layer in layers)
    losses = [nanoq.evaluate(model, windows=8, context=context).losses for model in (sparse, loaded)]
    assert torch.equal(*losses)
    steps = Recipe.from_json(loaded.card["recipe"]).default
    assert steps == Prune() if bits == 16 else steps.steps == (Prune(), Round("gptq", bits=4))


def test_a_recipe_of_several_steps_is_carried_out_layer_by_layer(gpt, tmp_path):
    recipe = Recipe(bits=8, rules={"*.up": [Prune("magnitude", 0.7), Round(bits=4)], "*.down": LowRank(0.5)})
    made = nanoq.quantize(gpt, recipe, windows=8)
    loaded = nanoq.load(nanoq.save(tmp_path, made))
    kinds = [type(loaded.model.get_submodule(f"blocks.0.{layer}")).__name__
             for layer in ("attention.qkv", "mlp.up", "mlp.down")]
    assert kinds == ["QuantLinear", "SparseQuantLinear", "LowRankLinear"]
    tokens = torch.arange(8)[None]
    assert torch.equal(made.model(tokens), loaded.model(tokens))


@pytest.mark.parametrize("name", ["gpt", "opt"])
def test_a_language_model_goes_on_from_a_prompt(name, request):
    checkpoint = request.getfixturevalue(name)
    one, same, other = (nanoq.generate(checkpoint, "The cat", 12, seed=seed) for seed in (0, 0, 1))
    assert one == same != other and one.startswith("The cat") and len(one) > len("The cat")


def test_the_likeliest_continuation_is_that_of_transformers(opt):
    found = nanoq.generate(opt, "Once upon a time", 10, temperature=0)
    tokens = opt.tokenizer("Once upon a time", return_tensors="pt").input_ids
    expected = opt.model.model.generate(tokens, max_new_tokens=10, do_sample=False)
    assert found == opt.tokenizer.decode(expected[0], skip_special_tokens=True)


def test_what_writes_no_text_says_so(resnet):
    with pytest.raises(ValueError, match="a ResNet writes no text"):
        nanoq.generate(resnet, "The")


@pytest.mark.parametrize("name", CASES)
def test_the_leaderboard_takes_a_model_of_any_kind(name, request):
    checkpoint, (_, context) = request.getfixturevalue(name), CASES[name]
    board = nanoq.compare(checkpoint, bits=(8, 3), methods=("nearest",), windows=8, context=context)
    assert [row.bits for row in board.rows] == [32, 16, 8, 3]
    assert board.rows[2].bytes > board.rows[3].bytes and board.rows[2].average_bits < 32
    assert abs(board.rows[2].delta_nats) < abs(board.rows[3].delta_nats)
    assert "the same 8 held-out" in board.caption


def test_mixed_precision_and_calibration_are_options(gpt):
    mixed = nanoq.quantize(gpt, average_bits=4, windows=16)
    rules = mixed.card["recipe"]["rules"]
    assert len(rules) == 8 and all(mixed.model.get_submodule(name).layout["bits"] == step["bits"]
                                   for name, step in rules.items())
    one, same, other = (nanoq.quantize(gpt, "gptq", bits=3, windows=4, seed=seed) for seed in (0, 0, 1))
    codes = [model.model.blocks[1].mlp.up.codes for model in (one, same, other)]
    assert torch.equal(codes[0], codes[1]) and not torch.equal(codes[0], codes[2])
    with pytest.raises(ValueError, match="average_bits writes a recipe of its own"):
        nanoq.quantize(gpt, bits=3, average_bits=4)


@pytest.mark.parametrize("name", ["gpt", "opt", "resnet"])
@pytest.mark.parametrize("windows", [0, -3])
def test_calibration_without_a_window_is_refused(name, windows, request):
    with pytest.raises(ValueError, match=f"at least 1, not {windows}"):
        nanoq.quantize(request.getfixturevalue(name), bits=4, windows=windows)


def test_a_window_without_a_token_is_refused(opt):
    with pytest.raises(ValueError, match="at least 1 token, not 0"):
        nanoq.quantize(opt, bits=4, context=0)


def test_of_a_long_text_only_what_is_used_is_encoded(opt, text):
    seen = []

    class Counting:
        def __call__(self, texts, **options):
            seen.extend(map(len, texts))
            return opt.tokenizer(texts, **options)

    from nanoq.hf.tasks import sample_text

    corpus = TEXT * 400
    one, same, other = (sample_text(Counting(), corpus, 8, 4, seed) for seed in (0, 0, 1))
    assert one.shape == (4, 8) and torch.equal(one, same) and not torch.equal(one, other)
    assert sum(seen) < len(corpus) / 10


def test_the_accuracy_beside_a_comparison_is_that_of_the_model_that_is_measured(monkeypatch):
    labels = [0, 1] * 4
    task = ReviewProbe(Checkpoint(torch.nn.Identity(), None, {}), windows=8, context=8)
    task.held_out = SimpleNamespace(name="some", train=["a"] * 4, train_labels=[0, 1] * 2, test=["a"] * 8,
                                   test_labels=labels)
    chances = {right: torch.tensor([[0.9, 0.1] if (label == 0) == (n < right) else [0.1, 0.9]
                                    for n, label in enumerate(labels)]).double() for right in (6, 3)}
    monkeypatch.setattr(ReviewProbe, "_probe", lambda self, model: (
        SimpleNamespace(predict_log_proba=lambda _: chances[model.right].log().numpy()), torch.zeros(8, 1)))
    models = {right: torch.nn.Module() for right in chances}
    for right, model in models.items():
        model.right = right
    for right, against in ((6, 3), (3, 6), (6, None)):
        assert task.evaluate(models[right], models.get(against)).more["accuracy"].startswith(f"{right / 8:.4f}, ")


def test_the_clock_of_an_evaluation_starts_when_the_text_has_been_read(gpt, monkeypatch):
    clock, read, computed = [0.0], CharacterText.held_out.func, CharacterText.outputs

    def takes(seconds, result):
        clock[0] += seconds
        return result
    task = task_for(gpt, windows=3)
    monkeypatch.setattr("nanoq.tasks.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(CharacterText.held_out, "func", lambda self: takes(100, read(self)))
    monkeypatch.setattr(CharacterText, "outputs", lambda self, *others: takes(2, computed(self, *others)))
    assert task.evaluate(gpt.model).speed == 3 * 16 / 2


def test_a_model_stops_at_each_of_its_ends(opt):
    opt.model.model.generation_config.eos_token_id = list(range(opt.model.model.config.vocab_size))
    assert nanoq.generate(opt, "The red", 20) == "The red"
    opt.model.model.generation_config.eos_token_id = None
    assert len(nanoq.generate(opt, "The red", 20)) > len("The red")


@pytest.mark.parametrize("cast", [torch.nn.Module.float, torch.nn.Module.bfloat16])
def test_a_model_without_parameters_is_measured_and_writes(cast):
    original = nanoq.load("tales-2.7m")
    small = nanoq.quantize(original, "nearest", bits=8, rotate=True, embeddings=8)
    assert not list(small.model.parameters())
    cast(small.model)
    assert abs(nanoq.evaluate(small, windows=4, against=original).delta.mean) < 0.05
    for more in ({}, {"make_cache": lambda layers: QuantizedKVCache(layers, 8)}):
        text = generate(small.model, small.tokenizer, "Once", 5, **more)
        assert text.startswith("Once") and len(text) == 9


def test_a_negative_length_is_named(gpt):
    with pytest.raises(ValueError, match="length must be at least 0, not -1"):
        nanoq.generate(gpt, "The", -1)


def test_reviews_are_counted_with_those_of_the_probe():
    task = ReviewProbe(Checkpoint(torch.nn.Identity(), None, {}), windows=8, context=8)
    task.held_out = SimpleNamespace(train=["a"] * 12, test=["a"] * 8)
    assert 8 * task.predictions == 12 + 8


@pytest.mark.parametrize("method", BLOCK_METHODS)
def test_the_seed_is_that_of_a_method_that_draws(gpt, method):
    data = torch.randint(4, (12, 16), generator=torch.Generator().manual_seed(0))
    made = [nanoq.quantize(gpt, method, bits=2, steps=3, data=data, seed=seed) for seed in (1, 1, 2)]
    codes = [torch.cat([layer.codes.flatten() for layer in one.model.modules() if isinstance(layer, QuantLinear)])
             for one in made]
    assert torch.equal(codes[0], codes[1]) and not torch.equal(codes[0], codes[2])
    assert made[2].card["recipe"]["default"]["method_options"]["seed"] == 2


@pytest.mark.parametrize("recipe", [
    Recipe("nearest", bits=4), Recipe("nearest", rate=2.0, grid="entropy-coded"), Recipe(Prune("magnitude")),
    Recipe(Prune("magnitude"), Round("nearest", bits=4)), Recipe(Vector("e8p", feedback=False)),
], ids=lambda recipe: recipe.label)
def test_weights_in_codes_of_any_kind_count_as_parameters(gpt, recipe):
    small = nanoq.quantize(gpt, recipe)
    assert count_parameters(small.model) == gpt.model.parameter_count()


def test_weights_of_convolutions_in_codes_count_as_parameters(resnet):
    assert count_parameters(nanoq.quantize(resnet, "nearest", bits=4).model) == count_parameters(resnet.model)


@pytest.mark.parametrize("name", CASES)
def test_predictions_are_compared_with_those_of_the_original(name, request):
    loaded = request.getfixturevalue(name)
    same = nanoq.evaluate(loaded, windows=8, context=16, against=loaded).divergence
    assert same.mean == pytest.approx(0, abs=1e-6) and same.top1 == 1
    far, near = (nanoq.evaluate(nanoq.quantize(loaded, "nearest", bits=bits), windows=8, context=16, against=loaded)
                 for bits in (2, 6))
    assert far.divergence.mean > near.divergence.mean > 0 and far.divergence.top1 < 1
    assert far.divergence.tail >= far.divergence.median
    assert "same top 1" in str(near) and "same top 1" not in str(nanoq.evaluate(loaded, windows=8, context=16))


def test_data_of_another_kind_of_model_is_named(gpt):
    with pytest.raises(FileNotFoundError, match="no corpus 'imdb'"):
        task_for(gpt, "imdb")
    with pytest.raises(ValueError, match="no text or images to measure a Linear"):
        task_for(Checkpoint(torch.nn.Linear(2, 2), None, {}))


def test_the_package_shows_its_verbs_and_imports_nothing_before_they_are_used():
    code = ("import sys, nanoq; assert 'torch' not in sys.modules; names = dir(nanoq); "
            "print(*(n for n in 'load quantize prune evaluate compare generate save export Recipe quant'.split() "
            "if n in names)); nanoq.quant.Recipe; print('torch' in sys.modules)")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["load", "quantize", "prune", "evaluate", "compare", "generate", "save", "export", "Recipe",
                             "quant", "True"]
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        nanoq.quantise  # noqa: B018


@pytest.mark.parametrize(("options", "named"), [({"bits": 2}, "bits"), ({"group_siz": 64, "embeddings": 4},
                                                                       "group_siz, embeddings")])
def test_a_recipe_takes_no_further_options(gpt, options, named):
    with pytest.raises(ValueError, match=f"a recipe says what to do to each layer: {named} can not be given"):
        nanoq.quantize(gpt, Recipe("nearest", bits=4), **options)
    with pytest.raises(ValueError, match="windws can not be given"):
        nanoq.prune(gpt, "magnitude", 0.5, windws=3)


def test_a_transformer_takes_a_corpus_that_was_made(opt):
    corpus = nanoq.lm.Corpus("mine", TEXT * 60, TEXT * 5, TEXT * 20, "a test", "none")
    task = task_for(opt, corpus, 4, 32)
    assert task.calibration(3).shape == (3, 32) and task.held_out.shape == (4, 32)
    assert "mine: 4 held-out windows" in task.caption(4)


def test_models_of_different_tokenisers_are_not_compared(gpt, text):
    other = CharTokenizer("".join(reversed(gpt.tokenizer.characters)))
    with pytest.raises(ValueError, match="different tokenisers"):
        nanoq.evaluate(gpt, windows=4, against=Checkpoint(gpt.model, other, gpt.card))
    assert float(nanoq.evaluate(gpt, windows=4, against=gpt).delta.mean) == 0


def test_a_decoder_that_drops_a_space_at_the_beginning_drops_none_after_the_prompt(opt, monkeypatch):
    """As those of SentencePiece do."""
    class Stripping:
        eos_token_id = None

        def __call__(self, texts, **_):
            return opt.tokenizer(texts, **_)

        def decode(self, tokens):
            return opt.tokenizer.decode(tokens, skip_special_tokens=True).removeprefix(" ")

    model = Checkpoint(opt.model, Stripping(), opt.card)
    prompt = "Once upon a time there was a"  # what comes next begins with a space
    found, expected = (nanoq.generate(one, prompt, 5, temperature=0) for one in (model, opt))
    assert found == expected and found.removeprefix(prompt)[0] == " "


def test_a_training_without_a_window_to_validate_on_ends_before_its_first_step(gpt):
    tokens, done = torch.randint(5, (400,), generator=torch.Generator().manual_seed(0)), []
    with pytest.raises(ValueError, match="16 tokens of the validation text are too few for one window of 16"):
        nanoq.lm.train(gpt.model, tokens, tokens[:16], nanoq.lm.TrainConfig(tokens=320, batch=2),
                       loss_fn=lambda *_: done.append(None))
    assert not done


def test_a_model_with_a_number_that_is_none_is_not_saved(gpt, tmp_path):
    with torch.no_grad():
        gpt.model.final_norm.weight[0] = torch.nan
    with pytest.raises(ValueError, match=r"final_norm\.weight holds NaN"):
        nanoq.save(tmp_path / "out", gpt)
    assert not (tmp_path / "out").exists()
