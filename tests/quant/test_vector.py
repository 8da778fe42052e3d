from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from nanoq.lm import GPT, CharTokenizer, GPTConfig
from nanoq.quant import Grid, LayerStats, Recipe, Round, Vector, VectorLinear, gptq, quantize_model
from nanoq.quant.bound import weight_bits
from nanoq.quant.e8p import e8p_codes, e8p_points
from nanoq.quant.trellis import _viterbi, one_mad, trellis_codes, trellis_values
from nanoq.quant.vector import block_ldlq
from nanoq.store import Checkpoint, layer_from_layout, load, save


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def problem(out=96, inputs=64, seed=0):
    layer = nn.Linear(inputs, out)
    layer.weight.data = 0.05 * drawn(out, inputs, seed=seed)
    layer.bias.data = drawn(out, seed=seed + 100).half().float()
    mix = drawn(inputs, inputs, seed=seed + 200) * torch.logspace(0, -2, inputs)
    return layer, LayerStats.of(drawn(8 * inputs, inputs, seed=seed + 300) @ mix)


# ---- the trellis ----


@pytest.mark.parametrize("bits", [1, 2])
@pytest.mark.parametrize("begin", [-1, 1])
@pytest.mark.parametrize("seed", range(4))
def test_viterbi_finds_the_closest_of_all_sequences(bits, begin, seed):
    state_bits, length = 4, 6 // bits
    table, sequence = drawn(2**state_bits, seed=seed).numpy(), drawn(length, seed=seed + 10).numpy()
    overlap = 2 ** (state_bits - bits) - 1
    best = np.inf
    for start, *codes in product(range(overlap + 1), *[range(2**bits)] * length):
        states, state = [], start
        for code in codes:
            state = (state << bits | code) % 2**state_bits
            states.append(state)
        if begin < 0 or start == begin == state & overlap:
            best = min(best, float(((table[states] - sequence) ** 2).sum()))
    states = np.empty(length, np.int64)
    distance = _viterbi(sequence, table, bits, begin, np.empty((length, overlap + 1), np.uint8), states)
    assert distance == pytest.approx(best, rel=1e-5)
    assert float(((table[states] - sequence) ** 2).sum()) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("bits", [1, 2])
def test_rings_are_nearly_the_closest_of_all_rings(bits):
    table, sequences = drawn(16, seed=3), drawn(40, 10 // bits, seed=4)
    rings = torch.tensor(list(product(range(2**bits), repeat=sequences.shape[1])))
    best = torch.cdist(sequences, trellis_values(rings, table, bits)).square().amin(1)
    found = (trellis_values(trellis_codes(sequences, table, bits), table, bits) - sequences).square().sum(1)
    assert (found > best - 1e-5).all()
    assert found.mean() < 1.1 * best.mean()
    assert (found < best + 1e-5).float().mean() > 0.5


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_a_number_has_the_last_bits_of_the_ring_as_its_state(bits):
    codes = torch.randint(2**bits, (2, 13), generator=torch.Generator().manual_seed(0))
    table = torch.arange(2.0**12)
    values = trellis_values(codes, table, bits)
    for row, t in product(range(2), range(13)):
        stream = "".join(f"{int(codes[row, (t - back) % 13]):0{bits}b}" for back in range(12, -1, -1))
        assert values[row, t] == int(stream[-12:], 2)


def test_the_table_of_1mad_is_that_of_the_paper():
    table = one_mad(12)
    for state in (0, 1, 77, 4095):
        x = (state * 34038481 + 76625530) & 0xFFFFFFFF
        assert table[state].item() == pytest.approx((sum(x.to_bytes(4, "little")) - 510) / 147.8005, rel=1e-6)
    assert abs(table.mean()) < 0.05 and table.std().item() == pytest.approx(1, abs=0.05)


# ---- E8P ----


def test_e8p_finds_the_nearest_of_all_its_points():
    vectors = torch.cat([drawn(100, 8), 3 * drawn(30, 8, seed=1), torch.zeros(1, 8)])
    points = e8p_points(torch.arange(2**16))
    best = torch.cdist(vectors.double(), points.double()).amin(1)
    found = (e8p_points(e8p_codes(vectors)).double() - vectors).norm(dim=1)
    torch.testing.assert_close(found, best, rtol=0, atol=1e-5)


def test_its_points_are_65536_of_a_shifted_e8_lattice():
    points = e8p_points(torch.arange(2**16))
    assert len(points.unique(dim=0)) == 2**16
    halves = points - (torch.arange(2**16)[:, None] % 2 * 0.5 - 0.25)
    assert (halves % 1 == 0.5).all() and (halves.sum(1) % 2 == 0).all()
    assert torch.equal(e8p_points(e8p_codes(points)), points)


# ---- layers ----

STEPS = [Vector("trellis", 1), Vector("trellis", 2), Vector("trellis", 3), Vector("e8p")]


@pytest.mark.parametrize("size", [1, 8])
def test_block_ldlq_without_couplings_codes_every_block_by_itself_and_with_them_loses_less(size):
    layer, stats = problem()
    weight = layer.weight.detach() / 0.05
    factor = torch.linalg.cholesky(stats.damped(0.01).flip(0, 1)).flip(0, 1)
    feedback = factor / factor.diagonal()

    def code(aim):
        return aim.round(), aim.round()
    alone = torch.cat(block_ldlq(weight, torch.eye(64), size, code), 1)
    assert torch.equal(alone, weight.round())
    coupled = torch.cat(block_ldlq(weight, feedback, size, code), 1)
    assert stats.output_error(weight, coupled) < 0.8 * stats.output_error(weight, alone)


def test_block_ldlq_of_blocks_of_one_column_rounds_as_gptq_does():
    layer, stats = problem()
    grid = Grid(8, 255, torch.full((1, 1), 0.05), 64)
    codes = gptq(layer.weight, grid, stats) - 127
    factor = torch.linalg.cholesky(stats.damped(0.01).flip(0, 1)).flip(0, 1)
    found = block_ldlq(layer.weight.detach() / 0.05, factor / factor.diagonal(), 1, lambda aim: (aim.round(),) * 2)
    assert (torch.cat(found, 1) == codes).float().mean() > 0.99  # sums in another order may tip a tie


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_feedback_lowers_the_error_of_the_outputs_and_both_beat_an_even_grid(step):
    for seed in range(3):
        layer, stats = problem(seed=seed)
        weight = layer.weight.detach()
        errors = [stats.output_error(weight, made(layer, stats).dequantize())
                  for made in (step, step.uncalibrated(), Round("nearest", max(step.bits, 2)))]
        assert errors[0] < 0.8 * errors[1]
        assert step.bits == 1 or errors[1] < errors[2]


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_codes_take_exactly_the_bits(step):
    layer, stats = problem()
    made = step(layer, stats)
    assert 8 * made.codes.numel() == step.bits * layer.weight.numel()
    assert weight_bits(made) == step.bits + (96 + 64 + 16) / (96 * 64)


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_outputs_do_not_shrink(step):
    for seed in range(2):
        layer, stats = problem(seed=seed)
        weight, made = layer.weight.detach(), step(layer, stats)
        outputs = weight @ stats.gram
        assert ((outputs * made.dequantize()).sum() / (outputs * weight).sum()).item() == pytest.approx(1, abs=1e-3)
        nearest = step.uncalibrated()(layer)
        assert ((nearest.dequantize() * weight).sum() / weight.square().sum()).item() == pytest.approx(1, abs=1e-3)


def test_the_layer_gives_what_its_weight_gives_and_keeps_the_bias():
    layer, stats = problem()
    made, x = Vector("trellis", 4)(layer, stats), drawn(5, 64)
    torch.testing.assert_close(made(x), x @ made.dequantize().T + layer.bias)
    assert made.dequantize().shape == made.weight_shape == (96, 64)
    assert made.half().scale.dtype == torch.float16 and made(x.half()).dtype == torch.float16


def test_a_weight_of_zeros_stays_one_and_inputs_of_zeros_give_the_nearest_codes():
    layer, stats = problem()
    silent = LayerStats.of(torch.zeros(500, 64))
    step = Vector("trellis")
    assert torch.equal(step(layer, silent).codes, step.uncalibrated()(layer).codes)
    layer.weight.data.zero_()
    assert not step(layer, stats).dequantize().any()


# ---- recipes and files ----


@pytest.mark.parametrize("step", [Vector("trellis", 3, seed=5), Vector("e8p", damping=0.02)], ids=str)
def test_a_recipe_and_a_model_of_it_go_through_files_bit_for_bit(step, tmp_path):
    recipe = Recipe(step)
    assert Recipe.from_json(recipe.to_json()) == recipe
    model = GPT(GPTConfig(11, 16, layers=2, heads=2, width=32)).eval()
    tokens = torch.randint(1, 11, (64, 16), generator=torch.Generator().manual_seed(1))
    quantize_model(model, recipe, tokens)
    assert isinstance(model.blocks[0].mlp.up, VectorLinear)
    start = Checkpoint(model, CharTokenizer("abcdefghij"), {"corpus": "tales"})
    folder = save(tmp_path / "a", start)
    loaded = load(folder)
    assert torch.equal(loaded.model(tokens), model(tokens))
    again = save(tmp_path / "b", loaded)
    assert (folder / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("fields", "message"), [
    ({"code": "leech"}, "code must be one of trellis, e8p"), ({"bits": 5}, "trellis has 1 or 2 or 3 or 4 bits, not 5"),
    ({"code": "e8p", "bits": 3}, "e8p has 2 bits, not 3"), ({"bits": True}, "not True"),
    ({"code": ["e8p"]}, "code must"),
    ({"damping": -1}, "damping"), ({"damping": float("nan")}, "damping"), ({"seed": 1.5}, "seed"),
    ({"feedback": 1}, "feedback"), ({"width": 1}, "not a recipe")])
def test_steps_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_json({"default": {"step": "vector"} | fields})


@pytest.mark.parametrize(("out", "inputs", "step", "message"), [
    (96, 23, Vector(), "no Hadamard matrix of 23"), (23, 96, Vector(), "no Hadamard matrix of 23"),
    (4, 64, Vector("trellis", 2), "needs at least 6 outputs at 2 bits, not 4"),
    (64, 4, Vector("e8p"), "e8p takes the inputs in eights")])
def test_layers_of_other_sizes_are_refused(out, inputs, step, message):
    with pytest.raises(ValueError, match=message):
        step.uncalibrated()(nn.Linear(inputs, out))


def test_other_layers_and_missing_statistics_are_refused():
    with pytest.raises(ValueError, match="a Conv2d is not coded by vectors"):
        Vector()(nn.Conv2d(4, 4, 3))
    with pytest.raises(ValueError, match="saw no calibration input"):
        Vector()(nn.Linear(64, 64))
    layer, stats = problem()
    with pytest.raises(ValueError, match="a VectorLinear is not rounded"):
        Round(bits=4)(Vector()(layer, stats))


@pytest.mark.parametrize(("change", "message"), [
    ({"code": "leech"}, "there is no code 'leech' of 2 bits"), ({"code": None}, "there is no code None"),
    ({"bits": 5}, "of 5 bits"), ({"in_features": 32}, "should be of"), ({"out_features": 10**9}, "should be of"),
    ({"code": "e8p"}, "'codes' is"), ({"bits": "x"}, "'bits' must be a whole number")])
def test_layouts_that_do_not_fit_are_refused(change, message):
    layer, stats = problem()
    made = Vector()(layer, stats)
    with pytest.raises(ValueError, match=message):
        layer_from_layout(made.layout | change, dict(made.state_dict()))


def test_a_model_of_vector_codes_is_quantised_already():
    model = GPT(GPTConfig(11, 16, layers=1, heads=2, width=32)).eval()
    quantize_model(model, Recipe(Vector("e8p", feedback=False)))
    with pytest.raises(ValueError, match=r"is quantised already \(blocks.0.attention.qkv is a VectorLinear\)"):
        quantize_model(model, Recipe(bits=4))


@pytest.mark.parametrize("code", ["trellis", "e8p"])
def test_a_weight_that_is_not_finite_is_named_as_such(code):
    layer = nn.Linear(16, 16)
    layer.weight.data[3, 4] = torch.nan
    with pytest.raises(ValueError, match="the weight holds NaN or infinity"):
        Vector(code, feedback=False)(layer)
