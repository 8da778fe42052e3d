"""The oracles are torch's own casts, products, autocast and training loop."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nanoq.numbers import PRECISIONS, LossScale, emulate, train_mixed

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch), torch.arange(len(batch)) % 4)


def batches(count=6, seed=0):
    return list(torch.randn(count, 8, 16, generator=generator(seed)))


def cast(x, dtype):
    return x.to(dtype).float()


def within_one_ulp(got, exact, dtype):
    """Whether float32 numbers are the exact ones, rounded to a type, but for a neighbour where float32 decided."""
    lower, upper = (exact.to(dtype).nextafter(torch.tensor(end, dtype=dtype)).float() for end in (-math.inf, math.inf))
    slack = 1e-6 * exact.abs().max()  # of the sum in float32, where it all but cancels
    return torch.equal(got, cast(got, dtype)) and bool(((got >= lower - slack) & (got <= upper + slack)).all())


# ---- products ----


@pytest.mark.parametrize("name", DTYPES)
def test_a_linear_layer_is_the_formula_written_by_hand(name):
    dtype, layer = DTYPES[name], nn.Linear(48, 24)
    x = torch.randn(10, 48, generator=generator(), requires_grad=True)
    with emulate(PRECISIONS[name]):
        y = layer(x)
    upstream = torch.randn(10, 24, generator=generator(1))
    y.backward(upstream)
    x_small, w_small, g_small = (cast(t.detach(), dtype) for t in (x, layer.weight, upstream))
    assert torch.equal(y, cast(x_small @ w_small.T + layer.bias, dtype))
    assert torch.equal(x.grad, cast(g_small @ w_small, dtype))
    assert torch.equal(layer.weight.grad, cast(g_small.T @ x_small, dtype))
    assert torch.equal(layer.bias.grad, cast(g_small.sum(0), dtype))


@pytest.mark.parametrize("name", DTYPES)
def test_products_are_the_exact_ones_rounded_to_the_type(name):
    dtype, layer = DTYPES[name], nn.Linear(48, 24, bias=False)
    x = torch.randn(10, 48, generator=generator(), requires_grad=True)
    with emulate(PRECISIONS[name]):
        y = layer(x)
    upstream = torch.randn(10, 24, generator=generator(1))
    y.backward(upstream)
    x_small, w_small, g_small = (t.detach().to(dtype).double() for t in (x, layer.weight, upstream))
    assert within_one_ulp(y.detach(), x_small @ w_small.T, dtype)
    assert within_one_ulp(x.grad, g_small @ w_small, dtype)
    assert within_one_ulp(layer.weight.grad, g_small.T @ x_small, dtype)


def test_eight_bits_have_a_scale_for_each_tensor():
    layer = nn.Linear(48, 24, bias=False)
    x = (torch.randn(10, 48, generator=generator()) * 1e6).requires_grad_()
    with emulate(PRECISIONS["fp8"]):
        y = layer(x)
    upstream = torch.randn(10, 24, generator=generator(1)) * 1e-9
    y.backward(upstream)

    def scaled(t, dtype, top):
        scale = t.detach().abs().max() / top
        return cast(t.detach() / scale, dtype) * scale

    x_small, w_small = (scaled(t, torch.float8_e4m3fn, 448) for t in (x, layer.weight))
    g_small = scaled(upstream, torch.float8_e5m2, 57344)
    assert torch.equal(y, cast(x_small @ w_small.T, torch.bfloat16))
    assert torch.equal(x.grad, cast(g_small @ w_small, torch.bfloat16))
    assert torch.equal(layer.weight.grad, cast(g_small.T @ x_small, torch.bfloat16))


def test_eight_bits_take_zeros():
    layer = nn.Linear(4, 3)
    with emulate(PRECISIONS["fp8"]):
        y = layer(torch.zeros(2, 4))
    assert torch.equal(y, cast(layer.bias, torch.bfloat16).expand(2, 3))


def test_fp32_is_plain_torch():
    model, x = small_net(), batches(1)[0]
    cross_entropy(model, x).backward()
    plain = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with emulate(PRECISIONS["fp32"]):
        loss = cross_entropy(model, x)
    loss.backward()
    assert torch.equal(loss, cross_entropy(model, x))
    assert all(torch.equal(p.grad, gradient) for p, gradient in zip(model.parameters(), plain, strict=True))


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 7), (2, 1, 3, 7)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_inputs_of_every_shape_that_plain_torch_takes(shape, bias):
    layer, x = nn.Linear(7, 3, bias=bias), torch.randn(shape, generator=generator())
    with emulate(PRECISIONS["fp32"]):
        y = layer(x)
    assert y.shape == (*shape[:-1], 3)
    assert torch.allclose(y, layer(x), atol=1e-6)


def test_only_linear_layers_are_touched():
    x, w = torch.randn(2, 6, 6, generator=generator())
    others = [
        lambda: x @ w, lambda: torch.matmul(x, w), lambda: F.softmax(x, -1), lambda: F.layer_norm(x, (6,)),
        lambda: F.gelu(x), lambda: F.scaled_dot_product_attention(x[None], w[None], w[None]),
        lambda: F.conv1d(x[None], w[:, :, None]), lambda: x.sum() * x, lambda: F.cross_entropy(x, torch.arange(6)),
    ]
    with emulate(PRECISIONS["bf16"]):
        inside, linear = [other() for other in others], F.linear(x, w)
    assert all(torch.equal(value, other()) for value, other in zip(inside, others, strict=True))
    assert not torch.equal(linear, F.linear(x, w))


def test_it_is_close_to_autocast():
    model, x = small_net(), batches(1)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        real = cross_entropy(model, x)
    real.backward()
    wanted = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with emulate(PRECISIONS["bf16"]):
        loss = cross_entropy(model, x)
    loss.backward()
    eps = torch.finfo(torch.bfloat16).eps  # 2**-7; autocast also rounds activations, bias sums and their gradients
    assert abs(loss - real) <= eps * real
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        assert (parameter.grad - gradient).norm() <= 4 * eps * gradient.norm()


@pytest.mark.parametrize(("name", "upstream", "flushed"), [
    ("fp16", [1.0, -1e-9, 2.0**-25, 2.0**-24, 0.0, 2.0**-26], 3),  # 2**-25 is a tie and goes to 0
    ("bf16", [1.0, -1e-9, 2.0**-25, 2.0**-24, 0.0, 2.0**-26], 0),
    ("fp8", [1.0, 2.0**-32, 2.0**-34, -1e-20, 0.0, 0.5], 2),  # 2**-17 / 57344 is about 2**-32.8
])
def test_gradients_that_become_zero_are_counted(name, upstream, flushed):
    x, w = torch.ones(1, 4, requires_grad=True), torch.ones(6, 4, requires_grad=True)
    with emulate(PRECISIONS[name]) as mode:
        y = F.linear(x, w)
    y.backward(torch.tensor([upstream]))
    assert (mode.gradients, mode.flushed) == (5, flushed)


# ---- loss scale ----


def test_an_overflow_halves_the_loss_scale():
    scale = LossScale(1024.0, patience=3)
    scale.update(True)
    scale.update(True)
    assert scale.value == 256


def test_patience_doubles_the_loss_scale_but_the_first_good_step_does_not():
    scale, values = LossScale(1.0, patience=3), []
    for _ in range(7):
        scale.update(False)
        values.append(scale.value)
    assert values == [1, 1, 2, 2, 2, 4, 4]


def test_patience_begins_anew_after_an_overflow():
    scale, values = LossScale(8.0, patience=2), []
    for overflowed in (False, True, False, False, True, False, False):
        scale.update(overflowed)
        values.append(scale.value)
    assert values == [8, 4, 4, 8, 4, 4, 8]


# ---- training ----


@pytest.mark.parametrize("kind", [lambda p: torch.optim.AdamW(p, 0.01), lambda p: torch.optim.SGD(p, 0.1, 0.9)],
                         ids=["AdamW", "SGD"])
def test_fp32_training_is_a_plain_loop_bit_for_bit(kind):
    ours, plain = small_net(), small_net()
    optimizers = [kind(model.parameters()) for model in (ours, plain)]
    schedulers = [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5) for optimizer in optimizers]
    losses = []
    for batch in batches():
        optimizers[1].zero_grad()
        loss = cross_entropy(plain, batch)
        loss.backward()
        optimizers[1].step()
        schedulers[1].step()
        losses.append(loss.item())
    steps = train_mixed(ours, cross_entropy, batches(), optimizers[0], "fp32", scheduler=schedulers[0])
    assert [step.loss for step in steps] == losses
    assert {(step.loss_scale, step.skipped, step.flushed, step.lost) for step in steps} == {(1.0, False, 0.0, 0.0)}
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_learns(precision):
    model = small_net()
    x = batches(1)[0]
    steps = train_mixed(model, cross_entropy, [x] * 60, torch.optim.AdamW(model.parameters(), 0.01), precision)
    assert steps[-1].loss < 0.2 * steps[0].loss
    assert model.training
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def weighted_sum(model, batch):
    """Let one number of the batch be the gradient of every output."""
    x, gradient = batch
    return gradient * model(x).sum()


def overflow_problem(count, precision, values=(2.0**-10, 4.0, 2.0**-10)):
    """Train on gradients of which, times the scale 2**16, only 4 is too large for float16."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    x = torch.randn(5, 3, generator=generator())
    steps = train_mixed(model, weighted_sum, [(x, value) for value in values[:count]], optimizer, precision)
    return model, optimizer, steps


def test_a_step_that_overflows_is_skipped():
    (first, _, _), (second, optimizer, steps) = (overflow_problem(n, "fp16 + loss scaling") for n in (1, 2))
    assert [step.skipped for step in steps] == [False, True]
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
    assert optimizer.state[second.weight]["step"] == 1


def test_after_an_overflow_the_scale_is_halved_and_training_goes_on():
    _, _, steps = overflow_problem(3, "fp16 + loss scaling")
    assert [step.loss_scale for step in steps] == [65536, 65536, 32768]
    assert [step.skipped for step in steps] == [False, True, False]
    assert overflow_problem(3, "fp16 + loss scaling")[0].weight.isfinite().all()


def test_the_loss_scale_is_taken_off_the_gradients_and_the_loss():
    values = (2.0**-10, 2.0**-9, 2.0**-8)  # powers of two lose nothing, scaled or not
    (plain, _, unscaled), (model, _, steps) = (overflow_problem(3, p, values) for p in ("fp16", "fp16 + loss scaling"))
    assert [step.loss for step in steps] == [step.loss for step in unscaled]
    assert torch.equal(model.weight, plain.weight)


def test_without_loss_scaling_an_overflow_is_not_skipped():
    model, _, steps = overflow_problem(1, "fp16", values=(1e6,))
    assert (steps[0].skipped, steps[0].loss_scale) == (False, 1)
    assert not model.weight.isfinite().all()


def test_loss_scaling_saves_gradients_from_underflow():
    for precision, flushed in (("fp16", 1), ("fp16 + loss scaling", 0), ("bf16", 0)):
        assert overflow_problem(1, precision, values=(2.0**-30,))[2][0].flushed == flushed


@pytest.mark.filterwarnings("error:Detected call of `lr_scheduler.step")
def test_a_first_step_that_is_skipped_gives_no_warning_about_the_scheduler():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    steps = train_mixed(model, weighted_sum, [(torch.ones(1, 3), 4.0)], optimizer, "fp16 + loss scaling",
                        scheduler=scheduler)
    assert steps[0].skipped


# ---- weights stored in a smaller type ----


def one_layer(width, value=1.0):
    model = nn.Linear(width, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def output(model, batch):
    return model(batch).sum()


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_stored_weights_lie_on_the_grid(rounding):
    model = small_net()
    train_mixed(model, cross_entropy, batches(), torch.optim.AdamW(model.parameters(), 0.01), "bf16", store="bf16",
                rounding=rounding)
    for parameter in model.parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, parameter.bfloat16().float())


def test_too_small_an_update_is_lost_in_the_nearest_value():
    model = one_layer(100)
    steps = train_mixed(model, output, [torch.ones(1, 100)] * 64, torch.optim.SGD(model.parameters(), 2.0**-12), "fp32",
                        store="bf16")
    assert (model.weight == 1).all()
    assert [step.lost for step in steps] == [1.0] * 64


def test_too_small_an_update_is_kept_in_the_mean_by_stochastic_rounding():
    model, width, count = one_layer(4096), 4096, 64
    steps = train_mixed(model, output, [torch.ones(1, width)] * count, torch.optim.SGD(model.parameters(), 2.0**-12),
                        "fp32", store="bf16", rounding="stochastic")
    # Below 1 an ulp is 2**-8: of a step of 1/16 ulp the variance is 1/16 * 15/16 ulp**2 at most.
    standard_error = 2.0**-8 * math.sqrt(count * 15 / 256 / width)
    assert abs(model.weight.mean().item() - (1 - count * 2.0**-12)) < 5 * standard_error
    assert 0.9 < steps[0].lost < 0.97  # 15 of 16


def test_stochastic_rounding_depends_on_the_seed_alone():
    weights = []
    for seed in (0, 0, 1):
        model = one_layer(1000)
        train_mixed(model, output, [torch.ones(1, 1000)] * 3, torch.optim.SGD(model.parameters(), 2.0**-12), "fp32",
                    store="bf16", rounding="stochastic", seed=seed)
        weights.append(model.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_lost_is_the_share_of_the_updates_that_the_rounding_undid():
    model = one_layer(4)
    gradient = torch.tensor([[1.0, 2.0**-12, 0.0, 2.0**-12]])  # a kept one, a lost one, none, a lost one
    steps = train_mixed(model, output, [gradient], torch.optim.SGD(model.parameters(), 1.0), "fp32", store="bf16")
    assert steps[0].lost == 2 / 3
    assert model.weight.tolist() == [[0, 1, 1, 1]]


def test_nothing_is_lost_in_float32():
    model = one_layer(4)
    steps = train_mixed(model, output, [torch.ones(1, 4)], torch.optim.SGD(model.parameters(), 2.0**-12), "bf16")
    assert steps[0].lost == 0
    assert (model.weight == 1 - 2.0**-12).all()


# ---- errors ----


@pytest.mark.parametrize(("options", "message"), [
    ({"precision": "fp12"}, "no precision 'fp12': there are fp32, bf16, fp16"),
    ({"store": "fp12"}, "no floating-point format 'fp12'"), ({"store": "int8"}, "no floating-point format"),
    ({"store": "bf16", "rounding": "up"}, "rounding must be one of"), ({"rounding": "up"}, "rounding must be one of"),
])
def test_what_there_is_not_is_an_error_and_leaves_the_weights_alone(options, message):
    model = one_layer(4)
    with pytest.raises(ValueError, match=message):
        train_mixed(model, output, [torch.ones(1, 4)], torch.optim.SGD(model.parameters(), 0.5),
                    **({"precision": "fp32"} | options))
    assert (model.weight == 1).all()


def test_attention_that_cannot_be_emulated_is_refused():
    attention, x = nn.MultiheadAttention(8, 2), torch.zeros(3, 1, 8)
    with emulate(PRECISIONS["bf16"]), pytest.raises(ValueError, match=r"nn\.MultiheadAttention"):
        attention(x, x, x)


def test_a_training_that_has_diverged_is_an_error_and_not_an_endless_row_of_skipped_steps():
    scale = LossScale()
    for _ in range(41):
        scale.update(True)
    assert scale.value == 2.0**-25
    with pytest.raises(ValueError, match="diverged"):
        scale.update(True)
