import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nanoq.quant import QuantLinear, import_awq

OUT, IN = 24, 32
OUTPUT_OF_NIBBLE = (0, 2, 4, 6, 1, 3, 5, 7)
CONFIG = {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm",
          "modules_to_not_convert": None}


class Pair(nn.Module):
    def __init__(self, bias=False):
        super().__init__()
        self.first, self.second = nn.Linear(IN, OUT, bias=bias), nn.Linear(OUT, 3, bias=bias)


def write(folder, bias=False, group_size=16, seed=0):
    """A file of random words."""
    random = torch.Generator().manual_seed(seed)
    groups = 1 if group_size == -1 else IN // group_size
    tensors = {
        "first.qweight": torch.randint(-2**31, 2**31, (IN, OUT // 8), generator=random).int(),
        "first.qzeros": torch.randint(-2**31, 2**31, (groups, OUT // 8), generator=random).int(),
        "first.scales": torch.rand(groups, OUT, generator=random).half(),
        "second.weight": torch.randn(3, OUT, generator=random).half(),
    }
    if bias:
        tensors |= {"first.bias": torch.randn(OUT, generator=random).half(), "second.bias": torch.zeros(3).half()}
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "pair", "quantization_config": CONFIG | {"group_size": group_size}}
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


def decode_by_hand(tensors, group_size):
    """The weight (out, in), weight by weight, from the format's description."""
    words, zeros, scales = (tensors[f"first.{field}"].tolist() for field in ("qweight", "qzeros", "scales"))
    weight = torch.zeros(OUT, IN)
    for i in range(IN):
        group = 0 if group_size == -1 else i // group_size
        for word in range(OUT // 8):
            for nibble, output in enumerate(OUTPUT_OF_NIBBLE):
                o = 8 * word + output
                code = (words[i][word] & 0xFFFFFFFF) >> 4 * nibble & 15
                zero = (zeros[group][word] & 0xFFFFFFFF) >> 4 * nibble & 15
                weight[o, i] = scales[group][o] * (code - zero)
    return weight


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("group_size", [-1, 8, 16, 32])
def test_a_slow_reader_finds_the_same_weights(group_size, bias, tmp_path):
    tensors = write(tmp_path, bias, group_size)
    model = import_awq(tmp_path, Pair(bias))
    assert isinstance(model.first, QuantLinear) and model.first.layout["bits"] == 4 and not model.training
    assert torch.equal(model.first.dequantize(), decode_by_hand(tensors, group_size))
    assert torch.equal(model.second.weight, tensors["second.weight"].float())
    if bias:
        assert torch.equal(model.first.bias, tensors["first.bias"].float())


def test_an_older_file_has_its_configuration_beside(tmp_path):
    tensors = write(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    block = {"zero_point": True, "q_group_size": 16, "w_bit": 4, "version": "GEMM"}
    (tmp_path / "quant_config.json").write_text(json.dumps(block))
    assert torch.equal(import_awq(tmp_path, Pair()).first.dequantize(), decode_by_hand(tensors, 16))


@pytest.mark.parametrize(("changes", "message"), [
    ({"quant_method": "gptq"}, "method 'gptq'"), ({"version": "gemv"}, "version 'gemv'"), ({"bits": 8}, "8 bits"),
    ({"zero_point": False}, "zero_point False"), ({"group_size": 0}, "group size 0"),
    ({"group_size": "x"}, "group size 'x'"), ({"group_size": 24}, "in groups of 24: .*another model"),
    ({"group_size": 8}, "in groups of 8: .*another model"), ({"bits": [1] * 999}, "4 bits, zero_point True"),
])
def test_other_configurations_are_refused(changes, message, tmp_path):
    write(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": CONFIG | changes}))
    with pytest.raises(ValueError, match=message) as error:
        import_awq(tmp_path, Pair())
    assert str(tmp_path) in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(("tensors", "message"), [
    ({"first.qzeros": None}, "'qzeros' is missing"),
    ({"first.scales": torch.ones(2, OUT)}, "'scales' is missing or not float16"),
    ({"first.scales": torch.full((2, OUT), torch.inf, dtype=torch.float16)}, "NaN or infinity"),
    ({"first.scales": torch.ones((), dtype=torch.float16)}, "another model, or is damaged"),
    ({"first.qweight": torch.zeros(IN, 2, dtype=torch.int32)}, "another model, or is damaged"),
    ({"first.bias": torch.ones(OUT).half()}, "the bias has the shape"),
    ({"second.weight": None}, "missing second.weight"),
    ({"first.qweight": None}, r"no tensor named \*.qweight"),
], ids=str)
def test_damaged_tensors_are_named(tensors, message, tmp_path):
    write(tmp_path)
    content = load_file(tmp_path / "model.safetensors") | tensors
    save_file({name: tensor for name, tensor in content.items() if tensor is not None}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        import_awq(tmp_path, Pair())


def test_a_folder_without_a_configuration_or_weights_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config.json with .*, and no quant_config.json"):
        import_awq(tmp_path, Pair())
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="not of method 'awq'"):
        import_awq(tmp_path, Pair())
    write(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no \*.safetensors in .*an AWQ checkpoint"):
        import_awq(tmp_path, Pair())
