from copy import deepcopy

import pytest
import torch
from torch import nn

from nanoq.quant import LayerStats
from nanoq.quant.visit import Call, Stage, stages


class Block(nn.Module):
    """Two layers that read the same, then one that reads what they give, which may run once more."""

    def __init__(self, times=1):
        super().__init__()
        torch.manual_seed(0)
        self.keys, self.values, self.out = (nn.Linear(4, 4) for _ in range(3))
        self.times = times

    def inner(self, x):
        return self.keys(x).tanh() * self.values(x)

    def forward(self, x):
        x = self.inner(x)
        for _ in range(self.times):
            x = self.out(x)
        return x


class Routed(Block):
    """One layer of two, by the sign of the sum: batches differ in what they reach."""

    def forward(self, x):
        return self.out((self.keys if x.sum() > 0 else self.values)(x))


BATCHES = [torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
CROSS = [x + 0.1 * torch.randn(6, 4, generator=torch.Generator().manual_seed(9)) for x in BATCHES]


def stage_of(block, **more):
    return Stage("blocks.0.", block, [Call((x,)) for x in BATCHES], [Call((x,)) for x in CROSS], deepcopy(block),
                 **more)


def layers_of(block):
    return {name: block.get_submodule(name) for name in ("keys", "values", "out")}


def runs_of(layer):
    done = []
    layer.register_forward_hook(lambda *_: done.append(None))
    return done


def is_of(stats, inputs, originals=None):
    """Whether statistics are those of these batches."""
    expected = LayerStats.of(torch.cat(inputs))
    cross = None if originals is None else torch.cat(originals).T @ torch.cat(inputs) / expected.tokens
    return (stats.tokens == expected.tokens and torch.allclose(stats.gram, expected.gram, atol=1e-6)
            and (stats.cross is None if cross is None else torch.allclose(stats.cross, cross, atol=1e-6)))


@pytest.mark.parametrize("match", [False, True])
@torch.no_grad()
def test_a_block_is_left_where_its_layers_have_read_once_a_first_batch_has_shown_where_that_is(match):
    block = Block()
    stage, done = stage_of(block), runs_of(block.out)
    stats = stage.statistics(layers_of(block), match)
    assert len(done) == 1 < len(BATCHES)
    assert is_of(stats["keys"], BATCHES, CROSS if match else None) and stats["values"] is stats["keys"]
    assert is_of(stats["out"], [block.inner(x) for x in BATCHES], [block.inner(x) for x in CROSS] if match else None)
    assert not any(layer._forward_pre_hooks for layer in layers_of(block).values())


@pytest.mark.parametrize("match", [False, True])
@torch.no_grad()
def test_of_the_first_layers_alone_the_block_runs_only_as_far(match):
    block = Block()
    stage, done, values = stage_of(block), runs_of(block.out), runs_of(block.values)
    stats = stage.statistics(layers_of(block), match, first=True)
    assert len(done) == 1 and len(values) == 1  # left before the second of them ran
    assert stats.keys() == {"keys", "values"} and is_of(stats["values"], BATCHES, CROSS if match else None)


@torch.no_grad()
def test_processes_that_share_statistics_gather_those_of_all_layers():
    block, shared = Block(), {}
    stage_of(block, share=shared.update).statistics(layers_of(block), first=True)
    assert {name: own.tokens for name, own in shared.items()} == dict.fromkeys(("keys", "values", "out"), 24)


@torch.no_grad()
def test_a_layer_that_runs_twice_is_seen_both_times():
    block = Block(times=2)
    stats = stage_of(block).statistics(layers_of(block))
    read = [block.inner(x) for x in BATCHES]
    assert is_of(stats["out"], read + [block.out(x) for x in read])


@torch.no_grad()
def test_a_layer_that_only_some_batches_reach_is_seen_in_each_of_them():
    block, positive = Routed(), [x for x in BATCHES if x.sum() > 0]
    assert 0 < len(positive) < len(BATCHES)
    stats = stage_of(block).statistics(layers_of(block))
    assert is_of(stats["keys"], positive) and stats["values"].tokens == 6 * (len(BATCHES) - len(positive))
    assert is_of(stats["out"], [(block.keys if x.sum() > 0 else block.values)(x) for x in BATCHES])


@torch.no_grad()
def test_what_enters_the_next_block_takes_the_place_of_what_entered_the_one_before():
    class Model(nn.Module):
        blocks = nn.ModuleList([Block(), Block()])
        embed = staticmethod(lambda rows: rows)

    model, lists = Model(), []
    for stage in stages(model, BATCHES):
        lists.append(stage.calls)
    assert lists[0] is lists[1]
    assert all(torch.equal(call.hidden, model.blocks[0](x)) for call, x in zip(lists[0], BATCHES, strict=True))


@torch.no_grad()
def test_layers_that_the_first_batch_does_not_reach_are_seen_in_all_others():
    block = Routed()
    first = next(i for i, x in enumerate(BATCHES) if x.sum() > 0)
    order = [BATCHES[first], *BATCHES[:first], *BATCHES[first + 1:]]
    stage = Stage("blocks.0.", block, [Call((x,)) for x in order], [], None)
    stats = stage.statistics({"values": block.values}, first=True)
    assert is_of(stats["values"], [x for x in order if not x.sum() > 0])


@torch.no_grad()
def test_a_layer_that_runs_twice_is_matched_with_its_own_inputs_in_the_original():
    block = Block(times=2)
    stats = stage_of(block).statistics(layers_of(block), match_original=True)
    (read, others) = ([block.inner(x) for x in batches] for batches in (BATCHES, CROSS))
    assert is_of(stats["out"], [*read, *map(block.out, read)], [*others, *map(block.out, others)])


@torch.no_grad()
def test_a_layer_that_other_tokens_reach_in_the_original_is_not_matched():
    block = Routed()
    for inputs in (BATCHES, BATCHES[:1], [x for x in BATCHES if x.sum() > 0]):
        stage = Stage("blocks.0.", block, [Call((x,)) for x in inputs], [Call((-x,)) for x in inputs], deepcopy(block))
        with pytest.warns(UserWarning, match="(keys|values): other tokens reach them"):
            stats = stage.statistics(layers_of(block), match_original=True)
        assert stats["out"].cross is not None
        for name in stats.keys() - {"out"}:
            assert stats[name].cross is None and is_of(stats[name], [
                x for x in inputs if (name == "keys") == bool(x.sum() > 0)])


@torch.no_grad()
def test_a_block_that_runs_again_passes_on_what_it_gives_each_time():
    class Model(nn.Module):
        embed = staticmethod(lambda rows: rows)

        def __init__(self):
            super().__init__()
            block = Block()
            self.blocks = nn.ModuleList([block, Block(), block])

    model = Model()
    entered = [stage.calls[0].hidden for stage in stages(model, BATCHES[:1])]
    expected = [BATCHES[0], model.blocks[0](BATCHES[0])]
    assert torch.equal(entered[0], expected[0]) and torch.equal(entered[1], expected[1])
    assert torch.equal(entered[2], model.blocks[1](expected[1]))
