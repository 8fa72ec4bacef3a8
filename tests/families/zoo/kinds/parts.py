"""Parts that several model types share."""

from __future__ import annotations

from typing import Any

MROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
#: Some layers carry a state, and a quarter of a head turns with the position.
LINEAR: dict[str, Any] = {
    "head_dim": 32,
    "rope_parameters": MROPE | {"mrope_section": [2, 1, 1], "partial_rotary_factor": 0.25},
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
MULTIPLIERS: dict[str, Any] = {
    "embedding_multiplier": 3.0,
    "logits_scaling": 0.5,
    "residual_multiplier": 0.4,
    "attention_multiplier": 0.5,
}
IMAGE = "<image>"
SQUARE: dict[str, Any] = {"height": 16, "width": 16}
SIGLIP: dict[str, Any] = {"vision_use_head": False}

LLAVA_TOKENS: dict[str, str] = {"image_token": IMAGE}
GEMMA_TOKENS: dict[str, str] = {
    "image_token": "<image_soft_token>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
}
IDEFICS3_TOKENS = (
    "<fake_token_around_image>",
    IMAGE,
    "<end_of_utterance>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)
IDEFICS3: dict[str, Any] = {
    "image_token": IMAGE,
    "placeholder": IMAGE,
    "more": IDEFICS3_TOKENS,
    "bos": True,
    "config": {"image_token_id": IMAGE},
    "image": {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}},
    "processor": {"image_seq_len": 4},
}
GEMMA4: dict[str, Any] = {
    "image_token": "<|image|>",
    "placeholder": "<|image|>",
    "tokens": {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
    },
    "more": ("<|video|>",),
    "bos": True,
}
#: Two layers with wider heads, the last of which takes its keys from an earlier one; logits are capped.
GEMMA4_TEXT: dict[str, Any] = {
    "per_layer_config": {"1": {"head_dim": 16}, "3": {"head_dim": 16}},
    "final_logit_softcapping": 5.0,
    "num_kv_shared_layers": 1,
}

PINPOINTS: dict[str, Any] = {"image_grid_pinpoints": [[16, 32], [32, 16], [32, 32], [16, 48], [48, 16]]}
LLAVA: dict[str, Any] = {
    "image_token": IMAGE,
    "placeholder": IMAGE + "\n",
    "tokens": LLAVA_TOKENS,
    "bos": True,
    "image": {"size": {"shortest_edge": 16}, "crop_size": SQUARE},
    "image_class": "CLIPImageProcessorPil",
    "processor": {
        "patch_size": 4,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    },
}
LLAVA_NEXT: dict[str, Any] = LLAVA | {"image": LLAVA["image"] | PINPOINTS, "image_class": None}
MINICPM: dict[str, Any] = {
    "image_token": "<|image_pad|>",
    "placeholder": "<|image_pad|>\n",
    "config": {"text_config": LINEAR, "vision_config": {"insert_layer_id": 0}, "insert_layer_id": 0},
    "image": {"patch_size": 4, "scale_resolution": 32, "max_slice_nums": 2},
    "tokens": {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "image_start_token": "<image>",
        "image_end_token": "</image>",
        "slice_start_token": "<slice>",
        "slice_end_token": "</slice>",
        "image_id_start_token": "<image_id>",
        "image_id_end_token": "</image_id>",
    },
}

VQ: dict[str, Any] = {
    "num_embeddings": 8,
    "embed_dim": 8,
    "latent_channels": 8,
    "base_channels": 32,
    "channel_multiplier": [1, 1, 1, 1],
    "num_res_blocks": 1,
}
#: In the place of towers that timm has, which return maps, too.
CONVOLUTIONS: dict[str, Any] = {
    "model_type": "convnext",
    "num_stages": 2,
    "hidden_sizes": [16, 32],
    "depths": [1, 1],
    "hidden_size": 32,
    "out_features": None,
    "out_indices": None,
    "stage_names": None,
}
QWEN_TOKENS: dict[str, str] = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
QWEN: dict[str, Any] = {
    "image_token": "<|image_pad|>",
    "placeholder": "<|vision_start|><|image_pad|><|vision_end|>",
    "tokens": QWEN_TOKENS,
    "image": {"min_pixels": 16 * 16, "max_pixels": 32 * 32, "patch_size": 4, "merge_size": 2},
}
OMNI: dict[str, Any] = QWEN | {
    "tokens": {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "audio_token": "<|audio_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
        "audio_bos_token": "<|audio_start|>",
        "audio_eos_token": "<|audio_end|>",
    },
}
OMNI_CONFIG: dict[str, Any] = {
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "audio_start_token_id": "<|audio_start|>",
    "audio_token_id": "<|audio_pad|>",
}
GRID: dict[str, Any] = QWEN["image"]
GLM: dict[str, Any] = {
    "image_token": "<|image|>",
    "placeholder": "<|begin_of_image|><|image|><|end_of_image|>",
    "tokens": {
        "image_token": "<|image|>",
        "video_token": "<|video|>",
        "image_start_token": "<|begin_of_image|>",
        "image_end_token": "<|end_of_image|>",
        "video_start_token": "<|begin_of_video|>",
        "video_end_token": "<|end_of_video|>",
    },
    "image": {
        "size": {"shortest_edge": 2 * 16 * 16, "longest_edge": 2 * 32 * 32},
        "patch_size": 4,
        "merge_size": 2,
    },
}
GLM_CONFIG: dict[str, Any] = {"text_config": {"rope_parameters": MROPE}}
