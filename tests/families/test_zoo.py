"""The bench of small checkpoints is sound: each loads, its picture matters, and the reference hides it.

With ``PYTHONPATH=tests/families/torchvision_stand_in`` the types whose processors need torchvision are among them.
"""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.families import zoo
from tests.families.zoo import reference

pytestmark = pytest.mark.families


@pytest.mark.parametrize("model_type", zoo.BUILT)
def test_checkpoint(tmp_path, model_type, close):
    zoo.build(model_type, tmp_path)
    model, info = AutoModelForImageTextToText.from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info
    assert model.config.model_type == model_type
    inputs = zoo.prompt(tmp_path, "What is it?", zoo.picture(40, 28, seed=1))
    image = zoo.image_places(model_type, tmp_path, inputs)
    assert 0 < image.sum() < len(image)

    logits = reference.logits(model, inputs)[-1]
    # Some models never say a picture's tokens, and give them the lowest number.
    said = logits > -1e30
    logits = logits[said]
    other = zoo.prompt(tmp_path, "What is it?", zoo.picture(40, 28, seed=2))
    assert not torch.allclose(reference.logits(model, other)[-1, said], logits, atol=1e-3)
    for row in reference.shares(model, inputs):
        assert row.shape[-1] == len(image)
        # Where attention has a sink, that takes the rest.
        assert bool(((row.sum(-1) > 0) & (row.sum(-1) < 1 + 1e-5)).all())

    close(reference.truncated_logits(model, inputs, image, after=zoo.LAYERS)[said], logits)
    blind = reference.truncated_logits(model, inputs, image, after=0)[said]
    assert not torch.allclose(blind, logits, atol=1e-3)
    blind_to_other = reference.truncated_logits(model, other, image, after=0)[said]
    close(blind_to_other, blind)

    answer = reference.answer(model, inputs, 4)
    assert reference.truncated_answer(model, inputs, image, after=zoo.LAYERS, count=4) == answer


def test_same_bytes(tmp_path):
    for name in ("first", "second"):
        zoo.build("llava", tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert "model.safetensors" in files
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_every_type_is_decided():
    assert set(zoo.TYPES) >= set(zoo.BUILT)
    with pytest.raises(LookupError, match="encoder-decoder"):
        zoo.build("florence2", None)
