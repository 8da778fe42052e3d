"""Models of transformers for the same driver, of any class whose blocks lie in lists; and tasks for them.

`import nanoq.hf.quantizer` lets `from_pretrained` of transformers give what was quantised.
"""

import sys
from contextlib import suppress
from importlib import import_module

from nanoq.hf.checkpoint import (
    KINDS,
    beyond_memory,
    card_of,
    describe,
    is_hugging_face,
    is_quantized,
    weights_file,
)
from nanoq.hf.model import HFModel
from nanoq.hf.tasks import (
    Reviews,
    enclose_windows,
    encode,
    features,
    fill_losses,
    fine_tune,
    gptq_losses,
    gptq_windows,
    linear_probe,
    masked_losses,
    probe_accuracy,
    reviews,
    start_windows,
    text_tokens,
    wikitext,
)

__all__ = [
    "KINDS", "HFModel", "Reviews", "beyond_memory", "card_of", "describe", "enclose_windows", "encode", "features",
    "fill_losses", "fine_tune", "gptq_losses", "gptq_windows", "is_hugging_face", "is_quantized", "linear_probe",
    "masked_losses", "probe_accuracy", "reviews", "start_windows", "text_tokens", "weights_file", "wikitext",
]

if sys.modules.get("transformers"):  # or whoever has no use for it would wait for it
    with suppress(ImportError):  # one that is too old, which is said where it is used
        import_module("nanoq.hf.quantizer")
