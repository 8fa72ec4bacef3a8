"""The model types that have a small checkpoint, and what is special about each."""

from __future__ import annotations

from .kind import Kind

IMAGE = "<image>"
SQUARE = {"height": 16, "width": 16}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
SIGLIP = {"vision_use_head": False}

LLAVA_TOKENS = {"image_token": IMAGE}
QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
QWEN = {
    "image_token": "<|image_pad|>",
    "placeholder": "<|vision_start|><|image_pad|><|vision_end|>",
    "tokens": QWEN_TOKENS,
    "image": {"min_pixels": 16 * 16, "max_pixels": 32 * 32, "patch_size": 4, "merge_size": 2},
}
GEMMA_TOKENS = {
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

KINDS: dict[str, Kind] = {
    "llava": Kind(
        image_token=IMAGE,
        placeholder=IMAGE + "\n",
        tokens=LLAVA_TOKENS,
        bos=True,
        image={"size": {"shortest_edge": 16}, "crop_size": SQUARE},
        image_class="CLIPImageProcessorPil",
        processor={
            "patch_size": 4,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
    ),
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
    "paligemma": Kind(
        image_token=IMAGE,
        placeholder=IMAGE,
        tokens=LLAVA_TOKENS,
        bos=True,
        chat=False,
        config={
            "text_config": {"num_image_tokens": 16, "head_dim": 8},
            "vision_config": SIGLIP | {"num_image_tokens": 16},
        },
        image={"size": SQUARE, "image_seq_length": 16},
    ),
    "gemma3": Kind(
        image_token=GEMMA_TOKENS["image_token"],
        placeholder="<start_of_image>",
        tokens=GEMMA_TOKENS,
        bos=True,
        config={"mm_tokens_per_image": 16, "vision_config": SIGLIP | {"image_size": 32}},
        image={"size": {"height": 32, "width": 32}, "image_seq_length": 16},
        processor={"image_seq_length": 16},
    ),
    "smolvlm": Kind(
        image_token=IMAGE,
        placeholder=IMAGE,
        more=IDEFICS3_TOKENS,
        bos=True,
        config={"image_token_id": IMAGE},
        image={"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}},
        processor={"image_seq_len": 4},
    ),
    "idefics3": Kind(
        image_token=IMAGE,
        placeholder=IMAGE,
        more=IDEFICS3_TOKENS,
        bos=True,
        config={"image_token_id": IMAGE},
        image={"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}},
        processor={"image_seq_len": 4},
    ),
    "internvl": Kind(
        image_token="<IMG_CONTEXT>",
        placeholder="<IMG_CONTEXT>\n",
        tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        config={
            "image_token_id": "<IMG_CONTEXT>",
            "image_seq_length": 16,
            "tie_word_embeddings": False,
            "vision_config": {"image_size": [32, 32]},
        },
        image={"size": {"height": 32, "width": 32}, "max_patches": 3},
        processor={"image_seq_length": 16},
    ),
    "blip-2": Kind(
        image_token=IMAGE,
        # The processor puts the picture before everything.
        placeholder="",
        more=(IMAGE,),
        bos=True,
        chat=False,
        config={"num_query_tokens": 6, "image_token_index": IMAGE},
        image={"size": SQUARE},
        processor={"num_query_tokens": 6},
    ),
}
