"""Is a checkpoint in the published layout read exactly, and any other refused by what is wrong with it?"""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from repro.models import load_model
from repro.models.convert import convert
from repro.models.loading import CheckpointError
from tests.conformance.checkpoints.spoiling import NAME, edit_json, refused, store

pytestmark = pytest.mark.conformance


def test_a_missing_tensor_is_named(checkpoint, tensors):
    name = next(key for key in tensors if "layers.3.mlp.up_proj" in key)
    del tensors[name]
    store(checkpoint, tensors)

    message = refused(checkpoint)

    assert "missing" in message and "layers.3.mlp.up_proj.weight" in message and str(checkpoint) in message
    assert "surplus" not in message


def test_a_surplus_tensor_is_named(checkpoint, tensors):
    store(checkpoint, tensors | {"language_model.model.adapter.weight": torch.zeros(2)})

    message = refused(checkpoint)

    assert "surplus" in message and "adapter.weight" in message and "missing" not in message


@pytest.mark.parametrize("theta", [10_000.0, 50_000.0])
def test_rotary_tables_are_of_the_configurations_theta_at_far_positions_too(checkpoint, theta):
    """In float64 by hand; angles of some thousand are rounded to 1e-4 in float32, and to 4 in half precision."""
    text = json.loads((checkpoint / "config.json").read_text())["text_config"]
    edit_json(checkpoint / "config.json", text_config=text | {"rope_theta": theta})
    decoder = load_model(NAME, checkpoint).decoder
    half = decoder.config.hidden_size // decoder.config.num_attention_heads // 2
    positions = torch.arange(1500)[None]
    tables = decoder.rotary_emb(torch.zeros(1, 1), positions)
    angles = positions[0, :, None].double() / theta ** (torch.arange(half).double() / half)
    for found, expected in zip(tables, (angles.cos(), angles.sin()), strict=True):
        torch.testing.assert_close(found[0].double(), expected.repeat(1, 2), rtol=0, atol=5e-4)


def test_a_misshapen_tensor_is_named_with_the_shape_it_should_have(checkpoint, tensors):
    name = next(key for key in tensors if "layers.3.mlp.up_proj" in key)
    rows, columns = tensors[name].shape
    store(checkpoint, tensors | {name: torch.zeros(rows, columns + 1)})

    message = refused(checkpoint)

    assert "misshapen" in message
    assert f"layers.3.mlp.up_proj.weight (the model's is [{rows}, {columns}])" in message


def test_many_missing_tensors_are_counted(checkpoint, tensors):
    store(checkpoint, {key: value for key, value in tensors.items() if "mlp" not in key})

    message = refused(checkpoint)

    assert "more" in message and len(message) < 1500


@pytest.mark.parametrize("damage", ["truncated", "not safetensors", "empty"])
def test_a_damaged_weight_file_is_refused(checkpoint, damage):
    path = checkpoint / "model.safetensors"
    whole = path.read_bytes()
    half = whole[: len(whole) // 2]
    path.write_bytes({"truncated": half, "not safetensors": b"PK\3\4" * 99, "empty": b""}[damage])

    message = refused(checkpoint)

    assert "damaged" in message and str(checkpoint) in message


def test_no_weights_are_said_to_be_missing(checkpoint):
    (checkpoint / "model.safetensors").unlink()

    assert f"{checkpoint} holds no weights: expected model.safetensors" in refused(checkpoint)


def test_another_kind_of_model_is_refused(checkpoint):
    edit_json(checkpoint / "config.json", model_type="qwen2_vl")

    message = refused(checkpoint)

    assert "config.json" in message and "'qwen2_vl'" in message and "'llava'" in message


@pytest.mark.parametrize("name", ["config.json", "processor_config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is missing"), ("{", "is not valid JSON"), ("[]", "should hold a JSON object, not a list")],
)
def test_a_configuration_that_cannot_be_read_is_named(checkpoint, name, content, message):
    (checkpoint / name).unlink()
    if content is not None:
        (checkpoint / name).write_text(content)

    assert f"{checkpoint / name} {message}" in refused(checkpoint)


def test_a_configuration_that_is_a_directory_is_named(checkpoint):
    (checkpoint / "config.json").unlink()
    (checkpoint / "config.json").mkdir()
    assert f"{checkpoint / 'config.json'} cannot be read: Is a directory; a file was expected" in refused(
        checkpoint
    )


@pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer.json"])
def test_a_processor_that_cannot_be_read_is_refused(checkpoint, name):
    (checkpoint / name).write_text("{")
    assert name in refused(checkpoint)

    (checkpoint / name).unlink()
    assert name in refused(checkpoint)


def test_a_missing_directory_is_named(tmp_path):
    assert f"no checkpoint directory at {tmp_path / 'nowhere'}" in refused(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert f"no checkpoint directory at {tmp_path / 'file'}" in refused(tmp_path / "file")


def test_an_unknown_name_lists_the_names():
    message = "no model 'gpt-0', nor a directory of this name; the models are .*llava-1.5"
    with pytest.raises(KeyError, match=message):
        load_model("gpt-0")


@pytest.fixture
def sharded(checkpoint, tensors):
    """The same weights in two shards and an index, as large checkpoints are published."""
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in shards.items():
        store(checkpoint, {name: tensors[name] for name in part}, file)
    index = {
        "metadata": {"total_size": sum(value.nbytes for value in tensors.values())},
        "weight_map": {name: file for file, part in shards.items() for name in part},
    }
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    (checkpoint / "model.safetensors").unlink()
    return checkpoint


def test_an_index_and_its_shards_must_agree(sharded, tensors):
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    name, shard = next(iter(content["weight_map"].items()))
    other = next(one for one in content["weight_map"].values() if one != shard)
    for place in (content["weight_map"] | {"ghost.weight": shard}, content["weight_map"] | {name: other}):
        index.write_text(json.dumps(content | {"weight_map": place}))
        assert "do not agree on" in refused(sharded)
    index.write_text(json.dumps(content))
    save_file(tensors, sharded / "model.safetensors", metadata={"format": "pt"})
    assert "index of other shards" in refused(sharded)


def test_shards_load_as_the_single_file(sharded):
    whole, parts = load_model(NAME).model.state_dict(), load_model(NAME, sharded).model.state_dict()

    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_missing_shard_is_named(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()

    assert "model-00002-of-00002.safetensors" in refused(sharded)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_an_index_that_cannot_be_read_is_named(sharded, content):
    (sharded / "model.safetensors.index.json").write_text(content)

    assert "model.safetensors.index.json" in refused(sharded)


def test_every_stored_value_arrives(tensors):
    """Weights in memory are the stored half-precision numbers, in single precision."""
    loaded = load_model(NAME)

    parameters = list(loaded.model.parameters())
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    assert sum(map(torch.numel, parameters)) == sum(map(torch.numel, tensors.values()))
    stored = next(value for name, value in tensors.items() if name.endswith("layers.3.mlp.up_proj.weight"))
    assert torch.equal(loaded.decoder.layers[3].mlp.up_proj.weight, stored.float())


@pytest.mark.parametrize("changes", [{"patch_size": 16}, {"num_additional_image_tokens": 0}])
def test_a_wrong_count_of_image_tokens_is_traced_to_its_file(checkpoint, changes):
    edit_json(checkpoint / "processor_config.json", **changes)
    loaded = load_model(NAME, checkpoint)

    message = "image tokens, the vision tower gives 36: patch_size or .*processor_config"
    with pytest.raises(ValueError, match=message):
        loaded.prompt(Image.new("RGB", (48, 48)), "What is it?")


@pytest.mark.parametrize("changed", [{"projector_hidden_act": "x"}, {"text_config": "x"}])
def test_settings_that_make_no_model_are_refused(checkpoint, changed):
    edit_json(checkpoint / "config.json", **changed)
    assert "cannot read the checkpoint" in refused(checkpoint)


@pytest.mark.parametrize("place", [None, {}, [], {"a": 3}, {"a": ["b"]}])
def test_an_index_without_a_map_of_names_is_refused(checkpoint, place):
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = checkpoint / f"{name}.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": place}))
    with pytest.raises(CheckpointError, match="weight_map"):
        convert(checkpoint, checkpoint.with_name("out"))
    (checkpoint / "model.safetensors").unlink()
    assert "weight_map" in refused(checkpoint)


@pytest.mark.parametrize("name", ["llava-1.5", "llava-1.6", "instructblip"])
def test_a_checkpoint_saved_by_transformers_5_is_that_of_transformers_4(name, tmp_path):
    """It has the preparation of images in processor_config.json."""
    saved = load_model(name)
    directory = shutil.copytree(saved.path, tmp_path / "saved")
    file, preparation = directory / "processor_config.json", directory / "preprocessor_config.json"
    if not file.is_file():
        file.write_text("{}")
    edit_json(file, image_processor=json.loads(preparation.read_text()))
    preparation.unlink()
    image = Image.new("RGB", (70, 40), "red")
    lvlm = load_model(name, directory)
    assert torch.equal(lvlm.logits(lvlm.prompt(image, "Is it?")), saved.logits(saved.prompt(image, "Is it?")))


@pytest.mark.parametrize(
    ("file", "part", "setting"),
    [
        ("processor_config.json", None, {"patch_size": None}),
        ("config.json", None, {"return_dict": False}),
        ("config.json", "text_config", {"return_dict": False}),
    ],
)
def test_settings_that_change_no_number_are_read_over(checkpoint, file, part, setting):
    before = json.loads((checkpoint / file).read_text())
    edit_json(checkpoint / file, **({part: before[part] | setting} if part else setting))
    saved, lvlm = load_model(NAME), load_model(NAME, checkpoint)
    image = Image.new("RGB", (70, 40), "red")
    assert torch.equal(lvlm.logits(lvlm.prompt(image, "Is it?")), saved.logits(saved.prompt(image, "Is it?")))
    assert lvlm.answer(lvlm.prompt(image, "Is it?"), 2) == saved.answer(saved.prompt(image, "Is it?"), 2)


def test_a_configuration_that_asks_for_attention_maps_says_what_to_change(checkpoint):
    edit_json(checkpoint / "config.json", output_attentions=True)
    with pytest.raises(CheckpointError, match="config.json: output_attentions is true.* set it to false"):
        load_model(NAME, checkpoint)


@pytest.mark.parametrize("name", ["llava-1.5", "shikra"])
def test_an_adapter_beside_the_weights_is_refused_whatever_is_installed(name, tmp_path):
    path = shutil.copytree(load_model(name).path, tmp_path / name)
    inner = path / "delta" if (path / "delta").is_dir() else path
    (inner / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds an adapter .*merge it into its base model first"):
        load_model(name, path)


def test_positions_that_no_checkpoint_holds_are_filled():
    """transformers 5.0 and 5.1 leave those of a tower that a class of ours holds as they find the memory."""
    from repro.models.weights import _fill_buffers

    model = load_model("shikra").model
    [name] = [name for name, _ in model.named_buffers() if name.endswith("position_ids")]
    buffer = model.get_buffer(name)
    expected = buffer.clone()
    buffer.fill_(-(2**60))
    _fill_buffers(model, NAME)
    assert buffer.equal(expected)
