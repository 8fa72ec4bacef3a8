"""Small checkpoints with random weights, in the published layouts of the models that transformers has.

A test asks for one by its name, or for ``family``, which is each of them in turn.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import (
    BatchFeature,
    CLIPVisionConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from repro.models import load_model
from repro.models.lvlm import Lvlm

IMAGE = "<image>"
#: What the published tokenizers of LLaVA-1.6 and InstructBLIP call their tokens.
LLAMA = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
LLAMA_TOKENIZER = LLAMA | {
    "special": (*LLAMA.values(), IMAGE),
    "image_token": IMAGE,
    "extra_special_tokens": {"image_token": IMAGE},
}
#: What those of the models after the paper call theirs: they have no BOS.
CHATML = {"unk_token": None, "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}

VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
CLIP = VISION | {"image_size": 16, "patch_size": 4, "initializer_range": 0.3}
SIGLIP = VISION | {
    "model_type": "siglip_vision_model",
    "image_size": 16,
    "patch_size": 4,
    "vision_use_head": False,
}
SQUARE = {"height": 16, "width": 16}
PREPARATION = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": OPENAI_CLIP_MEAN,
    "image_std": OPENAI_CLIP_STD,
}


def decoder(vocabulary: dict[str, int], tokens: dict[str, str | None], **settings: object) -> dict:
    """Settings of a decoder of three layers for a tokenizer of this vocabulary and these tokens."""
    ids = {f"{name}_id": vocabulary.get(tokens[name]) for name in ("bos_token", "eos_token", "pad_token")}
    return {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
        "initializer_range": 0.3,
        **ids,
        **settings,
    }


def write_json(path: Path, **content: object) -> None:
    path.write_text(json.dumps(content))


def save(model: PreTrainedModel, directory: Path, **preparation: object) -> None:
    """Write weights, configuration, how pictures are prepared, and settings greedy answers must not depend on."""
    model.generation_config.update(repetition_penalty=1.5, num_beams=5)
    model.save_pretrained(directory)
    write_json(directory / "preprocessor_config.json", **PREPARATION, **preparation)


@pytest.fixture(scope="session")
def store_chatml(store_tokenizer) -> Callable[..., dict[str, int]]:
    """Writes a tokenizer with ChatML's tokens and those ``named`` to transformers' processors."""

    def write(directory: Path, **named: str) -> dict[str, int]:
        return store_tokenizer(
            directory,
            special=("<|endoftext|>", "<|im_start|>", "<|im_end|>", *named.values()),
            extra_special_tokens=named,
            **CHATML,
        )

    return write


@pytest.fixture(scope="session")
def llava_next(tmp_path_factory, store_tokenizer) -> Lvlm:
    directory = tmp_path_factory.mktemp("llava-1.6")
    vocabulary = store_tokenizer(directory, **LLAMA_TOKENIZER)
    torch.manual_seed(0)
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**CLIP | {"num_hidden_layers": 3}, projection_dim=32),
        text_config=LlamaConfig(**decoder(vocabulary, LLAMA)),
        image_token_index=vocabulary[IMAGE],
        image_grid_pinpoints=[[16, 32], [32, 16], [32, 32], [16, 48], [48, 16]],
        vision_feature_layer=-2,
        tie_word_embeddings=False,
    )
    model = LlavaNextForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.image_newline)
    save(
        model,
        directory,
        image_processor_type="LlavaNextImageProcessor",
        size={"shortest_edge": 16},
        crop_size=SQUARE,
        image_grid_pinpoints=config.image_grid_pinpoints,
        do_center_crop=True,
        do_pad=True,
    )
    write_json(
        directory / "processor_config.json",
        patch_size=4,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
    )
    return load_model("llava-1.6", directory)


@pytest.fixture(scope="session")
def instructblip(tmp_path_factory, store_tokenizer) -> Lvlm:
    directory = tmp_path_factory.mktemp("instructblip")
    vocabulary = store_tokenizer(directory, **LLAMA_TOKENIZER)
    special = (*LLAMA_TOKENIZER["special"], "[SEP]")
    questions = store_tokenizer(directory / "qformer_tokenizer", **LLAMA_TOKENIZER | {"special": special})
    torch.manual_seed(1)
    config = InstructBlipConfig(
        vision_config=CLIP,
        qformer_config=VISION
        | {
            "vocab_size": len(questions),
            "max_position_embeddings": 128,
            "encoder_hidden_size": 32,
            "pad_token_id": questions["<pad>"],
        },
        text_config=LlamaConfig(**decoder(vocabulary, LLAMA)).to_dict(),
        num_query_tokens=6,
        image_token_index=vocabulary[IMAGE],
    )
    model = InstructBlipForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens)
    save(model, directory, image_processor_type="BlipImageProcessor", size=SQUARE)
    return load_model("instructblip", directory)


@pytest.fixture(scope="session")
def llava_onevision(tmp_path_factory, store_chatml) -> Lvlm:
    directory = tmp_path_factory.mktemp("llava-onevision")
    vocabulary = store_chatml(directory, image_token=IMAGE, video_token="<video>")
    torch.manual_seed(2)
    config = LlavaOnevisionConfig(
        vision_config=SIGLIP,
        text_config=Qwen2Config(**decoder(vocabulary, CHATML, num_key_value_heads=2)),
        image_token_index=vocabulary[IMAGE],
        video_token_index=vocabulary["<video>"],
        image_grid_pinpoints=[[16, 16], [16, 32], [32, 16], [32, 32], [16, 48], [48, 16]],
        vision_aspect_ratio="anyres_max_2",
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )
    save(
        LlavaOnevisionForConditionalGeneration(config),
        directory,
        image_processor_type="LlavaOnevisionImageProcessor",
        size=SQUARE,
        image_grid_pinpoints=config.image_grid_pinpoints,
        do_pad=True,
    )
    return load_model("llava-onevision", directory)


@pytest.fixture(scope="session")
def internvl3(tmp_path_factory, store_chatml) -> Lvlm:
    directory = tmp_path_factory.mktemp("internvl3")
    vocabulary = store_chatml(
        directory,
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    torch.manual_seed(3)
    config = InternVLConfig(
        vision_config={**VISION, "image_size": [32, 32], "patch_size": [4, 4], "initializer_range": 0.3},
        text_config=Qwen2Config(**decoder(vocabulary, CHATML, num_key_value_heads=2)),
        image_token_id=vocabulary["<IMG_CONTEXT>"],
        image_seq_length=16,
        tie_word_embeddings=False,
    )
    save(
        InternVLForConditionalGeneration(config),
        directory,
        image_processor_type="GotOcr2ImageProcessorFast",
        size={"height": 32, "width": 32},
        # As published; transformers' processor and the authors' scripts cut tiles nonetheless.
        crop_to_patches=False,
        max_patches=12,
    )
    return load_model("internvl3", directory)


@pytest.fixture(scope="session")
def qwen2_5_vl(tmp_path_factory, store_chatml) -> Lvlm:
    directory = tmp_path_factory.mktemp("qwen2.5-vl")
    vocabulary = store_chatml(
        directory,
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_bos_token="<|vision_start|>",
        vision_eos_token="<|vision_end|>",
    )
    torch.manual_seed(4)
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 4,
            "out_hidden_size": 32,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 16,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.3,
        },
        text_config=decoder(
            vocabulary,
            CHATML,
            num_key_value_heads=2,
            rope_scaling={"type": "mrope", "mrope_section": [1, 1, 2]},
        ),
        image_token_id=vocabulary["<|image_pad|>"],
        video_token_id=vocabulary["<|video_pad|>"],
        vision_start_token_id=vocabulary["<|vision_start|>"],
        vision_end_token_id=vocabulary["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    save(
        Qwen2_5_VLForConditionalGeneration(config),
        directory,
        image_processor_type="Qwen2VLImageProcessor",
        min_pixels=16 * 16,
        max_pixels=40 * 40,
        patch_size=4,
        merge_size=2,
        temporal_patch_size=2,
    )
    return load_model("qwen2.5-vl", directory)


@pytest.fixture
def llava_interleave(tmp_path, store_chatml) -> Path:
    """The checkpoint directory of the README's example, below a working directory."""
    directory = tmp_path / "models" / "llava-interleave-qwen-7b-hf"
    vocabulary = store_chatml(directory, image_token=IMAGE)
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=SIGLIP,
        text_config=Qwen2Config(**decoder(vocabulary, CHATML, num_key_value_heads=2)),
        image_token_index=vocabulary[IMAGE],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )
    save(
        LlavaForConditionalGeneration(config),
        directory,
        image_processor_type="SiglipImageProcessor",
        size=SQUARE,
    )
    return directory


@pytest.fixture(params=["llava_next", "instructblip", "llava_onevision", "internvl3", "qwen2_5_vl"])
def family(request) -> Lvlm:
    """Each family in turn."""
    return request.getfixturevalue(request.param)


#: transformers' own processor of a model, its settings, and what it is told with every picture.
PROCESSORS = {
    "llava-1.6": (
        LlavaNextProcessor,
        {
            "patch_size": 4,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
        {},
    ),
    "llava-onevision": (
        LlavaOnevisionProcessor,
        {
            "num_image_tokens": 16,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_2",
            "video_processor": None,
        },
        {},
    ),
    "internvl3": (InternVLProcessor, {"image_seq_length": 16, "video_processor": None}, {"max_patches": 6}),
    "qwen2.5-vl": (Qwen2_5_VLProcessor, {"video_processor": None}, {}),
}


@pytest.fixture
def process(family, monkeypatch) -> Callable[[Image.Image, str], BatchFeature]:
    """transformers' own processor: picture and text of a prompt -> tensors."""
    made, given = family.processor, {}
    if family.card.name in PROCESSORS:
        kind, settings, given = PROCESSORS[family.card.name]
        if "video_processor" in settings:
            # Not used here, and transformers' own wants torchvision.
            monkeypatch.setattr(ProcessorMixin, "check_argument_for_proper_class", lambda *_: None)
        made = kind(image_processor=made.image_processor, tokenizer=made.tokenizer, **settings)

    def run(image: Image.Image, text: str) -> BatchFeature:
        # InternVL's processor adds the tokens around a picture itself.
        text = text.replace("<img><IMG_CONTEXT></img>", "<IMG_CONTEXT>")
        return made(images=image, text=text, return_tensors="pt", **given)

    return run
