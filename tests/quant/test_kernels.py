from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nanoq.lm.generation import stream
from nanoq.lm.model import GPT, GPTConfig
from nanoq.numbers import BLOCKS
from nanoq.quant import QuantLinear, Recipe, affine_grid, block_grid, nearest, quantize_model
from nanoq.quant.kernels import (
    MOST_TOKENS,
    choose_backend,
    integer_product,
    is_exact,
    numba_product,
    quantize_per_token,
    torch_product,
    use_backend,
    weight_only,
    why_not,
)
from nanoq.quant.qlinear import CodedLinear, entropy_coded
from nanoq.timing import measure

GRIDS = {
    "channel": {},
    "symmetric": {"symmetric": True},
    "tensor": {"granularity": "tensor"},
    "group of 8": {"granularity": "group", "group_size": 8},
    "symmetric group of 6": {"granularity": "group", "group_size": 6, "symmetric": True},
}


def quant_linear(rows, columns, bits, options, bias=False, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) + shift
    grid = affine_grid(weight, bits, **options)
    return QuantLinear.from_codes(nearest(weight, grid), grid, torch.randn(rows) if bias else None)


def inputs(tokens, columns, seed=1):
    return torch.randn(tokens, columns, generator=torch.Generator().manual_seed(seed))


def assert_is_the_dequantised_product(layer, x):
    """Within what float32 rounding may do: some last places of the sum of the absolute products of codes and zeros."""
    weight, grid = layer.dequantize().double(), layer.grid
    bias = 0 if layer.bias is None else layer.bias.double()
    exact = x.double() @ weight.T + bias
    zero = grid.over_columns(grid.scale * grid.zero_codes, weight).double()
    allowed = 8 * torch.finfo(torch.float32).eps * (x.double().abs() @ (weight.abs() + 2 * zero).T + abs(bias))
    y = layer(x)
    assert y.dtype == torch.float32
    assert y.shape == exact.shape
    assert ((y - exact).abs() <= allowed).all()


@pytest.mark.parametrize("options", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (3, 20), (17, 33), (192, 192), (40, 517), (1100, 70)])
def test_a_weight_only_kernel_gives_the_dequantised_product(shape, bits, options):
    layer = quant_linear(*shape, bits, options)
    use_backend(layer, f"int{bits}")
    for tokens in (1, 2, 5, MOST_TOKENS, MOST_TOKENS + 1, 40):
        assert_is_the_dequantised_product(layer, inputs(tokens, shape[1]))


@settings(deadline=None, max_examples=200)
@given(rows=st.integers(1, 9), columns=st.integers(1, 90), bits=st.integers(2, 8), bias=st.booleans(),
       symmetric=st.booleans(), group=st.integers(0, 40), tokens=st.integers(1, 9),
       shift=st.sampled_from([-3.0, 0.0, 3.0]), seed=st.integers(0, 2**31))
def test_on_any_layer(rows, columns, bits, bias, symmetric, group, tokens, shift, seed):
    options = {"symmetric": symmetric} | ({"granularity": "group", "group_size": group} if group else {})
    layer = quant_linear(rows, columns, bits, options, bias, seed, shift)
    for backend in ("int8", weight_only(layer)):  # a byte for each code, whatever its bits and its group
        use_backend(layer, backend)
        assert_is_the_dequantised_product(layer, inputs(tokens, columns, seed))


@pytest.mark.parametrize("bits", [5, 8])
def test_entropy_coded_layers_have_a_kernel(bits):
    layer = entropy_coded(quant_linear(128, 256, bits, {}))
    assert type(layer) is CodedLinear
    report, = choose_backend(layer, backends=("int8",), seconds=0.001)
    assert report.backend == layer.backend == "int8"
    for tokens in (1, 9):
        assert_is_the_dequantised_product(layer, inputs(tokens, 256))


def test_layers_of_three_values_have_a_kernel_of_2_bits():
    layer = quant_linear(24, 64, 2, {"symmetric": True})
    assert weight_only(layer) == "int2" and layer.codes.shape == (24, 13)  # five codes to a byte in its file
    use_backend(layer, "int2")
    for tokens in (1, 9):
        assert_is_the_dequantised_product(layer, inputs(tokens, 64))


def test_columns_in_another_order_meet_their_inputs():
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    plain = quant_linear(12, 40, 4, GRIDS["group of 8"])
    layer = QuantLinear.from_codes(plain.unpacked().long(), plain.grid, order=order)
    assert not torch.equal(layer.dequantize(), plain.dequantize())
    use_backend(layer, "int4")
    assert_is_the_dequantised_product(layer, inputs(2, 40))


def test_threads_share_the_rows_of_a_large_layer():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for bits, tokens in ((8, 1), (4, 6), (3, 20)):
            layer = quant_linear(1001, 700, bits, {})
            use_backend(layer, f"int{bits}")
            assert_is_the_dequantised_product(layer, inputs(tokens, 700))
            assert torch.get_num_threads() == 3  # whatever numba tells OpenMP
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("product", [numba_product, integer_product()])
@pytest.mark.parametrize("code", [0, 127, 128, 255])
@pytest.mark.parametrize("step", [-128, -127, 127])
def test_integer_sums_of_extremes_are_exact(product, code, step):
    codes = torch.full((6, 4099), code, dtype=torch.uint8)
    q = torch.full((5, 4099), step, dtype=torch.int8)
    sums = product(codes, q)
    assert sums.dtype == torch.int32
    assert (sums.long() == code * step * 4099).all()


def test_the_widest_sum_that_cannot_overflow_is_taken_and_no_wider_one():
    widest = (2**31 - 1) // (255 * 127)
    grid = affine_grid(torch.ones(1, 1), 8)
    layers = [QuantLinear.from_codes(torch.full((1, columns), 255), grid) for columns in (widest, widest + 1)]
    assert why_not(layers[0], "w8a8") is None
    assert why_not(layers[1], "w8a8") == f"a sum over more than {widest} columns could overflow int32"
    assert numba_product(layers[0].codes, torch.full((1, widest), 127, dtype=torch.int8)).item() == 255 * 127 * widest


@settings(deadline=None)
@given(rows=st.integers(1, 20), tokens=st.integers(1, 20), columns=st.integers(1, 300), seed=st.integers(0, 2**31))
def test_integer_sums_are_exact(rows, tokens, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 256, (rows, columns), generator=generator).to(torch.uint8)
    q = torch.randint(-128, 128, (tokens, columns), generator=generator).to(torch.int8)
    for product in (numba_product, integer_product()):
        assert torch.equal(product(codes, q).long(), codes.long() @ q.long().T)


def test_a_product_that_saturates_or_is_missing_is_not_exact():
    def saturating(codes, q):
        pairs = (codes.int()[:, None] * q.int()).unflatten(-1, (-1, 2)).sum(-1)
        return pairs.clamp(-(2**15), 2**15 - 1).sum(-1)

    def missing(codes, q):
        raise RuntimeError("uint8 is not implemented")

    assert is_exact(numba_product)
    assert not is_exact(saturating)
    assert not is_exact(missing)
    assert integer_product() in (numba_product, torch_product)


@pytest.mark.parametrize("options", list(GRIDS.values())[:3], ids=list(GRIDS)[:3])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (33, 200)])
def test_w8a8_is_the_product_of_the_rounded_activations(shape, options):
    layer = quant_linear(*shape, 8, options, bias=True, shift=1.0)
    use_backend(layer, "w8a8")
    for tokens in (1, 4, 7):
        x = inputs(tokens, shape[1])
        q, scale = quantize_per_token(x)
        rounded = q.double() * scale
        weight = layer.dequantize().double()
        expected = rounded @ weight.T + layer.bias
        assert torch.allclose(layer(x).double(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
        assert layer(x).is_contiguous()


def test_activations_are_rounded_token_by_token():
    x = torch.tensor([[1.0, -2.0, 0.3], [0.0, 0.0, 0.0], [1e-30, 5e-31, 0.0], [torch.nan, 1.0, 2.0]])
    q, scale = quantize_per_token(x)
    assert q[:3].tolist() == [[64, -127, 19], [0, 0, 0], [127, 64, 0]]
    assert scale[1] == 0
    assert scale[3].isnan()
    x = inputs(50, 64)
    q, scale = quantize_per_token(x)
    assert ((q * scale - x).abs() <= scale * 0.5001).all()
    assert (q.abs().amax(1) == 127).all()


def test_what_is_not_finite_is_not_hidden():
    layer = quant_linear(4, 16, 8, {})
    for backend in ("int8", "w8a8"):
        use_backend(layer, backend)
        for value in (torch.nan, torch.inf):
            x = inputs(3, 16)
            x[1, 5] = value
            y = layer(x)
            assert not y[1].isfinite().any()
            assert y[[0, 2]].isfinite().all()


def test_inputs_of_any_shape_and_type_and_layout():
    layer = quant_linear(6, 20, 4, {}, bias=True)
    plain = deepcopy(layer)
    use_backend(layer, "int4")
    x = inputs(6, 20).view(2, 3, 20)
    assert torch.allclose(layer(x), plain(x), atol=1e-5)
    assert torch.allclose(layer(x.transpose(0, 1)), plain(x.transpose(0, 1)), atol=1e-5)
    assert layer(x[0, 0]).shape == (6,)
    assert layer(x[:0]).shape == (0, 3, 6)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert layer(x.to(dtype)).dtype == dtype
    assert torch.equal(layer(x.double()), plain(x.double()))  # a kernel would round to float32
    with pytest.raises(RuntimeError, match="shape"):
        layer(inputs(2, 19))


def test_gradients_go_through_the_dequantised_weight():
    layer = quant_linear(6, 20, 8, {})
    plain = deepcopy(layer)
    use_backend(layer, "int8")
    x = inputs(3, 20).requires_grad_()
    layer(x).sum().backward()
    assert torch.allclose(x.grad, plain.dequantize().sum(0).expand(3, -1))
    with torch.no_grad():
        assert not layer(x).requires_grad


def test_a_layer_says_its_backend_and_its_copies_and_files_stay_what_they_were():
    layer = quant_linear(6, 20, 8, {})
    assert layer.backend == "dequantize" and "backend=dequantize" in str(layer)
    names = list(layer.state_dict())
    x, before = inputs(2, 20), layer(inputs(2, 20))
    use_backend(layer, "int8")
    copy = deepcopy(layer)
    assert copy.backend == "int8" and "backend=int8" in str(copy)
    assert list(copy.state_dict()) == names
    assert torch.equal(copy(x), layer(x))
    use_backend(layer, "dequantize")
    assert torch.equal(layer(x), before)
    copy.load_state_dict(quant_linear(6, 20, 8, {}, seed=9).state_dict())
    assert copy.backend == "dequantize"  # the kernel had the old scales


@pytest.mark.parametrize(("bits", "options", "backend", "reason"), [
    (3, {}, "w8a8", "3 bits, not 8"),
    (8, {}, "int4", "8 bits, not 4"),
    (4, {}, "w8a8", "4 bits, not 8"),
    (8, {"granularity": "group", "group_size": 5}, "w8a8", "one scale a row"),
    (8, {}, "int5", "no backend 'int5'"),
])
def test_a_backend_that_does_not_fit_is_an_error(bits, options, backend, reason):
    with pytest.raises(ValueError, match=reason):
        use_backend(quant_linear(4, 12, bits, options), backend)


def test_codebooks_and_very_long_rows_are_left_to_other_backends():
    weight = torch.randn(4, 64)
    grid = block_grid(BLOCKS["nf4"], weight, 4)
    assert "codebook" in why_not(QuantLinear.from_codes(nearest(weight, grid), grid), "int4")
    assert "overflow" in why_not(quant_linear(1, 70_000, 8, {}), "w8a8")


def test_choosing_reports_every_layer_and_never_rounds_activations_unasked():
    model = nn.ModuleDict({"a": quant_linear(64, 96, 8, {}), "b": quant_linear(64, 96, 4, {}),
                           "c": quant_linear(64, 96, 3, {}), "d": quant_linear(64, 96, 8, {}, seed=4)})
    reports = {report.layer: report for report in choose_backend(model, seconds=0.001)}
    assert {name: set(report.seconds) for name, report in reports.items()} == {
        "a": {"fp32", "dequantize", "int8"}, "b": {"fp32", "dequantize", "int8", "int4"},
        "c": {"fp32", "dequantize", "int8", "int3"}, "d": {"fp32", "dequantize", "int8"},
    }
    for name, layer in model.items():
        report = reports[name]
        assert layer.backend == report.backend
        others = {key: value for key, value in report.seconds.items() if key != "fp32"}
        assert others[report.backend] == min(others.values())
        assert report.speedup == report.seconds["fp32"] / report.seconds[report.backend]
        assert report.backend in str(report)
    assert reports["a"].seconds is reports["d"].seconds  # alike, so measured once
    (report,) = choose_backend(model["a"], tokens=4, backends=("w8a8",), seconds=0.001)
    assert model["a"].backend == report.backend == "w8a8"


def test_choosing_without_a_choice_is_an_error():
    with pytest.raises(ValueError, match="no QuantLinear"):
        choose_backend(nn.Linear(2, 2))
    layer = quant_linear(4, 12, 3, {})
    with pytest.raises(ValueError, match="runs on none of int4"):
        choose_backend(layer, backends=("int4",))
    with pytest.raises(ValueError, match="no backend 'fast'"):
        choose_backend(layer, backends=("fast",))
    with pytest.raises(ValueError, match="at least 1"):
        choose_backend(layer, tokens=0)


def test_measuring_calls_every_function_in_turn():
    calls = []
    times = measure({name: lambda name=name: calls.append(name) for name in "ab"}, seconds=0, rounds=2)
    assert calls == list("ababab")
    assert all(0 <= value < 1 for value in times.values())


@pytest.mark.parametrize("bits", [4, 8])
def test_cached_generation_through_kernels_gives_the_same_text(bits):
    model = GPT(GPTConfig(9, context=16, layers=2, heads=2, width=32, bias=True), seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # away from the near-uniform predictions of a new model
    quantize_model(model, Recipe(bits=bits))
    prompt = torch.tensor([1, 2, 3])
    expected = [token for token, _ in zip(stream(model, prompt, temperature=0), range(40), strict=False)]
    for backend in (f"int{bits}", "w8a8") if bits == 8 else ("int4",):
        for layer in model.modules():
            if isinstance(layer, QuantLinear):
                use_backend(layer, backend)
        text = [token for token, _ in zip(stream(model, prompt, temperature=0), range(40), strict=False)]
        assert len(text) == 40 and all(0 <= token < 9 for token in text)
        if backend != "w8a8":
            assert text == expected
