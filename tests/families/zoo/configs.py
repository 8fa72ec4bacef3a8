"""Any model type's configuration made small: widths, depths and counts by the names transformers gives them."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import CONFIG_MAPPING, PretrainedConfig

#: Decoder layers of every checkpoint here; no tower has as many.
LAYERS = 4
TOWER_LAYERS = 2
#: Shorter than the prompt, so that windows hide something.
WINDOW = 16

WIDTH = 32
HEADS = 4
HEAD = WIDTH // HEADS

#: What a setting of this name becomes, in decoders and towers alike.
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "d_model": WIDTH,
    "n_embd": WIDTH,
    "embed_dim": WIDTH,
    "word_embed_proj_dim": WIDTH,
    "out_hidden_size": WIDTH,
    "projection_dim": WIDTH,
    "projector_hidden_size": WIDTH,
    "encoder_hidden_size": WIDTH,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "shared_experts_intermediate_size": 24,
    "encoder_ffn_dim": 48,
    "encoder_attention_heads": HEADS,
    "output_dim": WIDTH,
    "downsample_hidden_size": WIDTH,
    "text_hidden_size": WIDTH,
    "moe_hidden_size": WIDTH,
    "adapter_in_dim": WIDTH,
    "adapter_out_dim": WIDTH,
    "adapter_input_size": WIDTH,
    "output_channels": WIDTH,
    "mlp_dim": 48,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": HEAD,
    "qk_nope_head_dim": HEAD,
    "v_head_dim": HEAD,
    "index_head_dim": HEAD,
    # Fewer often have no head above zero, and places that tie.
    "index_n_heads": 16,
    "num_attention_heads": HEADS,
    "num_heads": HEADS,
    "num_key_value_heads": HEADS // 2,
    "head_dim": HEAD,
    "swa_num_attention_heads": HEADS,
    "swa_num_key_value_heads": HEADS // 2,
    "swa_head_dim": HEAD,
    "num_sliding_attention_heads": HEADS,
    "sliding_window_size": WINDOW,
    "query_pre_attn_scalar": HEAD,
    "image_size": 16,
    "patch_size": 4,
    "max_position_embeddings": 1024,
    "initializer_range": 0.25,
    "init_std": 0.25,
    "sliding_window": WINDOW,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
}
#: How deep a part is.
DEPTHS = ("num_hidden_layers", "depth", "num_layers", "n_layer", "n_layers", "encoder_layers")
#: The part that reads the sequence.
DECODERS = ("text_config", "llm_config", "language_config")
ZERO_RATES = ("dropout", "layerdrop")
#: Says nothing of the model.
SILENT = (
    "id2label",
    "label2id",
    "label_names",
    "transformers_version",
    "architectures",
    "_name_or_path",
    "dtype",
)
#: Would name layers that are no longer there.
DROPPED = (*SILENT, "per_layer_config", "quantization_config")


def shrink(settings: dict[str, Any], decoder: bool) -> dict[str, Any]:
    """The settings of a configuration or of a part of it, with small sizes throughout."""
    small: dict[str, Any] = {}
    depth = next((settings[name] for name in DEPTHS if settings.get(name)), None)
    layers = LAYERS if decoder else TOWER_LAYERS
    for name, value in settings.items():
        if name in DROPPED:
            continue
        if isinstance(value, dict):
            small[name] = value if name == "rope_parameters" else shrink(value, name in DECODERS)
        elif value is None:
            small[name] = None
        elif name in DEPTHS:
            small[name] = layers
        elif name == "layer_types":
            small[name] = cycle(value, layers)
        elif isinstance(value, list) and len(value) == depth and name not in SIZES:
            small[name] = value[:layers]
        elif isinstance(value, float) and any(word in name for word in ZERO_RATES):
            small[name] = 0.0
        elif name in SIZES:
            small[name] = [SIZES[name]] * len(value) if isinstance(value, list | tuple) else SIZES[name]
        else:
            small[name] = value
    # Where a type says nothing, transformers draws weights so small that no picture comes through.
    if "model_type" in small:
        small.setdefault("initializer_range", SIZES["initializer_range"])
    return small


def cycle(layer_types: list[str], count: int) -> list[str]:
    """The kinds of layers there are, in turn."""
    kinds = list(dict.fromkeys(layer_types))
    return [kinds[layer % len(kinds)] for layer in range(count)]


def merge(settings: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Settings with others over them, part by part; one with a ``model_type`` begins as that type's."""
    merged = dict(settings)
    for name, value in over.items():
        part = merged.get(name)
        if isinstance(value, dict) and "model_type" in value:
            part = shrink(CONFIG_MAPPING[value["model_type"]]().to_dict(), name in DECODERS)
        nested = isinstance(value, dict) and isinstance(part, dict) and name != "rope_parameters"
        merged[name] = merge(part, value) if nested else value
    return merged


def name_tokens(
    settings: dict[str, Any], tokens: dict[str, str], vocabulary: dict[str, int]
) -> dict[str, Any]:
    """Settings with the ids of tokens in this vocabulary.

    ``image_token_id`` and ``image_token_index`` are the id of the tokenizer's ``image_token``, and so on; a text
    is the token itself; any other id is kept where the vocabulary is that long, and else ``<unused>``'s.
    """
    named: dict[str, Any] = {}
    for name, value in settings.items():
        if not isinstance(name, str):
            return settings
        stem = next((name.removesuffix(end) for end in ("_id", "_index") if name.endswith(end)), None)
        if name == "vocabulary_map":
            named[name] = vocabulary
        elif isinstance(value, dict):
            named[name] = name_tokens(value, tokens, vocabulary)
        elif name == "vocab_size" or value == "vocab_size":
            named[name] = len(vocabulary)
        elif stem and isinstance(value, str):
            named[name] = vocabulary[value]
        elif stem is None or "token" not in stem or isinstance(value, list):
            named[name] = value
        elif stem in tokens:
            named[name] = vocabulary[tokens[stem]]
        else:
            known = value is None or value < len(vocabulary)
            named[name] = value if known else vocabulary["<unused>"]
    return named


def configure(
    model_type: str, over: dict[str, Any], tokens: dict[str, str], vocabulary: dict[str, int]
) -> PretrainedConfig:
    """The type's own configuration, small, for this vocabulary, with ``over`` in it."""
    kind = CONFIG_MAPPING[model_type]
    whole = kind().to_dict()
    settings = shrink(whole, decoder=not any(name in whole for name in DECODERS))
    settings = name_tokens(merge(settings, over), tokens, vocabulary)
    # A configuration without it is taken for one as published elsewhere, with quantized weights.
    return kind.from_dict(settings | {"transformers_version": transformers.__version__})
