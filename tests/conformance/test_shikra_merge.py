"""Shikra's delta and LLaMA become one checkpoint, once, shard by shard; what does not fit is refused first."""

import shutil

import pytest
import torch

from repro.models import load_model
from repro.models.card import FIXTURES
from repro.models.loading import CheckpointError
from repro.models.shikra import merge
from repro.models.weights import published_tensors

pytestmark = pytest.mark.conformance


def test_a_killed_merge_goes_on_behind_its_last_shard(shikra_parts, tmp_path):
    delta, base, tower = shikra_parts
    merge(delta, base, tower, tmp_path / "whole")
    first, second, third = sorted((tmp_path / "whole").glob("*.safetensors"))
    (tmp_path / "part").mkdir()
    shutil.copyfile(first, tmp_path / "part" / first.name)
    (tmp_path / "part" / "partial").write_bytes(second.read_bytes()[:100])
    stamp = (tmp_path / "part" / first.name).stat().st_mtime_ns
    merge(delta, base, tower, tmp_path / "part")
    assert (tmp_path / "part" / first.name).stat().st_mtime_ns == stamp
    assert not (tmp_path / "part" / "partial").exists()
    whole, part = published_tensors(tmp_path / "whole"), published_tensors(tmp_path / "part")
    assert whole.keys() == part.keys() and all(torch.equal(whole[name], part[name]) for name in whole)


def test_a_base_that_does_not_fit_is_refused(shikra_parts, store, tmp_path):
    delta, base, tower = shikra_parts
    tensors = {name: tensor.clone() for name, tensor in published_tensors(base).items()}
    store(base, {}, tensors | {"model.norm.weight": torch.ones(7)})
    with pytest.raises(
        CheckpointError, match=r"model.norm.weight is \[64\] in the delta and \[7\] in the base"
    ):
        merge(delta, base, tower, tmp_path / "out")
    store(base, {}, {name: tensor for name, tensor in tensors.items() if name != "model.norm.weight"})
    with pytest.raises(CheckpointError, match="model.norm.weight is not in the base"):
        merge(delta, base, tower, tmp_path / "other")
    with pytest.raises(CheckpointError, match="one of the sources"):
        merge(delta, base, tower, base)


def test_a_base_of_another_number_type_is_taken_in_the_deltas(shikra_parts, store, tmp_path):
    delta, base, tower = shikra_parts
    tensors = {name: tensor.clone() for name, tensor in published_tensors(base).items()}
    store(base, {}, {name: tensor.half() for name, tensor in tensors.items()})
    merge(delta, base, tower, tmp_path / "out")
    for name, tensor in published_tensors(tmp_path / "out").items():
        above = published_tensors(delta)[name]
        assert tensor.dtype == above.dtype
        if name in tensors:
            rows = len(tensors[name])
            torch.testing.assert_close(tensor[:rows], above[:rows] + tensors[name].half().to(above.dtype))


def test_the_tower_is_looked_at_before_anything_is_merged(shikra_parts, tmp_path):
    delta, base, tower = shikra_parts
    (tower / "config.json").unlink()
    with pytest.raises(CheckpointError, match="config.json is missing: get openai/clip-vit-large-patch14"):
        merge(delta, base, tower, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_in_pickles_is_refused_with_the_command_that_converts_it(shikra_parts, tmp_path):
    delta, base, tower = shikra_parts
    for file in base.glob("*.safetensors*"):
        file.unlink()
    (base / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="python -m repro.models.convert"):
        merge(delta, base, tower, tmp_path / "out")


def test_a_merge_does_not_go_on_from_another_base(shikra_parts, store, tmp_path):
    delta, base, tower = shikra_parts
    merge(delta, base, tower, tmp_path / "out")
    tensors = {name: tensor + 1 for name, tensor in published_tensors(base).items()}
    store(base, {}, tensors)
    with pytest.raises(CheckpointError, match="made from other files"):
        merge(delta, base, tower, tmp_path / "out")


@pytest.mark.parametrize("token", ["<im_patch>", "<im_start>", "<im_end>"])
def test_a_tokenizer_without_one_of_the_images_tokens_is_refused(shikra, token):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = shikra[0] / name
        file.write_text(file.read_text().replace(token, "<other>"))
    with pytest.raises(
        CheckpointError, match=f"the tokenizer in {shikra[0]} has no {token}: it is not Shikra's"
    ):
        load_model("shikra", shikra[0])


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("delta/tokenizer.model", None, "{path}/delta/tokenizer.json is missing"),
        ("delta/tokenizer.model", b"junk", "{path}/delta/tokenizer.model is damaged"),
        ("delta/added_tokens.json", b"{}", "{path}/delta: the tokenizer has 640 tokens"),
        ("tower/config.json", b"{}", "{path}/tower/config.json lacks hidden_size"),
    ],
)
def test_faults_of_a_directory_in_parts_name_its_files(tmp_path, file, content, said):
    path = shutil.copytree(FIXTURES / "shikra", tmp_path / "shikra")
    (path / file).unlink()
    if content is not None:
        (path / file).write_bytes(content)
    with pytest.raises(CheckpointError) as found:
        load_model("shikra", path)
    assert said.format(path=path) in str(found.value)
