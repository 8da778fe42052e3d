"""The language model: corpora, tokeniser, GPT, training, evaluation. Knows nothing of quantisation."""

from nanoq.lm.corpus import Corpus, load_corpus
from nanoq.lm.evaluate import bits_per_char, paired_difference, perplexity, window_losses
from nanoq.lm.generation import generate, stream
from nanoq.lm.model import GPT, GPTConfig
from nanoq.lm.tokenizer import CharTokenizer
from nanoq.lm.training import TrainConfig, next_token_loss, train
from nanoq.store import Checkpoint

__all__ = [
    "GPT", "CharTokenizer", "Checkpoint", "Corpus", "GPTConfig", "TrainConfig", "bits_per_char", "generate",
    "load_corpus", "next_token_loss", "paired_difference", "perplexity", "stream", "train", "window_losses",
]
