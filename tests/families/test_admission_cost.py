"""Is admission cheap, paid once, and paid again when anything that decides it has changed?

A forward is one call of the model's own forward. Those that read a prompt are counted apart from steps of one
token with a cache, which cost next to nothing.
"""

from __future__ import annotations

import shutil

import pytest
import torch

from repro.admission import admission
from repro.models import load_model, records
from tests.families import zoo

pytestmark = pytest.mark.conformance
#: Passes over prompts that settle all six instruments. Prompts, shares and the rounding take 2: the first prompt
#: observed, and a batch of it, another and it again, each followed by a token. CAM takes 1, with gradients.
#: Truncation takes 4: dropped at three layers, at two of them with decoding, and the same masked in one batch.
#: The sweep takes 2, its own and the untouched run to compare with; deletion 1, of two images in a batch.
PASSES = 10
#: Two tokens after the first, decoded at two layers and by the sweep.
STEPS = 6


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    path = tmp_path_factory.mktemp("zoo") / "llava"
    zoo.build("llava", path)
    return path


@pytest.fixture
def directory(built, tmp_path):
    """A checkpoint to be changed."""
    return shutil.copytree(built, tmp_path / "llava")


def proved(path, name="tiny-cost", **settings):
    """Passes over prompts, steps of one token, and outcomes of the admission of a checkpoint or a miniature."""
    lvlm = load_model(name, path, **settings)
    if "located" not in lvlm.__dict__ and not lvlm.known:
        lvlm.prompt(zoo.picture(60, 44), "what")  # the map of image tokens is no proof
    _ = lvlm.anatomy
    lengths = []

    def count(module, args, kwargs):
        _, hidden, axis = lvlm.anatomy.hidden(0, args, kwargs)
        lengths.append(hidden.shape[axis])

    lvlm.layers[0].register_forward_pre_hook(count, with_kwargs=True)
    outcomes = [str(outcome) for outcome in admission(lvlm)]
    return sum(length > 1 for length in lengths), sum(length == 1 for length in lengths), outcomes


@pytest.mark.parametrize("name", ["tiny-cost", "llava-1.5", "instructblip"])
def test_admission_takes_ten_passes_once(directory, name):
    """With a card or without."""
    path = directory if name == "tiny-cost" else None
    passes, steps, first = proved(path, name)
    assert passes <= PASSES and steps <= STEPS
    assert len(first) == 6 and all(" admitted, " in outcome for outcome in first)
    assert proved(path, name) == (0, 0, first)


@pytest.mark.skipif("gemma4" not in zoo.BUILT, reason="transformers does not have gemma4 here")
def test_a_refusal_is_recorded_too(tmp_path):
    zoo.build("gemma4", tmp_path / "gemma4")
    _, _, first = proved(tmp_path / "gemma4")
    assert any("deletion REFUSED" in outcome for outcome in first)
    assert proved(tmp_path / "gemma4") == (0, 0, first)


def change_weights(directory, monkeypatch):
    file = directory / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def change_settings(directory, monkeypatch):
    file = directory / "config.json"
    file.write_text(file.read_text() + "\n")


def change_version(directory, monkeypatch):
    monkeypatch.setattr(records, "_versions", lambda: {"transformers": "6"})


def change_code(directory, monkeypatch):
    monkeypatch.setattr(records, "_code", lambda: "other")


@pytest.mark.parametrize("change", [change_weights, change_settings, change_version, change_code])
def test_what_has_changed_is_proved_again(directory, monkeypatch, change):
    proved(directory)
    change(directory, monkeypatch)
    assert proved(directory)[0] == PASSES


def test_another_number_type_is_proved_again(directory):
    proved(directory)
    assert proved(directory, dtype=torch.bfloat16)[0] > 0


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"{}", b'{"outcomes": [["prompt", 1, ""]], "settled": {}}']
)
def test_a_damaged_record_is_proved_again(directory, cache, content):
    expected = proved(directory)
    [file] = (cache / "admission").iterdir()
    whole = file.read_bytes()
    file.write_bytes(content)
    assert proved(directory) == expected
    assert file.read_bytes() == whole


def test_settings_of_other_types_are_no_record(directory, cache):
    proved(directory)
    [file] = (cache / "admission").iterdir()
    text = file.read_text()
    assert '"watchable": true' in text
    file.write_text(text.replace('"watchable": true', '"watchable": "true"'))
    assert proved(directory)[0] == PASSES


def test_without_a_place_for_records_every_load_proves(directory, cache):
    cache.write_text("no directory")
    assert proved(directory)[0] == proved(directory)[0] == PASSES


def test_records_go_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert records.directory() == tmp_path / "cache" / "admission"
    monkeypatch.delenv("REPRO_CACHE")
    assert records.directory() == tmp_path / "xdg" / "repro" / "admission"


def test_nothing_is_written_into_the_checkpoint(directory):
    before = sorted(path.name for path in directory.rglob("*"))
    proved(directory)
    assert sorted(path.name for path in directory.rglob("*")) == before
