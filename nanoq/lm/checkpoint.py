"""The GPT as a family of `nanoq.store`."""

from pathlib import Path

import torch
from torch import Tensor

from nanoq.lm.model import GPT, GPTConfig
from nanoq.lm.tokenizer import CharTokenizer
from nanoq.store import FAMILIES, Checkpoint, Family


def _describe(checkpoint: Checkpoint) -> dict:
    if checkpoint.tokenizer is None:
        raise ValueError("a GPT is saved with its tokeniser, and this checkpoint has none")
    return {"config": checkpoint.model.config.entries(), "characters": "".join(checkpoint.tokenizer.characters)}


def _empty(card: dict, tensors: int) -> GPT:
    config, vocabulary = GPTConfig(**card["config"]), CharTokenizer(card["characters"]).vocab_size
    if config.vocab_size != vocabulary:
        raise ValueError(f"{vocabulary} ids in the vocabulary, {config.vocab_size} in the configuration")
    if config.layers > tensors:
        raise ValueError(f"{config.layers} layers are more than a file of {tensors} tensors has")
    return GPT(config, seed=None)


def _tokenizer(card: dict, folder: Path) -> CharTokenizer:
    return CharTokenizer(card["characters"])


def _probe(model: GPT) -> Tensor:
    return torch.zeros(1, 1, dtype=torch.long)


FAMILIES["gpt"] = Family(GPT, _describe, _empty, _tokenizer, _probe)
