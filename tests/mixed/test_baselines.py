import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from test_sensitivity import DATA, METHODS, descend, trained
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nanoq.lm import GPT, GPTConfig
from nanoq.lm.training import next_token_loss
from nanoq.mixed import (
    first_order,
    gptq_error,
    hawq,
    hessian_traces,
    integer_program,
    leave_one_in,
    output_mse,
    parts_of,
    pmpq,
    random_scores,
    tdmpq,
    total,
    weight_mse,
)
from nanoq.mixed.baselines import input_statistics, output_gradients
from nanoq.mixed.parts import UNITS, mean_loss
from nanoq.quant import LayerStats, Recipe, Round, affine_grid, gptq, nearest, quantize_model
from nanoq.quant.layers import linear_layers
from nanoq.vision import ResNet, ResNetConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*calibration tokens are few")
any_unit = pytest.mark.parametrize("unit", UNITS)


def rounding(layer, bits):
    """What rounding to nearest adds to a weight matrix."""
    weight = layer.weight.detach().flatten(1)
    grid = affine_grid(weight, bits)
    return grid.decode(nearest(weight, grid)) - weight


def seen_by(model, run):
    """What each linear layer reads while `run` runs: {name: (tokens, in)}."""
    seen = {}
    handles = [layer.register_forward_hook(lambda _, args, __, name=name: seen.setdefault(name, []).append(args[0]))
               for name, layer in linear_layers(model).items()]
    with torch.no_grad():
        run(model)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(inputs).flatten(0, -2) for name, inputs in seen.items()}


def assert_costs(found, model, unit, bits, cost, rel=1e-4):
    """Compare costs with the sums over each part's layers of cost(name, layer, width)."""
    parts = parts_of(model, unit)
    assert list(found) == list(parts)
    for part, layers in parts.items():
        wanted = {width: sum(float(cost(name, layer, width)) for name, layer in layers.items()) for width in bits}
        assert found[part] == pytest.approx(wanted, rel=rel)
        assert list(found[part]) == list(bits)


# ---- rounding errors ----


@any_unit
def test_weight_mse_is_the_squared_error_of_rounding(unit):
    model = trained()
    found = weight_mse(model, unit=unit, bits=(8, 2, 3))
    assert_costs(found, model, unit, (8, 2, 3), lambda _, layer, bits: rounding(layer, bits).square().sum())


@any_unit
def test_output_mse_is_the_squared_error_of_outputs_for_a_token(unit):
    model = trained()
    inputs = seen_by(model, lambda model: model(DATA[:, :-1]))
    found = output_mse(model, DATA, unit=unit, bits=(2, 4), batch=7)
    assert_costs(found, model, unit, (2, 4), lambda name, layer, bits: (
        F.linear(inputs[name], rounding(layer, bits)).square().sum(1).mean()))


def test_input_statistics_read_no_last_token_and_see_no_dropout():
    model = trained().train()
    changed = DATA.clone()
    changed[:, -1] = 0
    both = [input_statistics(model, data, batch=7) for data in (DATA, changed)]
    inputs = seen_by(model.eval(), lambda model: model(DATA[:, :-1]))
    assert list(both[0]) == list(inputs) == list(linear_layers(model))
    for name, x in inputs.items():
        assert both[0][name].tokens == len(x) == 320
        assert torch.equal(both[0][name].gram, both[1][name].gram)
        assert torch.allclose(both[0][name].gram, x.T @ x / len(x), rtol=1e-4, atol=1e-6)


# ---- gradients ----


@any_unit
def test_first_order_is_the_slope_along_the_rounding_error(unit):
    model = trained()
    found = first_order(model, DATA, unit=unit, bits=(2, 4), batch=7)
    next_token_loss(model, DATA).backward()
    assert_costs(found, model, unit, (2, 4), lambda _, layer, bits: (
        (layer.weight.grad * rounding(layer, bits)).sum().abs()), rel=1e-3)


def test_first_order_predicts_the_growth_of_the_loss_at_fine_grids():
    model = trained()
    found = first_order(model, DATA, bits=(8,), unit="linear")
    truth = leave_one_in(model.double(), DATA, bits=(8,), unit="linear")
    largest = sorted(found, key=lambda part: found[part][8])[-4:]
    assert [abs(truth[part][8]) for part in largest] == pytest.approx([found[part][8] for part in largest], rel=0.3)


def output_slopes(model, loss):
    """The gradient of a loss at every output of every layer: {name: (..., out)}."""
    outputs = {}
    handles = [layer.register_forward_hook(lambda _, __, y, name=name: outputs.update({name: y}))
               for name, layer in linear_layers(model).items()]
    value = loss(model)
    for handle in handles:
        handle.remove()
    return dict(zip(outputs, torch.autograd.grad(value, list(outputs.values())), strict=True))


def summed_loss(model):
    return F.cross_entropy(model(DATA[:, :-1]).flatten(0, 1), DATA[:, 1:].flatten(), reduction="sum")


@pytest.mark.parametrize("batch", [20, 7])
def test_output_gradients_are_those_of_the_sum_of_all_losses(batch):
    model = trained().double()
    found = output_gradients(model, DATA, next_token_loss, batch)
    assert list(found) == list(linear_layers(model))
    for name, slope in output_slopes(model, summed_loss).items():
        assert torch.allclose(found[name], slope.flatten(0, 1).square().mean(0), rtol=1e-9)


@any_unit
def test_gptq_error_is_half_the_squared_error_of_outputs_weighed_by_their_fisher_information(unit):
    model = trained()
    inputs = seen_by(model, lambda model: model(DATA[:, :-1]))
    fisher = {name: slope.flatten(0, 1).square().mean(0) for name, slope in output_slopes(model, summed_loss).items()}

    def cost(name, layer, bits):
        weight, stats = layer.weight.detach(), LayerStats.of(inputs[name])
        grid = affine_grid(weight, bits)
        change = F.linear(inputs[name], grid.decode(gptq(weight, grid, stats)) - weight)
        return (fisher[name] * change.square().mean(0)).sum() / 2
    found = gptq_error(model, DATA, unit=unit, bits=(2, 4), batch=20)
    assert_costs(found, model, unit, (2, 4), cost, rel=1e-3)


class Linear(nn.Module):
    """A model that is one linear layer: token -> a row of a table -> logits of the next token."""

    def __init__(self, classes=24, width=16, spread=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(6)
        self.table = torch.randn(3000, width, generator=generator)
        self.blocks = nn.ModuleList([nn.Linear(width, classes, bias=False)])
        nn.init.normal_(self.blocks[0].weight, std=spread / 4, generator=generator)

    def forward(self, tokens):
        return self.blocks[0](self.table[tokens])


def test_gptq_error_is_what_the_loss_of_a_linear_model_grows_by():
    # Labels by the model's own predictions: then squared gradients are the Fisher information, which is the curvature.
    model = Linear()
    tokens = torch.arange(3000)[:, None].repeat(4, 1)
    with torch.no_grad():
        labels = torch.multinomial(model(tokens)[:, 0].softmax(-1), 1, generator=torch.Generator().manual_seed(7))
    data = torch.cat([tokens, labels], dim=1)
    found = gptq_error(model, data, bits=(3, 4, 6), batch=5000)["blocks.0"]
    truth = leave_one_in(model, data, bits=(3, 4, 6), batch=5000, method="gptq", metric="kl")["blocks.0"]
    assert found == pytest.approx(truth, rel=0.2)


# ---- curvature ----


def quadratic(factors):
    """A loss that is the sum over layers of factor * sum w^2."""
    def loss_fn(model, rows):
        pairs = zip(factors, linear_layers(model).values(), strict=True)
        return sum(factor * layer.weight.square().sum() for factor, layer in pairs)
    return loss_fn


FACTORS = (0.5, 2.0, 0.0, 3.0, -1.0, 0.1, 7.0, 1.0, 4.0, 0.25, 0.75, 11.0)


@pytest.mark.parametrize("draws", [1, 3])
def test_the_trace_of_a_diagonal_hessian_is_exact(draws):
    model = trained()
    found = hessian_traces(model, DATA, quadratic(FACTORS), draws)
    sizes = [layer.weight.numel() for layer in linear_layers(model).values()]
    wanted = [2 * factor * size for factor, size in zip(FACTORS, sizes, strict=True)]
    assert list(found.values()) == pytest.approx(wanted, rel=1e-5)


@any_unit
def test_hawq_is_what_a_quadratic_loss_grows_by(unit):
    model = trained()
    factor = dict(zip(linear_layers(model), FACTORS, strict=True))
    found = hawq(model, DATA, loss_fn=quadratic(FACTORS), draws=1, unit=unit, bits=(2, 4))
    assert_costs(found, model, unit, (2, 4), lambda name, layer, bits: (
        factor[name] * rounding(layer, bits).square().sum()))


def test_hessian_traces_are_within_their_error_of_the_exact_ones():
    model = GPT(GPTConfig(5, 8, layers=1, heads=1, width=4), seed=2).double()
    data, layers = DATA[:6, :7] % 5, linear_layers(model)
    with torch.no_grad():  # as the model begins, most of its curvature is between layers
        for module in (model.token_embedding, *layers.values()):
            module.weight *= 20
    descend(model, [partial(next_token_loss, rows=data)] * 60, 0.3)
    shapes = [layer.weight.shape for layer in layers.values()]
    ends = torch.tensor([shape.numel() for shape in shapes]).cumsum(0).tolist()
    starts = [0, *ends[:-1]]

    def loss(flat):
        weights = {f"{name}.weight": flat[start:end].view(shape)
                   for name, start, end, shape in zip(layers, starts, ends, shapes, strict=True)}
        logits = torch.func.functional_call(model, weights, (data[:, :-1],))
        return F.cross_entropy(logits.flatten(0, 1), data[:, 1:].flatten())
    with sdpa_kernel(SDPBackend.MATH):
        hessian = torch.autograd.functional.hessian(
            loss, torch.cat([layer.weight.detach().flatten() for layer in layers.values()]))
    draws = 80
    found = hessian_traces(model, data, draws=draws, batch=4)
    errors, certain = [], []
    for start, end, trace in zip(starts, ends, found.values(), strict=True):
        own, rows = hessian[start:end, start:end], hessian[start:end]
        exact = float(own.trace())
        # Var v^T H v = 2 (|H|^2 - |diag|^2) of the layer itself, and |H_lm|^2 of the products with another layer m.
        variance = float(2 * (own.square().sum() - own.diagonal().square().sum())
                         + rows.square().sum() - own.square().sum())
        errors.append((trace - exact) / (variance / draws) ** 0.5)
        certain.append(abs(exact) / (variance / draws) ** 0.5)
    assert max(map(abs, errors)) < 3.5
    assert min(certain) > 5


def test_draws_of_the_hessian_depend_on_the_seed_alone():
    model = trained()
    found = [hessian_traces(model, DATA, draws=1, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("method", [hawq, lambda *args, draws: hessian_traces(*args, draws=draws)])
def test_no_draws_are_an_error(method):
    with pytest.raises(ValueError, match="at least one draw is needed, not 0"):
        method(trained(), DATA, draws=0)


# ---- trying it out ----


def quantized(model, part, bits, method="nearest", calibration=None):
    """A copy of the model in which one part is really packed."""
    other, spec = copy.deepcopy(model), Round(method, bits=bits)
    rules = {name: spec for name in linear_layers(model) if f"{name}.".startswith(f"{part}.")}
    quantize_model(other, Recipe(Round(bits=16), rules=rules), calibration)
    return other


def halved(model):
    """The model with float16 values, so that what is not quantised does not change."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.half())
    return model


@any_unit
@pytest.mark.parametrize("method", ["nearest", "gptq"])
def test_leave_one_in_is_the_loss_of_a_model_with_one_part_really_quantised(unit, method):
    model = halved(trained())
    widths = (2, 4) if unit == "block" else (3,)
    options = {"bits": widths, "method": method, "unit": unit}
    found, kl = (leave_one_in(model, DATA, metric=metric, **options) for metric in ("loss", "kl"))
    base = mean_loss(model, DATA)
    for part in parts_of(model, unit):
        for bits in widths:
            other = quantized(model, part, bits, method, DATA[:, :-1])
            assert found[part][bits] == mean_loss(other, DATA) - base
            with torch.no_grad():
                p, q = (m(DATA[:, :-1]).double().softmax(-1) for m in (model, other))
            assert kl[part][bits] == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-4)


def test_gptq_may_be_fitted_to_other_text_than_the_damage_is_measured_on():
    model, other = halved(trained()), DATA.flip(0)[: len(DATA) // 2].flip(1)
    found = leave_one_in(model, DATA, bits=(3,), method="gptq", calibration=other)
    for part, costs in found.items():
        assert costs[3] == mean_loss(quantized(model, part, 3, "gptq", other[:, :-1]), DATA) - mean_loss(model, DATA)


def test_divergences_are_never_negative_and_fall_with_every_bit():
    costs = leave_one_in(trained(), DATA, bits=(2, 3, 4, 6, 8), unit="linear", metric="kl")
    for cost in costs.values():
        assert 0 < cost[8] < cost[6] < cost[4] < cost[2]


@pytest.mark.parametrize("metric", ["loss", "kl"])
def test_what_rounding_does_not_change_costs_nothing(metric):
    model = trained()
    for layer in parts_of(model)["blocks.1"].values():
        nn.init.zeros_(layer.weight)
    costs = leave_one_in(model, DATA, metric=metric, bits=(2, 8))
    assert set(costs["blocks.1"].values()) == {0.0} != set(costs["blocks.0"].values())


def test_a_metric_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match="metric must be 'loss' or 'kl', not 'accuracy'"):
        leave_one_in(trained(), DATA, metric="accuracy")


@pytest.mark.parametrize("method", [weight_mse, output_mse, gptq_error, first_order, hawq, leave_one_in])
def test_widths_that_no_grid_has_are_an_error(method):
    with pytest.raises(ValueError, match="bits must be"):
        method(trained(), DATA, bits=(4, 16))


# ---- pictures ----

LABELS = torch.arange(24) % 4
PICTURES = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(5)) + LABELS[:, None, None, None] / 2
PACKED = torch.cat([PICTURES.flatten(1), LABELS[:, None]], dim=1)  # (N, 65)
STACKED = torch.cat([PICTURES, LABELS[:, None, None, None].expand(-1, 1, 8, 8)], dim=1)  # labels as one more channel


def classifier():
    model = ResNet(ResNetConfig(classes=4, widths=(8, 8), stem_stride=1), seed=1)
    descend(model, [lambda model: F.cross_entropy(model(PICTURES), LABELS)] * 10, 0.1)
    return model.eval()


def packed_loss(model, rows):
    return F.cross_entropy(model(rows[:, :-1].view(-1, 1, 8, 8)), rows[:, -1].long())


def stacked_loss(model, rows):
    return F.cross_entropy(model(rows[:, :-1]), rows[:, -1, 0, 0].long())


@any_unit
def test_leave_one_in_of_a_classifier_is_the_loss_of_a_quantised_one(unit):
    model = halved(classifier())
    before = copy.deepcopy(model.train().state_dict())
    found = leave_one_in(model, PACKED, loss_fn=packed_loss, bits=(2, 4), unit=unit)
    assert model.training and all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    base = mean_loss(model, PACKED, packed_loss)
    for part in parts_of(model, unit):
        for bits in (2, 4):
            assert found[part][bits] == mean_loss(quantized(model, part, bits), PACKED, packed_loss) - base


@any_unit
@pytest.mark.parametrize("method", [
    partial(pmpq, levels=(0.5,)), partial(tdmpq, size=0.1, draws=1), first_order, partial(hawq, draws=1)])
def test_methods_that_ask_for_the_loss_alone_take_any_model(method, unit):
    model = classifier()
    scores = [method(model, data, loss_fn=loss_fn, unit=unit)
              for data, loss_fn in ((PACKED, packed_loss), (STACKED, stacked_loss))]
    assert list(scores[0]) == list(parts_of(model, unit))
    assert scores[0] == scores[1]


def test_costs_of_convolutions_are_those_of_their_patches():
    model = classifier()
    found = output_mse(model, STACKED, bits=(3,), unit="linear")
    for name, layer in linear_layers(model).items():
        other = copy.deepcopy(layer)
        other.weight.data += rounding(layer, 3).view_as(layer.weight)
        seen = []
        handle = layer.register_forward_hook(lambda _, args, y, seen=seen, other=other: seen.append(other(args[0]) - y))
        with torch.no_grad():
            model(PICTURES)
        handle.remove()
        assert found[name][3] == pytest.approx(seen[0].square().sum(1).mean().item(), rel=1e-4)


@pytest.mark.parametrize("batch", [24, 7])
def test_gradients_at_the_outputs_of_convolutions_are_summed_over_each_picture(batch):
    model = classifier().double()
    found = output_gradients(model, STACKED.double(), stacked_loss, batch)
    slopes = output_slopes(model, lambda model: F.cross_entropy(model(PICTURES.double()), LABELS, reduction="sum"))
    for name, slope in slopes.items():
        assert torch.allclose(found[name], slope.square().sum((2, 3)).mean(0), rtol=1e-9)


@any_unit
def test_methods_that_look_at_inputs_take_labels_in_a_last_channel(unit):
    model = classifier()
    options = {"bits": (2, 4), "unit": unit}
    for costs in (gptq_error(model, STACKED, loss_fn=stacked_loss, **options),
                  leave_one_in(model, STACKED, method="gptq", metric="kl", **options)):
        assert list(costs) == list(parts_of(model, unit))
        assert all(math.isfinite(cost[4]) and 0 < cost[4] < cost[2] for cost in costs.values())


# ---- what becomes of them ----


@pytest.mark.parametrize("name", [
    "weight mse", "output mse", "gptq error", "first order", "hawq", "leave one in", "leave one in by kl"])
@any_unit
def test_the_integer_program_takes_the_costs(name, unit):
    model = trained()
    costs = METHODS[name](model, DATA, unit=unit)
    sizes = {part: {bits: sum(layer.weight.numel() for layer in layers.values()) * bits // 8 for bits in (2, 4)}
             for part, layers in parts_of(model, unit).items()}
    budget = sum(size[2] + size[4] for size in sizes.values()) // 2
    chosen = integer_program(costs, sizes, budget)
    assert list(chosen) == list(costs) and {2, 4} == set(chosen.values())
    assert total(sizes, chosen) <= budget


def test_random_scores_depend_on_the_seed_alone():
    model = trained()
    scores = [random_scores(model), random_scores(model, DATA, seed=0), random_scores(model, seed=1)]
    assert scores[0] == scores[1] != scores[2]
    many = [score for seed in range(200) for score in random_scores(model, unit="linear", seed=seed).values()]
    assert all(0 <= score < 1 for score in many)
    assert sum(many) / len(many) == pytest.approx(0.5, abs=0.03)
