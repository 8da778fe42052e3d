"""What notebook 14 measures: a changed model on a leaderboard, and the rows of all roads that were measured before."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from nanoq.compress import Prune, compress_model
from nanoq.files import read_results
from nanoq.quant import linear_layers
from nanoq.quant.recipe import Step
from nanoq.store import Checkpoint
from nanoq.teach.leaderboard import Leaderboard, Row

PACK = Prune("magnitude", 0)  # prunes nothing, and leaves the zeros out of the file
NUMBERS = ("bits", "bytes", "delta_nats", "ci_low", "ci_high")


def try_out(board: Leaderboard, method: str, bits: float, change: Callable[[nn.Module], nn.Module | None]) -> Row:
    """Change a copy of the board's model, write it to a file, measure what the file gives, and print the row.

    Args:
        board: has the model, and gets the row.
        method: the name of the row.
        bits: of the values that are stored.
        change: changes the model in place, or gives another one.
    """
    copy = deepcopy(board.reference)
    changed = change(copy.model)
    model = copy.model if changed is None else changed
    row = board.add_saved(method, bits, Checkpoint(model, copy.tokenizer, copy.card))
    print(_line(method, row.bytes, row.delta_nats, row.ci_low, row.ci_high))
    return row


def replaced(
    fit: Callable[[Tensor, Tensor], Tensor], hessians: Mapping[str, Tensor], step: Step = PACK
) -> Callable[[nn.Module], nn.Module]:
    """A change of a model: `fit(weight, hessian)` in place of the weight of each linear layer, and then a step.

    Args:
        fit: takes a weight (out, in) and a Hessian (in, in), and gives a weight (out, in).
        hessians: of the layers, by name.
        step: makes the form in which a layer is stored; by default it packs the zeros.
    """

    def change(model: nn.Module) -> nn.Module:
        for name, layer in linear_layers(model).items():
            layer.weight.data = fit(layer.weight.detach().clone(), hessians[name]).to(layer.weight)
        return compress_model(model, step)

    return change


def measured() -> dict[str, dict]:
    """The rows of all roads on TinyStories by method, as "GPTQ 4 bit" or "wanda 50%": road, bytes, nats and so on."""
    quantised = {f"{row['method']} {row['bits']:.0f} bit": {"road": "quantise"} | row
                 for row in _table("leaderboard") if row["bits"] < 16}  # fmt: skip
    return quantised | {row["method"]: row for row in _table("roads")}


def _table(name: str) -> list[dict]:
    return [row | {key: float(row[key]) for key in NUMBERS} for row in read_results(f"tinystories/{name}")]


def tell(rows: Mapping[str, Mapping], *methods: str) -> None:
    """Print some of the rows that `measured` gives."""
    for method in methods:
        print(_line(method, *(rows[method][key] for key in NUMBERS[1:])))


def _line(method: str, size: float, added: float, low: float, high: float) -> str:
    return f"{method:42} {size / 1e6:5.2f} MB {added:+.3f} nats ({low:+.3f} to {high:+.3f})"


def frontier(rows: Sequence[Mapping]) -> list[Mapping]:
    """The rows that no other beats in both bytes (give or take a hundredth) and added loss, by size."""
    def beaten(row: Mapping) -> bool:
        return any(other["bytes"] <= 1.01 * row["bytes"] and other["delta_nats"] < row["delta_nats"] for other in rows)

    return sorted((row for row in rows if not beaten(row)), key=lambda row: row["bytes"])


def inputs_of(model: nn.Module, layer: nn.Module, tokens: Tensor) -> Tensor:
    """What a layer of the model reads on windows of tokens (W, T): (W * T, in)."""
    caught = []
    hook = layer.register_forward_pre_hook(lambda _, arguments: caught.append(arguments[0].flatten(0, -2).clone()))
    try:
        with torch.inference_mode():
            model(tokens)
    finally:
        hook.remove()
    return caught[0]
