"""Train the small OPT that ships: 6 blocks of width 192 and a byte-level BPE of 1,024 tokens, on the generated tales.

    OMP_NUM_THREADS=1 python benchmarks/opt.py --out data/checkpoints/opt-tales

It is a folder as the Hugging Face hub has them, in float16, so that everything that works on facebook/opt-125m can be
tried without a network. The log goes to history.csv beside it.
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from nanoq.files import write_csv
from nanoq.hf import HFModel, encode
from nanoq.lm import TrainConfig, load_corpus, perplexity, train, window_losses

CONTEXT = 256
END = "</s>"


def make_tokenizer(text: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that it knows every text; learned on the stories."""
    core = ByteLevelBPETokenizer()
    core.train_from_iterator(text.split("\n"), vocab_size=1024, special_tokens=["<pad>", END], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=core._tokenizer, pad_token="<pad>", eos_token=END,
                                   model_max_length=CONTEXT)


def make_model(tokenizer: PreTrainedTokenizerFast) -> HFModel:
    """OPT as its authors built it, only smaller; random weights of seed 0."""
    config = OPTConfig(
        vocab_size=len(tokenizer), hidden_size=192, word_embed_proj_dim=192, num_hidden_layers=6, ffn_dim=768,
        num_attention_heads=6, max_position_embeddings=CONTEXT, dropout=0.0, attention_dropout=0.0,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HFModel(OPTForCausalLM(config))


def main() -> None:
    """Train and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/opt-tales"))
    parser.add_argument("--tokens", type=int, default=4_000_000)
    arguments = parser.parse_args()
    corpus = load_corpus("tales")
    tokenizer = make_tokenizer(corpus.train)
    model = make_model(tokenizer)
    train_tokens, valid_tokens = encode(tokenizer, corpus.train), encode(tokenizer, corpus.valid)
    history = train(model, train_tokens, valid_tokens, TrainConfig(characters=arguments.tokens))
    losses = window_losses(model, valid_tokens)
    model.model.half().save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    write_csv(arguments.out / "history.csv", history)
    print(json.dumps({
        "parameters": model.parameter_count(), "characters a token": len(corpus.valid) / len(valid_tokens),
        "validation perplexity a token": perplexity(losses), "seconds": history[-1]["seconds"],
    }, indent=1))


if __name__ == "__main__":
    main()
