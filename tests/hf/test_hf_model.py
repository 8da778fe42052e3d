from copy import deepcopy

import pytest
import torch
import transformers
from tiny import FAMILIES, WHISPER, make
from torch import nn

import nanoq
from nanoq.hf import HFModel
from nanoq.hf.model import prove
from nanoq.lm import paired_difference, window_losses
from nanoq.quant import (
    QuantLinear,
    Recipe,
    Round,
    affine_grid,
    export_gptq,
    import_gptq,
    linear_layers,
    nearest,
    quantize_model,
)
from nanoq.quant.quantize import output_fisher
from nanoq.store import Checkpoint, load, save

pytestmark = pytest.mark.filterwarnings("ignore:.*calibration tokens are few")


@pytest.fixture
def tokens():
    return torch.randint(4, 97, (6, 12), generator=torch.Generator().manual_seed(0))


def through(model, tokens):
    """What `embed`, the blocks and `head` make of tokens."""
    hidden = model.embed(tokens)
    for block in model.blocks:
        hidden = block(hidden)
    return model.head(hidden)


def block_by_block(model, tokens):
    """What the model gives when its driver goes through it."""
    call = model.enter(tokens)
    for index, block in enumerate(model.blocks):
        output = call(block)
        call = model.follow(call, output) if index + 1 < len(model.blocks) else call
    return model.leave(call, output)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_block_by_block_a_model_gives_its_own_outputs_bit_for_bit(family, tokens):
    model = HFModel(make(family))
    prove(model)
    assert torch.equal(block_by_block(model, tokens), model(tokens))
    assert model.blocks_stand_alone == (family != "bloom")  # whose blocks are told of the batch


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_quantised_saved_and_loaded_bit_for_bit(family, tokens, tmp_path):
    model = HFModel(make(family))
    reports = quantize_model(model, Recipe("gptq", bits=4), tokens, batch=4)
    assert len(reports) == len(linear_layers(HFModel(make(family))))
    assert all(report.output_error < 0.2 for report in reports)
    loaded = load(save(tmp_path, Checkpoint(model, None, {}))).model
    assert torch.equal(loaded(tokens), model(tokens))


def test_blocks_that_do_not_stand_alone_say_so(tokens):
    model = HFModel(make("bloom"))
    prove(model)
    with pytest.raises(ValueError, match="the blocks of BloomForCausalLM want more than hidden states"):
        model.embed(tokens)


def test_matrices_that_stay_in_float16_are_said(tmp_path):
    config = transformers.WhisperConfig(**WHISPER)
    transformers.WhisperForAudioClassification(config).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"\d\d% of the matrices of WhisperForAudioClassification .*conv1"):
        nanoq.load(tmp_path)


def test_a_layer_that_no_text_reaches_is_rounded_to_nearest_with_a_warning(tokens):
    model = HFModel(make("opt"))
    model.blocks[1].idle = nn.Linear(8, 8)
    weight = model.blocks[1].idle.weight.detach().clone()
    with pytest.warns(UserWarning, match=r"blocks\.1\.idle: no text of the calibration reaches it"):
        quantize_model(model, Recipe("gptq", bits=4), tokens)
    grid = affine_grid(weight, 4)
    assert torch.equal(model.blocks[1].idle.weight, grid.decode(nearest(weight, grid)))


def test_a_layer_that_is_run_on_no_token_is_rounded_to_nearest_with_a_warning(tokens):
    model = HFModel(make("opt"))
    block = model.blocks[1]
    block.some = nn.Linear(32, 8)
    block.fc1.register_forward_pre_hook(lambda _, args: (block.some(args[0][:0]), None)[1])
    with pytest.warns(UserWarning, match=r"blocks\.1\.some: no text of the calibration reaches it"):
        quantize_model(model, Recipe("gptq", bits=4), tokens)


ALONE = [family for family in FAMILIES if family != "bloom"]
EAGER_ONLY = ("gptj", "gemma2")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ALONE)
@torch.no_grad()
def test_the_parts_give_the_logits_of_the_model_bit_for_bit(family, attention, tokens):
    if attention == "sdpa" and family in EAGER_ONLY:
        attention = "eager"
    original = make(family, attn_implementation=attention)
    expected = original(input_ids=tokens)[0]
    model = HFModel(original)
    given = through(model, tokens)
    assert torch.equal(given, model(tokens))
    if family == "gpt2":  # whose transposed products add up in another order
        torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)
    else:
        assert torch.equal(given, expected)
    assert torch.equal(through(model, tokens[:2, :5]), model(tokens[:2, :5]))


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_named_by_their_block_and_counted_once(family):
    original = make(family)
    kept = "bert encoder" not in family and "roberta encoder" not in family  # a classifier uses its pooler
    names = {id(parameter): name for name, parameter in original.named_parameters() if kept or "pooler" not in name}
    model = HFModel(original)
    assert model.parameter_count() == sum(p.numel() for p in original.parameters())
    assert len(dict(model.named_parameters())) == len(names)
    blocks = [name for name, _ in model.named_parameters() if name.startswith("blocks.")]
    assert len(blocks) == sum(p.numel() > 0 for p in model.blocks.parameters())
    assert all(model.get_submodule(name) is layer for name, layer in linear_layers(model).items())


@pytest.mark.parametrize(("family", "count"), [("opt", 12), ("gpt2", 8), ("llama", 14), ("bert", 12), ("roberta", 12)])
def test_the_driver_quantises_every_linear_layer_of_the_blocks_and_nothing_else(family, count, tokens):
    model = HFModel(make(family))
    original = deepcopy(model)
    reports = quantize_model(model, Recipe("gptq", bits=3), tokens, batch=4)
    assert len(reports) == count
    assert not any(isinstance(layer, nn.Linear) for layer in model.blocks.modules())
    quantised = [layer for layer in model.model.modules() if isinstance(layer, QuantLinear)]
    assert len(quantised) == count  # in the model of transformers, too
    with torch.no_grad():
        assert torch.equal(through(model, tokens), model(tokens))
        assert not torch.equal(model(tokens), original(tokens))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, parameter.half().float()), name


def test_gptq_adaround_and_brecq_have_less_error_than_nearest_in_the_mean(tokens):
    methods = {"nearest": {}, "gptq": {}, "adaround": {"steps": 60, "lr": 0.1},
               "brecq": {"steps": 30, "batch": 4, "fisher": True}}
    logs = {method: [] for method in methods}  # of the error of each model
    for seed, family in enumerate(3 * ["opt", "gpt2", "mistral", "bert"]):
        original = HFModel(make(family, seed, **{"n_layer" if family == "gpt2" else "num_hidden_layers": 1}))
        target = original(tokens).detach()
        for method, options in methods.items():
            model = deepcopy(original)
            quantize_model(model, Recipe(method, bits=2, method_options=options), tokens, batch=4)
            logs[method].append(float((model(tokens).detach() - target).square().mean().log()))
    near = torch.tensor(logs.pop("nearest"))
    assert all(paired_difference(torch.tensor(found), near).high < 0 for found in logs.values()), (logs, near)


@pytest.mark.parametrize("options", [{"match_original": True}, {"true_sequential": True}])
def test_the_options_of_the_driver_work(options, tokens):
    model = HFModel(make("llama"))
    reports = quantize_model(model, Recipe("gptq", bits=4, **options), tokens)
    assert len(reports) == 14 and all(report.output_error < 0.1 for report in reports)


def test_a_mixed_recipe_gives_each_layer_its_bits(tokens):
    model = HFModel(make("opt"))
    recipe = Recipe(Round("gptq", bits=4), rules={"*.fc2": Round(bits=16), "blocks.0.*": Round(bits=8)})
    quantize_model(model, recipe, tokens)
    bits = {name: layer.layout["bits"] for name, layer in model.named_modules() if isinstance(layer, QuantLinear)}
    assert len(bits) == 10 and isinstance(model.blocks[1].fc2, nn.Linear)
    assert all(width == (8 if name.startswith("blocks.0.") else 4) for name, width in bits.items())


def test_blocks_have_gradients_after_an_evaluation_without(tokens):
    model = HFModel(make("llama"))
    assert window_losses(model, tokens.flatten(), context=11).shape == (6,)  # in inference mode
    with torch.inference_mode():
        model.embed(tokens)  # what it keeps of the rotary angles has to serve the next line
    fisher = output_fisher(model, [tokens])
    assert [part.shape for own in fisher for part in own] == [(6, 12, 32)] * 2


def test_embedding_runs_no_block(tokens):
    model = HFModel(make("bert"))
    seen = []
    for module in model.blocks.modules():
        module.register_forward_hook(lambda *_: seen.append(1))
    model.embed(tokens)
    assert not seen


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_a_copy_works_without_its_original(family, tokens):
    model = HFModel(make(family))
    copy = deepcopy(model)
    expected = model(tokens)
    block = deepcopy(model.blocks[0])
    with pytest.raises(ValueError, match="no text of 12 tokens was embedded yet"):
        block(torch.zeros(1, 12, 32))
    del model
    assert torch.equal(through(copy, tokens), expected)


def test_an_interrupt_leaves_a_model_as_it_was():
    model = HFModel(make("llama")).eval()
    rows = model.sample()

    def stop(*_):
        raise KeyboardInterrupt
    hook = model.blocks[0].register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        model(rows)
    hook.remove()
    hidden = model.embed(rows)
    for block in model.blocks:
        hidden = block(hidden)
    torch.testing.assert_close(model.head(hidden), model(rows))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_type_computes_in_it(dtype, tokens):
    model = HFModel(make("llama"))
    through(model, tokens)  # which keeps rotary angles in float32
    assert torch.equal(through(model.to(dtype), tokens), model(tokens))
    assert model(tokens).dtype == dtype


@pytest.mark.parametrize("family", ["bert encoder", "roberta", "opt", "gpt2", "llama"])
@torch.no_grad()
def test_padding_behind_a_mask_changes_nothing(family, tokens):
    model = HFModel(make(family))
    padded = torch.cat((tokens, torch.ones(6, 4, dtype=torch.long)), dim=1)
    mask = (torch.arange(16) < 12).long().expand(6, -1)
    whole = model.hidden(tokens, torch.ones_like(tokens))
    torch.testing.assert_close(model.hidden(padded, mask)[:, :12], whole, atol=1e-5, rtol=1e-5)


def test_the_model_of_transformers_still_generates(tokens):
    model = HFModel(make("gpt2"))
    quantize_model(model, Recipe(bits=8))
    written = model.model.generate(input_ids=tokens[:1], max_new_tokens=3, do_sample=False, pad_token_id=1,
                                   eos_token_id=96)
    assert written[0, 12] == model(tokens[:1])[0, -1].argmax()


def test_the_gptq_format_takes_the_names_of_transformers(tokens, tmp_path):
    model = HFModel(make("opt"))
    quantize_model(model, Recipe(bits=4, group_size=16))
    export_gptq(tmp_path, model.model, model.model.config.to_dict())
    loaded = import_gptq(tmp_path, make("opt"))
    assert isinstance(loaded.model.decoder.layers[1].fc1, QuantLinear)
    assert torch.equal(loaded(input_ids=tokens).logits, model(tokens))


@pytest.mark.parametrize(("family", "context"), [
    ("opt", 64), ("gpt2", 64), ("llama", 64), ("bert", 66), ("roberta", 64),
])
def test_a_text_beyond_the_context_is_an_error(family, context):
    model = HFModel(make(family))
    assert model.config.context == context
    assert model(torch.full((1, context), 5)).shape == (1, context, 97)
    for call in (model, model.embed):
        with pytest.raises(ValueError, match=f"{context + 1} tokens do not fit the model's context of {context}"):
            call(torch.full((1, context + 1), 5))


def test_what_takes_no_text_is_an_error():
    with pytest.raises(ValueError, match="Linear is not supported: it is no language model, encoder or classifier"):
        HFModel(nn.Linear(2, 2))


@pytest.mark.parametrize("bad", [97, -1])
def test_a_token_beyond_the_vocabulary_is_named_with_the_likely_cause(bad):
    model = HFModel(make("opt"))
    tokens = torch.tensor([[1, 2, bad]])
    for call in (model, model.embed, lambda rows: model.hidden(rows, torch.ones_like(rows))):
        with pytest.raises(ValueError, match=f"the token id {bad} is not in the model's vocabulary of 97"):
            call(tokens)


def brecq_and_nearest(family, seed):
    """The mean squared error of the hidden states, or logits, after each of the two at 3 bits."""
    tokens = torch.randint(3, 97, (32, 12), generator=torch.Generator().manual_seed(seed))
    recipes = Recipe("brecq", bits=3, method_options={"steps": 30}), Recipe("nearest", bits=3)
    errors = []
    for recipe in recipes:
        model = HFModel(make(family, seed))
        with torch.no_grad():
            before = model.model(tokens)[0]
        quantize_model(model, recipe, tokens)
        with torch.no_grad():
            errors.append(float((model(tokens) - before).square().mean()))
    return errors


@pytest.mark.parametrize("family", ["opt", "llama", "gptj", "bert", "distilbert", "mixtral"])
def test_whole_blocks_of_a_model_that_never_ran_are_rounded_together(family):
    learned, nearest = zip(*(brecq_and_nearest(family, seed) for seed in range(3)), strict=True)
    assert sum(learned) < 0.9 * sum(nearest)


@pytest.mark.parametrize("family", ["bloom", "albert", "t5"])
def test_blocks_that_do_not_stand_alone_are_not_rounded_together(family):
    tokens = torch.randint(3, 97, (4, 12), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="want more than hidden states for each text: they can be quantised layer by"):
        quantize_model(HFModel(make(family)), Recipe("brecq", bits=4, method_options={"steps": 1}), tokens)
