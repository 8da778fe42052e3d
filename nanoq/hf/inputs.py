"""What models of transformers take, made of one batch: tokens, pictures, spectrograms or sound."""

import torch
from torch import Tensor, nn

from nanoq.running import device_of

FLOATS = {"pixel_values": "pictures (N, channels, height, width)",
          "input_features": "spectrograms (N, bins, frames) or (N, frames, bins)",
          "input_values": "sound (N, samples) or (N, 1, samples)"}


BINS = ("num_mel_bins", "feature_projection_input_dim", "input_feat_per_channel")  # as configurations call them


def inputs(model: nn.Module, rows: Tensor) -> dict:
    """The arguments with which a model of transformers is called for a batch.

    Tokens (B, T) are read by the encoder and, one step later, by the decoder, where there are both. A decoder beside an
    encoder of pictures or sound gets what a text begins with.
    """
    given = {model.main_input_name if rows.is_floating_point() else "input_ids": rows}
    if getattr(model.config, "is_encoder_decoder", False):
        start = getattr(model.config, "decoder_start_token_id", None)
        first = torch.full((len(rows), 1), start or 0, dtype=torch.long, device=rows.device)
        given["decoder_input_ids"] = first if rows.is_floating_point() else torch.cat((first, rows[:, :-1]), dim=1)
    return given


def vocabulary(model: nn.Module) -> int:
    """Number of token ids that a model has embeddings for."""
    try:
        table = model.get_input_embeddings()
    except NotImplementedError:
        table = None
    if count := getattr(table, "num_embeddings", None):  # a packed table would make its weight anew
        return count
    weight = table if isinstance(table, Tensor) else getattr(table, "weight", None)
    if weight is not None:
        return len(weight)
    return getattr(model.config.get_text_config(), "vocab_size", 0x110000)  # those of Unicode, as CANINE reads them


@torch.no_grad()
def sample(model: nn.Module) -> Tensor:
    """A small batch that a model takes: two texts of four tokens, or noise.

    Of noise it is the first of the usual shapes on which the model runs, which it is asked once.
    """
    if model.main_input_name not in FLOATS:
        return torch.arange(1, 9).remainder(vocabulary(model)).view(2, 4).to(device_of(model))
    first, *others = _shapes(model)
    if others and device_of(model).type != "meta" and "noise_shape" not in vars(model):
        model.noise_shape = next((shape for shape in (first, *others) if _runs(model, shape)), first)
    return _noise(model, vars(model).get("noise_shape", first))


def _runs(model: nn.Module, shape: tuple[int, ...]) -> bool:
    try:
        model(**inputs(model, _noise(model, shape)))
    except Exception:
        return False
    return True


def _noise(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    noise = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    return (2 * noise - 1).to(device_of(model), model.dtype)


def _shapes(model: nn.Module) -> list[tuple[int, ...]]:
    """The shapes that two samples may have."""
    config, name = model.config, model.main_input_name
    for part in ("vision_config", "encoder_config", "audio_config"):
        config = getattr(config, part, config)
    if name == "pixel_values":
        size = getattr(config, "image_size", None) or 224
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        return [(2, getattr(config, "num_channels", 3), height, width)]
    if name == "input_features":
        bins = next(filter(None, (getattr(config, key, None) for key in BINS)), 80)
        frames = 2 * config.max_source_positions if hasattr(config, "max_source_positions") else 64
        return [(2, bins, frames), (2, 64, bins)]
    if hasattr(config, "num_mel_bins") and hasattr(config, "max_length"):  # a spectrogram all the same
        return [(2, config.max_length, config.num_mel_bins)]
    return [(2, 4000), (2, 1, 4000)]
