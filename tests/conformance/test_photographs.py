"""Are photographs prepared as PIL resizes them? Both of scikit-learn, through every family's preparation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from repro.models import load_model
from repro.models.card import MINIATURES

pytestmark = pytest.mark.conformance

PICTURES = Path(sklearn.datasets.__file__).parent / "images"
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: Family -> margins that make a square of a picture (None: it is stretched to one), and the normalisation.
PREPARED = {
    "llava-1.5": (CLIP[0], CLIP),
    "llava-1.6": (None, CLIP),
    "instructblip": (None, CLIP),
    "qwen-vl": (None, CLIP),
    "shikra": ((1.0, 1.0, 1.0), CLIP),
    "intern-vl": (IMAGENET[0], IMAGENET),
}


@pytest.mark.parametrize("picture", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("name", MINIATURES)
def test_pixels_are_pils(name, picture):
    image = Image.open(PICTURES / picture)
    assert image.size == (640, 427)
    margins, (mean, std) = PREPARED[name]
    prompt = load_model(name).prompt(image, "Is there a flower in the image?")
    pixels = prompt.image_inputs["pixel_values"].numpy()
    # Of LLaVA-1.6 the complete picture comes before its tiles.
    found = pixels.reshape(-1, *pixels.shape[-3:])[0]
    side = found.shape[-1]
    if margins is not None:
        colour = tuple(int(255 * channel) for channel in margins)
        square = Image.new("RGB", (640, 640), colour)
        square.paste(image, (0, (640 - 427) // 2))
        image = square
    resized = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), np.float64) / 255
    expected = ((resized - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.ptp(found) > 2, "a photograph"
