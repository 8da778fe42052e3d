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
    "gptj": ("GPTJForCausalLM", GPT2 | SPECIAL | {"rotary_dim": 4}),
    "gpt-neox": ("GPTNeoXForCausalLM", SHAPE | {"intermediate_size": 64, "max_position_embeddings": 64}),
    "bloom": ("BloomForCausalLM", {"n_layer": 2, "hidden_size": 32, "n_head": 4, "vocab_size": 97}),
    "cohere": ("CohereForCausalLM", LLAMA | {"logit_scale": 0.25, "pad_token_id": 0}),
    "gemma2": ("Gemma2ForCausalLM", LLAMA | {"head_dim": 8, "final_logit_softcapping": 2.0}),
    "phi3": ("Phi3ForCausalLM", LLAMA | {"pad_token_id": 0}),
    "modernbert": ("ModernBertForMaskedLM", BERT),
    "distilbert": ("DistilBertForMaskedLM", {"n_layers": 2, "dim": 32, "n_heads": 4, "hidden_dim": 64,
                                             "vocab_size": 97, "max_position_embeddings": 66}),
    "bert classifier": ("BertForSequenceClassification", BERT),
    "bert": ("BertForMaskedLM", BERT),
    "bert encoder": ("BertModel", BERT),
    "roberta": ("RobertaForMaskedLM", BERT),
    "roberta encoder": ("RobertaModel", BERT),
    "xlm-roberta": ("XLMRobertaForMaskedLM", BERT),
    "xlm-roberta encoder": ("XLMRobertaModel", BERT),
}
MOE = LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2, "pad_token_id": 0}
LANGUAGES = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 97}
WHISPER = LANGUAGES | {"num_mel_bins": 16, "max_source_positions": 20, "pad_token_id": 0, "bos_token_id": 1,
                       "eos_token_id": 2, "decoder_start_token_id": 1}

# Experts that lie in 3-D parameters.
MIXTURES = {
    "mixtral": ("MixtralForCausalLM", MOE),
    "qwen3 moe": ("Qwen3MoeForCausalLM", MOE | {"num_experts": 4, "moe_intermediate_size": 32, "head_dim": 8}),
    "deepseek-v3": ("DeepseekV3ForCausalLM", MOE | {
        "n_routed_experts": 4, "moe_intermediate_size": 32, "kv_lora_rank": 8, "q_lora_rank": 16, "v_head_dim": 8,
        "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "head_dim": 4, "n_group": 2, "topk_group": 1,
        "first_k_dense_replace": 1, "num_key_value_heads": 4}),
    "gpt-oss": ("GptOssForCausalLM", MOE | {"head_dim": 8}),
    "llama4": ("Llama4ForCausalLM", MOE | {"intermediate_size_mlp": 64, "head_dim": 8, "num_experts_per_tok": 1}),
    "dbrx": ("DbrxForCausalLM", {
        "d_model": 32, "n_heads": 4, "n_layers": 2, "vocab_size": 97, "max_seq_len": 64,
        "attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 64, "hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2}}),
    "jetmoe": ("JetMoeForCausalLM", MOE | {"kv_channels": 8, "num_key_value_heads": 2}),
}
# Blocks in several lists, that run more than once, or on pictures or sound.
OTHERS = {
    "albert": ("AlbertForMaskedLM", BERT | {"embedding_size": 16, "num_hidden_layers": 3}),
    "t5": ("T5ForConditionalGeneration", {"vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2,
                                          "num_heads": 4, "decoder_start_token_id": 0}),
    "bart": ("BartForConditionalGeneration", LANGUAGES | {"max_position_embeddings": 64}),
    "xlm": ("XLMWithLMHeadModel", {"vocab_size": 97, "emb_dim": 32, "n_layers": 2, "n_heads": 4}),
    "fnet": ("FNetForMaskedLM", BERT),
    "deberta classifier": ("DebertaV2ForSequenceClassification", BERT),
    "vit": ("ViTForImageClassification", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                                          "intermediate_size": 64, "image_size": 32, "patch_size": 8}),
    "convnext": ("ConvNextForImageClassification", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2,
                                                    "image_size": 16}),
    "segformer": ("SegformerForImageClassification", {
        "hidden_sizes": [16, 32], "depths": [1, 1], "num_encoder_blocks": 2, "num_attention_heads": [1, 2],
        "sr_ratios": [2, 1], "patch_sizes": [3, 3], "strides": [2, 2], "mlp_ratios": [2, 2], "image_size": 32,
        "decoder_hidden_size": 16}),
    "whisper": ("WhisperForConditionalGeneration", WHISPER),
    "whisper encoder": ("WhisperForAudioClassification", WHISPER),
}


def make(family, seed=0, **changes):
    """A random model of a family in evaluation mode, its predictions away from uniform."""
    name, config = (FAMILIES | MIXTURES | OTHERS)[family]
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


def make_masked_tokenizer():
    """The same for a masked language model, which has seen each text between two special tokens."""
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    tokenizer.add_special_tokens({"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"})
    return tokenizer
