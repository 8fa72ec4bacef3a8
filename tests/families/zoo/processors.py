"""Tokenizers, chat templates and processors of small checkpoints, and the prompts that they make."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers import processors as post_processors
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerFast, ProcessorMixin
from transformers.models.auto import feature_extraction_auto, video_processing_auto
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from .kinds import KINDS, Kind

#: What every tokenizer here has; ``<unused>`` stands for tokens that a configuration names and no prompt has.
PLAIN = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
UNUSED = "<unused>"
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: {% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}PLACEHOLDER{% elif part['type'] == 'text' %}"
    "{{ part['text'] }}{% endif %}{% endfor %}{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def tokenizer_of(kind: Kind) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the special tokens that the type's processor asks for, and no merges."""
    special = [*PLAIN.values(), UNUSED, *dict.fromkeys([*kind.tokens.values(), *kind.more])]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*special, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    if kind.bos:
        bos = PLAIN["bos_token"]
        tokenizer.post_processor = post_processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **PLAIN,
        extra_special_tokens=kind.tokens,
        model_input_names=["input_ids", "attention_mask"],
    )


class NoPart(dict[str, Any]):
    """Stands for a processor's part for videos or sounds, which wants libraries that no picture needs."""

    _auto_class = None
    model_input_names: tuple[str, ...] = ()
    font = ""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)

    def save_pretrained(self, *_: object, **__: object) -> None: ...


@contextmanager
def pictures_only() -> Iterator[None]:
    """Within it processors do without parts for videos and sounds, and without words for numbers."""
    check = ProcessorMixin.check_argument_for_proper_class

    def lenient(self: ProcessorMixin, name: str, argument: object) -> object:
        # transformers 4 asks for a tokenizer of the class that a type's first checkpoint has.
        return None if isinstance(argument, NoPart) or name == "tokenizer" else check(self, name, argument)

    no_auto = SimpleNamespace(from_pretrained=lambda *_, **__: NoPart())
    with (
        patch.object(ProcessorMixin, "check_argument_for_proper_class", lenient),
        # transformers 4 has something in its place where torchvision is missing.
        patch.object(video_processing_auto, "AutoVideoProcessor", no_auto)
        if isinstance(video_processing_auto, ModuleType)
        else nullcontext(),
        patch.object(feature_extraction_auto, "AutoFeatureExtractor", no_auto),
        without_words_for_numbers(),
    ):
        yield


def without_words_for_numbers() -> AbstractContextManager[Any]:
    """Within it SmolVLM's processor does without num2words; in transformers 4 it wants torchvision to be there."""
    try:
        from transformers.models.smolvlm import processing_smolvlm
    except ImportError:
        return nullcontext()
    return patch.object(processing_smolvlm, "num2words", str)


def image_class_of(model_type: str, kind: Kind) -> type:
    """The type's image processor, where there is a choice the one that does without torchvision."""
    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type) or {}
    if isinstance(names, tuple):  # transformers 4: the one without torchvision first
        names = {"pil": names[0]}
    name = kind.image_class or names.get("pil") or names["torchvision"]
    return getattr(transformers, name, None) or getattr(transformers, name.removesuffix("Pil"))


def save_processor(model_type: str, kind: Kind, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write the type's own processor with its parts, under the names that published checkpoints have for them."""
    image_processor = image_class_of(model_type, kind)(**kind.image)
    processor_class = getattr(transformers, kind.processor_class or PROCESSOR_MAPPING_NAMES[model_type])
    template = TEMPLATE.replace("PLACEHOLDER", json.dumps(kind.placeholder).join(("{{ ", " }}")))
    tokenizer.chat_template = template
    parts: dict[str, Any] = {"image_processor": image_processor, "tokenizer": tokenizer}
    named = inspect.signature(processor_class.__init__).parameters
    parts |= {name: NoPart() for name in ("video_processor", "feature_extractor") if name in named}
    if "qformer_tokenizer" in named:
        parts["qformer_tokenizer"] = tokenizer
    if kind.chat:
        parts["chat_template"] = template
    with pictures_only():
        processor = processor_class(**parts, **kind.processor)
        tokenizer.save_pretrained(directory)
        processor.save_pretrained(directory)
    image_processor.save_pretrained(directory)
    for name in ("preprocessor_config.json", "processor_config.json"):
        file = directory / name
        if not file.is_file():  # transformers 4 writes the second only if there is something in it
            continue
        settings = json.loads(file.read_text(), object_hook=as_published)
        file.write_text(json.dumps(settings, indent=2) + "\n")


def as_published(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without parts that stand for nothing, and with the image processor's name for every backend."""
    kept = {name: value for name, value in settings.items() if value != {}}
    if "image_processor_type" in kept:
        kept["image_processor_type"] = kept["image_processor_type"].removesuffix("Pil")
    return kept


def load_processor(directory: Path) -> ProcessorMixin:
    """``AutoProcessor`` of a checkpoint directory, without a part for videos."""
    with pictures_only():
        return AutoProcessor.from_pretrained(directory)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture of coloured blocks, so that it still has something in it when it is made smaller."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


def prompt(directory: Path, question: str, image: Image.Image) -> BatchFeature:
    """The processor's own inputs for one user turn with a picture and a question, as tensors of one row.

    Numbers are float32, as the checkpoint is.
    """
    processor = load_processor(directory)
    kind = KINDS[json.loads((directory / "config.json").read_text())["model_type"]]
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    if kind.chat:
        inputs = processor.apply_chat_template(
            messages,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs=kind.call,
        )
    else:
        text = processor.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = processor(text=text, images=image, return_tensors="pt", **kind.call)
    return inputs.to(torch.float32)


def image_places(model_type: str, directory: Path, inputs: BatchFeature) -> torch.Tensor:
    """[S] where the sequence of a prompt holds features of the picture."""
    token = load_processor(directory).tokenizer.convert_tokens_to_ids(KINDS[model_type].image_token)
    return inputs["input_ids"][0] == token
