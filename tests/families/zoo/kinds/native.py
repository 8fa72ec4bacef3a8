"""Model types whose pictures keep their shape, as Qwen2-VL's do: a grid of patches as it comes."""

from __future__ import annotations

from .kind import Kind
from .parts import (
    GEMMA4,
    GEMMA4_TEXT,
    GLM,
    GLM_CONFIG,
    GRID,
    LINEAR,
    MROPE,
    MULTIPLIERS,
    OMNI,
    OMNI_CONFIG,
    QWEN,
)

NATIVE: dict[str, Kind] = {
    "qwen2_vl": Kind(
        **QWEN,
        config={
            "text_config": {"rope_parameters": MROPE, "intermediate_size": 48},
            "vision_config": {"mlp_ratio": 2},
        },
    ),
    "qwen2_5_vl": Kind(
        **QWEN,
        config={
            "text_config": {"rope_parameters": MROPE},
            "vision_config": {"window_size": 16, "fullatt_block_indexes": [1]},
        },
    ),
    "qwen3_vl": Kind(
        **QWEN,
        config={
            "text_config": {"rope_parameters": MROPE},
            "vision_config": {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16},
        },
    ),
    "qwen3_vl_moe": Kind(
        **QWEN,
        image_class="Qwen2VLImageProcessorPil",
        config={
            "text_config": {"rope_parameters": MROPE},
            "vision_config": {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16},
        },
    ),
    "cosmos3_omni": Kind(
        **QWEN,
        processor_class="Qwen3VLProcessor",
        config={
            "text_config": {"rope_parameters": MROPE},
            "vision_config": {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16},
        },
    ),
    "qwen3_5": Kind(
        **QWEN,
        config={"text_config": LINEAR, "vision_config": {"num_position_embeddings": 16}},
    ),
    "qwen3_5_moe": Kind(
        **QWEN,
        config={"text_config": LINEAR, "vision_config": {"num_position_embeddings": 16}},
    ),
    "qwen2_5_omni_thinker": Kind(
        **OMNI,
        image_class="Qwen2VLImageProcessorPil",
        processor_class="Qwen2_5OmniProcessor",
        config=OMNI_CONFIG
        | {
            "text_config": {"rope_parameters": MROPE},
            "vision_config": {"window_size": 16, "fullatt_block_indexes": [1]},
        },
    ),
    "qwen3_omni_moe_thinker": Kind(
        **OMNI,
        image_class="Qwen2VLImageProcessorPil",
        processor_class="Qwen3OmniMoeProcessor",
        config=OMNI_CONFIG
        | {
            "text_config": {"rope_parameters": MROPE},
            "vision_config": {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16},
        },
    ),
    "exaone4_5": Kind(
        **QWEN,
        config={"vision_config": {"window_size": 16, "fullatt_block_indexes": [1]}},
    ),
    "hyperclovax_vision_v2": Kind(
        **QWEN,
        config={
            "text_config": MULTIPLIERS,
            "vision_config": {"window_size": 16, "fullatt_block_indexes": [1]},
        },
    ),
    "cosmos3_edge": Kind(
        **QWEN | {"image": {"size": {"shortest_edge": 256, "longest_edge": 1024}, "patch_size": 4}},
        call={"return_mm_token_type_ids": True},
        config={
            "text_config": {"rope_parameters": MROPE},
            "vision_config": {"num_patches": 16},
        },
    ),
    "glm4v": Kind(**GLM, config=GLM_CONFIG),
    "glm46v": Kind(**GLM, config=GLM_CONFIG),
    "glmga": Kind(**GLM, processor_class="Glm46VProcessor", config=GLM_CONFIG),
    "glm_ocr": Kind(
        **GLM, image_class="Glm46VImageProcessorPil", processor_class="Glm46VProcessor", config=GLM_CONFIG
    ),
    "glm4v_moe": Kind(
        **GLM,
        image_class="Glm4vImageProcessorPil",
        config={
            "text_config": {
                "head_dim": 16,
                "rope_parameters": MROPE | {"partial_rotary_factor": 0.5},
                "first_k_dense_replace": 1,
            }
        },
    ),
    "glm5_next": Kind(
        **GLM,
        config={
            "text_config": {
                "num_key_value_heads": 4,
                "qk_rope_head_dim": 0,
                "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
                "linear_head_dim": 8,
                "linear_num_heads": 4,
                "index_topk": 32,
                "index_kpool": 4,
            },
            "vision_config": {"projection_intermediate_size": 48},
        },
    ),
    "ernie4_5_vl_moe": Kind(
        image_token="<|IMAGE_PLACEHOLDER|>",
        placeholder="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
        tokens={
            "image_token": "<|IMAGE_PLACEHOLDER|>",
            "image_start_token": "<|IMAGE_START|>",
            "image_end_token": "<|IMAGE_END|>",
            "video_token": "<|VIDEO_PLACEHOLDER|>",
            "video_start_token": "<|VIDEO_START|>",
            "video_end_token": "<|VIDEO_END|>",
        },
        image=GRID,
        config={
            "text_config": {
                "rope_parameters": MROPE,
                "moe_intermediate_size": [24, 16],
                "moe_k": 2,
                "moe_num_experts": 4,
                "moe_num_shared_experts": 1,
            }
        },
    ),
    "paddleocr_vl": Kind(
        image_token="<|IMAGE_PLACEHOLDER|>",
        placeholder="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
        tokens={"image_token": "<|IMAGE_PLACEHOLDER|>"},
        more=("<|IMAGE_START|>", "<|IMAGE_END|>"),
        image=GRID,
        config={"text_config": {"rope_parameters": MROPE}},
    ),
    "video_llama_3": Kind(
        image_token="<image>",
        placeholder="<image>",
        tokens={"image_token": "<image>", "video_token": "<video>"},
        image=GRID,
    ),
    "lfm3_vl": Kind(
        **QWEN,
        config={
            "text_config": {
                "layer_types": ["conv", "sliding_attention", "conv", "full_attention"],
            }
        },
    ),
    "qwen4_exp": Kind(
        **QWEN,
        config={
            "text_config": LINEAR
            | {
                "hc_lowrank": 8,
                "indexer_n_heads": 2,
                "indexer_kv_heads": 1,
                "indexer_head_dim": 32,
                "indexer_budget": 32,
                "indexer_compress_ratio": 4,
            },
            "vision_config": {"num_position_embeddings": 16},
        },
    ),
    "cohere_compass": Kind(
        image_token="<|IMAGE_PAD|>",
        placeholder="<|VISION_START|><|IMAGE_PAD|><|VISION_END|>",
        tokens={"image_token": "<|IMAGE_PAD|>", "video_token": "<|VIDEO_PAD|>"},
        more=("<|VISION_START|>", "<|VISION_END|>"),
        image=GRID,
        config={
            "text_config": {
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "rope_parameters": {"sliding_attention": MROPE, "full_attention": MROPE},
            },
            "vision_config": {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16},
        },
    ),
    "dots3_note": Kind(
        config={
            "text_config": {
                "num_key_value_heads": 4,
                "head_dim": 16,
                "index_topk": 24,
                "per_layer_config": {"2": {"v_head_dim": 16}, "3": {"v_head_dim": 16}},
                "layer_types": [
                    "indexed_attention",
                    "indexed_attention",
                    "sliding_attention",
                    "sliding_attention",
                ],
            }
        },
        image_token="<|imgpad|>",
        placeholder="<|img|><|imgpad|><|endofimg|>",
        tokens={"image_token": "<|imgpad|>"},
        more=("<|img|>", "<|endofimg|>", "<|video_pad|>", "<|audio_comp_pad|>"),
        image=GRID | {"temporal_patch_size": 1},
    ),
    "hunyuan_vl": Kind(
        image_token="<image>",
        placeholder="<img><image></img>",
        tokens={
            "image_token": "<image>",
            "image_start_token": "<img>",
            "image_end_token": "</img>",
        },
        more=("<newline>",),
        image=GRID,
        config={
            "text_config": {"head_dim": 8, "rope_parameters": MROPE},
            "vision_config": {"max_image_size": 64, "min_image_size": 16, "text_hidden_size": 32},
        },
    ),
    "lighton_ocr": Kind(
        image_token="<|image_pad|>",
        placeholder="<|image_pad|>",
        tokens={
            "image_token": "<|image_pad|>",
            "image_break_token": "<|vision_pad|>",
            "image_end_token": "<|vision_end|>",
        },
        image={"size": {"longest_edge": 32}, "patch_size": 8},
        processor={"patch_size": 4, "spatial_merge_size": 2},
    ),
    "gemma4": Kind(
        **GEMMA4,
        config={
            "text_config": GEMMA4_TEXT
            | {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": "vocab_size"},
            "vision_config": {
                "model_type": "gemma4_vision",
                "num_key_value_heads": 4,
                "pooling_kernel_size": 2,
                "position_embedding_size": 64,
            },
        },
        image={"patch_size": 4, "max_soft_tokens": 70, "pooling_kernel_size": 2},
        processor={"image_seq_length": 70},
    ),
}
