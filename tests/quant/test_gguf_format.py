import sys

import pytest
import torch
from torch import nn

from nanoq.numbers import BLOCKS
from nanoq.quant import Grid, QuantLinear, affine_grid, block_grid, nearest
from nanoq.quant.gguf_model import export_gguf

WEIGHT = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
GROUP = {"granularity": "group", "group_size": 32}


def model(grid, bias=True):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(128, 6, bias=bias), nn.LayerNorm(6), nn.Linear(6, 3, bias=False)).half().float()
    net[0] = QuantLinear.from_codes(nearest(WEIGHT, grid), grid, net[0].bias)
    return net


def read(path):
    """Tensors of a file, dequantised by the package of llama.cpp, and the names of their types."""
    gguf = pytest.importorskip("gguf")
    tensors = gguf.GGUFReader(path).tensors
    values = {t.name: torch.from_numpy(gguf.dequantize(t.data, t.tensor_type).copy()) for t in tensors}
    return values, {t.name: t.tensor_type.name for t in tensors}


@pytest.mark.parametrize("options", [
    GROUP, GROUP | {"group_size": 64}, {"granularity": "channel"}, {"granularity": "tensor"}, GROUP | {"search": "mse"},
], ids=["32", "64", "row", "tensor", "mse"])
@pytest.mark.parametrize(("bits", "name"), [(4, "Q4_0"), (8, "Q8_0")])
def test_llama_cpp_reads_the_same_weights(bits, name, options, tmp_path):
    pytest.importorskip("gguf")
    net = model(affine_grid(WEIGHT, bits, symmetric=True, **options))
    values, types = read(export_gguf(tmp_path / "model.gguf", net))
    assert torch.equal(values["0.weight"], net[0].dequantize())
    assert torch.equal(values["0.bias"], net[0].bias)
    assert torch.equal(values["1.weight"], net[1].weight)
    assert torch.equal(values["2.weight"].float(), net[2].weight)
    assert types == {"0.weight": name, "0.bias": "F32", "1.weight": "F32", "1.bias": "F32", "2.weight": "F16"}


@pytest.mark.parametrize("options", [GROUP, GROUP | {"group_size": 64}, {"granularity": "channel"}],
                         ids=["32", "64", "row"])
@pytest.mark.parametrize(("bits", "symmetric", "name"), [
    (2, True, "Q4_0"), (3, True, "Q4_0"), (5, True, "Q5_0"), (6, True, "Q8_0"), (7, True, "Q8_0"),
    (2, False, "Q4_0"), (3, False, "Q4_0"), (4, False, "Q5_0"), (6, False, "Q8_0")])
def test_other_widths_are_written_in_the_smallest_type_that_holds_them(bits, symmetric, name, options, tmp_path):
    net = model(affine_grid(WEIGHT, bits, symmetric=symmetric, **options))
    values, types = read(export_gguf(tmp_path / "model.gguf", net))
    assert torch.equal(values["0.weight"], net[0].dequantize())
    assert types["0.weight"] == name


@pytest.mark.parametrize(("zero", "name"), [(8, "Q4_0"), (4, "Q4_1"), (0, "Q4_1"), (15, "Q5_0")])
def test_minima_that_float16_holds_make_a_q4_1(zero, name, tmp_path):
    scale = (torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) + 0.5).half().float()
    codes = torch.randint(16, (6, 128), generator=torch.Generator().manual_seed(2))
    net = nn.Sequential(QuantLinear.from_codes(codes, Grid(4, 16, scale, 32, torch.full((6, 4), float(zero)))))
    values, types = read(export_gguf(tmp_path / "model.gguf", net))
    assert types["0.weight"] == name
    assert torch.equal(values["0.weight"], net[0].dequantize())


@pytest.mark.parametrize("seed", range(10))
def test_random_codes_grids_and_zero_points_are_read_as_they_are(seed, tmp_path):
    random = torch.Generator().manual_seed(seed)
    bits = int(torch.randint(2, 9, (), generator=random))
    zero = torch.randint(2**bits, (5, 3), generator=random).float().clamp(2**bits - 128, 128)
    scale = (torch.rand(5, 3, generator=random) + 2**-10).half().float()
    codes = torch.randint(2**bits, (5, 192), generator=random)
    net = nn.Sequential(QuantLinear.from_codes(codes, Grid(bits, 2**bits, scale, 64, zero)))
    values, _ = read(export_gguf(tmp_path / "model.gguf", net))
    assert torch.equal(values["0.weight"], net[0].dequantize())


@pytest.mark.parametrize(("bits", "bits_per_weight"), [(4, 4.5), (8, 8.5)])
def test_a_block_takes_its_bits_and_no_more(bits, bits_per_weight, tmp_path):
    gguf = pytest.importorskip("gguf")
    path = export_gguf(tmp_path / "model.gguf", model(affine_grid(WEIGHT, bits, symmetric=True, **GROUP)))
    (tensor,) = [t for t in gguf.GGUFReader(path).tensors if t.name == "0.weight"]
    assert 8 * tensor.n_bytes == bits_per_weight * WEIGHT.numel()
    assert tensor.shape.tolist() == [128, 6]  # GGUF names the inner dimension first


def test_the_metadata_is_in_the_header(tmp_path):
    gguf = pytest.importorskip("gguf")
    metadata = {"general.architecture": "gpt2", "general.name": "tales", "a.int": 7, "a.float": 0.5, "a.bool": True,
                "a.list": ["x", "y"], "a.numbers": [1, 2]}
    path = export_gguf(tmp_path / "model.gguf", model(affine_grid(WEIGHT, 4, symmetric=True, **GROUP)), metadata)
    fields = gguf.GGUFReader(path).fields
    assert {key: fields[key].contents() for key in metadata} == metadata
    assert metadata["general.architecture"] == "gpt2"


@pytest.mark.parametrize("value", [None, [], [1, "x"], -1, 2**32, {}], ids=str)
def test_other_metadata_is_refused(value, tmp_path):
    pytest.importorskip("gguf")
    with pytest.raises(ValueError, match=r"the metadata 'a.key' must be"):
        export_gguf(tmp_path / "model.gguf", model(affine_grid(WEIGHT, 4, symmetric=True, **GROUP)), {"a.key": value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("grid", [
    affine_grid(WEIGHT, 8, **GROUP),
    affine_grid(WEIGHT, 4, symmetric=True, granularity="group", group_size=16),
    affine_grid(WEIGHT * 1e-6, 4, symmetric=True, **GROUP),
    block_grid(BLOCKS["nf4"], WEIGHT, 4),
], ids=["asymmetric", "group", "scale", "codebook"])
def test_another_grid_is_refused_before_anything_is_written(grid, tmp_path):
    pytest.importorskip("gguf")
    with pytest.raises(ValueError, match=r"0 cannot be written in GGUF without changing its weights.*group_size=32"):
        export_gguf(tmp_path / "model.gguf", model(grid))
    assert not list(tmp_path.iterdir())


def test_a_width_that_is_no_multiple_of_a_block_is_refused(tmp_path):
    pytest.importorskip("gguf")
    weight = WEIGHT[:, :48]
    grid = affine_grid(weight, 4, symmetric=True)
    net = nn.Sequential(QuantLinear.from_codes(nearest(weight, grid), grid))
    with pytest.raises(ValueError, match="0 cannot be written in GGUF"):
        export_gguf(tmp_path / "model.gguf", net)


def test_without_the_package_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match="pip install gguf"):
        export_gguf(tmp_path / "model.gguf", model(affine_grid(WEIGHT, 4, symmetric=True, **GROUP)))
