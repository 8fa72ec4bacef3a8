"""What a model reads and answers: prompts, batches of them, and answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from repro.segments import Segments


@dataclass(frozen=True)
class Prompt:
    """One image and one question, ready for the model.

    Attributes:
        input_ids: int64 [1, T], the image already expanded to its tokens.
        image_inputs: what the vision tower reads, e.g. ``pixel_values`` [1, 3, H, W], normalised.
        segments: S, I, U of the T positions.
        grid: rows and columns of the map that image tokens form over the image.
        image: as the vision tower sees it (RGB, before normalisation).
        text: the complete prompt as a string.
        cells: for each image token the grid cell it covers, counted in reading order, -1 for none (a newline);
            None if tokens and cells are the same.
        spatial: whether image tokens have a place in the image; the queries of a Q-Former have none.
        sequence_inputs: what else the model reads of each token, e.g. ``token_type_ids`` [1, T].
    """

    input_ids: Tensor
    image_inputs: dict[str, Tensor]
    segments: Segments
    grid: tuple[int, int]
    image: Image.Image
    text: str
    cells: np.ndarray | None = None
    spatial: bool = True
    sequence_inputs: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """Generated token ids, including the token that ended the answer, if any, and the decoded text, stripped."""

    ids: tuple[int, ...]
    text: str


def batched(inputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Image inputs of several prompts as one batch, padded with zeros at the end of every axis but the first.

    That is where images have different numbers of tiles or sizes, which the model knows from other inputs, and
    where texts of a Q-Former have different lengths, which their masks hold.
    """
    if len(inputs) == 1:
        return dict(inputs[0])
    batch = {}
    for key in inputs[0]:
        tensors = [part[key] for part in inputs]
        longest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
        batch[key] = torch.cat([_padded(tensor, longest) for tensor in tensors])
    return batch


def _padded(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor with zeros at the end of every axis but the first, up to ``shape``."""
    short = [longest - size for longest, size in zip(shape, tensor.shape[1:], strict=True)]
    return F.pad(tensor, [pad for more in reversed(short) for pad in (0, more)]) if any(short) else tensor


def extended(name: str, values: Tensor, length: int, answer_type: int | None) -> Tensor:
    """What a model reads of each token, [1, T] or [1, axes, T], for tokens up to a length."""
    more = values[..., -1:].expand(*values.shape[:-1], length - values.shape[-1])
    if name == "attention_mask":
        more = torch.zeros_like(more)
    elif name == "token_type_ids" and answer_type is not None:
        more = torch.full_like(more, answer_type)
    elif name == "position_ids":
        more = more + torch.arange(1, more.shape[-1] + 1, device=more.device)
    return torch.cat([values, more], dim=-1)
