"""InternVL-Chat 1.0: InternViT-6B features of layer -4, two-layer MLP projector, Vicuna decoder.

After OpenGVLab/InternVL, internvl_chat_llava, a fork of LLaVA: llava/model/llava_arch.py,
llava/model/multimodal_encoder/clip_encoder.py and intern_vit_6b/modeling_intern_vit.py.
"""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import InternVLVisionConfig, InternVLVisionModel, LlamaConfig, LlamaForCausalLM
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from repro.models import assembled
from repro.models.anatomy import first_output
from repro.models.card import ModelCard
from repro.models.loading import CheckpointError, Kind, load_tokenizer, read_json, require
from repro.models.weights import load_renamed, published_tensors

#: Published tensor name of the vision tower -> ours.
TOWER = {
    "embeddings.class_embedding": ("embeddings.cls_token",),
    "embeddings.position_embedding": ("embeddings.position_embeddings",),
    "embeddings.patch_embedding.*": ("embeddings.patch_embeddings.projection.*",),
    "encoder.layers.*.attn.qkv.weight": tuple(f"encoder.layer.*.attention.{x}_proj.weight" for x in "qkv"),
    "encoder.layers.*.attn.qkv.bias": tuple(f"encoder.layer.*.attention.{x}_proj.bias" for x in "qkv"),
    "encoder.layers.*.attn.q_norm.weight": ("encoder.layer.*.attention.q_norm.weight",),
    "encoder.layers.*.attn.k_norm.weight": ("encoder.layer.*.attention.k_norm.weight",),
    "encoder.layers.*.attn.proj.weight": ("encoder.layer.*.attention.projection_layer.weight",),
    "encoder.layers.*.attn.proj.bias": ("encoder.layer.*.attention.projection_layer.bias",),
    "encoder.layers.*.ls1": ("encoder.layer.*.lambda_1",),
    "encoder.layers.*.ls2": ("encoder.layer.*.lambda_2",),
    "encoder.layers.*.norm1.weight": ("encoder.layer.*.layernorm_before.weight",),
    "encoder.layers.*.norm2.weight": ("encoder.layer.*.layernorm_after.weight",),
    "encoder.layers.*": ("encoder.layer.*",),
}
TOWER_SETTINGS = {
    **dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads"), Kind.COUNT),
    **dict.fromkeys(("intermediate_size", "image_size", "patch_size"), Kind.COUNT),
    **dict.fromkeys(("qkv_bias", "qk_normalization"), Kind.FLAG),
    **{"hidden_act": Kind.TEXT, "layer_norm_eps": Kind.NUMBER},
}
IN_CHAT = "model.vision_tower.vision_tower."
POSITIONS = f"{IN_CHAT}embeddings.position_embedding"
NAMES = {
    **{IN_CHAT + name: tuple(f"vision_tower.{part}" for part in parts) for name, parts in TOWER.items()},
    "model.mm_projector.*": ("mm_projector.*",),
    "model.*": ("model.*",),
    "lm_head.weight": ("lm_head.weight",),
}


class InternVLForCausalLM(assembled.ReadsImages, LlamaForCausalLM):
    """The model; ``config.vision`` is the configuration of the tower."""

    def __init__(self, config: LlamaConfig):
        super().__init__(config)
        self.vision_tower = InternVLVisionModel(InternVLVisionConfig(**config.vision))
        narrow, wide = config.mm_hidden_size, config.hidden_size
        self.mm_projector = nn.Sequential(nn.Linear(narrow, wide), nn.GELU(), nn.Linear(wide, wide))

    def patches(self, pixel_values: Tensor) -> Tensor:
        # hidden_states[-4] of N layers is the output of layer N - 3; the layers after it are not run.
        tower = self.vision_tower
        last = len(tower.encoder.layer) + 1 + self.config.mm_vision_select_layer
        hidden = first_output(tower.embeddings(pixel_values))
        for layer in tower.encoder.layer[:last]:
            hidden = first_output(layer(hidden))
        return hidden[:, 1:]


def native_config(published: dict[str, Any], tower: dict[str, Any]) -> LlamaConfig:
    """The decoder's configuration, with the tower's as ``vision``."""
    assembled.check_values(published, "config.json", mm_projector_type="mlp2x_gelu")
    renamed = {"attention_bias": tower["qkv_bias"], "use_qk_norm": tower["qk_normalization"]}
    same = {key: tower[key] for key in TOWER_SETTINGS if key not in ("qkv_bias", "qk_normalization")}
    return assembled.llama_config(published, vision=same | renamed | {"norm_type": "rms_norm"})


class InternVL(assembled.Assembled):
    """The layout of ``OpenGVLab/InternVL-Chat-ViT-6B-Vicuna-7B``, weights as safetensors.

    Its vision tower's ``config.json`` (of ``OpenGVLab/InternViT-6B-224px``) lies in ``vision_tower/``.
    """

    mean, pixel_std = tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD)
    margins = mean

    @classmethod
    def load(cls, card: ModelCard, path: Path, dtype: torch.dtype, device: torch.device) -> Self:
        file = path / "config.json"
        published = read_json(file)
        if "intern" not in str(published.get("mm_vision_tower")).lower():
            raise CheckpointError(
                f"{file} names no InternViT as mm_vision_tower: it is not of InternVL-Chat 1.0"
            )
        if "448" in published["mm_vision_tower"]:
            raise CheckpointError(
                f"{file} is of a later InternVL-Chat, which reads 448 pixels; expected InternVL-Chat 1.0, which "
                "reads 336 with a tower made for 224"
            )
        tower_file = path / "vision_tower" / "config.json"
        source = "put the config.json of OpenGVLab/InternViT-6B-224px there"
        tower = assembled.tower_settings(tower_file, source)
        require(tower, tower_file, TOWER_SETTINGS)
        require(published, file, assembled.LLAMA_SETTINGS | {"mm_hidden_size": Kind.COUNT})
        tensors = published_tensors(path)
        # 336 pixels with a tower made for 224.
        side = tower["image_size"] * 3 // 2
        n_image = (side // tower["patch_size"]) ** 2
        # Until ea4da29 the authors resized the positions once, before training, and the release has them resized;
        # since then the tower keeps those of 224 pixels and resizes them in each pass (OpenGVLab/InternVL#86).
        if POSITIONS in tensors and tensors[POSITIONS].shape[1:2] == (n_image + 1,):
            tower |= {"image_size": side}
        config = native_config(published, tower)
        model: Any = load_renamed(InternVLForCausalLM, config, tensors, path, NAMES, dtype, device)
        assembled.add_image_token(model)
        tokenizer = load_tokenizer(path)
        assembled.check_vocabulary(tokenizer, published, path)
        lvlm = cls(card, model, tokenizer, path)
        lvlm.side, lvlm.n_image = side, n_image
        return lvlm

    def tokens(self, question: str, template: str) -> tuple[str, list[int]]:
        text = template.format(question=question)
        before, after = (self.tokenizer(part).input_ids for part in text.split(self.card.placeholder, 1))
        if after[:1] == [self.tokenizer.bos_token_id]:
            after = after[1:]
        return text, [*before, *[self.image_token_id] * self.n_image, *after]
