"""Does ``--plan`` say what a run takes, from a configuration alone? Counts of operations: ``tests/fullsize``."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from repro.models import find_card, load_model
from repro.models.card import FIXTURES, MINIATURES, REGISTRY, register
from repro.models.weights import fits_in_float32, stored
from repro.plan import GPUS, PUBLISHED, cost_of, hours_of, shape_of
from repro.sweep import memory_of

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).resolve().parents[2]
SHAPES = FIXTURES / "published"
#: Parameters as the model cards of the hub count them, in thousands of millions, and image tokens of 640 x 480.
PARAMETERS = {
    "llava-1.5": (7.06, 576),
    "llava-1.6": (7.06, 2340),
    "qwen-vl": (9.66, 256),
    "qwen2.5-vl": (8.29, 391),
    "qwen3-vl": (8.77, 300),
}


def planned(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--plan", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def shapes():
    """Directories of the published shapes by name, all of them registered."""
    directories = {directory.name: directory for directory in SHAPES.iterdir()}
    for name in directories.keys() - REGISTRY.keys():
        register(directories[name], name)
    return directories


@pytest.mark.parametrize("name", PARAMETERS)
def test_weights_and_tokens_are_the_published_ones(name, shapes):
    shape = shape_of(REGISTRY[name], shapes[name], torch.bfloat16)
    assert (round(shape.weights / 1e9, 2), shape.tokens) == PARAMETERS[name]


def test_the_tower_is_what_is_neither_decoder_nor_words_nor_projector(shapes):
    """CLIP ViT-L/14 at 336 pixels has 303.5 million parameters, the decoder's last norm 4096."""
    for name in ("llava-1.5", "llava-1.6"):
        shape = shape_of(REGISTRY[name], shapes[name], torch.bfloat16)
        assert round(shape.vision / 1e6, 1) == 303.5, name


def test_a_miniature_is_planned_as_it_is():
    """Every family's shape from its configuration alone: weights, and what its sweep holds."""
    for name in MINIATURES:
        lvlm = load_model(name)
        prompt = lvlm.prompt(next((FIXTURES / "miniworld/coco/val2014").glob("*.png")), "Is there a kite?")
        shape = shape_of(find_card(name), REGISTRY[name].miniature, torch.float32, prompt.image.size)
        parameters = sum(p.numel() for p in lvlm.model.parameters())
        # Assembled models have a row for the image token that no checkpoint has.
        assert parameters - shape.weights in (0, shape.width, 2 * shape.width), name
        assert shape.n_layers == lvlm.n_layers, name
        if "image_sizes" not in prompt.image_inputs:  # of LLaVA-1.6, which sees tiles of the original
            assert shape.tokens == len(prompt.segments.image), name
        system, user = (
            len(prompt.segments) - shape.tokens - len(prompt.segments.user),
            len(prompt.segments.user),
        )
        assert cost_of(shape, system, user, 5).held == memory_of(lvlm, prompt, 5), name


def test_an_image_goes_through_the_tower_once(shapes):
    """By hand for LLaVA-1.5: CLIP's 303.5 million weights over 577 rows, 21.0 of the projector over 576."""
    shape = shape_of(REGISTRY["llava-1.5"], shapes["llava-1.5"], torch.bfloat16)
    whole, blind = (cost_of(one, 36, 30, 1) for one in (shape, replace(shape, vision=0, merger=0)))
    expected = pytest.approx(2 * (303.5e6 * 577 + 20.98e6 * 576), rel=1e-3)
    assert whole.prefill - blind.prefill == whole.plain - blind.plain == expected


def test_hours_grow_with_the_items_and_a_card_that_is_too_small_has_none(shapes):
    shape = shape_of(REGISTRY["llava-1.5"], shapes["llava-1.5"], torch.bfloat16)
    cost = cost_of(shape, 36, 30, 3)
    one, two = (hours_of(shape, cost, n, 3, "H100-80GB") for n in (5000, 9999))
    assert 1.8 < two / one < 2.2
    captions = cost_of(shape, 36, 30, 4096)
    assert hours_of(shape, captions, 1, 4096, "L40S-48GB") == float("inf")


def test_the_command_prints_a_line_for_every_benchmark_and_runs_nothing():
    result = planned("--model", "llava-1.5", "--model", "qwen3-vl")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "7.063 G weights, 13.2 GiB in float16; 32 layers of width 4096; 576 image tokens" in result.stdout
    assert "8.767 G weights" in result.stdout and all(f"h {gpu}" in result.stdout for gpu in GPUS)
    for name, (items, _) in PUBLISHED.items():
        assert len(re.findall(rf"^ +{name} +{items} ", result.stdout, re.MULTILINE)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llava-9"}, "configures no model"),
        ({"vision_config": {"model_type": "clip_vision_model", "patch_size": 0}}, "configures no model"),
        (None, "config.json is missing"),
    ],
)
def test_what_cannot_be_planned_is_a_usage_error(tmp_path, change, message):
    if change is not None:
        shutil.copy(SHAPES / "llava-1.5" / "config.json", tmp_path)
        settings = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(settings | change))
    result = planned("--model", f"llava-1.5={tmp_path}")
    assert result.returncode == 4 and message in result.stderr and "Traceback" not in result.stderr


def test_weights_keep_their_type_where_asked_or_where_float32_would_not_fit(monkeypatch):
    miniature = FIXTURES / "llava-1.5"
    numbers, dtype = stored(miniature)
    assert dtype == torch.float16 and fits_in_float32(miniature)
    assert load_model("llava-1.5").computes_in == torch.float32
    assert load_model("llava-1.5", dtype="own").computes_in == torch.float16
    assert load_model("llava-1.5", dtype=torch.bfloat16).computes_in == torch.bfloat16
    pages = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 4 * numbers}
    monkeypatch.setattr("repro.models.weights.os.sysconf", pages.__getitem__)
    assert not fits_in_float32(miniature)
    # A miniature stays as it is recorded; the same files elsewhere are a checkpoint like any other.
    assert load_model("llava-1.5").computes_in == torch.float32


def test_a_checkpoint_too_large_for_float32_is_loaded_as_it_is_stored(monkeypatch, tmp_path):
    copied = shutil.copytree(FIXTURES / "llava-1.5", tmp_path / "llava")
    assert load_model("llava-1.5", copied).computes_in == torch.float32
    monkeypatch.setattr(
        "repro.models.weights.os.sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 1}.__getitem__
    )
    assert load_model("llava-1.5", copied).computes_in == torch.float16
