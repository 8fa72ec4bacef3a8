"""Any vision-language model that transformers has whole, from its checkpoint alone, without a card.

Its processor and its chat template make the prompt; see ``repro.models.anatomy`` for how its layers are found.
"""

import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from math import isqrt
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from repro.models.anatomy import NoLayers
from repro.models.card import ModelCard
from repro.models.images import read_image
from repro.models.loading import CheckpointError, check_outputs, read_json
from repro.models.lvlm import Lvlm
from repro.models.processors import load_processor
from repro.models.prompts import Prompt, batched
from repro.models.rounding import raise_if_passing
from repro.models.weights import check_whole, load_checkpoint, shards_of
from repro.segments import Segments

#: Packages that load quantised weights, by the name that a configuration has for their method.
QUANTISERS = {
    "awq": ("awq", "gptqmodel"),
    "gptq": ("gptqmodel", "optimum"),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",),
}


class Chat(Lvlm):
    """A model behind ``AutoModelForImageTextToText``, as its checkpoint describes it."""

    known = False

    @classmethod
    def check(cls, card: ModelCard, path: Path) -> None:
        """CheckpointError, saying what to do, unless the directory holds a model of this kind."""
        check_whole(path)
        settings = read_json(path / "config.json")
        check_outputs(settings, path / "config.json")
        model_type = settings.get("model_type")
        if model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            raise CheckpointError(
                f"{path / 'config.json'} is of model_type {model_type!r}, which is no vision-language model of "
                f"transformers {transformers.__version__}"
            )
        method = (settings.get("quantization_config") or {}).get("quant_method")
        if method and not any(importlib.util.find_spec(name) for name in QUANTISERS.get(method, (method,))):
            raise CheckpointError(
                f"{path} is quantised by {method}: install {' or '.join(QUANTISERS.get(method, (method,)))}"
            )
        shards_of(path)

    @classmethod
    def dtype(cls, card: ModelCard, path: Path) -> str:
        settings = read_json(path / "config.json")
        named = settings.get("dtype") or settings.get("torch_dtype")
        named = named or (settings.get("text_config") or {}).get("dtype")
        return named if named in ("float16", "bfloat16", "float32") else card.dtype

    @classmethod
    def load(cls, card: ModelCard, path: Path, dtype: torch.dtype, device: torch.device) -> Self:
        processor = load_processor(path)
        model = load_checkpoint(AutoModelForImageTextToText, path, dtype, device, attention=None)
        template = getattr(processor, "chat_template", None) or getattr(
            processor.tokenizer, "chat_template", None
        )
        card = replace(card, template=str(template or ""), model_type=model.config.model_type)
        try:
            return cls(card, model, processor, path)
        except NoLayers as error:
            raise CheckpointError(
                f"{path} ({model.config.model_type}) cannot be measured: {error}: its image does not enter "
                "a decoder as tokens among those of the text"
            ) from error
        except Exception as error:  # whatever the processor or the model stumbles over
            raise CheckpointError(
                f"no prompt can be made and run of {path} with its processor, {type(processor).__name__}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def find_parts(self) -> None:
        config = self.model.config
        candidates = [getattr(part, "image_token_id", None) for part in (config, self.processor)]
        candidates.append(getattr(config, "image_token_index", None))
        if (token := getattr(self.processor, "image_token", None)) is not None:
            candidates.append(self.tokenizer.convert_tokens_to_ids(str(token)))
        self.image_token_ids = tuple(dict.fromkeys(id for id in candidates if isinstance(id, int)))
        self.located = False  # prompts need no map until the layers are known
        self.layers = self.anatomy.modules
        del self.located
        self.decoder = self.model.get_decoder()

    @property
    def checked_tokens(self) -> set[str]:
        """None: whatever the tokenizer knows is no text."""
        return set()

    @property
    def context(self) -> int:
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", 1 << 20)

    @property
    def template(self) -> str:
        """None of its own: the processor has the chat template."""
        return ""

    def processed(self, image: Image.Image, question: str, template: str = "") -> Any:
        """The processor's outputs for one turn with an image and a question: tensors by name,
        ``input_ids`` [1, T].

        Args:
            template: the complete prompt as text, in place of the checkpoint's chat template.
        """
        content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
        messages, processor = [{"role": "user", "content": content}], self.processor
        settings: dict[str, Any] = {"add_generation_prompt": True}
        if not template and getattr(processor, "chat_template", None):
            tensors: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
            if self._wanted and "processor_kwargs" in _parameters(processor.apply_chat_template):
                tensors["processor_kwargs"] = self._wanted
            # The processor nests an image that is in a turn; some read no nested ones.
            if self._reads_turns:
                return processor.apply_chat_template(messages, **settings, **tensors)
            text = processor.apply_chat_template(messages, **settings, tokenize=False)
        elif not template and getattr(self.tokenizer, "chat_template", None):
            text = self.tokenizer.apply_chat_template(messages, **settings, tokenize=False)
        else:  # a model that was not tuned on chats reads the bare question
            text = template.format(question=question) if template else question
            if not template and self._names_image:
                text = f"{processor.image_token}\n{question}"
        return processor(images=image, text=text, return_tensors="pt", **self._wanted)

    @cached_property
    def _reads_turns(self) -> bool:
        """Whether the processor finds an image within a turn."""
        self._reads_turns = True  # tried
        try:
            self.processed(Image.new("RGB", (64, 48)), "?")
        except ValueError:
            return False
        return True

    @cached_property
    def _names_image(self) -> bool:
        """Whether a text must hold the image's token, which other processors put there themselves."""
        try:
            outputs = self.processor(images=Image.new("RGB", (64, 48)), text="?", return_tensors="pt")
        except ValueError:
            return True
        return not np.isin(outputs["input_ids"].numpy(), self.image_token_ids).any()

    @cached_property
    def _wanted(self) -> dict[str, bool]:
        """Outputs that the model reads and its processor gives on request only."""
        name = "mm_token_type_ids"
        return {f"return_{name}": True} if name in _parameters(self.model.forward) else {}

    def build_prompt(self, image: str | Path | Image.Image, question: str, template: str) -> Prompt:
        image = read_image(image)
        try:
            outputs = dict(self.processed(image, question, template).to(self.device))
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
            raise_if_passing(error)
            raise ValueError(
                f"the processor of {self.card.name}, {type(self.processor).__name__}, cannot prepare an image of "
                f"{image.width} x {image.height} with this question: {type(error).__name__}: {error}"
            ) from error
        input_ids = outputs.pop("input_ids")
        for name in ("attention_mask", "labels"):
            outputs.pop(name, None)
        sequences = {}
        for name in list(outputs):
            if _runs_over_sequence(name, outputs[name], input_ids):
                sequences[name] = outputs.pop(name)
        images = {
            name: value.to(self.model.dtype) if value.is_floating_point() else value
            for name, value in outputs.items()
            if isinstance(value, Tensor)
        }
        self.check_room(input_ids.shape[1])
        ids = input_ids[0].cpu().numpy()
        # The configuration's comes first: what a processor calls its image token may stand before the image.
        token = next((token for token in self.image_token_ids if token in ids), None)
        if token is not None:
            self.image_token_ids = (token,)
        is_image = ids == token
        if not is_image.any():
            raise ValueError(
                f"the prompt of {self.card.name} holds none of its image tokens {list(self.image_token_ids)}: "
                f"{self.tokenizer.decode(input_ids[0])!r}"
            )
        grid = self.grid(images, int(is_image.sum())) if self.located else None
        return Prompt(
            input_ids=input_ids,
            image_inputs=images,
            segments=Segments.from_image_mask(is_image),
            grid=grid or (1, int(is_image.sum())),
            image=self._seen(images["pixel_values"]) if grid and _is_one_image(images) else image,
            text=self.tokenizer.decode(input_ids[0]),
            spatial=grid is not None,
            sequence_inputs=sequences,
        )

    def grid(self, images: Mapping[str, Tensor], n_image: int) -> tuple[int, int] | None:
        """Rows and columns of the map that the image tokens form; None if they have no place in the image."""
        if "image_grid_thw" in images:
            _, rows, columns = images["image_grid_thw"][0].tolist()
            merge = isqrt(rows * columns // n_image)
            rows, columns = rows // merge, columns // merge
            return (rows, columns) if rows * columns == n_image else None
        if not _is_one_image(images):
            return None
        height, width = images["pixel_values"].shape[-2:]
        rows = round((n_image * height / width) ** 0.5)
        return (rows, n_image // rows) if rows and rows * (n_image // rows) == n_image else None

    @cached_property
    def located(self) -> bool:
        """Whether image tokens have a place in the image: where it changes, the token of that place changes most.

        So it is with patches, and not with the queries of a resampler.
        """
        self.located = False  # while it is found out
        side = 96
        plain = self.prompt(Image.new("RGB", (side, side), "grey"), "?")
        grid = self.grid(plain.image_inputs, len(plain.segments.image))
        if grid is None:
            return False
        rows, columns = grid
        places = ((0, 0), (0, columns - 1), (rows - 1, 0), (rows // 2, columns // 2))
        prompts = [plain]
        for row, column in places:
            spotted = Image.new("RGB", (side, side), "grey")
            corner = (column * side // columns, row * side // rows)
            spotted.paste("red", (*corner, corner[0] + side // columns, corner[1] + side // rows))
            prompts.append(self.prompt(spotted, "?"))
        cells = [row * columns + column for row, column in places]

        def shown(entering: Tensor) -> bool:
            change = (entering[1:] - entering[:1])[:, plain.segments.image].norm(dim=-1)
            return bool(change.argmax(dim=1).tolist() == cells)

        try:
            if shown(self.reading(prompts).entering):
                return True
        except Exception as error:  # of the model's own code, which joins images in another way
            raise_if_passing(error)
        return shown(torch.cat([self.reading([prompt]).entering for prompt in prompts]))

    def with_noise(self, prompt: Prompt, noise: Tensor) -> dict[str, Tensor]:
        name, scale = self.pixel_name(prompt), self._noise_scale(prompt)
        pixels = prompt.image_inputs[name]
        drawn = noise.to(pixels).view(-1, *pixels.shape)
        if pixels.dim() < 4:  # flat patches
            drawn = drawn[..., self._same_pixel(name)]
        return batched([{**prompt.image_inputs, name: pixels + one * scale} for one in drawn])

    def _same_pixel(self, name: str) -> Tensor:
        """For each value of a flat patch the first that holds the same pixel: int64 [width].

        An image is the same in all frames of a video's patch.
        """
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8))
        values = self.processed(image, "?")[name].flatten(0, -2)
        _, groups = torch.unique(values, dim=1, return_inverse=True)
        place = torch.arange(len(groups))
        first = torch.full_like(groups, len(groups)).scatter_reduce(0, groups, place, "amin")
        return first[groups].to(self.device)

    def _seen(self, pixels: Tensor) -> Image.Image:
        """The image that the vision tower sees, from prepared pixels [..., 3, H, W]: cropped, padded, resized."""
        black, white = self._black_and_white
        colours = ((pixels.float().cpu().flatten(0, -4)[0] - black) / (white - black)).clamp(0, 1)
        return Image.fromarray((255 * colours).round().byte().permute(1, 2, 0).numpy())

    @cached_property
    def _black_and_white(self) -> tuple[Tensor, Tensor]:
        """What black and white become in pixels [..., 3, H, W]: float32 [3, 1, 1] each."""
        black, white = (
            self.processed(Image.new("RGB", (64, 64), colour), "?")["pixel_values"].float().flatten(0, -4)[0]
            for colour in ("black", "white")
        )
        # In margins both are the same.
        at = (white - black).flatten(1).argmax(dim=1, keepdim=True)
        return (
            black.flatten(1).gather(1, at)[..., None],
            white.flatten(1).gather(1, at)[..., None],
        )

    def _noise_scale(self, prompt: Prompt) -> Tensor:
        """What each value of the prepared pixels changes by from black to white: 1 / std, and 0 in margins."""
        name = self.pixel_name(prompt)
        if prompt.spatial and _is_one_image(prompt.image_inputs):
            black, white = self._black_and_white
            return (white - black).to(prompt.image_inputs[name])
        black, white = (
            self.processed(Image.new("RGB", prompt.image.size, (v, v, v)), "?")[name] for v in (0, 255)
        )
        return (white - black).to(prompt.image_inputs[name])


def _is_one_image(images: Mapping[str, Tensor]) -> bool:
    """Whether the pixels are those of one complete image, in colour: [..., 3, H, W]."""
    if "image_grid_thw" in images or (pixels := images.get("pixel_values")) is None or pixels.dim() < 4:
        return False
    return pixels.shape[:-3].numel() == 1 and pixels.shape[-3] == 3


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _runs_over_sequence(name: str, value: Any, input_ids: Tensor) -> bool:
    """Whether an output of a processor has one value for each token of the prompt."""
    if not isinstance(value, Tensor) or value.is_floating_point() or name.startswith(("qformer", "pixel")):
        return False
    return value.shape[-1] == input_ids.shape[1] and (value.dim() == 2 or name == "position_ids")
