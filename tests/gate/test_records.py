"""Is a record compared with nothing but its like, and what becomes of other weights?"""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from repro.benchmarks.miniworld import DIRECTORY
from repro.gate.gate import check, record
from repro.gate.record import GateError, load, save
from repro.models import load_model
from repro.report.gate import MARK, _heat, _panels, load_outcomes, write_gate
from repro.report.outcomes import write_outcome

NAME = "llava-1.5"


def recorded_in(directory, count):
    """The directory, with a record of so many questions of the miniature."""
    report = directory / "report"
    record(load_model(NAME), "scienceqa", DIRECTORY, directory, count=count, report=report, progress=False)
    return directory


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return recorded_in(tmp_path_factory.mktemp("record"), 24)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """All of the shipped questions, as a margin of one point needs them."""
    return recorded_in(tmp_path_factory.mktemp("large"), 500)


@pytest.fixture
def changed(tmp_path):
    """A function from a change of tensors by name to a model with those weights."""

    def model(change):
        path = shutil.copytree(load_model(NAME).path, tmp_path / "weights")
        for file in path.glob("*.safetensors"):
            tensors = load_file(file)
            change(tensors)
            save_file(tensors, file, metadata={"format": "pt"})
        return load_model(NAME, path)

    return model


def against(lvlm, recorded, tmp_path, **settings):
    return check(
        lvlm, "scienceqa", DIRECTORY, recorded, report=tmp_path / "report", progress=False, **settings
    )


def noise(level):
    def change(tensors):
        generator = torch.Generator().manual_seed(0)
        for name, tensor in tensors.items():
            noisy = tensor.float() * (1 + level * torch.randn(tensor.shape, generator=generator))
            tensors[name] = noisy.to(tensor.dtype)

    return change


def beyond(outcome):
    return {stage.title for stage in outcome.stages if stage.beyond}


@pytest.mark.faults
def test_weights_with_little_noise_are_not_worse(changed, large, tmp_path):
    outcome = against(changed(noise(0.005)), large, tmp_path, margin=0.015)
    assert not outcome.same_weights
    assert outcome.verdict in ("not worse", "better"), outcome.sentence


@pytest.mark.faults
def test_weights_with_much_noise_are_worse(changed, large, tmp_path):
    outcome = against(changed(noise(0.3)), large, tmp_path)
    assert outcome.verdict == "worse", outcome.sentence
    assert "accuracy" in outcome.sentence and "[" in outcome.sentence
    assert outcome.flipped >= outcome.scores[0].lost > 0
    assert all(flip["question"] and len(flip["before"]) == 11 for flip in outcome.flips)


@pytest.mark.invariant
def test_pixels_that_moved_beside_new_weights_are_a_change(changed, recorded, tmp_path):
    """However little: what prepares an image is no part of the weights."""

    def nudge(tensors):
        name = next(name for name in sorted(tensors) if name.endswith("mlp.down_proj.weight"))
        tensors[name] *= 1.01

    lvlm = changed(nudge)
    outcome = against(lvlm, recorded, tmp_path)
    assert not outcome.same_weights and "weights have no part" not in outcome.sentence
    images = lvlm.processor.image_processor
    images.image_std = [1.01 * value for value in images.image_std]
    outcome = against(lvlm, recorded, tmp_path)
    assert outcome.verdict == "changed" and "differs, which weights have no part in" in outcome.sentence


@pytest.mark.faults
def test_a_head_that_is_lost_is_a_change_of_its_layer(changed, recorded, tmp_path):
    def without_head(tensors):
        [name] = [
            name for name in tensors if "language_model" in name and "layers.2.self_attn.o_proj" in name
        ]
        tensors[name][:, : tensors[name].shape[1] // 4] = 0

    outcome = against(changed(without_head), recorded, tmp_path, margin=0.1)
    assert outcome.verdict == "changed", outcome.sentence
    assert "layer 3 differs" in outcome.sentence


@pytest.mark.faults
def test_an_update_of_the_last_layer_leaves_all_below_it_clean(changed, recorded, tmp_path):
    def update(tensors):
        [name] = [name for name in tensors if "language_model" in name and "layers.9.mlp.down_proj" in name]
        rows, columns = tensors[name].shape
        generator = torch.Generator().manual_seed(0)
        low_rank = torch.randn(rows, 2, generator=generator) @ torch.randn(2, columns, generator=generator)
        tensors[name] = tensors[name] + 0.05 * low_rank * tensors[name].norm() / low_rank.norm()

    outcome = against(changed(update), recorded, tmp_path, margin=0.1)
    clean = {"prompt", "pixels", "image features", "text embeddings", "positions"}
    clean |= {f"layer {layer}" for layer in range(1, 10)}
    assert not beyond(outcome) & clean and "layer 10" in beyond(outcome)


@pytest.mark.invariant
def test_what_is_written_is_read(recorded, tmp_path):
    one = load(recorded / f"{NAME}-scienceqa-official.npz")
    other = load(save(one, tmp_path))
    assert other.about == one.about and other.answers == one.answers and len(other.readings) == 20
    assert all(np.array_equal(other.readings[3][stage], values) for stage, values in one.readings[3].items())


def altered(recorded, tmp_path, **changes):
    """The record's directory with another content of the file's text."""
    directory = shutil.copytree(recorded, tmp_path / "altered")
    path = directory / f"{NAME}-scienceqa-official.npz"
    with np.load(path) as arrays:
        content = json.loads(str(arrays["content"]))
        rest = {name: arrays[name] for name in arrays.files if name != "content"}
    for name, value in changes.items():
        (content if name in content else content["about"])[name] = value
    np.savez(path, content=np.array(json.dumps(content)), **rest)
    return directory


@pytest.mark.invariant
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 99}, "has schema 99, this version reads 2: record it anew"),
        ({"data": "another"}, "the record's data is 'another', today's is .*: use the same"),
        (
            {"model_type": "gemma"},
            "the weights are those of the record, a gemma of 10 layers, and are now a llava",
        ),
        ({"items": [f"no{i}" for i in range(24)]}, "24 of 24 recorded items are not in .*, the first is no0"),
        ({"digests": [["", ""]] * 24}, "24 of 24 items have another question or its wording than recorded"),
    ],
)
def test_another_record_is_refused(recorded, tmp_path, changes, message):
    if "schema" in changes:
        changes = {"about": load(recorded / f"{NAME}-scienceqa-official.npz").about | changes}
    with pytest.raises(GateError, match=message):
        against(load_model(NAME), altered(recorded, tmp_path, **changes), tmp_path)


@pytest.mark.invariant
def test_a_record_that_is_missing_or_damaged_is_named(recorded, tmp_path):
    with pytest.raises(
        GateError, match="no record llava-1.5-pope-official.npz in .*, which holds llava-1.5-scienceqa"
    ):
        check(load_model(NAME), "pope", DIRECTORY, recorded, progress=False)
    path = tmp_path / f"{NAME}-scienceqa-official.npz"
    path.write_bytes((recorded / path.name).read_bytes()[:3000])
    with pytest.raises(GateError, match="is no record, or damaged"):
        against(load_model(NAME), tmp_path, tmp_path)


@pytest.mark.invariant
def test_a_place_for_records_is_looked_at_before_anything_is_measured(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        record(load_model(NAME), "scienceqa", DIRECTORY, tmp_path / "file" / "records", progress=False)


@pytest.mark.invariant
def test_prompts_that_cannot_be_made_any_more_are_said_to_be(recorded, tmp_path, monkeypatch):
    def spoilt(*_):
        raise ValueError("the tokenizer has no image token")

    lvlm = load_model(NAME)
    monkeypatch.setattr(lvlm, "build_prompt", spoilt)
    with pytest.raises(GateError, match="any more: .*; prompts cannot be made: .*the tokenizer has no"):
        against(lvlm, recorded, tmp_path)


@pytest.mark.invariant
def test_numbers_that_are_not_finite_are_null_in_an_outcomes_file(recorded, tmp_path):
    outcome = against(load_model(NAME), recorded, tmp_path)
    score = replace(outcome.scores[0], low=-math.inf, p=math.nan)
    content = json.loads(write_outcome(replace(outcome, scores=[score]), tmp_path).read_text())
    assert (content["scores"][0]["low"], content["scores"][0]["p"]) == (None, None)
    assert content["scores"][0]["gain"] == score.gain and content["name"] == outcome.name


@pytest.mark.invariant
def test_before_and_after_are_drawn_on_one_scale():
    """Heat from none to a map's maximum, scores from 0 to 100 %, whatever one side's values span."""
    drawn = _heat({"layer": 3, "before": [[0.0, 0.5]], "after": [[0.0, 1.0]]})
    with Image.open(io.BytesIO(base64.b64decode(drawn.maps.partition(",")[2]))) as maps:
        opacity = np.asarray(maps.convert("RGBA"))[0, :, 3]
    assert len(opacity) == 96 and opacity[0] == opacity[48] == 0 and 0 < opacity[47] < opacity[95]

    values = [[0.0, 0.5, 1.0], [0.0, None, 1.0]]
    [panel] = _panels({"scores": [{"metric": "accuracy"}], "values": values, "shares": [[], []]})
    heights = {line.look: [point.split(",")[1] for point in line.points.split()] for line in panel.lines}
    assert heights == {"before": ["142.0", "75.0", "8.0"], "after": ["142.0", "8.0"]}


@pytest.mark.invariant
def test_the_page_escapes_what_models_and_data_say(recorded, tmp_path):
    outcome = against(load_model(NAME), recorded, tmp_path)
    flip = {
        "item": "<i>", "image": "a", "question": "<script>alert(1)</script>", "reference": "x|y", "gain": -1.0,
        "before": ["a"] * 11, "after": ["</td>"] * 11, "picture": "javascript:alert(1)",
    }  # fmt: skip
    path = write_outcome(outcome, tmp_path)
    content = json.loads(path.read_text())
    content["flips"].append(flip)
    path.write_text(json.dumps(content))
    page = write_gate(load_outcomes([path]), "pytest -m gate", tmp_path)
    text = page.read_text()
    assert text.count("<script>") == 1 and "javascript" not in text and "&lt;script&gt;" in text
    assert (tmp_path / "gate.md").read_text().startswith(MARK)
    assert json.loads((tmp_path / "gate.json").read_text())["verdict"] == outcome.verdict
