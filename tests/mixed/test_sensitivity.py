import copy
import json
import math
import os
import random
import subprocess
import sys
import warnings
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from nanoq.lm import GPT, GPTConfig
from nanoq.lm.training import next_token_loss
from nanoq.mixed import (
    MEASURES,
    cluster_bits,
    cmpq,
    first_order,
    gptq_error,
    hawq,
    leave_one_in,
    output_mse,
    parts_of,
    pmpq,
    random_scores,
    similarity,
    tdmpq,
    weight_mse,
)
from nanoq.mixed.parts import UNITS, gradients, mean_loss
from nanoq.mixed.sensitivity import quantile
from nanoq.quant import affine_grid
from nanoq.quant.layers import linear_layers

pytestmark = pytest.mark.filterwarnings("ignore:.*samples are few", "ignore:.*calibration tokens are few")

VOCABULARY, WINDOW = 13, 17


def sentences(count, seed=0):
    """Windows (count, WINDOW) in which each token mostly follows from the one before."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(VOCABULARY, (count, WINDOW), generator=generator)
    for t in range(1, WINDOW):
        sure = torch.rand(count, generator=generator) < 0.8
        rows[sure, t] = (3 * rows[sure, t - 1] + t % 2) % VOCABULARY
    return rows


@cache
def _trained(width, layers):
    model = GPT(GPTConfig(VOCABULARY, WINDOW - 1, layers, 2, width, dropout=0.1), seed=3)
    with torch.no_grad():
        for layer in linear_layers(model).values():
            layer.weight *= 8  # or the embeddings would do it all
    descend(model.eval(), [partial(next_token_loss, rows=sentences(32, seed=100 + step)) for step in range(60)], 0.5)
    return model


def descend(model, losses, rate):
    """A step of gradient descent on each loss; to import one of torch's optimisers takes longer than all of them."""
    parameters = list(model.parameters())
    for loss in losses:
        slopes = torch.autograd.grad(loss(model), parameters)
        with torch.no_grad():
            for p, slope in zip(parameters, slopes, strict=True):
                p -= rate * slope


def trained(width=16, layers=3):
    """A small model that has learnt something, in evaluation mode; it has dropout to switch on by mistake."""
    return copy.deepcopy(_trained(width, layers))


DATA = sentences(20)
METHODS = {
    "cmpq": cmpq,
    "cmpq of outputs": partial(cmpq, features="output", measure="cka", samples=100),
    "pmpq": partial(pmpq, levels=(0.3, 0.6)),
    "pmpq by accuracy": partial(pmpq, levels=(0.9,), scope="block", metric="accuracy"),
    "tdmpq": partial(tdmpq, size=0.1, draws=2),
    "tdmpq matched": partial(tdmpq, noise="matched", target="first", draws=1, antithetic=False),
    "tdmpq of inputs": partial(tdmpq, size=0.1, target="inputs", draws=1),
    "random": random_scores,
    "weight mse": partial(weight_mse, bits=(2, 4)),
    "output mse": partial(output_mse, bits=(2, 4)),
    "gptq error": partial(gptq_error, bits=(2, 4)),
    "first order": partial(first_order, bits=(2, 4)),
    "hawq": partial(hawq, bits=(2, 4), draws=2),
    "leave one in": partial(leave_one_in, bits=(2, 4)),
    "leave one in by kl": partial(leave_one_in, bits=(2, 4), method="gptq", metric="kl"),
}
RUNS_THE_MODEL = [name for name in METHODS if name not in ("random", "weight mse")]
ASKS_FOR_THE_LOSS = ["pmpq", "tdmpq", "tdmpq of inputs", "gptq error", "first order", "hawq", "leave one in"]
any_method = pytest.mark.parametrize("name", METHODS)


def flat(scores):
    """Scores {part: number} and costs {part: {bits: number}} alike as one list of numbers."""
    return [number for score in scores.values() for number in (score.values() if isinstance(score, dict) else [score])]


def state_of(model):
    """Everything that a measurement must leave alone, in a form that compares bit for bit."""
    tensors = {name: (tensor.data_ptr(), tensor.numpy().tobytes()) for name, tensor in model.state_dict().items()}
    grads = {name: p.grad if p.grad is None else (id(p.grad), p.grad.numpy().tobytes())
             for name, p in model.named_parameters()}
    modules = [(module.training, len(module._forward_hooks), len(module._forward_pre_hooks))
               for module in model.modules()]
    return tensors, grads, [p.requires_grad for p in model.parameters()], modules


def random_states():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002


def in_a_mess(model):
    """The model while training, but for one block; with gradients that the optimiser has not used yet."""
    model.train().blocks[1].eval()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    return model


class Broken(Exception):
    """What goes wrong in these tests."""


def failing(function, at):
    """The function, which raises in its call of that number, counted from 1; and the list of its calls."""
    calls = []

    def maybe(*args, **kwargs):
        calls.append(1)
        if len(calls) == at:
            raise Broken
        return function(*args, **kwargs)
    return maybe, calls


# ---- what all methods promise ----


@any_method
@pytest.mark.parametrize("unit", UNITS)
def test_every_part_gets_a_finite_number_in_the_order_of_the_model(name, unit):
    model = trained()
    scores = METHODS[name](model, DATA, unit=unit)
    wanted = [f"blocks.{i}" for i in range(3)] if unit == "block" else [
        f"blocks.{i}.{layer}" for i in range(3) for layer in ("attention.qkv", "attention.out", "mlp.up", "mlp.down")]
    assert list(scores) == wanted == list(parts_of(model, unit))
    assert all(type(number) is float and math.isfinite(number) for number in flat(scores))
    assert len(set(flat(scores))) > 1


@any_method
def test_the_model_and_the_dice_of_the_caller_stay_as_they_were_and_do_not_matter(name):
    wanted = METHODS[name](trained(), DATA)
    for seed in (1, 2):
        model = in_a_mess(trained())
        torch.manual_seed(seed)
        random.seed(seed)
        before, dice = state_of(model), random_states()
        assert METHODS[name](model, DATA) == wanted  # dropout would show
        assert state_of(model) == before
        assert random_states() == dice
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", RUNS_THE_MODEL)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_model_stays_as_it_was_when_it_fails_in_the_middle(name, share, monkeypatch):
    model = trained()
    forward, calls = failing(model.blocks[-1].forward, at=0)
    monkeypatch.setattr(model.blocks[-1], "forward", forward)
    METHODS[name](model, DATA, batch=8)
    model = in_a_mess(trained())
    forward, _ = failing(model.blocks[-1].forward, at=max(1, round(share * len(calls))))
    monkeypatch.setattr(model.blocks[-1], "forward", forward)
    before = state_of(model)
    with pytest.raises(Broken):
        METHODS[name](model, DATA, batch=8)
    assert state_of(model) == before
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ASKS_FOR_THE_LOSS)
def test_the_model_stays_as_it_was_when_the_loss_fails_in_the_middle(name):
    loss_fn, calls = failing(next_token_loss, at=0)
    METHODS[name](trained(), DATA, loss_fn=loss_fn, batch=8)
    loss_fn, _ = failing(next_token_loss, at=len(calls) // 2 + 1)
    model = in_a_mess(trained())
    before = state_of(model)
    with pytest.raises(Broken):
        METHODS[name](model, DATA, loss_fn=loss_fn, batch=8)
    assert state_of(model) == before


@pytest.mark.parametrize("name", [name for name in RUNS_THE_MODEL if name != "tdmpq of inputs"])  # noise for each batch
def test_the_size_of_a_batch_does_not_matter(name):
    method = METHODS[name]
    model = trained().double()
    whole = flat(method(model, DATA, batch=20))
    assert flat(method(model, DATA, batch=7)) == pytest.approx(whole, rel=1e-4, abs=1e-12)


@any_method
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_other_types_work_too(name, dtype):
    model = trained().to(dtype)
    scores = flat(METHODS[name](model, DATA))
    assert all(map(math.isfinite, scores))
    if dtype == torch.float64:
        assert scores == pytest.approx(flat(METHODS[name](trained(), DATA)), rel=0.02, abs=1e-5)


@any_method
def test_frozen_weights_are_scored_alike_and_stay_frozen(name):
    model, wanted = trained().requires_grad_(False), METHODS[name](trained(), DATA)
    assert METHODS[name](model, DATA) == wanted
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", RUNS_THE_MODEL)
def test_no_data_is_an_error(name):
    with pytest.raises(ValueError, match="data must be rows"):
        METHODS[name](trained(), DATA[:0])


@any_method
def test_a_unit_that_does_not_exist_is_an_error(name):
    with pytest.raises(ValueError, match="unit must be one of block, linear, not 'layer'"):
        METHODS[name](trained(), DATA, unit="layer")


def test_parts_come_in_the_order_of_the_blocks_and_not_of_the_alphabet():
    model = GPT(GPTConfig(5, 4, 11, 1, 4))
    assert list(parts_of(model)) == [f"blocks.{i}" for i in range(11)]
    assert [name for layers in parts_of(model).values() for name in layers] == list(linear_layers(model))
    assert all(layer is model.get_submodule(name)
               for layers in parts_of(model).values() for name, layer in layers.items())


def test_a_model_without_layers_is_an_error():
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.ReLU()])
    with pytest.raises(ValueError, match="no linear layer"):
        parts_of(model)


def test_the_mean_loss_is_that_of_all_rows_together():
    model = trained().double()
    wanted = next_token_loss(model, DATA).item()
    for batch in (1, 6, 7, 20, 99):
        assert mean_loss(model, DATA, batch=batch) == pytest.approx(wanted, rel=1e-12)


def test_gradients_are_those_of_the_mean_loss():
    model = trained().double()
    found = gradients(model, DATA, linear_layers(model), batch=7)
    next_token_loss(model, DATA).backward()
    assert list(found) == list(linear_layers(model))
    assert all(torch.allclose(found[name], layer.weight.grad, rtol=1e-10, atol=1e-14)
               for name, layer in linear_layers(model).items())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")
def test_two_processes_give_the_scores_of_one_and_share_the_work(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("""
import os, json, socket, sys, warnings
from nanoq.lm import TrainConfig, train
from test_sensitivity import *
warnings.simplefilter("ignore")
os.environ |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    os.environ["MASTER_PORT"] = str(free.getsockname()[1])
torch.optim.SGD([torch.zeros(1)])  # imports what both need for it
os.environ["RANK"] = "0" if os.fork() else "1"
asked = []
scores = {name: list(method(trained(), DATA).items()) for name, method in METHODS.items()}
tdmpq(trained(), DATA, unit="linear", draws=1, loss_fn=lambda *args: asked.append(1) or next_token_loss(*args))
text = DATA.flatten()
history = train(trained(), text, text, TrainConfig(tokens=64, batch=2))  # in the group that scoring opened
with open(f"rank{os.environ['RANK']}.json", "w") as file:
    json.dump([scores, len(asked), history[-1]["step"]], file)
if os.environ["RANK"] == "0":  # which holds the store that both meet at
    os.wait()
""")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    result = subprocess.run([sys.executable, program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    alone = json.loads(json.dumps({name: list(method(trained(), DATA).items()) for name, method in METHODS.items()}))
    for rank in range(2):
        scores, asked, steps = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert scores == alone and steps == 2
        assert asked == 2 * (1 + 2 * 6)  # two batches: the loss as it is, and a pair for half of the twelve layers


# ---- CMPQ ----

WIDTH = 4


class Adder(nn.Module):
    """A block that adds a linear map of what it reads to the first third of the hidden state, and leaves the rest."""

    def __init__(self, reads, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.reads, self.linear = reads, nn.Linear(WIDTH, WIDTH)
        with torch.no_grad():
            for p in self.parameters():
                p.normal_(generator=generator)

    def forward(self, x):
        start = WIDTH * (1 + "ab".index(self.reads))
        return x + F.pad(self.linear(x[..., start : start + WIDTH]), (0, 2 * WIDTH))


class Carrier(nn.Module):
    """Blocks that write to one third of the hidden state, and read two sources in the other thirds: a and b."""

    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.table = torch.randn(997, 3 * WIDTH, generator=torch.Generator().manual_seed(8))

    def embed(self, tokens):
        return self.table[tokens]


TOKENS = torch.randint(997, (20, 51), generator=torch.Generator().manual_seed(9))
any_measure = pytest.mark.parametrize("measure", MEASURES)


def deltas(model, data):
    """What each block puts out, and what it adds, for each token of the windows: two lists of (tokens, width)."""
    outputs, added = [], []
    with torch.no_grad():
        hidden = model.embed(data[:, :-1])
        for block in model.blocks:
            after = block(hidden)
            outputs.append(after.flatten(0, -2))
            added.append((after - hidden).flatten(0, -2))
            hidden = after
    return outputs, added


def unlikeness(features, measure):
    return [1 - sum(similarity(*pair, measure) for pair in pairs) / len(pairs)
            for pairs in ([(features[min(i, j)], features[max(i, j)]) for j in range(len(features)) if j != i]
                          for i in range(len(features)))]


@any_measure
def test_blocks_that_add_the_same_have_a_cmpq_of_0(measure):
    scores = cmpq(Carrier(Adder("a"), Adder("a"), Adder("a")), TOKENS, measure=measure)
    assert list(scores.values()) == pytest.approx([0] * 3, abs=1e-5)


def test_canonical_correlations_do_not_mind_invertible_maps_but_cka_does():
    model = Carrier(Adder("a", 1), Adder("a", 2), Adder("a", 3))
    for measure in ("mean", "first"):
        assert list(cmpq(model, TOKENS, measure=measure).values()) == pytest.approx([0] * 3, abs=1e-5)
    assert min(cmpq(model, TOKENS, measure="cka").values()) > 0.05


@any_measure
@pytest.mark.parametrize("place", range(4))
def test_an_unrelated_block_has_the_largest_cmpq(measure, place):
    blocks = [Adder("a") for _ in range(3)]
    blocks.insert(place, Adder("b", seed=1))
    model = Carrier(*blocks)
    scores = list(cmpq(model, TOKENS, measure=measure).values())
    assert scores == pytest.approx(unlikeness(deltas(model, TOKENS)[1], measure), abs=1e-5)
    lone = scores.pop(place)
    assert lone > 0.7 and max(scores) < 0.4 * lone
    if measure != "pwcca":  # which weighs by the first of two, so that one place sees another number than the next
        assert scores == pytest.approx([lone / 3] * 3, rel=0.01)


@any_measure
@pytest.mark.parametrize("features", ["delta", "output"])
def test_a_constant_added_changes_no_cmpq(measure, features):
    model = Carrier(Adder("a", 1), Adder("b", 2), Adder("b", 3))
    before = cmpq(model, TOKENS, measure=measure, features=features)
    with torch.no_grad():
        for i, block in enumerate(model.blocks):
            block.linear.bias += 10.0**i
    assert cmpq(model, TOKENS, measure=measure, features=features) == pytest.approx(before, abs=1e-4)


@any_measure
@pytest.mark.parametrize("features", ["delta", "output"])
def test_cmpq_of_a_gpt_is_that_of_its_hidden_states(measure, features):
    model = trained()
    outputs, added = deltas(model, DATA)
    wanted = unlikeness(added if features == "delta" else outputs, measure)
    for batch in (3, 64):
        found = cmpq(model, DATA, measure=measure, features=features, batch=batch)
        assert list(found.values()) == pytest.approx(wanted, abs=1e-5)


def test_what_blocks_put_out_is_alike_where_what_they_add_is_not():
    model = trained()
    assert max(cmpq(model, DATA, features="output").values()) < min(cmpq(model, DATA).values())


def test_cmpq_of_layers_compares_what_they_put_out():
    model = trained()
    seen = {}
    for name, layer in linear_layers(model).items():
        layer.register_forward_hook(lambda _, __, y, name=name: seen.update({name: y.detach().flatten(0, -2)}))
    model(DATA[:, :-1])
    wanted = unlikeness(list(seen.values()), "cka")
    for features in ("delta", "output"):
        found = cmpq(model, DATA, measure="cka", features=features, unit="linear")
        assert list(found.values()) == pytest.approx(wanted, abs=1e-5)


def test_cmpq_takes_evenly_spread_samples_and_reads_no_last_token():
    model = trained()
    added = [delta[[0, 79, 159, 239, 319]] for delta in deltas(model, DATA)[1]]  # of 320
    found = cmpq(model, DATA, measure="cka", samples=5)
    assert list(found.values()) == pytest.approx(unlikeness(added, "cka"), abs=1e-5)
    changed = DATA.clone()
    changed[:, -1] = 0
    assert cmpq(model, changed) == cmpq(model, DATA) == cmpq(model, DATA, samples=320)


def test_few_samples_are_pointed_out_once_to_the_caller():
    with pytest.warns(UserWarning, match="159 samples are few for 16 directions") as caught:
        cmpq(trained(), DATA, samples=159)
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cmpq(trained(), DATA, samples=160)
        cmpq(trained(), DATA, samples=20, measure="cka")


@pytest.mark.parametrize(("options", "message"), [
    ({"measure": "dot"}, "no measure 'dot'"), ({"features": "input"}, "features must be 'delta' or 'output'"),
    ({"samples": 3}, "at least 4 samples"),
])
def test_arguments_of_cmpq_that_are_none_are_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        cmpq(trained(), DATA, **options)


def test_one_part_has_no_others():
    with pytest.raises(ValueError, match="at least two parts"):
        cmpq(trained(layers=1), DATA)


# ---- PMPQ ----


def cut(matrices, level):
    """Set the smallest weights of all matrices together to 0."""
    sizes = torch.cat([matrix.abs().flatten() for matrix in matrices]).sort().values
    border = sizes[round(level * len(sizes)) - 1]
    for matrix in matrices:
        matrix[matrix.abs() <= border] = 0


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("scope", ["matrix", "block"])
@pytest.mark.parametrize("level", [0.3, 0.75])
def test_pmpq_is_the_loss_of_a_model_that_was_really_cut(unit, scope, level):
    model = trained().double()
    scores = pmpq(model, DATA, levels=(level,), scope=scope, unit=unit)
    for part, layers in parts_of(model, unit).items():
        other = copy.deepcopy(model)
        weights = [other.get_submodule(name).weight.data for name in layers]
        for matrices in [weights] if scope == "block" else [[weight] for weight in weights]:
            cut(matrices, level)
        wanted = (next_token_loss(other, DATA) - next_token_loss(model, DATA)).item()
        assert scores[part] == pytest.approx(wanted, abs=1e-12)
        assert abs(wanted) > 1e-7


def test_pmpq_is_the_mean_over_its_levels():
    single = [pmpq(trained(), DATA, levels=(level,)) for level in (0.2, 0.5, 0.9)]
    several = pmpq(trained(), DATA, levels=(0.2, 0.5, 0.9))
    assert several == pytest.approx({part: sum(score[part] for score in single) / 3 for part in several}, rel=1e-9)


def test_pmpq_by_accuracy_counts_errors():
    model = trained()
    scores = pmpq(model, DATA, levels=(0.8,), metric="accuracy", loss_fn=None)
    for part, layers in parts_of(model).items():
        other = copy.deepcopy(model)
        for name in layers:
            cut([other.get_submodule(name).weight.data], 0.8)
        wrong = [sum(int(guess != token) for guess, token in zip(
            m(DATA[:, :-1]).argmax(-1).flatten().tolist(), DATA[:, 1:].flatten().tolist(), strict=True))
            for m in (model, other)]
        assert scores[part] == pytest.approx((wrong[1] - wrong[0]) / DATA[:, 1:].numel(), abs=1e-7)
    assert any(scores.values())


def test_a_part_of_zeros_has_nothing_to_cut():
    model = trained()
    for layer in parts_of(model)["blocks.1"].values():
        nn.init.zeros_(layer.weight)
    scores = pmpq(model, DATA)
    assert scores["blocks.1"] == 0 != scores["blocks.0"]


sizes = st.lists(st.integers(0, 30), min_size=1, max_size=40).map(lambda values: torch.tensor(values).float())
shares = st.floats(0.01, 0.99)


@given(values=sizes, level=shares)
def test_a_quantile_is_the_value_of_that_rank(values, level):
    border = float(quantile(values, level))
    rank = max(1, round(level * len(values)))
    assert int((values < border).sum()) < rank <= int((values <= border).sum())


@given(values=sizes, level=shares)
@example(values=torch.arange(10.0), level=0.7)
def test_a_quantile_is_within_one_rank_of_torchs(values, level):
    ordered = values.sort().values
    positions = [int(torch.quantile(torch.arange(len(values), dtype=torch.float64), level, interpolation=way))
                 for way in ("lower", "higher")]
    low, high = ordered[max(0, positions[0] - 1)], ordered[positions[1]]
    assert low <= quantile(values.reshape(1, -1), level) <= high


@pytest.mark.parametrize("levels", [(), (0.0,), (1.0,), (0.5, 1.5), (-0.1,), (math.nan,)])
def test_levels_that_are_no_shares_are_an_error(levels):
    with pytest.raises(ValueError, match="levels must be shares between 0 and 1"):
        pmpq(trained(), DATA, levels=levels)


@pytest.mark.parametrize("options", [{"scope": "model"}, {"metric": "perplexity"}])
def test_arguments_of_pmpq_that_are_none_are_an_error(options):
    with pytest.raises(ValueError, match="scope must be 'matrix' or 'block', and metric 'loss' or 'accuracy'"):
        pmpq(trained(), DATA, **options)


# ---- TDMPQ ----

LAYER = "blocks.1.mlp.up"


def quadratic(model, linear=0.0, square=1.0):
    """A loss in one layer's weight alone, linear * sum w + square / 2 * |W B|^2, and the trace of its Hessian."""
    weight = model.get_submodule(LAYER).weight
    basis = torch.randn(weight.shape[1], 40, generator=torch.Generator().manual_seed(4), dtype=weight.dtype)

    def loss_fn(model, rows):
        weight = model.get_submodule(LAYER).weight
        return linear * weight.sum() + square / 2 * (weight @ basis).square().sum()
    return loss_fn, square * len(weight) * float(basis.square().sum())


def sigma_of(model, size):
    return size * float(model.get_submodule(LAYER).weight.detach().square().mean().sqrt())


@pytest.mark.parametrize(("unit", "part"), [("block", "blocks.1"), ("linear", LAYER)])
@pytest.mark.parametrize("size", [0.01, 1.0])
def test_antithetic_noise_finds_the_trace_of_the_hessian(unit, part, size):
    model = trained().double()
    loss_fn, trace = quadratic(model, linear=3.0)
    scores = tdmpq(model, DATA, size=size, draws=50, loss_fn=loss_fn, unit=unit)
    assert scores.pop(part) == pytest.approx(sigma_of(model, size) ** 2 / 2 * trace, rel=0.03)
    assert set(scores.values()) == {0.0}  # parts that the loss does not depend on


def test_a_slope_cancels_in_a_pair_and_only_there():
    model = trained().double()
    flat_loss, _ = quadratic(model)
    steep, _ = quadratic(model, linear=100.0)
    scores = [tdmpq(model, DATA, draws=2, loss_fn=loss_fn)["blocks.1"] for loss_fn in (flat_loss, steep)]
    assert scores[1] == pytest.approx(scores[0], rel=1e-6)
    line, _ = quadratic(model, linear=100.0, square=0.0)
    pair, one = (tdmpq(model, DATA, draws=1, loss_fn=line, antithetic=way)["blocks.1"] for way in (True, False))
    assert abs(pair) < 1e-10 < abs(one)


def test_without_pairs_the_slope_averages_out():
    model = trained().double()
    loss_fn, trace = quadratic(model, linear=1.0)
    score = tdmpq(model, DATA, size=1.0, draws=300, loss_fn=loss_fn, antithetic=False)["blocks.1"]
    assert score == pytest.approx(sigma_of(model, 1.0) ** 2 / 2 * trace, rel=0.05)


def noise_of(model, **options):
    """The noise on every parameter in each evaluation of the loss: a list of {name: tensor}, without the first."""
    clean = {name: p.detach().clone() for name, p in model.named_parameters()}
    seen = []

    def loss_fn(model, rows):
        seen.append({name: p.detach() - clean[name] for name, p in model.named_parameters()})
        return torch.tensor(0.0)
    tdmpq(model, DATA[:1], loss_fn=loss_fn, **options)
    assert not any(noise.any() for noise in seen[0].values())
    return seen[1:]


@pytest.mark.parametrize("target", ["all", "first"])
def test_only_the_matrices_that_are_meant_are_disturbed(target):
    model = trained()
    seen = noise_of(model, target=target, draws=2, noise="matched")
    layers = ["attention.qkv", "attention.out", "mlp.up", "mlp.down"][: 1 if target == "first" else 4]
    assert len(seen) == 3 * 2 * 2
    for i, noise in enumerate(seen):
        wanted = {f"blocks.{i // 4}.{layer}.weight" for layer in layers}
        assert {name for name, tensor in noise.items() if tensor.any()} == wanted


def test_each_part_draw_and_seed_has_noise_of_its_own_and_pairs_are_opposite():
    model = trained().double()
    name = "attention.out.weight"
    seen = [noise for seed in (0, 1) for noise in noise_of(model, draws=3, seed=seed)]
    drawn = [next(noise[f"blocks.{b}.{name}"] for b in range(3) if noise[f"blocks.{b}.{name}"].any()) for noise in seen]
    for plus, minus in zip(drawn[::2], drawn[1::2], strict=True):
        assert torch.allclose(plus, -minus, atol=1e-15)
    alike = torch.corrcoef(torch.stack([noise.flatten() for noise in drawn[::2]])) - torch.eye(18)
    assert alike.abs().max() < 0.3  # 256 numbers each


def test_relative_noise_is_a_share_of_the_root_mean_square_of_each_matrix():
    model = trained().double()
    seen = noise_of(model, size=0.2, draws=20, unit="linear", antithetic=False)
    for i, (name, layer) in enumerate(linear_layers(model).items()):
        noise = torch.stack([draw[f"{name}.weight"] for draw in seen[20 * i : 20 * i + 20]])
        sigma = 0.2 * layer.weight.detach().square().mean().sqrt()
        assert noise.std() == pytest.approx(float(sigma), rel=0.05)
        assert abs(noise.mean()) < 0.05 * sigma


@pytest.mark.parametrize("bits", [2, 4])
def test_matched_noise_is_as_large_as_the_error_of_rounding_in_each_row(bits):
    model = trained().double()
    layer = model.get_submodule(LAYER)
    with torch.no_grad():
        layer.weight *= torch.logspace(-2, 2, len(layer.weight), dtype=torch.float64)[:, None]
    seen = noise_of(model, noise="matched", bits=bits, draws=60, antithetic=False)
    noise = torch.stack([draw[f"{LAYER}.weight"] for draw in seen[60:120]])
    step = affine_grid(layer.weight.detach(), bits).scale[:, 0]
    assert (noise.std((0, 2)) / (step / math.sqrt(12)) - 1).abs().max() < 0.12


def test_rows_of_zeros_get_no_matched_noise_as_rounding_does_not_change_them():
    model = trained()
    nn.init.zeros_(model.get_submodule(LAYER).weight[3:5])
    noise = noise_of(model, noise="matched", draws=1)[2][f"{LAYER}.weight"]
    assert not noise[3:5].any() and noise[2].any()


@pytest.mark.parametrize(("unit", "part"), [("block", "blocks.1"), ("linear", LAYER)])
def test_noise_on_inputs_is_a_share_of_their_own_size(unit, part, monkeypatch):
    model = trained().double()
    module, read = model.get_submodule(part), []
    forward = module.forward
    monkeypatch.setattr(module, "forward", lambda x, *more: read.append(x) or forward(x, *more))
    tdmpq(model, DATA, size=0.3, target="inputs", draws=2, unit=unit, batch=20)
    mine, clean = 1 + 4 * list(parts_of(model, unit)).index(part), read[0]
    noise = torch.stack([x - clean for x in read[mine : mine + 4]])
    noise /= 0.3 * clean.square().mean().sqrt()
    assert noise.std() == pytest.approx(1, abs=0.05) and abs(noise.mean()) < 1e-12
    assert torch.allclose(noise[0], -noise[1]) and torch.allclose(noise[2], -noise[3])
    assert abs(torch.corrcoef(noise[::2].flatten(1))[0, 1]) < 0.1


def test_noise_on_inputs_grows_the_loss_by_half_the_trace_there():
    model = trained().double()
    read = []
    model.blocks[0].register_forward_hook(lambda _, args, __: read.append(args[0]))

    def loss_fn(model, rows):
        model(rows[:, :-1])
        return read.pop().square().sum() / 2
    score = tdmpq(model, DATA, target="inputs", size=0.5, draws=10, loss_fn=loss_fn, batch=20)
    clean = loss_fn(model, DATA).item()
    assert score["blocks.0"] == pytest.approx(0.25 * clean, rel=0.03)  # sigma^2 / 2 times the number of inputs
    assert score["blocks.1"] == score["blocks.2"] == 0


def test_no_noise_no_growth():
    for target in ("all", "inputs"):
        assert set(tdmpq(trained(), DATA, size=0.0, target=target).values()) == {0.0}


@pytest.mark.parametrize(("options", "message"), [
    ({"noise": "absolute"}, "noise must be 'relative' or 'matched'"), ({"target": "last"}, "target 'all', 'first'"),
    ({"noise": "matched", "target": "inputs"}, "noise on inputs is relative"),
    ({"noise": "matched", "bits": 16}, "bits must be in 2..8"), ({"draws": 0}, "at least one draw"),
])
def test_arguments_of_tdmpq_that_are_none_are_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        tdmpq(trained(), DATA, **options)


@pytest.mark.parametrize("name", ["cmpq", "pmpq", "tdmpq", "random"])
def test_three_means_takes_the_scores(name):
    scores = METHODS[name](trained(), DATA)
    assert list(cluster_bits(scores)) == list(scores)
    assert sorted(cluster_bits(scores).values()) == [4, 8, 16]


@pytest.mark.parametrize("method", [pmpq, tdmpq, leave_one_in])
def test_a_model_with_nan_gets_no_scores(method):
    model = GPT(GPTConfig(vocab_size=9, context=8, layers=2, heads=2, width=8), seed=0)
    model.blocks[1].mlp.up.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="the loss is NaN"):
        method(model, torch.randint(9, (4, 9), generator=torch.Generator().manual_seed(0)))
