"""Functions of pictures as tensors [..., C, H, W]."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.nn.functional import pad as torch_pad


class InterpolationMode(Enum):
    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


#: By Pillow's numbers.
PIL_MODES = {0: InterpolationMode.NEAREST, 2: InterpolationMode.BILINEAR, 3: InterpolationMode.BICUBIC}


def pil_to_tensor(image: Image.Image) -> Tensor:
    """[C, H, W] of bytes."""
    pixels = np.array(image)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()


def to_tensor(image: Image.Image) -> Tensor:
    """[C, H, W] from 0 to 1."""
    return pil_to_tensor(image).float() / 255


def to_dtype(image: Tensor, dtype: torch.dtype, scale: bool = False) -> Tensor:
    if not scale or image.is_floating_point() == dtype.is_floating_point:
        return image.to(dtype)
    return image.to(dtype) / 255 if dtype.is_floating_point else (image * 255.999).to(dtype)


def grayscale_to_rgb(image: Tensor) -> Tensor:
    return image.expand(*image.shape[:-3], 3, *image.shape[-2:]) if image.shape[-3] == 1 else image


def resize(
    image: Tensor,
    size: Sequence[int],
    interpolation: InterpolationMode | int = InterpolationMode.BILINEAR,
    max_size: int | None = None,
    antialias: bool = True,
) -> Tensor:
    """[..., C, height, width]; bytes stay bytes."""
    if isinstance(interpolation, int):
        interpolation = PIL_MODES[interpolation]
    assert max_size is None and len(size) == 2, "transformers names both sides"
    if list(image.shape[-2:]) == list(size):
        return image
    smooth = interpolation in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
    flat = image.reshape(-1, *image.shape[-3:]).float()
    resized = interpolate(
        flat,
        tuple(size),
        mode=interpolation.value,
        align_corners=False if smooth else None,
        antialias=antialias and smooth,
    )
    if not image.is_floating_point():
        resized = resized.round().clamp(0, 255)
    return resized.to(image.dtype).reshape(*image.shape[:-2], *size)


def pad(
    image: Tensor,
    padding: int | Sequence[int],
    fill: float | Sequence[float] = 0,
    padding_mode: str = "constant",
) -> Tensor:
    """The picture with a border: all sides, or left and top, or left, top, right and bottom."""
    sides = [padding] if isinstance(padding, int) else list(padding)
    left, top, right, bottom = sides * (4 // len(sides))
    if not isinstance(fill, Sequence):
        return torch_pad(image, (left, right, top, bottom), mode=padding_mode, value=fill)
    planes = [
        torch_pad(image[..., number, :, :], (left, right, top, bottom), value=value)
        for number, value in enumerate(fill if len(fill) > 1 else list(fill) * image.shape[-3])
    ]
    return torch.stack(planes, dim=-3)


def crop(image: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    return image[..., top : top + height, left : left + width]


def normalize(image: Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> Tensor:
    shape = (-1, 1, 1)
    means = torch.as_tensor(mean, dtype=image.dtype).view(shape)
    return (image - means) / torch.as_tensor(std, dtype=image.dtype).view(shape)
