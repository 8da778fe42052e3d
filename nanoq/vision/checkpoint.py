"""Picture models in files: the same folder of weights and card as a language model's."""

from dataclasses import asdict
from pathlib import Path

from nanoq.lm.checkpoint import read_folder, write_folder
from nanoq.vision.model import ResNet, ResNetConfig


def save_classifier(folder: Path | str, model: ResNet, **facts) -> Path:
    """Write a model in its own precision; `facts` join the card (data, command, ...)."""
    card = {"config": asdict(model.config), "parameters": model.parameter_count()}
    return write_folder(folder, model.state_dict(), card | facts)


def load_classifier(name_or_path: str | Path) -> ResNet:
    """Load a shipped picture model by name, or any by folder, in evaluation mode.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or its weights do not fit its configuration.
    """
    tensors, card = read_folder(name_or_path, required=("config",))
    try:
        config = ResNetConfig(**card["config"] | {"widths": tuple(card["config"]["widths"])})
        model = ResNet(config, seed=0)
        model.load_state_dict(tensors)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"'{name_or_path}' is not a picture model: {error}") from None
    return model.eval()
