"""Compressed models in files: what was pruned is not there, what is thin stays thin, what is packed packed."""

from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from nanoq.compress.layers import below, restored
from nanoq.lm.checkpoint import Checkpoint, write_folder
from nanoq.lm.model import GPT
from nanoq.quant.layers import linear_layers
from nanoq.quant.qlinear import as_float16
from nanoq.quant.quantize import load_layers


def save_compressed(folder: Path | str, checkpoint: Checkpoint, **facts) -> Path:
    """Write a checkpoint whose layers were compressed in any way; every parameter goes to float16.

    `load_compressed` gives a model with the logits of this one, once its parameters are rounded to float16.

    Raises:
        ValueError: if float16 cannot hold a parameter, or the parts of a thin layer were packed.
    """
    model = checkpoint.model
    parameters = dict(model.named_parameters())
    tensors = {name: as_float16(name, t) if name in parameters else t for name, t in model.state_dict().items()}
    card = {key: value for key, value in checkpoint.card.items() if key != "validation_perplexity"}
    card |= {"config": asdict(model.config), "layers": _layouts(model)} | facts
    return write_folder(folder, tensors, card)


def _layouts(model: GPT) -> dict[str, dict]:
    """The layout of every layer that is not what the model's configuration gives, by name."""
    own = {name: layer.layout for name, layer in model.named_modules() if hasattr(layer, "layout")}
    for name in [name for name in own if any(name.startswith(f"{other}.") for other in own)]:
        if own[name.rpartition(".")[0]]["kind"] != "adapter":
            raise ValueError(f"{name} is a packed layer within a thin one, which a file has no room for")
        del own[name]  # the adapter's layout has those of its parts
    whole = linear_layers(GPT(model.config))
    dense = {name: {"kind": "dense"} for name, layer in linear_layers(model).items()
             if name in whole and name not in own and layer.weight.shape != whole[name].weight.shape}
    return own | dense


def load_compressed(name_or_path: str | Path) -> Checkpoint:
    """Load what `save_compressed` or `nanoq.quant.save_quantized` wrote, or a checkpoint that is not compressed at all.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or its weights do not fit its card.
    """
    return load_layers(name_or_path, _restore)


def _restore(model: GPT, layouts: dict[str, dict], tensors: dict[str, Tensor]) -> None:
    """Put the layers of a file in the places of those that they stand for."""
    for name, layout in layouts.items():
        model.set_submodule(name, restored(layout, below(name, tensors)))
