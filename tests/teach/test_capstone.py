"""The capstone of notebook 04: what its check says about files and models that are not right."""

import copy

import torch
from safetensors.torch import load_file, save_file

import nanoq
from nanoq.quant import linear_layers, pack
from nanoq.teach import capstone
from nanoq.teach.checks import examine, exercises_of


def said_of(answer):
    """What the check says about both functions."""
    return capstone.diagnose(capstone.produce(answer))


WRITE, READ = exercises_of("04")["04.capstone"].reference


def test_a_write_that_changes_the_model_is_told_so():
    def write(model, path):
        WRITE(model, path)
        linear_layers(model)["blocks.3.mlp.up"].weight.data *= 2

    assert said_of((write, READ)) == (
        "write changes the model that it is given (blocks.3.mlp.up): leave it as it was")


def test_the_original_weights_are_no_answer():
    original = nanoq.load(capstone.MODEL).model

    def read(model, path):
        model.load_state_dict(copy.deepcopy(original.state_dict()))

    assert "original weights" in said_of((WRITE, read))


def test_a_read_that_is_still_a_stub_hears_that_write_works():
    said = said_of((WRITE, lambda model, path: ...))
    assert said.startswith("write works") and said.endswith("read is not written yet")


def test_too_much_loss_names_the_layer_that_is_furthest_off():
    def read(model, path):
        READ(model, path)
        weight = linear_layers(model)["blocks.2.mlp.up"].weight
        weight.data = weight + 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))

    said = said_of((WRITE, read))
    assert "in 1 layers" not in said and "blocks.2.mlp.up" in said and "nats of added loss" in said


def test_a_scale_that_is_rounded_too_late_is_right_and_named():
    verdict = examine(exercises_of("04")["04.capstone"], capstone.round_trip(row_grid=capstone.late_grid))
    assert verdict.kind == "right"
    assert verdict.line.startswith("✓ 04.capstone: correct; your scales were rounded to float16 after they had made")


def test_scales_of_32_bits_that_fit_are_right_and_named():
    _, read = capstone.round_trip()

    def write(model, path):
        WRITE(model, path)
        tensors = load_file(path)
        for name, layer in linear_layers(model).items():
            scale, zero_point = capstone.late_grid(layer.weight.detach())
            codes = (torch.round(layer.weight.detach() / scale) + zero_point).clamp(0, 15)
            tensors |= {f"{name}.scale": scale, f"{name}.zero_point": zero_point.to(torch.uint8),
                        f"{name}.codes": pack(codes.long().flatten(), 4)}
        save_file(tensors, path)

    verdict = examine(exercises_of("04")["04.capstone"], (write, read))
    assert verdict.kind == "right" and "; your scales are 32-bit numbers, though" in verdict.line


def test_the_course_s_own_answer_gets_no_remark():
    assert examine(exercises_of("04")["04.capstone"], (WRITE, READ)).line == "✓ 04.capstone: correct"


def test_an_erased_model_has_no_matrix_left_and_all_else():
    model = nanoq.load(capstone.MODEL).model
    fresh = capstone.erased(model)
    assert all(layer.weight.isnan().all() for layer in linear_layers(fresh).values())
    kept = [name for name, value in fresh.state_dict().items() if not value.isnan().any()]
    assert len(kept) + len(linear_layers(model)) == len(model.state_dict()) and len(kept) > 10
