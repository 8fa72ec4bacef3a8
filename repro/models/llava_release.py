"""The model of transformers from LLaVA-1.5 as its authors release it, ``liuhaotian/llava-v1.5-7b``.

A mapping of names (haotian-liu/LLaVA, llava/model/llava_arch.py and multimodal_encoder/clip_encoder.py, c121f04).
The release only names its vision tower (haotian-liu/LLaVA#672): ``config.json``, ``preprocessor_config.json`` and
weights of ``openai/clip-vit-large-patch14-336`` must lie in ``vision_tower/``. Weights of a tower in the release
itself, as DeepSpeed writes them, take precedence.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AddedToken, CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

from repro.models import assembled
from repro.models.loading import CheckpointError, load_tokenizer, read_json, require
from repro.models.weights import load_renamed, published_tensors

INSIDE = "model.vision_tower.vision_tower."
#: Names of release and CLIP -> names in transformers' checkpoints, which every version of it can load.
NAMES = {
    "vision_model.*": ("vision_tower.vision_model.*",),
    f"{INSIDE}*": ("vision_tower.*",),
    "model.mm_projector.0.*": ("multi_modal_projector.linear_1.*",),
    "model.mm_projector.2.*": ("multi_modal_projector.linear_2.*",),
    "model.*": ("language_model.model.*",),
    "lm_head.weight": ("language_model.lm_head.weight",),
}
IMAGE = "<image>"
SOURCE = (
    "put config.json, preprocessor_config.json and model.safetensors of openai/clip-vit-large-patch14-336 there; "
    "where it has pytorch_model.bin alone, python -m repro.models.convert CLIP DIR/vision_tower makes the three"
)


def load_release(path: Path, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """Model and tokenizer of a release, weights as safetensors.

    Raises CheckpointError as ``load_renamed``, for settings of another model and for missing files of the tower.
    """
    file, tower = path / "config.json", path / "vision_tower"
    published = read_json(file)
    if "clip" not in str(published.get("mm_vision_tower")).lower():
        raise CheckpointError(
            f"{file} has no vision_config and names no CLIP as mm_vision_tower: it is neither of LLaVA-1.5 in the "
            "layout of transformers nor of its authors' release"
        )
    vision = assembled.clip_settings(tower / "config.json", SOURCE)
    require(published, file, assembled.LLAMA_SETTINGS)
    fixed = {"mm_projector_type": "mlp2x_gelu", "mm_vision_select_feature": "patch"}
    assembled.check_values(published, file, **fixed)
    config = LlavaConfig(
        text_config=assembled.llama_config(published),
        vision_config=CLIPVisionConfig(**vision),
        projector_hidden_act="gelu",
        vision_feature_layer=published["mm_vision_select_layer"],
        vision_feature_select_strategy="default",  # all but the class token
        # One more than the vocabulary, which has no image token.
        image_token_index=published["vocab_size"],
        tie_word_embeddings=False,
    )
    tensors = published_tensors(path)
    if not any(name.startswith(INSIDE) for name in tensors):
        tensors |= assembled.clip_tensors(tower, SOURCE)
    model: Any = load_renamed(LlavaForConditionalGeneration, config, tensors, path, NAMES, dtype, device)
    tokenizer = load_tokenizer(path)
    tokenizer.add_tokens(AddedToken(IMAGE, special=True, normalized=False))
    if tokenizer.convert_tokens_to_ids(IMAGE) != assembled.add_image_token(model):
        raise CheckpointError(
            f"{path}: the tokenizer has {len(tokenizer) - 1} tokens, config.json says {published['vocab_size']}: "
            "they are of different releases"
        )
    return model, tokenizer
