"""The website's pages on methods: their ten lines do what the package does, and their rows are those of the file."""

import re
import statistics
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import nanoq
from nanoq.lm import GPT, CharTokenizer, GPTConfig
from nanoq.mixed import cmpq as package_cmpq
from nanoq.mixed import pmpq as package_pmpq
from nanoq.mixed import tdmpq as package_tdmpq
from nanoq.mixed.parts import mean_loss
from nanoq.quant import (
    LayerStats,
    QuantLayer,
    affine_grid,
    entropy_coded_grid,
    kmeans_grid,
    linear_layers,
    nearest,
    ternary_grid,
)
from nanoq.quant import gptq as package_gptq
from nanoq.quant import smoothquant as package_smoothquant
from nanoq.quant.hadamard import hadamard_matrix
from nanoq.quant.learned_rounding import SoftRounding
from nanoq.store import Checkpoint

PAGES = sorted((Path(__file__).parents[1] / "docs/methods").glob("*.md"))
LINES = re.compile(r"```python\n(.*?)```", re.S)


def names_of(page):
    """What the lines of a page define."""
    found = {"torch": torch}
    exec(LINES.search(next(path for path in PAGES if path.stem.endswith(page)).read_text())[1], found)
    return found


@pytest.fixture(scope="module")
def layer():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(24, 24, generator=generator)
    inputs = torch.randn(400, 24, generator=generator) @ mixing * torch.linspace(0.2, 3, 24)
    return torch.randn(16, 24, generator=generator), inputs, LayerStats.of(inputs)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rtn(layer, bits):
    grid = affine_grid(layer[0], bits)
    assert torch.allclose(names_of("rtn")["rtn"](layer[0], bits), grid.decode(nearest(layer[0], grid)))


def test_gptq(layer):
    weight, _, stats = layer
    grid = affine_grid(weight, 3)

    def round_column(column, _):
        rounded = (column[:, None] / grid.scale).round() + grid.zero_point
        return (grid.scale * (rounded.clamp(0, 7) - grid.zero_point))[:, 0]

    mine = names_of("gptq")["gptq"](weight, stats.gram, round_column)
    theirs = grid.decode(package_gptq(weight, grid, stats))
    assert torch.isclose(mine, theirs, atol=1e-4).float().mean() > 0.98  # a tie may go to the other side
    assert stats.output_error(weight, mine) < 0.8 * stats.output_error(weight, grid.decode(nearest(weight, grid)))


def test_entropy_coding(layer):
    weight, _, stats = layer
    found = names_of("entropy_coded_gptq")
    assert found["entropy"](torch.tensor([0] * 4 + [1] * 2 + [2, 3])) == pytest.approx(1.75)
    wide = weight.repeat(20, 1) + 0.1
    ratio = entropy_coded_grid(wide, 8, stats, rate=3.0).scale[0] / found["watersic_steps"](stats.gram, 1.0)
    assert ratio.max() / ratio.min() < 1.14  # the file keeps the steps in 8 bits


@pytest.mark.parametrize("operator", ["tquant", "mquant", "twn"])
def test_ternary(layer, operator):
    grid = ternary_grid(layer[0], operator=operator)
    mine = names_of("ternary")["ternary"](layer[0], operator)
    assert torch.allclose(mine, grid.decode(nearest(layer[0], grid)), rtol=2e-3)


def test_adaround(layer):
    weight, _, stats = layer
    found, rounding = names_of("adaround"), SoftRounding(weight, affine_grid(weight, 3))
    assert torch.allclose(found["soft"](rounding.v), rounding.share())
    lower, v = rounding.lower, rounding.v.detach().requires_grad_()
    losses = []
    for _ in range(150):
        losses.append(found["loss"](weight, lower, rounding.step, v, stats.gram, 2.0, 0.1))
        (slope,) = torch.autograd.grad(losses[-1], v)
        v = (v - 0.05 * slope.sign()).detach().requires_grad_()
    hard = lower + (v > 0) * rounding.step
    grid = affine_grid(weight, 3)
    assert stats.output_error(weight, hard) < stats.output_error(weight, grid.decode(nearest(weight, grid)))


def test_awq(layer):
    weight, inputs, _ = layer

    def rounded(values):
        grid = affine_grid(values, 3)
        return grid.decode(nearest(values, grid))

    s = names_of("awq")["awq"](weight, inputs, rounded)

    def error(scale):
        return ((rounded(weight * scale) / scale - weight) @ inputs.T).square().mean()

    assert error(s) < 0.9 * error(torch.ones(24))


def test_hqq(layer):
    weight = layer[0] + (torch.rand(16, 24, generator=torch.Generator().manual_seed(1)) > 0.97) * 4  # outliers
    found, grid = names_of("hqq"), affine_grid(weight, 3)
    assert found["shrink"](torch.tensor([0.2, -0.2, 3.0]), 1.0).tolist()[:2] == [0, 0]
    zero_point = found["hqq_zero_point"](weight, grid.scale, grid.zero_point.float(), 3)

    def error(zero):
        codes = (weight / grid.scale + zero).round().clamp(0, 7)
        return (weight - grid.scale * (codes - zero)).abs().pow(0.7).sum()

    assert error(zero_point) < error(grid.zero_point.float())


def test_kmeans(layer):
    values = layer[0].flatten()
    start = torch.linspace(float(values.min()), float(values.max()), 8)
    means = names_of("kmeans")["lloyd"](values, start)

    def error(points):
        return (values[:, None] - points).abs().amin(1).square().mean()

    assert torch.allclose(names_of("kmeans")["lloyd"](values, means, 1), means, atol=1e-3)
    assert error(means) < 0.7 * error(start)
    assert kmeans_grid(layer[0], 3, granularity="tensor").codebook is not None


def test_smoothquant():
    checkpoint = nanoq.load("tales-2.7m")
    model, tokens = checkpoint.model, torch.randint(66, (2, 32), generator=torch.Generator().manual_seed(0))
    up, caught = linear_layers(model)["blocks.0.mlp.up"], []
    up.register_forward_pre_hook(lambda _, arguments: caught.append(arguments[0].detach().flatten(0, 1)))
    model(tokens)
    weight = up.weight.detach().clone()
    inputs, smooth = names_of("smoothquant")["smoothquant"](caught[0], weight)
    assert torch.allclose(inputs @ smooth.T, caught[0] @ weight.T, atol=1e-4)
    package_smoothquant(model, tokens)
    assert F.cosine_similarity(up.weight.detach().flatten(), smooth.flatten(), dim=0) > 0.9999


def test_rotation(layer):
    found = names_of("rotation")
    assert torch.equal(found["hadamard"](16), hadamard_matrix(16).float())
    inputs, weight = layer[1][:, :16], layer[0][:, :16]
    turned = found["rotated"](inputs, weight, torch.randn(16, generator=torch.Generator().manual_seed(2)).sign())
    assert torch.allclose(turned[0] @ turned[1].T, inputs @ weight.T, atol=1e-3)


@pytest.fixture(scope="module")
def small_gpt():
    """A GPT of three blocks, windows of tokens, the linear weights of its second block, and its loss on the windows."""
    model = GPT(GPTConfig(11, 16, layers=3, heads=2, width=16), seed=0).double()
    windows = torch.randint(11, (16, 17), generator=torch.Generator().manual_seed(0))
    weights = [layer.weight.data for name, layer in linear_layers(model).items() if name.startswith("blocks.1.")]
    return model, windows, weights, lambda: mean_loss(model, windows)


def test_cmpq(small_gpt):
    model, windows, *_ = small_gpt
    added = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, args, output: added.append((output - args[0]).flatten(0, 1)))
    model(windows[:, :-1])
    mine = names_of("_cmpq")["cmpq"]([each.detach() for each in added])
    assert mine == pytest.approx(list(package_cmpq(model, windows).values()), abs=1e-4)


def test_pmpq(small_gpt):
    model, windows, weights, loss = small_gpt
    before = [weight.clone() for weight in weights]
    mine = names_of("_pmpq")["pmpq"](weights, loss, (0.2, 0.5))
    assert mine == pytest.approx(package_pmpq(model, windows, levels=(0.2, 0.5))["blocks.1"])
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))


def test_tdmpq(small_gpt):
    model, windows, weights, loss = small_gpt
    mine = names_of("tdmpq")["tdmpq"](weights, loss, 0.1, 40, torch.Generator().manual_seed(3))
    assert mine == pytest.approx(package_tdmpq(model, windows, size=0.1, draws=40)["blocks.1"], rel=0.35)
    one_sign = [package_tdmpq(model, windows, size=0.1, draws=1, antithetic=False, seed=seed)["blocks.1"]
                for seed in range(12)]
    both = [names_of("tdmpq")["tdmpq"](weights, loss, 0.1, 1, torch.Generator().manual_seed(seed))
            for seed in range(12)]
    assert statistics.stdev(one_sign) > 2 * statistics.stdev(both)


def test_lines_are_about_ten():
    assert len(PAGES) == 13
    for page in PAGES:
        code = LINES.search(page.read_text(encoding="utf-8"))[1]
        assert sum(bool(line.strip()) for line in code.splitlines()) <= 16, page.name


CALL = re.compile(r"nanoq\.quantize\(checkpoint, (.*?)\)`")
CALLS = sorted({call for page in PAGES for call in CALL.findall(page.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("call", CALLS)
def test_the_call_of_a_page_works(call):
    model = GPT(GPTConfig(11, 16, layers=1, heads=2, width=32), seed=0)
    tokens = torch.randint(11, (64, 16), generator=torch.Generator().manual_seed(0))
    options = eval(f"dict({call})") | ({"steps": 5} if "adaround" in call else {})
    quantised = nanoq.quantize(Checkpoint(model, CharTokenizer("abcdefghij"), {}), data=tokens, **options)
    assert len([layer for layer in quantised.model.modules() if isinstance(layer, QuantLayer)]) == 4
