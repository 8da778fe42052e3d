"""Lets `from_pretrained` of transformers give the models that nanoq wrote.

Importing this module is all that it takes, before or after transformers:

    import nanoq.hf.quantizer
    model = AutoModelForCausalLM.from_pretrained(folder)

`import nanoq.hf` does as much where transformers is imported already, and so does whatever loads one of its models.
Without it transformers refuses such a folder: its `config.json` names a file of weights that is not there, and that
name says what to do.
"""

from pathlib import Path

import torch
from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from nanoq.hf.checkpoint import QUANT_METHOD
from nanoq.hf.model import HFModel
from nanoq.memory import in_one_sentence
from nanoq.store import FAMILIES, check_values, fit, shapes_of


@register_quantization_config(QUANT_METHOD)
class NanoqConfig(QuantizationConfigMixin):
    """What `config.json` says of how a model is quantised: the layouts of its layers and its blocks, by their names."""

    def __init__(self, layers: dict[str, dict] | None = None, blocks: list[str] | None = None, **_):
        self.quant_method, self.layers, self.blocks = QUANT_METHOD, layers, blocks


@register_quantizer(QUANT_METHOD)
class NanoqQuantizer(HfQuantizer):
    """Puts the layers of a file into a model of transformers, which then reads them; `nanoq.store.load` gives the same.

    What is not packed is in float32, whatever `dtype` says: use `model.to(dtype)` afterwards.
    """

    requires_calibration = True  # so a model that is not quantised yet is refused

    def update_tp_plan(self, config):
        """Let the weights be found, which are not where `config.json` says for programs without nanoq."""
        if hasattr(config, "transformers_weights"):
            del config.transformers_weights
        return config

    update_ep_plan = update_attn_implementation = update_tp_plan  # of these, each version of transformers has some

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Float32: float16 is how the parameters are stored, and slow on most processors."""
        return torch.float32

    def _process_model_before_weight_loading(self, model: nn.Module, checkpoint_files: list[str], **_) -> None:
        self.name = model.config.name_or_path
        with _refusing(self.name):
            expected = (model.config.architectures or ["model of another class"])[0]
            if type(model).__name__ != expected:
                raise ValueError(f"it is a {expected}, not a {type(model).__name__}")
            _tie(model)
            whole = HFModel(model, self.quantization_config.blocks)
            shapes = {name: shape for file in checkpoint_files for name, shape in shapes_of(Path(file)).items()}
            card = {"layers": self.quantization_config.layers, "names": "transformers"}
            self.resized = fit(whole, FAMILIES["transformers"], card, shapes)
            whole.release()
            there = dict(model.named_parameters(remove_duplicate=False))  # packed tables and their heads stay tied
            model.all_tied_weights_keys = {target: source for target, source in model.all_tied_weights_keys.items()
                                           if {target, source} <= there.keys()}
        for module in model.modules():  # the file has all parameters: what is computed is all that is left to make
            module._is_hf_initialized = not module._non_persistent_buffers_set

    def update_weight_conversions(self, *_) -> list:
        """None: names and shapes in the file are those of the model."""
        return []

    def _process_model_after_weight_loading(self, model: nn.Module, **_) -> nn.Module:
        with _refusing(self.name), torch.no_grad():
            check_values(model)
            if self.resized:  # nothing but a run shows whether layers of other sizes fit each other
                model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device))
        return model

    def is_serializable(self, *_, **__) -> bool:
        """No: `nanoq.store.save` writes such models."""
        return False

    @property
    def is_trainable(self) -> bool:
        """Not by transformers' trainer."""
        return False


def _tie(model: nn.Module) -> None:
    """Tie weights, of which the file has each once: while a model is read, its own method does nothing."""
    for target, source in model.all_tied_weights_keys.items():
        place, _, name = target.rpartition(".")
        setattr(model.get_submodule(place), name, model.get_parameter_or_buffer(source))


def _refusing(name: str):
    """Turn whatever does not fit into a sentence that names the folder."""
    return in_one_sentence(f"from_pretrained cannot give the model in '{name}'")
