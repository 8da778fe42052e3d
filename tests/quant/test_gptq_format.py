import itertools
import json
import os
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nanoq.lm.model import GPT, GPTConfig
from nanoq.numbers import BLOCKS
from nanoq.quant import (
    Grid,
    QuantLinear,
    Recipe,
    Round,
    affine_grid,
    block_grid,
    nearest,
    quantize_model,
    use_backend,
)
from nanoq.quant.foreign import INDEX
from nanoq.quant.gptq_format import export_gptq, import_gptq

SHAPES = {2: (48, 64), 3: (32, 96), 4: (40, 64), 8: (12, 40)}  # (out, in): whole words, and no more than needed
GRANULARITIES = {"tensor": None, "channel": None, "group": 8}


class Pair(nn.Module):
    """Two linear layers, of which the first is quantised."""

    def __init__(self, out, n, bias, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(n, out, bias=bias), nn.Linear(out, 3, bias=bias)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(parameter.half())


def quantised_pair(bits, symmetric, granularity="channel", group_size=None, bias=False, seed=0):
    model = Pair(*SHAPES.get(bits, (32, 32)), bias, seed)
    weight = model.first.weight.detach()
    weight[0].abs_().mul_(4)  # a row without negative weights has the zero point 0
    weight[1] = weight[1].abs().neg()  # and one without positive weights the highest
    grid = affine_grid(weight, bits, symmetric=symmetric, granularity=granularity, group_size=group_size)
    model.first = QuantLinear.from_codes(nearest(weight, grid), grid, model.first.bias)
    return model


def fresh_pair(bits, bias=False):
    return Pair(*SHAPES.get(bits, (32, 32)), bias, seed=9)


def unpack_by_hand(words, bits):
    """A list of 32-bit words -> codes: the words are the digits of one large number, the lowest first."""
    number = sum((word & 0xFFFFFFFF) << (32 * i) for i, word in enumerate(words))
    return [(number >> (bits * i)) & (2**bits - 1) for i in range(len(words) * 32 // bits)]


def decode_by_hand(tensors, name, bits, version):
    """The weight (out, in) of a layer, weight by weight, from the format's description."""
    part = {field: tensors[f"{name}.{field}"].tolist() for field in ("qweight", "qzeros", "scales", "g_idx")}
    columns = [unpack_by_hand(column, bits) for column in zip(*part["qweight"], strict=True)]
    zeros = [[z + (version == "gptq") for z in unpack_by_hand(row, bits)] for row in part["qzeros"]]
    return torch.tensor([
        [part["scales"][g][o] * (code - zeros[g][o]) for code, g in zip(column, part["g_idx"], strict=True)]
        for o, column in enumerate(columns)
    ])


def read_block(folder):
    return json.loads((folder / "quantize_config.json").read_text())


def rewrite(folder, **tensors):
    """Replace tensors of a written checkpoint; None takes one away."""
    content = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        content[f"first.{name}"] = tensor
    save_file({name: tensor for name, tensor in content.items() if tensor is not None}, folder / "model.safetensors")


def rewrite_block(folder, **entries):
    (folder / "quantize_config.json").write_text(json.dumps(read_block(folder) | entries))


ALL = list(itertools.product(SHAPES, (False, True), GRANULARITIES, (False, True)))


@pytest.mark.parametrize(("bits", "symmetric", "granularity", "bias"), ALL)
def test_an_independent_reader_finds_the_same_weights(bits, symmetric, granularity, bias, tmp_path):
    model = quantised_pair(bits, symmetric, granularity, GRANULARITIES[granularity], bias)
    export_gptq(tmp_path, model)
    tensors, block = load_file(tmp_path / "model.safetensors"), read_block(tmp_path)
    assert torch.equal(decode_by_hand(tensors, "first", bits, block["checkpoint_format"]), model.first.dequantize())
    assert block["bits"] == bits
    assert block["group_size"] == (GRANULARITIES[granularity] or -1)
    assert (block["sym"], block["checkpoint_format"]) == ((True, "gptq") if symmetric else (False, "gptq_v2"))
    assert ("first.bias" in tensors) == bias
    assert tensors["second.weight"].dtype == tensors["first.scales"].dtype == torch.float16


@pytest.mark.parametrize(("bits", "symmetric", "granularity", "bias"), ALL)
def test_what_is_exported_is_imported_bit_for_bit(bits, symmetric, granularity, bias, tmp_path):
    model = quantised_pair(bits, symmetric, granularity, GRANULARITIES[granularity], bias)
    loaded = import_gptq(export_gptq(tmp_path, model), fresh_pair(bits, bias))
    assert torch.equal(loaded.first.dequantize(), model.first.dequantize())
    assert torch.equal(loaded.first.codes, model.first.codes)
    assert (loaded.first.grid.zero_point is None) == symmetric
    x = torch.randn(4, SHAPES[bits][1], generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.second(loaded.first(x)), model.second(model.first(x)))


@pytest.mark.parametrize("seed", range(20))
def test_random_shapes_grids_and_codes_make_the_round_trip(seed, tmp_path):
    random = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (), generator=random))

    bits, symmetric = (2, 3, 4, 8)[draw(0, 4)], bool(draw(0, 2))
    unit = 32 // torch.gcd(torch.tensor(bits), torch.tensor(32)).item()
    out, groups, group_size = unit * draw(1, 4), unit * draw(1, 3), draw(1, 5)
    levels = draw(2, 2**bits + 1) if symmetric else 2**bits
    scale = (torch.rand(out, groups, generator=random) + 2**-10).half().float()
    zero = None if symmetric else torch.randint(2**bits, (out, groups), generator=random).float()
    codes = torch.randint(levels, (out, groups * group_size), generator=random)
    model, fresh = (nn.Sequential(nn.Linear(groups * group_size, out, bias=False)) for _ in range(2))
    model[0] = QuantLinear.from_codes(codes, Grid(bits, levels, scale, group_size, zero))
    loaded = import_gptq(export_gptq(tmp_path, model), fresh)
    tensors, block = load_file(tmp_path / "model.safetensors"), read_block(tmp_path)
    assert torch.equal(decode_by_hand(tensors, "0", bits, block["checkpoint_format"]), model[0].dequantize())
    assert torch.equal(loaded[0].dequantize(), model[0].dequantize())


def test_three_bits_lie_across_words_as_in_the_published_kernels(tmp_path):
    # codes 10 and 21 of 32 are split 2 + 1 and 1 + 2 bits; every other one lies inside a word
    model = quantised_pair(3, True)
    export_gptq(tmp_path, model)
    words = [word & 0xFFFFFFFF for word in load_file(tmp_path / "model.safetensors")["first.qweight"][:3, 0].tolist()]
    codes = (model.first.dequantize() / model.first.grid.scale).round().int()[0] + 4
    assert codes[10] == words[0] >> 30 | (words[1] & 1) << 2
    assert codes[21] == words[1] >> 31 | (words[2] & 3) << 1
    assert [codes[i] for i in (9, 11, 20, 22)] == [
        words[0] >> 27 & 7, words[1] >> 1 & 7, words[1] >> 28 & 7, words[2] >> 2 & 7
    ]


def test_symmetric_codes_are_written_around_the_zero_point_of_the_readers(tmp_path):
    export_gptq(tmp_path, quantised_pair(4, True))
    tensors = load_file(tmp_path / "model.safetensors")
    assert set(tensors["first.qzeros"].flatten().tolist()) == {0x77777777}  # 8 - 1 in each
    codes = unpack_by_hand(tensors["first.qweight"].flatten().tolist(), 4)
    assert min(codes) == 1
    assert max(codes) == 15


@pytest.mark.parametrize("codes_from", [0, 1])
def test_a_foreign_symmetric_file_may_use_every_code(tmp_path, codes_from):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(codes_from, 16, SHAPES[4], generator=generator)
    codes[0, 0] = codes_from
    grid = Grid(4, 16, torch.ones(len(codes), 1) / 8, codes.shape[1], torch.full((len(codes), 1), 8.0))
    model = fresh_pair(4)
    model.first = QuantLinear.from_codes(codes, grid)
    export_gptq(tmp_path, model)
    assert (read_block(tmp_path)["sym"], read_block(tmp_path)["checkpoint_format"]) == (True, "gptq")
    loaded = import_gptq(tmp_path, fresh_pair(4))
    assert torch.equal(loaded.first.dequantize(), model.first.dequantize())
    assert loaded.first.layout["levels"] == 16 - codes_from


@pytest.mark.parametrize("bits", SHAPES)
def test_an_asymmetric_file_of_the_first_version_is_read(bits, tmp_path):
    model = quantised_pair(bits, False)
    zero = model.first.grid.zero_point.clamp(min=1)
    grid = model.first.grid
    codes = torch.randint(2**bits, SHAPES[bits], generator=torch.Generator().manual_seed(0))
    model.first = QuantLinear.from_codes(codes, Grid(bits, 2**bits, grid.scale, grid.group_size, zero))
    export_gptq(tmp_path, model)
    words = load_file(tmp_path / "model.safetensors")["first.qzeros"]
    number = sum((word & 0xFFFFFFFF) << (32 * i) for i, word in enumerate(words[0].tolist()))
    number -= sum(1 << (bits * i) for i in range(SHAPES[bits][0]))  # 1 less in each field, which never borrows
    older = [(number >> (32 * i)) & 0xFFFFFFFF for i in range(words.shape[1])]
    rewrite(tmp_path, qzeros=torch.tensor([older]).to(torch.uint32).view(torch.int32))
    rewrite_block(tmp_path, checkpoint_format="gptq")
    assert torch.equal(import_gptq(tmp_path, fresh_pair(bits)).first.dequantize(), model.first.dequantize())


def test_a_wrapped_zero_point_of_the_first_version_is_refused(tmp_path):
    export_gptq(tmp_path, quantised_pair(4, False))
    rewrite(tmp_path, qzeros=torch.full((1, 5), -1, dtype=torch.int32))
    rewrite_block(tmp_path, checkpoint_format="gptq")
    with pytest.raises(ValueError, match="first in .*wrapped around.*convert the checkpoint to 'gptq_v2'"):
        import_gptq(tmp_path, fresh_pair(4))


@pytest.mark.parametrize("bias", [False, True])
def test_a_quantised_gpt_keeps_its_logits(tmp_path, bias):
    config = GPTConfig(9, context=16, layers=2, heads=2, width=32, bias=bias)
    model, tokens = GPT(config, seed=3), torch.arange(512).view(32, 16) % 9
    quantize_model(model, Recipe("gptq", bits=4, group_size=16, act_order=True), tokens)
    loaded = import_gptq(export_gptq(tmp_path, model), GPT(config, seed=4))
    assert torch.equal(loaded(tokens), model(tokens))
    assert "dynamic" not in read_block(tmp_path)


def test_layers_that_differ_are_listed_under_dynamic(tmp_path):
    config = GPTConfig(9, context=16, layers=2, heads=2, width=32)
    model, tokens = GPT(config, seed=3), torch.arange(512).view(32, 16) % 9
    group = Round(bits=2, group_size=16, symmetric=True)
    quantize_model(model, Recipe(Round(bits=4), rules={"blocks.0.mlp.up": group, "blocks.1.mlp.down": Round(bits=16)}))
    loaded = import_gptq(export_gptq(tmp_path, model), GPT(config, seed=4))
    assert torch.equal(loaded(tokens), model(tokens))
    assert isinstance(loaded.blocks[1].mlp.down, nn.Linear)
    block = read_block(tmp_path)
    assert (block["bits"], block["group_size"], block["checkpoint_format"]) == (4, -1, "gptq_v2")
    assert block["dynamic"] == {
        r"+:^blocks\.0\.mlp\.up$": {"bits": 2, "group_size": 16}, r"-:^blocks\.1\.mlp\.down$": {}
    }


def test_a_tied_parameter_is_written_once_and_loaded_twice(tmp_path):
    def tied(seed):
        model = fresh_pair(4)
        model.embed, model.lm_head = nn.Embedding(7, 3), nn.Linear(3, 7, bias=False)
        model.lm_head.weight = model.embed.weight
        with torch.no_grad():
            model.embed.weight.fill_(seed)
        return model

    model = tied(1.0)
    model.first = quantised_pair(4, True).first
    export_gptq(tmp_path, model)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert not any("lm_head" in pattern for pattern in read_block(tmp_path)["dynamic"])
    assert torch.equal(import_gptq(tmp_path, tied(2.0)).lm_head.weight, model.embed.weight)


def test_a_config_carries_the_same_block_and_is_enough_to_read(tmp_path):
    config = {"model_type": "pair", "dtype": "float32"}
    model = quantised_pair(4, True)
    export_gptq(tmp_path, model, config)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written == {"model_type": "pair", "torch_dtype": "float16", "quantization_config": read_block(tmp_path)}
    assert config == {"model_type": "pair", "dtype": "float32"}
    (tmp_path / "quantize_config.json").unlink()
    assert torch.equal(import_gptq(tmp_path, fresh_pair(4)).first.dequantize(), model.first.dequantize())


@pytest.fixture
def cut(tmp_path):
    """A checkpoint that is cut into several files, and its model."""
    model = quantised_pair(4, True)
    export_gptq(tmp_path, model)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    shards = {name: f"model-{i}.safetensors" for i, name in enumerate(tensors)}
    for name, file in shards.items():
        save_file({name: tensors[name]}, tmp_path / file)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": shards}))
    return tmp_path, model


def test_a_checkpoint_may_be_cut_into_several_files_of_which_the_index_says_which_count(cut):
    folder, model = cut
    save_file({"first.scales": torch.full((1, 40), 9, dtype=torch.float16)}, folder / "model-99.safetensors")
    assert torch.equal(import_gptq(folder, fresh_pair(4)).first.dequantize(), model.first.dequantize())


def test_a_file_that_the_index_names_and_that_is_missing_is_named(cut):
    folder, _ = cut
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"'model-2\.safetensors', which is not there"):
        import_gptq(folder, fresh_pair(4))


def test_several_files_without_an_index_are_refused(cut):
    folder, _ = cut
    (folder / INDEX).unlink()
    with pytest.raises(ValueError, match=f"no {INDEX} that says which belong"):
        import_gptq(folder, fresh_pair(4))


@pytest.mark.parametrize("index", [
    "", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": ["b"]}}',
    '{"weight_map": {"a": "../model-1.safetensors"}}', '{"weight_map": {"a": "model-1.safetensors"}}', "[" * 9999])
def test_an_index_that_is_none_is_one_sentence(cut, index):
    folder, _ = cut
    (folder / INDEX).write_text(index)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(str(folder))):
        import_gptq(folder, fresh_pair(4))


def test_a_pipe_in_the_place_of_the_weights_does_not_hang(tmp_path):
    export_gptq(tmp_path, quantised_pair(4, True))
    (tmp_path / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=r"no \*\.safetensors"):
        import_gptq(tmp_path, fresh_pair(4))


def test_a_file_of_the_second_version_that_is_labelled_as_the_first_is_refused(tmp_path):
    model = quantised_pair(4, True)
    export_gptq(tmp_path, model)
    rewrite_block(tmp_path, sym=False, checkpoint_format="gptq_v2")
    stored = load_file(tmp_path / "model.safetensors")["first.qzeros"]
    rewrite(tmp_path, qzeros=stored + 0x11111111)  # 8 in every nibble, as the second version stores it
    assert torch.equal(import_gptq(tmp_path, fresh_pair(4)).first.dequantize(), model.first.dequantize())
    rewrite_block(tmp_path, sym=False, checkpoint_format="gptq")
    with pytest.raises(ValueError, match="every zero point is stored as 8, .*correct 'checkpoint_format'"):
        import_gptq(tmp_path, fresh_pair(4))


def test_zeros_for_a_bias_that_the_model_does_not_have_are_dropped(tmp_path):
    export_gptq(tmp_path, quantised_pair(4, True))
    rewrite(tmp_path, bias=torch.zeros(40, dtype=torch.float16))
    assert import_gptq(tmp_path, fresh_pair(4)).first.bias is None
    rewrite(tmp_path, bias=torch.ones(40, dtype=torch.float16))
    with pytest.raises(ValueError, match=r"bias has the shape \(40,\), and None in the model"):
        import_gptq(tmp_path, fresh_pair(4))


def layer(codes_shape, grid):
    model = nn.Sequential(nn.Linear(*codes_shape[::-1]))
    model[0] = QuantLinear.from_codes(torch.zeros(codes_shape, dtype=torch.long), grid)
    return model


WEIGHT = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("model", "message"), [
    (nn.Sequential(nn.Linear(8, 8)), "no layer of the model is quantised"),
    (layer((32, 64), affine_grid(WEIGHT, 5)), "0 cannot be .* 5 bits, and the format only 2, 3, 4 or 8"),
    (layer((32, 64), block_grid(BLOCKS["nf4"], WEIGHT, 4)), "0 cannot be .* codebook.*grid 'affine'"),
    (layer((32, 48), affine_grid(WEIGHT[:, :48], 3)), "0 cannot be .* 32 x 48.*whole words"),
    (layer((12, 64), affine_grid(WEIGHT[:12], 2)), "0 cannot be .* 12 x 64.*whole words"),
    (layer((32, 64), affine_grid(WEIGHT, 4, granularity="group", group_size=24)), "0 cannot .* 64 inputs.*24 do not"),
    (layer((32, 64), affine_grid(WEIGHT * 1e-6, 4)), "0 cannot be .* scales that float16 cannot hold"),
], ids=["float", "bits", "codebook", "in", "out", "groups", "scales"])
def test_what_the_format_cannot_hold_is_refused_before_anything_is_written(model, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_gptq(tmp_path, model)
    assert not list(tmp_path.iterdir())


def test_a_parameter_beyond_float16_is_refused(tmp_path):
    model = quantised_pair(4, True)
    with torch.no_grad():
        model.second.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"second.weight holds NaN, infinity, or values that float16 cannot"):
        export_gptq(tmp_path, model)
    assert not list(tmp_path.iterdir())


def sorted_file(folder, bits, symmetric, seed=0):
    """A checkpoint as `desc_act` leaves it: the columns of a group lie all over the row."""
    export_gptq(folder, quantised_pair(bits, symmetric, "group", 8))
    g_idx = load_file(folder / "model.safetensors")["first.g_idx"]
    mixed = g_idx[torch.randperm(len(g_idx), generator=torch.Generator().manual_seed(seed))]
    rewrite(folder, g_idx=mixed.contiguous())
    rewrite_block(folder, desc_act=True)
    return mixed


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", SHAPES)
def test_groups_of_columns_that_were_sorted_are_read_as_an_independent_reader_does(bits, symmetric, tmp_path):
    mixed = sorted_file(tmp_path / "in", bits, symmetric)
    tensors, version = load_file(tmp_path / "in/model.safetensors"), read_block(tmp_path / "in")["checkpoint_format"]
    expected = decode_by_hand(tensors, "first", bits, version)
    layer = import_gptq(tmp_path / "in", fresh_pair(bits)).first
    assert torch.equal(layer.dequantize(), expected)
    x = torch.randn(3, expected.shape[1], generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(x), x @ expected.T)
    model = fresh_pair(bits)
    model.first = layer
    assert read_block(export_gptq(tmp_path / "out", model))["desc_act"]
    written = load_file(tmp_path / "out/model.safetensors")
    assert torch.equal(written["first.g_idx"], mixed)
    assert torch.equal(decode_by_hand(written, "first", bits, version), expected)


@pytest.mark.parametrize(("bits", "backend"), [(4, "int4"), (8, "int8")])
def test_kernels_give_each_column_its_own_input(bits, backend, tmp_path):
    sorted_file(tmp_path, bits, False)
    layer = import_gptq(tmp_path, fresh_pair(bits)).first
    x = torch.randn(2, SHAPES[bits][1], generator=torch.Generator().manual_seed(0))
    expected = layer(x)
    use_backend(layer, backend)
    torch.testing.assert_close(layer(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("g_idx", [[0, 0, 1] + [1] * 61, [0] * 63 + [-1], [0] * 32 + [2] * 32])
def test_groups_of_different_sizes_are_refused(g_idx, tmp_path):
    export_gptq(tmp_path, quantised_pair(4, True, "group", 32))
    rewrite(tmp_path, g_idx=torch.tensor(g_idx, dtype=torch.int32))
    with pytest.raises(ValueError, match="first in .*not of equal size"):
        import_gptq(tmp_path, fresh_pair(4))


DAMAGE = {
    "missing": ({"qzeros": None}, "'qzeros' is missing"),
    "type": ({"scales": torch.ones(1, 40)}, "'scales' is missing or not float16"),
    "scales": ({"scales": torch.full((1, 40), torch.nan, dtype=torch.float16)}, "NaN or infinity"),
    "groups": ({"scales": torch.ones(2, 40, dtype=torch.float16), "qzeros": torch.full((2, 5), 0x77777777).int()},
               "'scales' has 2 groups"),
    "zeros": ({"qzeros": torch.zeros(2, 5, dtype=torch.int32)}, "belongs to another model, or is damaged"),
    "codes": ({"qweight": torch.zeros(7, 40, dtype=torch.int32)}, "belongs to another model, or is damaged"),
    "scalar": ({"scales": torch.ones((), dtype=torch.float16)}, "belongs to another model, or is damaged"),
    "g_idx": ({"g_idx": torch.zeros(63, dtype=torch.int32)}, "belongs to another model, or is damaged"),
    "symmetry": ({"qzeros": torch.full((1, 5), 0x66666666).int()}, "said to be symmetric.*correct 'sym'"),
}


@pytest.mark.parametrize(("tensors", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_tensors_are_named(tensors, message, tmp_path):
    export_gptq(tmp_path, quantised_pair(4, True))
    rewrite(tmp_path, **tensors)
    model = fresh_pair(4)
    with pytest.raises(ValueError, match=f"first in .*{message}"):
        import_gptq(tmp_path, model)
    assert isinstance(model.first, nn.Linear)


def test_a_model_of_another_structure_is_refused(tmp_path):
    export_gptq(tmp_path, quantised_pair(4, True))
    for model, message in [
        (fresh_pair(8), "first in .*another model"),
        (fresh_pair(4, bias=True), r"bias has the shape None, and \(40,\)"),
        (nn.Sequential(nn.Linear(3, 3)), "first is a quantised .* is not there"),
        (quantised_pair(4, True), "first is a quantised .* is a QuantLinear"),
    ]:
        with pytest.raises(ValueError, match=message):
            import_gptq(tmp_path, model)
    wider, more = fresh_pair(4), fresh_pair(4)
    wider.second, more.third = nn.Linear(40, 4, bias=False), nn.Linear(2, 2, bias=False)
    with pytest.raises(ValueError, match="do not fit the model"):
        import_gptq(tmp_path, wider)
    with pytest.raises(ValueError, match=r"missing third.weight; unknown none"):
        import_gptq(tmp_path, more)
    rewrite(tmp_path, extra=torch.ones(1))
    with pytest.raises(ValueError, match=r"missing none; unknown first.extra"):
        import_gptq(tmp_path, fresh_pair(4))


def test_folders_that_are_no_gptq_checkpoint_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no quantize_config.json, and no config.json"):
        import_gptq(tmp_path, fresh_pair(4))
    export_gptq(tmp_path, quantised_pair(4, True))
    original = read_block(tmp_path)
    for entries, message in [
        ({"quant_method": "awq", "checkpoint_format": "gemm"}, "method 'awq' and format 'gemm'"),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "method 'gptq' and format 'marlin'"),
    ]:
        rewrite_block(tmp_path, **entries)
        with pytest.raises(ValueError, match=message):
            import_gptq(tmp_path, fresh_pair(4))
    for text, message in [("{", "is not JSON"), ("[]", "method 'list'")]:
        (tmp_path / "quantize_config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            import_gptq(tmp_path, fresh_pair(4))
    (tmp_path / "quantize_config.json").write_text(json.dumps(original))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model.safetensors is truncated or not a safetensors file"):
        import_gptq(tmp_path, fresh_pair(4))
    save_file({"second.weight": torch.ones(1)}, weights)
    with pytest.raises(ValueError, match="no layer in .* is quantised"):
        import_gptq(tmp_path, fresh_pair(4))
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"no \*.safetensors"):
        import_gptq(tmp_path, fresh_pair(4))
