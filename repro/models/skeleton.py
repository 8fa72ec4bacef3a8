"""A model's modules from its configuration alone: on torch's meta device, without a weight."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, CLIPVisionConfig, LlavaConfig

from repro.models import assembled
from repro.models.card import ModelCard
from repro.models.loading import CheckpointError, read_json, require


def skeleton(card: ModelCard, path: Path) -> Any:
    """The model of a directory with ``config.json``; CheckpointError if it configures none.

    Of a model whose vision tower is published elsewhere, the tower's configuration lies in ``vision_tower/``.
    """
    if (path / "delta").is_dir():  # a Shikra that is not merged yet
        path = path / "delta"
    settings = read_json(path / "config.json")
    try:
        with torch.device("meta"):
            return _of(card, path, settings)
    except CheckpointError:
        raise
    except Exception as error:  # bad settings raise whatever the model's class stumbles over
        raise CheckpointError(f"{path / 'config.json'} configures no model: {error}") from error


def _of(card: ModelCard, path: Path, settings: dict[str, Any]) -> Any:
    tower = path / "vision_tower" / "config.json"
    if card.family == "qwen_vl":
        from repro.models import qwen_vl

        require(settings, path / "config.json", qwen_vl.SETTINGS)
        return qwen_vl.QwenVLForCausalLM(qwen_vl.native_config(settings))
    if card.family == "intern_vl":
        from repro.models import intern_vl

        vision = assembled.tower_settings(tower, "put the config.json of the vision tower there")
        require(vision, tower, intern_vl.TOWER_SETTINGS)
        vision["image_size"] = vision["image_size"] * 3 // 2
        return intern_vl.InternVLForCausalLM(intern_vl.native_config(settings, vision))
    if card.family == "shikra":
        from repro.models import shikra

        if not tower.is_file():
            tower = path.parent / "tower" / "config.json"
        vision = assembled.clip_settings(tower, shikra.MERGE)
        return shikra.ShikraForCausalLM(assembled.llama_config(settings, vision=vision))
    if card.family == "llava" and "vision_config" not in settings:
        vision = assembled.clip_settings(tower, "put the config.json of the vision tower there")
        config = LlavaConfig(
            text_config=assembled.llama_config(settings), vision_config=CLIPVisionConfig(**vision)
        )
    else:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    return AutoModelForImageTextToText.from_config(config)
