"""What each miniature makes of images in other shapes than its own: pixels, then image features.

They come before shares, heat and answers, so that a red golden says which of processor, tower and decoder moved.
All miniature scenes have the tower's size, which no processor resizes: here are a wide, a tall and a large image
of odd sizes, each of several tiles where a model has tiles.

Tolerances: pixels are whole steps of 1/255 before normalisation, 0.004 / std = 0.015 apart; features
of one machine differ by 2e-6 of the largest over threads and kernels, here times 20.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from repro.golden import Arrays, Golden

pytestmark = pytest.mark.golden

SIZES = {"wide": (131, 47), "tall": (53, 118), "large": (211, 157)}


class PixelsGolden(Golden):
    """Normalised pixels in half precision, whose last digit is an eighth of a step of 8 bits."""

    atol, rtol = 2e-3, 0.0


class FeaturesGolden(Golden):
    """What enters layer 1 at the image's positions, relative to the largest value."""

    atol, rtol = 4e-5, 0.0

    def settle(self, expected: Arrays, actual: Arrays) -> tuple[Arrays, Arrays]:
        scale = {name: np.abs(values).max() for name, values in expected.items()}
        return tuple({name: side[name] / scale[name] for name in scale} for side in (expected, actual))


def scene(size):
    """Smooth waves and sharp edges in every colour, without a random number."""
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = [np.sin(x / 7 + k) + np.cos(y / 5 - k) + ((x // 9 + y // 11 + k) % 2) for k in range(3)]
    return Image.fromarray((255 * (np.stack(waves, -1) + 2) / 5).round().astype(np.uint8))


def prompt_of(lvlm, size):
    return lvlm.prompt(scene(size), "What is in the image?")


@pytest.mark.parametrize("shape", list(SIZES))
def test_1_pixels(lvlm, shape, golden):
    prompt = prompt_of(lvlm, SIZES[shape])
    values = prompt.image_inputs[lvlm.pixel_name(prompt)]
    golden({"pixels": values.numpy().astype(np.float16)}, PixelsGolden)


@pytest.mark.parametrize("shape", list(SIZES))
def test_2_image_features(lvlm, shape, golden):
    prompt, entering = prompt_of(lvlm, SIZES[shape]), []

    def record(module, args, kwargs):
        entering.append(args[0] if args else kwargs["hidden_states"])

    handle = lvlm.layers[0].register_forward_pre_hook(record, with_kwargs=True)
    try:
        with torch.inference_mode():
            lvlm.forward([prompt], last=1)
    finally:
        handle.remove()
    features = entering[0][0, prompt.segments.image].float().numpy()
    golden({"features": features}, FeaturesGolden)
