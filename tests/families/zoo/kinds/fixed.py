"""Model types whose pictures all come to one size, or to tiles of one size."""

from __future__ import annotations

from .kind import Kind
from .parts import LINEAR, MULTIPLIERS

IMAGE = "<image>"
SQUARE = {"height": 16, "width": 16}
SIGLIP = {"vision_use_head": False}

LLAVA_TOKENS = {"image_token": IMAGE}
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

PINPOINTS = {"image_grid_pinpoints": [[16, 32], [32, 16], [32, 32], [16, 48], [48, 16]]}
LLAVA = {
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
LLAVA_NEXT = LLAVA | {"image": LLAVA["image"] | PINPOINTS, "image_class": None}
MINICPM = {
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

VQ = {
    "num_embeddings": 8,
    "embed_dim": 8,
    "latent_channels": 8,
    "base_channels": 32,
    "channel_multiplier": [1, 1, 1, 1],
    "num_res_blocks": 1,
}
#: In the place of towers that timm has, which return maps, too.
CONVOLUTIONS = {
    "model_type": "convnext",
    "num_stages": 2,
    "hidden_sizes": [16, 32],
    "depths": [1, 1],
    "hidden_size": 32,
    "out_features": None,
    "out_indices": None,
    "stage_names": None,
}

FIXED: dict[str, Kind] = {
    "llava": Kind(**LLAVA),
    "paligemma": Kind(
        image_token=IMAGE,
        placeholder=IMAGE,
        tokens=LLAVA_TOKENS,
        bos=True,
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
    "llava_next": Kind(**LLAVA_NEXT, config=PINPOINTS),
    "llava_next_video": Kind(
        **LLAVA_NEXT | {"tokens": LLAVA_TOKENS | {"video_token": "<video>"}},
        config=PINPOINTS,
    ),
    "granite4_vision": Kind(
        **LLAVA_NEXT | {"processor": LLAVA["processor"] | {"downsample_rate": "1/2"}},
        config=PINPOINTS
        | {
            "text_config": MULTIPLIERS,
            # Its Q-Former has a head for every 64 of them.
            "vision_config": {"hidden_size": 64},
            "downsample_rate": "1/2",
            "deepstack_layer_map": [[-1, 0], [-2, 1]],
            "spatial_target_layers": [0, 1, 2, 3],
        },
    ),
    "llava_onevision": Kind(
        image_token=IMAGE,
        placeholder=IMAGE + "\n",
        tokens=LLAVA_TOKENS | {"video_token": "<video>"},
        config={"vision_config": SIGLIP, "vision_aspect_ratio": "anyres_max_2"} | PINPOINTS,
        image={"size": SQUARE} | PINPOINTS,
        processor={
            "num_image_tokens": 16,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_2",
        },
    ),
    "vipllava": Kind(**LLAVA, config={"vision_feature_layer": [-2, -1]}),
    "video_llava": Kind(
        image_token=IMAGE,
        placeholder=IMAGE + "\n",
        tokens=LLAVA_TOKENS | {"video_token": "<video>"},
        bos=True,
        image={"size": {"shortest_edge": 16}, "crop_size": SQUARE},
        processor={
            "patch_size": 4,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
    ),
    "aya_vision": Kind(
        image_token="<|IMG_PATCH|>",
        placeholder=IMAGE,
        tokens={"image_token": "<|IMG_PATCH|>"},
        more=(
            IMAGE,
            "<|START_OF_IMG|>",
            "<|END_OF_IMG|>",
            "<|IMG_LINE_BREAK|>",
            "TILE",
            "TILE_GLOBAL",
            *(f"TILE_{number}" for number in range(1, 13)),
        ),
        bos=True,
        config={"vision_config": SIGLIP, "image_token_index": "<|IMG_PATCH|>", "downsample_factor": 2},
        image={"size": SQUARE, "crop_to_patches": True, "max_patches": 3},
        processor={"patch_size": 4, "img_size": 16, "downsample_factor": 2},
    ),
    "aria": Kind(
        image_token=IMAGE,
        placeholder=IMAGE,
        tokens=LLAVA_TOKENS,
        bos=True,
        config={
            "text_config": {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1},
            "vision_config": {"image_size": 980, "patch_size": 140},
            "projector_patch_to_query_dict": {49: 12},
        },
        processor={"size_conversion": {980: 12}},
    ),
    "deepseek_vl": Kind(
        image_token=IMAGE,
        placeholder=IMAGE,
        tokens=LLAVA_TOKENS,
        bos=True,
        config={"vision_config": SIGLIP, "image_token_id": IMAGE},
        image={"size": SQUARE},
        processor={"num_image_tokens": 16},
    ),
    "deepseek_vl_hybrid": Kind(
        image_token=IMAGE,
        placeholder=IMAGE,
        tokens=LLAVA_TOKENS,
        bos=True,
        config={
            "vision_config": SIGLIP,
            "image_token_id": IMAGE,
            "high_res_vision_config": {
                "image_size": 64,
                "window_size": 8,
                "global_attn_indexes": [1],
                "num_pos_feats": 16,
            },
        },
        image={"size": SQUARE, "high_res_size": {"height": 64, "width": 64}},
        processor={"num_image_tokens": 16},
    ),
    "janus": Kind(
        image_token=IMAGE,
        placeholder=IMAGE,
        tokens=LLAVA_TOKENS | {"boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"},
        bos=True,
        config={
            "vision_config": {"num_image_tokens": 16, "mlp_ratio": 2},
            "image_token_id": IMAGE,
            "vq_config": VQ | {"num_patches": 4, "image_token_embed_dim": 32},
        },
        image={"size": SQUARE},
        processor={"num_image_tokens": 16},
    ),
    "chameleon": Kind(
        image_token=IMAGE,
        placeholder=IMAGE,
        tokens=LLAVA_TOKENS | {"boi_token": "<racm3:break>", "eoi_token": "<eoss>"},
        # Codes of pictures are tokens whose digits are letters.
        more=tuple(f"IMGIMG{digit}Z" for digit in "ABCDEFGH"),
        bos=True,
        chat=False,
        config={"vocabulary_map": {}, "vq_config": VQ | {"resolution": 32, "initializer_range": 0.05}},
        image={"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
        processor={"image_seq_length": 16},
    ),
    "emu3": Kind(
        image_token=IMAGE,
        placeholder=IMAGE,
        tokens=LLAVA_TOKENS
        | {
            "boi_token": "<|image start|>",
            "eoi_token": "<|image end|>",
            "image_wrapper_token": "<|image token|>",
            "eof_token": "<|extra_201|>",
        },
        more=("<|extra_200|>", *(f"<|visual token {code:06}|>" for code in range(8))),
        bos=True,
        config={"vocabulary_map": {}, "vq_config": VQ | {"codebook_size": 8}},
        image={"min_pixels": 32 * 32, "max_pixels": 48 * 48},
    ),
    "got_ocr2": Kind(
        image_token="<imgpad>",
        placeholder="<img><imgpad></img>",
        tokens={"image_token": "<imgpad>"},
        more=("<img>", "</img>", "<|im_start|>", "<|im_end|>"),
        chat=False,
        # Its processor writes 256 places for every picture.
        config={"vision_config": {"image_size": 256, "window_size": 8, "global_attn_indexes": []}},
        image={"size": {"height": 256, "width": 256}},
    ),
    "pp_chart2table": Kind(
        image_token="<imgpad>",
        # As published, the template writes out every place.
        placeholder="<img>" + 16 * "<imgpad>" + "</img>",
        tokens={"image_token": "<imgpad>"},
        more=("<img>", "</img>"),
        config={"vision_config": {"image_size": 64, "window_size": 8, "global_attn_indexes": [1]}},
        image={"size": {"height": 64, "width": 64}},
    ),
    "granite_docling": Kind(
        image_token=IMAGE,
        placeholder=IMAGE,
        tokens=LLAVA_TOKENS,
        more=IDEFICS3_TOKENS,
        bos=True,
        config={
            "text_config": MULTIPLIERS,
            "image_token_id": IMAGE,
            "vision_config": {"image_size": 32, "scale_factor": 2, "deepstack_visual_indexes": [0, 1]},
        },
        image={"size": {"height": 32, "width": 32}, "max_patches": 3},
        processor={"image_seq_len": 16},
    ),
    "idefics2": Kind(
        image_token=IMAGE,
        placeholder=IMAGE,
        more=("<fake_token_around_image>", IMAGE, "<end_of_utterance>"),
        bos=True,
        config={
            "image_token_id": IMAGE,
            "perceiver_config": {
                "resampler_n_latents": 6,
                "resampler_depth": 2,
                "resampler_n_heads": 4,
                "resampler_head_dim": 8,
                "num_key_value_heads": 2,
            },
        },
        image={"size": {"longest_edge": 16, "shortest_edge": 8}},
        processor={"image_seq_len": 6},
    ),
    "instructblip": Kind(
        image_token=IMAGE,
        placeholder="",
        more=(IMAGE,),
        bos=True,
        chat=False,
        config={"num_query_tokens": 6, "image_token_index": IMAGE},
        image={"size": SQUARE},
        image_class="BlipImageProcessorPil",
        processor={"num_query_tokens": 6},
    ),
    "minicpmv4_6": Kind(**MINICPM),
    "minicpmv4_7": Kind(**MINICPM),
    "ovis2": Kind(
        image_token="<IMG_ATOM>",
        placeholder=IMAGE + "\n",
        tokens={"image_token": "<IMG_ATOM>"},
        more=(IMAGE, "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"),
        image={"size": SQUARE, "max_patches": 3, "crop_to_patches": True},
        processor={"image_seq_length": 16},
    ),
    "qianfan_ocr": Kind(
        image_token="<IMG_CONTEXT>",
        placeholder=IMAGE + "\n",
        tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
        },
        config={
            "image_token_id": "<IMG_CONTEXT>",
            "image_seq_length": 16,
            "vision_config": {"image_size": [32, 32]},
        },
        image={"size": {"height": 32, "width": 32}, "max_patches": 3},
        processor={"image_seq_length": 16},
    ),
    "deepseek_ocr2": Kind(
        image_token=IMAGE,
        placeholder=IMAGE + "\n",
        tokens=LLAVA_TOKENS,
        bos=True,
        # It has 256 queries for a picture and 144 for a tile.
        config={
            "text_config": {
                "num_experts_per_tok": 2,
                "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
            },
            "vision_config": {
                "sam_config": {
                    "image_size": 256,
                    "window_size": 8,
                    "global_attn_indexes": [],
                    "downsample_channels": [32, 32],
                }
            },
        },
        image={"size": {"height": 256, "width": 256}, "tile_size": 192, "max_patches": 3},
        processor={"patch_size": 4, "downsample_ratio": 4},
    ),
    "fast_vlm": Kind(
        image_token=IMAGE,
        placeholder=IMAGE + "\n",
        tokens=LLAVA_TOKENS,
        config={"vision_config": CONVOLUTIONS},
        image={"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
        image_class="CLIPImageProcessorPil",
        processor={"patch_size": 8, "vision_feature_select_strategy": "full"},
        processor_class="LlavaProcessor",
    ),
}
