"""LLaVA-1.5 in its authors' layout is, tensor by tensor, the model in transformers' layout."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from repro.models import load_model
from repro.models.card import FIXTURES
from repro.models.convert import convert
from repro.models.loading import CheckpointError
from repro.sweep import sweep

pytestmark = pytest.mark.conformance

MINIATURE = FIXTURES / "llava-1.5"
PICTURE = FIXTURES / "miniworld" / "coco" / "val2014" / "COCO_val2014_000000003033.png"
QUESTION = "Is there a kite in the image?\nAnswer the question using a single word or phrase."


def released_name(name):
    for ours, theirs in (
        ("language_model.model.", "model."),
        ("language_model.", ""),
        ("vision_tower.", ""),
        ("multi_modal_projector.linear_1.", "model.mm_projector.0."),
        ("multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise AssertionError(name)


@pytest.fixture
def released(tmp_path):
    """The miniature as its authors would release it: no token and no row for the image, nor for padding.

    Its tower lies beside it as CLIP is published, with the positions' numbers and the half that reads texts.
    """
    path = tmp_path / "release"
    (path / "vision_tower").mkdir(parents=True)
    ours = json.loads((MINIATURE / "config.json").read_text())
    words = ours["pad_token_id"]  # padding and image are the last two
    settings = ours["text_config"] | {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        "vocab_size": words,
        "mm_hidden_size": ours["vision_config"]["hidden_size"],
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    }
    (path / "config.json").write_text(json.dumps(settings))
    tower = {"model_type": "clip", "vision_config": ours["vision_config"]}
    (path / "vision_tower" / "config.json").write_text(json.dumps(tower))
    shutil.copy(MINIATURE / "preprocessor_config.json", path / "vision_tower")
    shutil.copy(MINIATURE / "generation_config.json", path)
    tokenizer = json.loads((MINIATURE / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] < words]
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {word: number for word, number in vocabulary.items() if number < words}
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (path / "tokenizer_config.json").write_text(json.dumps(named | {"unk_token": "<unk>"}))
    tensors = {
        released_name(name): tensor for name, tensor in load_file(MINIATURE / "model.safetensors").items()
    }
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:words].clone()
    clip = {name: tensors.pop(name) for name in list(tensors) if name.startswith("vision_model.")}
    positions = len(clip["vision_model.embeddings.position_embedding.weight"])
    clip |= {
        "vision_model.embeddings.position_ids": torch.arange(positions)[None],
        "text_model.final_layer_norm.weight": torch.ones(8),
        "logit_scale": torch.tensor(4.6),
    }
    save_file(clip, path / "vision_tower" / "model.safetensors", metadata={"format": "pt"})
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.fixture
def with_its_tower(released):
    """The same as DeepSpeed writes it, the tower among its own tensors and no weights beside it."""
    clip = load_file(released / "vision_tower" / "model.safetensors")
    (released / "vision_tower" / "model.safetensors").unlink()
    inside = {f"model.vision_tower.vision_tower.{name}": t for name, t in clip.items() if "vision" in name}
    save_file(load_file(released / "model.safetensors") | inside, released / "model.safetensors")
    return released


def edit(file, **changed):
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


@pytest.mark.parametrize("layout", ["released", "with_its_tower"])
def test_the_release_is_the_same_model(request, layout):
    ours, theirs = load_model("llava-1.5"), load_model("llava-1.5", request.getfixturevalue(layout))
    prompts = [lvlm.prompt(PICTURE, QUESTION) for lvlm in (ours, theirs)]
    assert prompts[0].text == prompts[1].text
    assert prompts[0].segments.image.tolist() == prompts[1].segments.image.tolist()
    torch.testing.assert_close(prompts[0].image_inputs, prompts[1].image_inputs, rtol=0, atol=0)
    logits = [lvlm.logits(prompt) for lvlm, prompt in zip((ours, theirs), prompts, strict=True)]
    words = theirs.model.config.image_token_id
    torch.testing.assert_close(logits[0][:, :words], logits[1][:, :words], rtol=0, atol=1e-6)
    assert logits[1].shape[-1] == words  # no answer can be the image's token
    assert ours.answer(prompts[0], 8) == theirs.answer(prompts[1], 8)
    [one], [other] = (sweep(lvlm, [prompt], 8) for lvlm, prompt in zip((ours, theirs), prompts, strict=True))
    assert one.answers == other.answers


def test_the_release_is_converted_from_pickles_first(released, tmp_path):
    pickled, clip, out = (tmp_path / name for name in ("pickled", "clip", "out"))
    released.rename(pickled)
    (pickled / "vision_tower").rename(clip)
    for path in (pickled, clip):
        torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
        (path / "model.safetensors").unlink()
    torch.save({"model.mm_projector.0.weight": torch.zeros(1)}, pickled / "mm_projector.bin")  # left over
    with pytest.raises(CheckpointError, match="repro.models.convert"):
        load_model("llava-1.5", pickled)
    convert(pickled, out)
    convert(clip, out / "vision_tower")
    assert load_model("llava-1.5", out).n_layers == 10


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"mm_vision_tower": "google/siglip"}, "names no CLIP"),
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear'; expected 'mlp2x_gelu'"),
        ({"mm_vision_select_feature": "cls_patch"}, "expected 'patch'"),
        ({"mm_vision_select_layer": 2}, "a whole number below 0"),
        ({"vocab_size": 32000}, "embed_tokens.weight"),
    ],
)
def test_settings_of_another_model_are_refused(released, changed, said):
    edit(released / "config.json", **changed)
    with pytest.raises(CheckpointError, match=said):
        load_model("llava-1.5", released)


def test_what_is_missing_is_named(released):
    (released / "vision_tower" / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="vision_tower/preprocessor_config.json is missing"):
        load_model("llava-1.5", released)
    weights = released / "vision_tower" / "model.safetensors"
    weights.rename(released / "vision_tower" / "pytorch_model.bin")
    said = (
        "model.safetensors of openai/clip-vit-large-patch14-336 .* python -m repro.models.convert CLIP DIR/"
    )
    with pytest.raises(
        CheckpointError, match=r"vision_tower holds its weights as pickle \(pytorch_.*" + said
    ):
        load_model("llava-1.5", released)
    (released / "vision_tower" / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=f"vision_tower should hold .* model.safetensors.*{said}"):
        load_model("llava-1.5", released)
    (released / "vision_tower" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="vision_tower/config.json is missing"):
        load_model("llava-1.5", released)


@pytest.mark.parametrize(("layout", "part"), [("released", "vision_tower"), ("with_its_tower", "")])
def test_a_tensor_that_the_tower_lacks_is_named(request, layout, part):
    path = request.getfixturevalue(layout)
    file = path / part / "model.safetensors"
    save_file({k: t for k, t in load_file(file).items() if not k.endswith("pre_layrnorm.weight")}, file)
    with pytest.raises(CheckpointError, match="missing: .*pre_layrnorm.weight") as found:
        load_model("llava-1.5", path)
    assert (f"those of the vision tower are in {path / 'vision_tower'}" in str(found.value)) == bool(part)


def test_a_tokenizer_of_another_release_is_refused(released):
    shutil.copy(MINIATURE / "tokenizer.json", released)
    with pytest.raises(CheckpointError, match="different releases"):
        load_model("llava-1.5", released)
