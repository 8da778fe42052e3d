"""The capstone of notebook 04: what its check says about files and models that are not right."""

import copy

import torch

import nanoq
from nanoq.quant import linear_layers
from nanoq.teach import capstone
from nanoq.teach.checks import exercises_of

WRITE, READ = exercises_of("04")["04.capstone"].reference


def test_a_write_that_changes_the_model_is_told_so():
    def write(model, path):
        WRITE(model, path)
        linear_layers(model)["blocks.3.mlp.up"].weight.data *= 2

    assert capstone.diagnose((write, READ)) == (
        "write changes the model that it is given (blocks.3.mlp.up): leave it as it was")


def test_the_original_weights_are_no_answer():
    original = nanoq.load(capstone.MODEL).model

    def read(model, path):
        model.load_state_dict(copy.deepcopy(original.state_dict()))

    assert "original weights" in capstone.diagnose((WRITE, read))


def test_a_read_that_is_still_a_stub_hears_that_write_works():
    said = capstone.diagnose((WRITE, lambda model, path: ...))
    assert said.startswith("write works") and said.endswith("read is not written yet")


def test_too_much_loss_names_the_layer_that_is_furthest_off():
    def read(model, path):
        READ(model, path)
        weight = linear_layers(model)["blocks.2.mlp.up"].weight
        weight.data = weight + 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))

    said = capstone.diagnose((WRITE, read))
    assert "in 1 layers" not in said and "blocks.2.mlp.up" in said and "nats of added loss" in said


def test_an_erased_model_has_no_matrix_left_and_all_else():
    model = nanoq.load(capstone.MODEL).model
    fresh = capstone.erased(model)
    assert all(layer.weight.isnan().all() for layer in linear_layers(fresh).values())
    kept = [name for name, value in fresh.state_dict().items() if not value.isnan().any()]
    assert len(kept) + len(linear_layers(model)) == len(model.state_dict()) and len(kept) > 10
