"""Rows of all roads: read from the files, told, compared; and what a layer reads."""

import pytest
import torch
from torch import nn

from nanoq.compress import SparseLinear
from nanoq.lm.model import GPT, GPTConfig
from nanoq.quant import LayerStats, linear_layers, observe
from nanoq.teach.roads import frontier, inputs_of, measured, replaced, tell


def row(size, added):
    return {"bytes": size, "delta_nats": added}


def test_the_rows_of_both_files_are_there_under_their_names():
    rows = measured()
    assert rows["GPTQ 4 bit"]["road"] == "quantise" and rows["wanda 50%"]["road"] == "prune"
    assert {"quantise", "prune", "low rank", "distil", "together", "start"} == {r["road"] for r in rows.values()}
    assert all(r["ci_low"] <= r["delta_nats"] <= r["ci_high"] and r["bits"] <= 16 for r in rows.values())
    assert "float32 32 bit" not in rows


def test_a_row_is_told_in_megabytes_and_an_unknown_one_is_an_error(capsys):
    rows = {"a": row(1_500_000, 0.25) | {"ci_low": 0.2, "ci_high": 0.3}}
    tell(rows, "a")
    assert " ".join(capsys.readouterr().out.split()) == "a 1.50 MB +0.250 nats (+0.200 to +0.300)"
    with pytest.raises(KeyError):
        tell(rows, "b")


def test_the_frontier_has_what_nothing_smaller_beats():
    good, small, worse, nearly_as_small = row(200, 0.1), row(100, 0.5), row(300, 0.2), row(99.5, 0.6)
    assert frontier([worse, good, nearly_as_small, small]) == [small, good]


def test_what_a_layer_reads_is_what_its_statistics_are_made_of():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(2, 5, 3)
    inputs = inputs_of(model, model[2], x)
    with observe({"last": model[2]}) as stats, torch.inference_mode():
        model(x)
    assert inputs.shape == (10, 4)
    assert torch.allclose(LayerStats.of(inputs).gram, stats["last"].gram)
    assert not model[2]._forward_pre_hooks


def test_each_weight_is_replaced_by_what_is_made_of_it_and_its_hessian():
    model = GPT(GPTConfig(vocab_size=5, context=8, layers=1, heads=2, width=8))
    old = {name: layer.weight.detach().clone() for name, layer in linear_layers(model).items()}
    hessians = {name: torch.eye(weight.shape[1]) * place for place, (name, weight) in enumerate(old.items(), start=2)}
    changed = replaced(lambda weight, hessian: weight.double() @ hessian.double(), hessians)(model)
    assert len(old) == 4
    for name, weight in old.items():
        layer, inputs = changed.get_submodule(name), torch.eye(weight.shape[1])
        assert isinstance(layer, SparseLinear)
        assert torch.allclose(layer(inputs), (weight @ hessians[name]).T, atol=1e-2), name
