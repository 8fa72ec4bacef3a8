"""Small checkpoints with random weights, one per vision-language model type that transformers has."""

from __future__ import annotations

import zlib
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForImageTextToText, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils import is_torchvision_available

from .configs import LAYERS, configure
from .kinds import KINDS, TORCHVISION, Kind
from .processors import (
    image_places,
    load_processor,
    picture,
    prompt,
    save_processor,
    tokenizer_of,
)

__all__ = ["BUILT", "LAYERS", "TYPES", "build", "image_places", "load_processor", "picture", "prompt"]

OLD = transformers.__version__.startswith("4.")
#: Model types that are out of the question here.
OUT_OF_SCOPE = {
    "encoder-decoder": (
        "florence2",
        "pix2struct",
        "pp_formulanet",
        "t5gemma2",
        "udop",
        "vision-encoder-decoder",
    ),
    "cross attention": ("blip", "evolla", "idefics", "mllama"),
    "image prefix without tokens": ("git", "kosmos-2", "kosmos-2.5"),
    "block diffusion": ("diffusion_gemma",),
    "robot actions": ("pi0",),
    "text only": ("mistral4",),
    "videos only": ("instructblipvideo",),
    "a classifier: its weights are not those of the mapping's class": ("shieldgemma2",),
    "its vision tower needs timm": ("gemma3n", "perception_lm"),
    "its processor drops a first token that only its own tokenizer adds": ("fuyu",),
    "not made with transformers 4": ("chameleon", "qwen2_5_vl", "qwen3_vl") if OLD else (),
    "its processor needs torchvision": () if is_torchvision_available() else tuple(TORCHVISION),
}
#: Every model type -> why there is no checkpoint of it, or None.
TYPES: dict[str, str | None] = dict.fromkeys(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES) | {
    name: reason for reason, names in OUT_OF_SCOPE.items() for name in names
}
BUILT = tuple(name for name, reason in TYPES.items() if reason is None)


def build(model_type: str, directory: Path) -> None:
    """Write a checkpoint of this type, the same bytes each time; LookupError, saying why, where there is none."""
    if reason := TYPES[model_type]:
        raise LookupError(f"{model_type}: {reason}")
    kind = KINDS[model_type]
    tokenizer = tokenizer_of(kind)
    plain = {name: tokenizer.special_tokens_map[name] for name in ("bos_token", "eos_token", "pad_token")}
    config = configure(model_type, kind.config, plain | kind.tokens, tokenizer.get_vocab())
    torch.manual_seed(zlib.crc32(model_type.encode()))
    model = AutoModelForImageTextToText.from_config(config)
    vary(model)
    hush(model, tokenizer, kind)
    ids = {f"{name}_id": getattr(tokenizer, f"{name}_id") for name in plain}
    # As published ones do, it has settings that greedy answers must not depend on.
    model.generation_config.update(**ids, repetition_penalty=1.5, num_beams=5)
    model.save_pretrained(directory)
    save_processor(model_type, kind, tokenizer, directory)


def hush(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, kind: Kind) -> None:
    """Have no answer hold a picture's token, which a prompt with one picture may not hold once more."""
    named = [kind.tokens.get(f"{name}_token", kind.image_token) for name in ("image", "video", "audio")]
    with torch.no_grad():
        head = model.get_output_embeddings() or model.language_model.get_output_embeddings()
        head.weight[tokenizer.convert_tokens_to_ids([kind.image_token, *named])] = 0.0


def vary(model: PreTrainedModel) -> None:
    """Spread what every model of a type begins with alike: norms, gates, biases, queries, scales of layers."""
    kept = dict(model.named_parameters()) | {
        name: buffer for name, buffer in model.named_buffers() if name in model.state_dict()
    }
    with torch.no_grad():
        for tensor in kept.values():
            if tensor.is_floating_point() and bool((tensor == tensor.flatten()[0]).all()):
                tensor.add_(torch.randn_like(tensor), alpha=0.2)
