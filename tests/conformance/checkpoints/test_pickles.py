"""Pickled weights are refused, and converted without running what they hold."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from repro.models import find_card, load_model
from repro.models.convert import convert
from repro.models.loading import CheckpointError
from tests.conformance.checkpoints.spoiling import NAME, edit_json, refused

pytestmark = pytest.mark.conformance


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_a_pickle_is_refused_with_the_way_out(checkpoint, tensors, name):
    (checkpoint / "model.safetensors").unlink()
    torch.save(tensors, checkpoint / name)

    message = refused(checkpoint)

    assert name in message and "is refused" in message
    assert f"python -m repro.models.convert {checkpoint} {checkpoint}-safetensors" in message


@pytest.mark.parametrize("zipped", [True, False], ids=["torch 1.6 and later", "torch before 1.6"])
@pytest.mark.parametrize("shards", [1, 2])
def test_a_converted_pickle_gives_the_same_model(checkpoint, tensors, tmp_path, shards, zipped, monkeypatch):
    """A zip file is mapped into memory: a shard of 10 GB must not be read as a whole."""
    mapped, read = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **kw: mapped.append(kw["mmap"]) or read(*a, **kw))
    (checkpoint / "model.safetensors").unlink()
    names = sorted(tensors)
    if shards == 1:
        torch.save(tensors, checkpoint / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    else:
        place = {}
        for number in range(2):
            part, file = names[number::2], f"pytorch_model-{number}.bin"
            torch.save(
                {name: tensors[name] for name in part},
                checkpoint / file,
                _use_new_zipfile_serialization=zipped,
            )
            place |= dict.fromkeys(part, file)
        (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": place}))

    convert(checkpoint, tmp_path / "out")

    converted, shipped = load_model(NAME, tmp_path / "out").model, load_model(NAME).model
    assert all(torch.equal(a, b) for a, b in zip(converted.parameters(), shipped.parameters(), strict=True))
    assert mapped == [zipped] * shards


@pytest.mark.parametrize("zipped", [True, False], ids=["torch 1.6 and later", "torch before 1.6"])
def test_a_pickle_that_holds_more_than_tensors_is_not_read(checkpoint, tmp_path, zipped):
    ran = tmp_path / "ran"
    (checkpoint / "model.safetensors").unlink()
    torch.save(
        {"weight": _Harm(ran)}, checkpoint / "pytorch_model.bin", _use_new_zipfile_serialization=zipped
    )

    with pytest.raises(CheckpointError, match="more than tensors"):
        convert(checkpoint, tmp_path / "out")

    assert not ran.exists() and not (tmp_path / "out" / "model.safetensors").exists()


class _Harm:
    """Creates a file when it is unpickled by an unrestricted reader."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    ("name", "file", "kind"),
    [
        ("llava-1.6", "config.json", "AutoModelForImageTextToText"),
        ("llava-1.6", "preprocessor_config.json", "AutoImageProcessor"),
        ("llava-1.6", "tokenizer_config.json", "AutoTokenizer"),
        ("instructblip", "tokenizer_config.json", "AutoTokenizer"),
        ("instructblip", "qformer_tokenizer/tokenizer_config.json", "AutoTokenizer"),
    ],
)
def test_code_in_a_checkpoint_is_not_run(tmp_path, name, file, kind):
    path = shutil.copytree(find_card(name).miniature, tmp_path / "checkpoint")
    ran = tmp_path / "ran"
    (path / file).with_name("harm.py").write_text(f"open({str(ran)!r}, 'w')\nclass Harm: pass\n")
    place = {kind: ["harm.Harm", None] if kind == "AutoTokenizer" else "harm.Harm"}
    edit_json(path / file, auto_map=place)

    load_model(name, path)

    assert not ran.exists()


def test_of_weights_in_both_formats_the_pickle_is_not_read(checkpoint, tmp_path):
    ran = tmp_path / "ran"
    torch.save({"weight": _Harm(ran)}, checkpoint / "pytorch_model.bin", _use_new_zipfile_serialization=False)

    load_model(NAME, checkpoint)

    assert not ran.exists()


def test_a_checkpoint_is_not_converted_in_place(checkpoint):
    with pytest.raises(CheckpointError, match="name another directory"):
        convert(checkpoint, checkpoint)


def test_a_checkpoint_is_not_converted_into_itself(checkpoint):
    with pytest.raises(CheckpointError, match="lies in it: name another directory"):
        convert(checkpoint, checkpoint / "safetensors")


def test_a_conversion_does_not_go_on_from_other_weights(checkpoint, tensors, tmp_path):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "deeper").mkdir()
    (checkpoint / "deeper" / "config.json").write_text("{}")
    torch.save(tensors, checkpoint / "pytorch_model.bin")
    convert(checkpoint, tmp_path / "out")
    convert(checkpoint, tmp_path / "out")
    assert (tmp_path / "out" / "deeper" / "config.json").is_file()
    torch.save({name: tensor + 1 for name, tensor in tensors.items()}, checkpoint / "pytorch_model.bin")

    with pytest.raises(CheckpointError, match="made from other files"):
        convert(checkpoint, tmp_path / "out")
