"""Blocks in several lists, blocks that run more than once, and what is no text."""

import pytest
import torch
import transformers
from tiny import OTHERS, make
from torch import nn

import nanoq
from nanoq.hf import HFModel
from nanoq.hf.blocks import MODES
from nanoq.hf.model import left_out, prove
from nanoq.quant import Recipe, linear_layers, quantize_model
from nanoq.quant.visit import stages
from nanoq.store import Checkpoint, load, save

pytestmark = pytest.mark.filterwarnings("ignore:.*calibration tokens are few")


def rows_for(model, count=6):
    """A batch of what a model takes."""
    like, generator = model.sample(), torch.Generator().manual_seed(0)
    if like.is_floating_point():
        return torch.randn(count, *like.shape[1:], generator=generator)
    return torch.randint(4, 97, (count, 12), generator=generator)


@pytest.mark.parametrize("family", OTHERS)
@torch.no_grad()
def test_block_by_block_a_model_gives_its_own_outputs_bit_for_bit(family):
    model = HFModel(make(family))
    rows, blocks = rows_for(model), list(model.blocks)
    call = model.enter(rows)
    for block in blocks[:-1]:
        call = model.follow(call, call(block))
    assert torch.equal(model.leave(call, call(blocks[-1])), model(rows))


@pytest.mark.parametrize("family", OTHERS)
def test_every_family_is_quantised_saved_and_loaded_bit_for_bit(family, tmp_path):
    model = HFModel(make(family))
    rows, names = rows_for(model), list(linear_layers(model))
    reports = quantize_model(model, Recipe("gptq", bits=4), rows, batch=4)
    assert [report.layer for report in reports] != [] and {report.layer for report in reports} == set(names)
    loaded = load(save(tmp_path, Checkpoint(model, None, {}))).model
    assert torch.equal(loaded(rows), model(rows))


@torch.no_grad()
def test_a_block_that_runs_three_times_is_seen_on_all_its_inputs_and_comes_once():
    model = HFModel(make("albert"))
    rows = rows_for(model)
    seen, (stage,) = [], stages(model, [rows])
    layers = {name.removeprefix("blocks.0."): layer for name, layer in linear_layers(model).items()}
    query = next(name for name in layers if "query" in name)
    hook = layers[query].register_forward_pre_hook(lambda _, args: seen.append(args[0].reshape(-1, 32)))
    stats = stage.statistics(layers)[query]
    hook.remove()
    inputs = torch.cat(seen)
    assert len(seen) == 3 and stats.tokens == 3 * rows.numel()
    torch.testing.assert_close(stats.gram, inputs.T @ inputs / len(inputs), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_decoder_is_calibrated_on_the_states_of_the_quantised_encoder():
    model = HFModel(make("bart"))
    rows = rows_for(model)
    for number, stage in enumerate(stages(model, [rows])):
        if number < 2:  # the encoder's blocks
            stage.block.fc2.weight.mul_(2)
        else:
            states = stage.calls[0].args + tuple(stage.calls[0].kwargs.values())
            expected = model.model.get_encoder()(input_ids=rows)[0]
            assert any(isinstance(state, torch.Tensor) and state.shape == expected.shape
                       and torch.equal(state, expected) for state in states)
    assert number == 3


@torch.no_grad()
def test_an_encoder_with_a_decoder_still_generates():
    model = HFModel(make("t5"))
    rows = rows_for(model)
    quantize_model(model, Recipe(bits=8))
    written = model.model.generate(input_ids=rows[:1], max_new_tokens=2, do_sample=False, eos_token_id=96)
    first = model.model(input_ids=rows[:1], decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits
    assert written[0, 1] == first[0, -1].argmax()


@pytest.mark.parametrize(("family", "keeps"), [("t5", "last"), ("albert", "last"), ("xlm", "all")])
def test_no_more_of_what_blocks_give_is_kept_than_the_model_needs(family, keeps):
    model = HFModel(make(family))
    prove(model)
    assert model.track.keeps == keeps and keeps in {mode["keeps"] for mode in MODES}


def test_a_model_that_changes_what_its_blocks_share_is_still_followed():
    class Adder(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(32, 32)

        def forward(self, hidden, notes):
            notes.append(hidden.mean())
            return self.linear(hidden) + sum(notes)

    original = make("bert encoder")
    encoder = original.encoder
    encoder.layer = nn.ModuleList([Adder(), Adder(), Adder()])

    def forward(hidden, *args, **kwargs):
        notes = []
        for layer in encoder.layer:
            hidden = layer(hidden, notes)
        return transformers.modeling_outputs.BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden)

    encoder.forward = forward
    model = HFModel(original)
    prove(model)
    assert (model.track.keeps, model.track.direct) == ("none", False)


def test_convolutions_in_groups_stay_as_they_are_and_count_as_left_out():
    model = HFModel(make("convnext"))
    quantize_model(model, Recipe("gptq", bits=4), rows_for(model))
    grouped = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1]
    assert grouped and {id(layer.weight) for layer in grouped} <= {
        id(model.model.get_parameter(name)) for name in left_out(model)}


def test_what_does_not_run_on_one_input_alone_is_one_clear_sentence(tmp_path):
    text = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
            "intermediate_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    picture = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64,
               "image_size": 32, "patch_size": 8}
    transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=picture)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"CLIPModel is not supported: it does not run on .* alone"):
        nanoq.load(tmp_path)


PARAKEET = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
            "num_mel_bins": 16, "subsampling_conv_channels": 8}
WAVLM = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
         "conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2,
         "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}


@pytest.mark.parametrize(("name", "config", "shape"), [
    ("ParakeetEncoder", PARAKEET, (2, 64, 16)),  # frames before bins
    ("WavLMModel", WAVLM, (2, 4000)),  # blocks with an argument called `index`
])
def test_encoders_of_sound_are_tried_on_the_shapes_that_there_are(name, config, shape):
    cls = getattr(transformers, name)
    torch.manual_seed(0)
    model = HFModel(cls(cls.config_class(**config)).eval())
    assert model.sample().shape == shape
    prove(model)
    reports = quantize_model(model, Recipe(bits=4), model.sample())
    errors = [report.output_error for report in reports if report.output_error is not None]
    assert errors and max(errors) < 0.1  # WavLM calls a function of torch with the weights of some layers
