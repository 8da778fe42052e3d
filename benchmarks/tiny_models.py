"""Tiny random models of the classes of transformers, from their default configurations, for `architectures.py`."""

import contextlib

import torch
import transformers
from torch import nn

WORDS = 97
SMALL = {
    WORDS: ("vocab_size", "decoder_vocab_size", "vocab_size_per_layer_input"),
    0: ("num_kv_shared_layers",),
    1: ("mamba_n_groups", "num_mem_blocks", "n_shared_experts"),
    2: ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_experts_per_tok", "top_k", "moe_topk", "n_group",
        "topk_group", "encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers", "depth",
        "top_k_experts", "experts_per_token", "moe_k"),
    4: ("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads", "num_local_experts",
        "num_experts", "n_routed_experts", "moe_num_experts", "qk_rope_head_dim", "rotary_dim", "num_kv_heads",
        "encoder_attention_heads", "decoder_attention_heads", "mamba_n_heads", "num_encoder_attention_heads",
        "num_decoder_attention_heads", "zero_expert_num", "num_global_key_value_heads", "swa_num_attention_heads",
        "swa_num_key_value_heads", "mamba_num_heads", "linear_num_key_heads", "linear_num_value_heads"),
    8: ("head_dim", "kv_lora_rank", "v_head_dim", "qk_nope_head_dim", "d_kv", "mamba_d_state", "state_size",
        "qk_head_dim", "global_head_dim", "swa_head_dim", "swa_v_head_dim", "ssm_state_size",
        "hidden_size_per_layer_input", "linear_key_head_dim", "linear_value_head_dim"),
    16: ("q_lora_rank", "word_embed_proj_dim", "mamba_d_head", "mamba_head_dim", "altup_active"),
    32: ("hidden_size", "n_embd", "d_model", "dim", "emb_dim", "moe_intermediate_size", "attention_hidden_size",
         "embed_dim", "d_embed", "projection_dim", "embedding_size", "out_hidden_size"),
    64: ("intermediate_size", "ffn_dim", "d_ff", "n_inner", "ffn_hidden_size", "max_position_embeddings", "n_positions",
         "hidden_dim", "d_inner", "max_seq_len", "shared_expert_intermediate_size", "encoder_ffn_dim",
         "decoder_ffn_dim", "dff", "dim_ff", "mamba_d_ssm", "expert_ffn_hidden_size",
         "moe_shared_expert_intermediate_size", "num_position_embeddings"),
}
WANTED = ("head_dim", "num_key_value_heads", "n_routed_experts", "num_experts_per_tok", "vocab_size",
          "n_shared_experts")  # None by default

# What the usual names do not say, by the names of configurations.
ODD = {
    "CohereCompassTextConfig": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "DbrxConfig": {"d_model": 32, "attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0},
                   "ffn_config": {"ffn_hidden_size": 64, "hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2}},
    "FunnelConfig": {"block_sizes": [1, 1], "d_head": 8},
    "GPTNeoConfig": {"attention_types": [[["global", "local"], 1]]},
    "Gemma4AssistantTextConfig": {"hidden_size_per_layer_input": 0},
    "LEDConfig": {"attention_window": 8},
    "Lfm2MoeConfig": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "LongformerConfig": {"attention_window": 8},
    "Mamba2Config": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "MiMoV2FlashConfig": {"num_key_value_heads": 2, "head_dim": 12},
    "MusicgenDecoderConfig": {"num_codebooks": 1},
    "MusicgenMelodyDecoderConfig": {"num_codebooks": 1},
    "NeoMMEConfig": {"head_dim": 16},
    "NemotronHConfig": {"n_groups": 1, "layers_block_type": ["linear_attention", "full_attention", "moe"],
                        "num_hidden_layers": 3},
    "PaddleOCRTextConfig": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}},
    "ReformerConfig": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "local"],
                       "attention_head_size": 8, "feed_forward_size": 64, "local_attn_chunk_length": 4},
    "SqueezeBertConfig": {"embedding_size": 32},
    "XmodConfig": {"default_language": "en_XX"},
    "ZayaConfig": {"num_experts_per_tok": 1, "router_hidden_size": 16},
    "Zamba2Config": {"num_hidden_layers": 4, "n_mamba_heads": 4, "attention_hidden_size": 64,
                     "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"]},
    "ZambaConfig": {"num_hidden_layers": 4, "attention_hidden_size": 64, "attention_head_dim": 16,
                    "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"]},
}


def settings(cls: type, small: dict[str, int] | None = None) -> dict:
    """What to change in the default configuration of a class, in the configurations that are part of it, too."""
    default, changes = cls(), {}
    small = small or {name: size for size, names in SMALL.items() for name in names}
    for name, size in small.items():
        value = None
        with contextlib.suppress(Exception):
            value = getattr(default, name, False)
        settable = not isinstance(getattr(cls, name, None), property)
        if settable and (type(value) is int or (value is None and name in WANTED)):
            changes[name] = size
    layers = getattr(default, "num_hidden_layers", None)
    for name, value in vars(default).items():
        if isinstance(value, (list, tuple)) and len(value) == layers and layers > 2:
            other = next((entry for entry in value if entry != value[0]), value[1])
            changes[name] = [value[0], other]
    for name in getattr(cls, "sub_configs", None) or {}:
        part = getattr(default, name, None)
        if isinstance(part, transformers.PretrainedConfig):
            changes[name] = settings(type(part)) | {"model_type": part.model_type}
    if "qk_rope_head_dim" in changes:  # the latent attention of DeepSeek
        changes |= {key: size for key, size in (("head_dim", 4), ("qk_head_dim", 12)) if key in changes}
    if "mrope_section" in (getattr(cls, "ignore_keys_at_rope_validation", None) or ()):
        rope = default.rope_parameters or {}
        head = changes.get("head_dim") or changes["hidden_size"] // changes["num_attention_heads"]
        half = int(head * rope.get("partial_rotary_factor", 1)) // 2  # of what is turned, in three parts
        changes["rope_parameters"] = rope | {"mrope_section": [half - 2 * (half // 3), half // 3, half // 3]}
    if "vocab_size" in changes:
        changes |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        starts = ("decoder_start_token_id", "forced_eos_token_id")
        changes |= {name: 2 for name in starts if isinstance(getattr(default, name, None), int)}
    return changes | ODD.get(cls.__name__, {})


def tiny(name: str) -> nn.Module:
    """A random model of a class, as small as its configuration can be made by the usual names."""
    cls = getattr(transformers, name)
    changes = settings(cls.config_class)
    torch.manual_seed(0)
    model = cls(cls.config_class(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
        for table in model.modules():  # training leaves the row of padding at 0, and some classes write 0 there at load
            if isinstance(table, nn.Embedding) and table.padding_idx is not None:
                table.weight[table.padding_idx].zero_()
    return model
