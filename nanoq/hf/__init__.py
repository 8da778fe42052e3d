"""Hugging Face models for the same driver: OPT, GPT-2, Llama, Mistral, Qwen, BERT, RoBERTa; and tasks for them."""

from nanoq.hf.checkpoint import (
    KINDS,
    HFCheckpoint,
    card_of,
    is_hugging_face,
    is_quantized,
    load_hf,
    load_hf_quantized,
    load_minilm,
    load_smollm2,
    save_hf_quantized,
    weights_file,
)
from nanoq.hf.model import HFModel
from nanoq.hf.tasks import (
    Reviews,
    accuracy,
    encode,
    features,
    fine_tune,
    gptq_losses,
    gptq_windows,
    linear_probe,
    reviews,
    wikitext,
)

__all__ = [
    "KINDS", "HFCheckpoint", "HFModel", "Reviews", "accuracy", "card_of", "encode", "features",
    "fine_tune", "gptq_losses", "gptq_windows", "is_hugging_face", "is_quantized", "linear_probe", "load_hf",
    "load_hf_quantized", "load_minilm", "load_smollm2", "reviews", "save_hf_quantized", "weights_file", "wikitext",
]
