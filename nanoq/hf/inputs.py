"""What models of transformers take, made of one batch: tokens, pictures, spectrograms or sound."""

import torch
from torch import Tensor, nn

FLOATS = {"pixel_values": "pictures (N, channels, height, width)", "input_features": "spectrograms (N, bins, frames)",
          "input_values": "sound (N, samples)"}


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


def sample(model: nn.Module) -> Tensor:
    """A small batch that a model takes: two texts of four tokens, or noise."""
    if model.main_input_name not in FLOATS:
        return torch.arange(1, 9).remainder(vocabulary(model)).view(2, 4).to(model.device)
    noise = torch.rand(*_shape(model), generator=torch.Generator().manual_seed(0))
    return (2 * noise - 1).to(model.device, model.dtype)


def _shape(model: nn.Module) -> tuple[int, ...]:
    config, name = model.config, model.main_input_name
    config = getattr(config, "vision_config", config)
    if name == "input_values" and hasattr(config, "num_mel_bins"):  # a spectrogram all the same
        return 2, config.max_length, config.num_mel_bins
    if name == "pixel_values":
        size = getattr(config, "image_size", None) or 224
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        return 2, getattr(config, "num_channels", 3), height, width
    if name == "input_features":
        bins = getattr(config, "num_mel_bins", None) or 80
        frames = 2 * config.max_source_positions if hasattr(config, "max_source_positions") else 64
        return 2, bins, frames
    return 2, 4000
