"""The language model: corpora, tokeniser, GPT, training, evaluation.

Knows nothing of quantisation, but that `nanoq.quant.kernels` writes text sooner.
"""

from nanoq.lm.corpus import Corpus, load_corpus
from nanoq.lm.evaluate import bits_per_char, paired_difference, perplexity, window_losses
from nanoq.lm.generation import generate, generate_batch, stream, stream_batch
from nanoq.lm.model import GPT, GPTConfig
from nanoq.lm.tokenizer import CharTokenizer
from nanoq.lm.training import TrainConfig, next_token_loss, train
from nanoq.store import Checkpoint

__all__ = [
    "GPT", "CharTokenizer", "Checkpoint", "Corpus", "GPTConfig", "TrainConfig", "bits_per_char", "generate",
    "generate_batch", "load_corpus", "next_token_loss", "paired_difference", "perplexity", "stream", "stream_batch",
    "train", "window_losses",
]
