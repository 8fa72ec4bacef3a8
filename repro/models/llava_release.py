"""LLaVA-1.5 as its authors release it, ``liuhaotian/llava-v1.5-7b``, made the model that transformers has.

A mapping of names (haotian-liu/LLaVA, llava/model/llava_arch.py and multimodal_encoder/clip_encoder.py, c121f04).
The release says of its vision tower only which it is (haotian-liu/LLaVA#672): ``config.json``,
``preprocessor_config.json`` and weights of ``openai/clip-vit-large-patch14-336`` are to lie in ``vision_tower/``.
Where a checkpoint holds weights of a tower itself, as DeepSpeed writes them, those count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AddedToken, CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

from repro.models.assembled import LLAMA_SETTINGS, clip_settings, clip_tensors, llama_config
from repro.models.loading import (
    CheckpointError,
    load_renamed,
    load_tokenizer,
    published_tensors,
    read_json,
    require,
)

INSIDE = "model.vision_tower.vision_tower."
#: Names of release and CLIP -> names of transformers' checkpoints, which its loading knows in every version.
NAMES = {
    "vision_model.*": ("vision_tower.vision_model.*",),
    f"{INSIDE}*": ("vision_tower.*",),
    "model.mm_projector.0.*": ("multi_modal_projector.linear_1.*",),
    "model.mm_projector.2.*": ("multi_modal_projector.linear_2.*",),
    "model.*": ("language_model.model.*",),
    "lm_head.weight": ("language_model.lm_head.weight",),
}
IMAGE = "<image>"
WHENCE = (
    "put config.json, preprocessor_config.json and model.safetensors of openai/clip-vit-large-patch14-336 there; "
    "where it has pytorch_model.bin alone, python -m repro.models.convert CLIP DIR/vision_tower makes the three"
)


def native_config(published: dict[str, Any], file: Path, tower: dict[str, Any]) -> LlavaConfig:
    """The configuration that transformers would have published."""
    require(published, file, LLAMA_SETTINGS)
    for key, value in {"mm_projector_type": "mlp2x_gelu", "mm_vision_select_feature": "patch"}.items():
        if published.get(key) != value:
            raise CheckpointError(
                f"{file}: {key} is {published.get(key)!r}; expected {value!r}, as in LLaVA-1.5"
            )
    return LlavaConfig(
        text_config=llama_config(published),
        vision_config=CLIPVisionConfig(**tower),
        projector_hidden_act="gelu",
        vision_feature_layer=published["mm_vision_select_layer"],
        vision_feature_select_strategy="default",  # all but the class token
        # The image has no token in this vocabulary: one more.
        image_token_index=published["vocab_size"],
        tie_word_embeddings=False,
    )


def load_release(path: Path, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """Model and tokenizer of a release, weights as safetensors.

    Raises:
        CheckpointError: as ``load_renamed``; settings of another model; the tower's files are missing.
    """
    file, published = path / "vision_tower" / "config.json", read_json(path / "config.json")
    if "clip" not in str(published.get("mm_vision_tower")).lower():
        raise CheckpointError(
            f"{path / 'config.json'} has no vision_config and names no CLIP as mm_vision_tower: it is neither of "
            "LLaVA-1.5 in the layout of transformers nor of its authors' release"
        )
    config = native_config(published, path / "config.json", clip_settings(file, WHENCE))
    tensors = published_tensors(path)
    if not any(name.startswith(INSIDE) for name in tensors):
        tensors |= clip_tensors(path / "vision_tower", WHENCE)
    model: Any = load_renamed(LlavaForConditionalGeneration, config, tensors, path, NAMES, dtype, device)
    tokenizer = load_tokenizer(path)
    tokenizer.add_tokens(AddedToken(IMAGE, special=True, normalized=False))
    if tokenizer.convert_tokens_to_ids(IMAGE) != published["vocab_size"]:
        raise CheckpointError(
            f"{path}: the tokenizer has {len(tokenizer) - 1} tokens, config.json says {published['vocab_size']}: "
            "they are of different releases"
        )
    # No answer can be the image's token: the head has no row for it.
    weight = model.get_input_embeddings().weight
    weight = torch.cat([weight, weight.new_zeros(1, weight.shape[1])])
    model.set_input_embeddings(nn.Embedding.from_pretrained(weight))
    return model, tokenizer
