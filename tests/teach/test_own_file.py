"""The learner's own file: what is stored is all that the model which is read has, and the board keeps it."""

import itertools

import pytest
import torch
from matplotlib.text import Text

import nanoq
from nanoq.quant import affine_grid, gptq, nearest, pack, unpack
from nanoq.teach import own_file as module
from nanoq.teach import records
from nanoq.teach.own_file import OwnFile, as_stats, keep, own_file, own_files

BITS = 4


@pytest.fixture(autouse=True)
def board(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOQ_RECORDS", str(tmp_path))
    return lambda: records.read("own_files")


def encode(weight, hessian, codes=lambda weight, grid, hessian: nearest(weight, grid)):
    grid = affine_grid(weight, BITS)
    packed = pack(codes(weight, grid, hessian), BITS)
    return {"codes": packed, "scale": grid.scale.half(), "zero_point": grid.zero_point.to(torch.uint8)}


def decode(parts, shape):
    codes = unpack(parts["codes"], BITS, shape[1])
    return parts["scale"].float() * (codes - parts["zero_point"].float())


def compensated(weight, grid, hessian):
    return gptq(weight, grid, as_stats(hessian))


def test_rounding_has_the_loss_of_the_package_and_the_hessian_serves_gptq(board):
    own_file("RTN", encode, decode)
    original, task, losses, _ = module._course()
    theirs = nanoq.quantize(nanoq.load(module.MODEL), bits=BITS, method="nearest")
    added = float((task.losses(theirs.model) - losses).mean())
    assert board()["RTN"]["delta_nats"] == pytest.approx(added, abs=3e-4)
    assert 1_475_000 < board()["RTN"]["bytes"] < 1_495_000
    assert torch.isfinite(original.token_embedding.weight).all()
    own_file("GPTQ", lambda weight, hessian: encode(weight, hessian, compensated), decode)
    assert board()["GPTQ"]["bytes"] == board()["RTN"]["bytes"]
    assert board()["GPTQ"]["delta_nats"] < 0.7 * board()["RTN"]["delta_nats"]


def test_an_encode_that_asks_for_the_name_may_give_each_matrix_its_own_width(board):
    told = []

    def mixed(weight, hessian, name):
        told.append(name)
        codes = nearest(weight, affine_grid(weight, 3 if name.endswith("mlp.up") else BITS))
        return {"codes": codes.to(torch.uint8)}

    tensors = module._encoded(module._course()[0], module._course()[3], mixed)
    assert told == list(module._course()[3])
    widest = {name: int(tensors[f"{name}.codes"].max()) for name in told}
    assert {name for name, code in widest.items() if code < 8} == {name for name in told if name.endswith("mlp.up")}


def test_a_step_is_kept_once_and_compared_with_the_others(board, capsys):
    def said(name, *numbers):
        keep(name, OwnFile(*numbers, 0.0, 0.3))
        return capsys.readouterr().out.splitlines()[1:]

    assert said("a", 1000, 0.2) == []
    assert said("b", 2000, 0.1) == ["no other file of yours beats it in both, bytes and loss"]
    assert said("b", 900, 0.1) == ["no larger and no worse than 1 of your 1 other files"]
    assert said("c", 1100, 0.1) == ["your file 'b' is no larger and no worse"]
    assert said("d", 900, 0.1) == ["no larger and no worse than 2 of your 3 other files"]  # and the same as b
    assert list(board()) == ["a", "b", "c", "d"] and board()["b"]["bytes"] == 900


@pytest.mark.parametrize(
    ("wrong_encode", "wrong_decode", "said"),
    [(lambda weight, hessian: weight, decode, "encode gives a dict of tensors"),
     (lambda weight, hessian: {}, decode, "encode gives a dict of tensors"),
     (encode, lambda parts, shape: decode(parts, shape).T, r"blocks\.0.*decode gives a finite weight of shape"),
     (encode, lambda parts, shape: None, "not NoneType"),
     (encode, lambda parts, shape: decode(parts, shape) / 0, "finite weight of .*, not NaN or infinity")],
)  # fmt: skip
def test_what_is_no_file_or_no_weight_is_named_and_not_kept(board, wrong_encode, wrong_decode, said):
    with pytest.raises(ValueError, match=said):
        own_file("x", wrong_encode, wrong_decode)
    assert not board()


SEVEN = {  # files of seven notebooks, near together as they really are
    "04 · RTN, 4 bits": (1_494_000, 0.0405), "05 · ternary": (685_832, 2.219), "07 · GPTQ, 4 bits": (1_494_768, 0.0093),
    "09 · 3.5 bits": (1_309_354, 0.0082), "09 · 2.5 bits": (980_085, 0.0409), "09 · 2.0 bits": (833_126, 0.1156),
    "10 · mixed widths": (1_330_000, 0.009),
}  # fmt: skip


@pytest.fixture
def drawn(board, monkeypatch):
    shown = {}
    monkeypatch.setattr("nanoq.teach.plots.show", lambda figure, alt: shown.update(figure=figure, alt=alt))

    def draw(files):
        for name, (size, loss) in files.items():
            keep(name, OwnFile(size, loss, loss, loss))
        own_files()
        shown["figure"].canvas.draw()
        return shown["figure"].axes[0], shown["alt"]

    return draw


def test_the_board_shows_every_file_of_the_learner(drawn):
    axes, alt = drawn({"mine": (1_400_000, 0.1)})
    assert [text.get_text() for text in axes.texts] == ["mine"] and "mine: 1.40 MB, +0.1000 nats" in alt


def test_the_axis_ends_near_the_largest_file(drawn):
    assert 1.5 < drawn({"05 · ternary": (685_832, 2.2)})[0].get_xlim()[1] < 1.8  # the package's 4 bits are seen
    assert 2.8 < drawn({"04 · RTN, 8 bits": (2_821_904, 0.0001)})[0].get_xlim()[1] < 3.4


def test_no_name_covers_another_one_or_a_star_and_all_are_inside(drawn):
    axes, _ = drawn(SEVEN)
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert sorted(text.get_text() for text in axes.texts) == sorted(SEVEN)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    stars = axes.transData.transform([(size / 1e6, loss) for size, loss in SEVEN.values()])
    assert not any(box.contains(*star) for box in boxes for star in stars)
    assert all(axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max) for box in boxes)
