"""Model types whose processors need torchvision."""

from __future__ import annotations

from typing import Any

from .kind import Kind
from .parts import GEMMA4, GEMMA4_TEXT, GRID, IMAGE, MINICPM, SIGLIP, SQUARE

PIXTRAL: dict[str, Any] = {
    "image_token": "[IMG]",
    "placeholder": "[IMG]",
    "tokens": {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"},
    "bos": True,
    "image": {"size": {"longest_edge": 32}, "patch_size": 8},
    "processor": {"patch_size": 4, "spatial_merge_size": 2},
}
MUSE: dict[str, Any] = {
    "image_token": "<|patch|>",
    "placeholder": "<|patch|>",
    "tokens": {
        "image_token": "<|patch|>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "video_token": "<|video|>",
    },
    "more": ("<|vid_frame_separator|>", "<|vid_start|>", "<|vid_end|>"),
    "image": {"patch_size": 4, "max_image_tokens": 16},
}

TORCHVISION: dict[str, Kind] = {
    "mistral3": Kind(**PIXTRAL),
    "mistral_large4": Kind(
        **PIXTRAL,
        config={"text_config": {"num_key_value_heads": 4, "index_topk": 24}},
    ),
    "cohere2_vision": Kind(
        image_token="<|IMG_PATCH|>",
        placeholder="<|IMG_PATCH|>",
        tokens={
            "image_token": "<|IMG_PATCH|>",
            "boi_token": "<|START_OF_IMG|>",
            "eoi_token": "<|END_OF_IMG|>",
            "img_line_break_token": "<|IMG_LINE_BREAK|>",
        },
        bos=True,
        config={"vision_config": SIGLIP | {"image_size": 32}, "alignment_intermediate_size": 48},
        image={"size": {"height": 32, "width": 32}, "max_patches": 3, "patch_size": 4},
    ),
    "gemma4_unified": Kind(
        **GEMMA4,
        config={
            "text_config": GEMMA4_TEXT,
            "vision_config": {
                "model_type": "gemma4_unified_vision",
                "pooling_kernel_size": 2,
                "mm_embed_dim": 32,
                "mm_posemb_size": 64,
                "output_proj_dims": 32,
            },
        },
        image={"patch_size": 4, "max_soft_tokens": 70, "pooling_kernel_size": 2},
        processor={"image_seq_length": 70},
    ),
    "kimi_k25": Kind(
        image_token="<|media_pad|>",
        placeholder="<|media_begin|>image<|media_content|><|media_pad|><|media_end|>",
        tokens={"image_token": "<|media_pad|>", "video_token": "<|kimi_k25_video_placeholder|>"},
        more=("<|media_begin|>", "<|media_content|>", "<|media_end|>"),
        config={
            "text_config": {
                "n_group": 1,
                "topk_group": 1,
                "first_k_dense_replace": 1,
                "num_key_value_heads": 4,
            },
            "vision_config": {"pos_emb_height": 8, "pos_emb_width": 8},
            "projection_hidden_size": 32,
        },
        image={"size": {"max_height": 32, "max_width": 32}, "patch_size": 4, "max_patches": 64},
    ),
    "lfm2_vl": Kind(
        image_token=IMAGE,
        placeholder=IMAGE,
        tokens={
            "image_token": IMAGE,
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "image_thumbnail_token": "<|img_thumbnail|>",
        },
        more=tuple(f"<|img_row_{row}_col_{column}|>" for row in range(1, 4) for column in range(1, 4)),
        bos=True,
        config={
            "text_config": {
                "block_auto_adjust_ff_dim": False,
                "full_attn_idxs": None,
                "layer_types": ["conv", "full_attention"] * 2,
            },
            "vision_config": SIGLIP | {"num_patches": 64},
        },
        image={
            "encoder_patch_size": 4,
            "tile_size": 32,
            "max_tiles": 3,
            "min_image_tokens": 4,
            "max_image_tokens": 16,
            "max_num_patches": 64,
            "size": {"height": 32, "width": 32},
        },
    ),
    "llama4": Kind(
        image_token="<|patch|>",
        placeholder="<|image|>",
        tokens={"image_token": "<|patch|>", "boi_token": "<|image_start|>", "eoi_token": "<|image_end|>"},
        more=("<|image|>", "<|tile_x_separator|>", "<|tile_y_separator|>"),
        bos=True,
        config={
            "text_config": {
                "intermediate_size_mlp": 48,
                "moe_layers": [1, 3],
                "no_rope_layers": [1, 0, 1, 0],
                "attention_chunk_size": 16,
                "floor_scale": 16,
                "layer_types": ["chunked_attention", "full_attention"] * 2,
            },
            "vision_config": {
                "vision_output_dim": 32,
                "intermediate_size": 128,
                "projector_input_dim": 32,
                "projector_output_dim": 32,
            },
        },
        image={"size": SQUARE, "max_patches": 3},
        processor={"patch_size": 4},
    ),
    "minicpm_ocr": Kind(**MINICPM),
    "minimax_m3_vl": Kind(
        image_token="]<]image[>[",
        placeholder="]<]image[>[",
        tokens={"image_token": "]<]image[>[", "video_token": "]<]video[>["},
        more=("]<]start of image[>[", "]<]end of image[>["),
        config={
            "text_config": {
                "rotary_dim": 4,
                "dense_intermediate_size": 48,
                "shared_intermediate_size": 24,
                "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
                "index_block_size": 8,
                "index_topk_blocks": 3,
            },
            "merged_hidden_size": 128,
        },
        image=GRID,
    ),
    "molmo2": Kind(
        image_token="<im_patch>",
        placeholder="<|image|>",
        more=(
            "<|image|>",
            "<|video|>",
            "<im_patch>",
            "<im_col>",
            "<im_start>",
            "<low_res_im_start>",
            "<im_end>",
            "<frame_start>",
            "<frame_end>",
            "<im_low>",
        ),
        config={
            "vision_config": {"num_position_embeddings": 16, "num_key_value_heads": 4},
            "adapter_config": {
                "vision_feature_layer": [-1, -2],
                "num_key_value_heads": 4,
                "text_hidden_size": 32,
            },
            "text_config": {"rope_scaling_layers": [0, 1]},
            "image_start_token_id": "<im_start>",
            "low_res_image_start_token_id": "<low_res_im_start>",
            "image_end_token_id": "<im_end>",
            "image_patch_id": "<im_patch>",
            "frame_start_token_id": "<frame_start>",
            "frame_end_token_id": "<frame_end>",
        },
        image={"size": SQUARE, "max_crops": 3, "patch_size": 4, "overlap_margins": [1, 1]},
    ),
    "muse_glimmer": Kind(**MUSE, config={"text_config": {"output_multiplier": 0.7}, "out_hidden_size": 128}),
    "muse_spark": Kind(
        **MUSE,
        config={"text_config": {"output_multiplier": 0.7, "moe_hidden_size": 32}, "out_hidden_size": 128},
    ),
    "nemotron_h_omni": Kind(
        image_token=IMAGE,
        placeholder=IMAGE,
        tokens={
            "image_token": IMAGE,
            "video_token": "<video>",
            "audio_token": "<so_embedding>",
            "image_start_token": "<img>",
            "image_end_token": "</img>",
        },
        more=("<so_start>", "<so_end>"),
        image={"patch_size": 4, "min_num_patches": 16, "max_num_patches": 64},
        config={
            "text_config": {
                "ssm_state_size": 8,
                "mamba_num_heads": 4,
                "mamba_head_dim": 8,
                "n_groups": 2,
                "chunk_size": 8,
                "moe_shared_expert_intermediate_size": 24,
            },
            "vision_config": {
                "max_img_size": 64,
                "num_registers": 1,
                "num_cls_tokens": 1,
                "summary_idxs": [0],
            },
            "vision_hidden_size": 32,
        },
    ),
    "step3p7": Kind(
        image_token="<im_patch>",
        placeholder="<im_patch>",
        tokens={"image_token": "<im_patch>"},
        more=("<im_start>", "<im_end>", "<patch_start>", "<patch_end>", "<patch_newline>"),
        bos=True,
        image={
            "size": {"height": 64, "width": 64},
            "patch_size": 48,
            "vision_patch_size": 4,
            "max_image_size": 96,
        },
        config={
            "vision_config": {"image_size": 64, "mlp_ratio": 2.0},
            "text_config": {"share_expert_dim": 24, "sliding_window": 16},
        },
    ),
    "unlimited_ocr": Kind(
        image_token=IMAGE,
        placeholder=IMAGE + "\n",
        tokens={"image_token": IMAGE},
        bos=True,
        config={
            "text_config": {
                "num_key_value_heads": 4,
                "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
            },
            "vision_config": {
                "sam_config": {
                    "image_size": 64,
                    "window_size": 8,
                    "global_attn_indexes": [1],
                    "downsample_channels": [32, 32],
                }
            },
        },
        image={"size": {"height": 64, "width": 64}, "tile_size": 48, "max_patches": 3},
        processor={"patch_size": 4, "downsample_ratio": 4},
    ),
    "inkling2": Kind(
        image_token="<|unused_200054|>",
        placeholder="<|unused_200054|>",
        tokens={"image_token": "<|unused_200054|>"},
        config={"text_config": {"d_rel": 4}, "vision_config": {"patch_size": 4}},
        image={"size": {"height": 8, "width": 8}},
    ),
    "inkling_mm_model": Kind(
        image_token="<|unused_200054|>",
        placeholder="<|content_image|><|unused_200054|>",
        tokens={"image_token": "<|unused_200054|>", "audio_token": "<|unused_200053|>"},
        more=("<|content_image|>", "<|content_audio_input|>"),
        config={
            "text_config": {"d_rel": 4, "logits_mup_width_multiplier": 2.0},
            "vision_config": {"patch_size": 8},
        },
        image={"size": {"height": 8, "width": 8}},
    ),
}
