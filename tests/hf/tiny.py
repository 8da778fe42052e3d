"""Small random models of each family, and a tokeniser, made without a network."""

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

SHAPE = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 97}
OPT = SHAPE | {"ffn_dim": 64, "max_position_embeddings": 64}
LLAMA = SHAPE | {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 64}
GPT2 = {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 97, "n_positions": 64}
BERT = SHAPE | {"intermediate_size": 64, "max_position_embeddings": 66, "pad_token_id": 1}
SPECIAL = {"bos_token_id": 2, "eos_token_id": 2}

# Of each name its class and its configuration.
FAMILIES = {
    "opt": ("OPTForCausalLM", OPT),
    "opt, narrow embeddings": ("OPTForCausalLM", OPT | {"word_embed_proj_dim": 16}),
    "opt-350m": ("OPTForCausalLM", OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "gpt2": ("GPT2LMHeadModel", GPT2 | SPECIAL),
    "llama": ("LlamaForCausalLM", LLAMA),
    "llama, tied": ("LlamaForCausalLM", LLAMA | {"tie_word_embeddings": True}),
    "mistral": ("MistralForCausalLM", LLAMA | {"sliding_window": 4}),
    "qwen2": ("Qwen2ForCausalLM",
              LLAMA | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen3": ("Qwen3ForCausalLM", LLAMA | {"head_dim": 8}),
    "bert": ("BertForMaskedLM", BERT),
    "bert encoder": ("BertModel", BERT),
    "roberta": ("RobertaForMaskedLM", BERT),
    "roberta encoder": ("RobertaModel", BERT),
    "xlm-roberta": ("XLMRobertaForMaskedLM", BERT),
    "xlm-roberta encoder": ("XLMRobertaModel", BERT),
}


def make(family, seed=0, **changes):
    """A random model of a family in evaluation mode, its predictions away from uniform."""
    name, config = FAMILIES[family]
    cls = getattr(transformers, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = cls(cls.config_class(**config | changes)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def make_tokenizer():
    """A tokeniser of words, with the usual special tokens."""
    words = ["<unk>", "<pad>", "<s>", "</s>", "the", "film", "was", "good", "bad", "great", "awful", "and", "cat", "."]
    vocabulary = {word: number for number, word in enumerate(words)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", pad_token="<pad>",
                                                bos_token="<s>", eos_token="</s>", model_max_length=64)
