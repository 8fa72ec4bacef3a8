"""Does every instrument prove itself before its first number, whatever is tried first and whatever goes wrong?"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from repro.admission import admission
from repro.attention import attention_shares
from repro.cam import llava_cam
from repro.curves import deletion_curve
from repro.models import load_model
from repro.models.rounding import NotAdmitted, apart
from repro.sweep import layer_by_layer, sweep
from repro.truncation import truncated
from tests.families import zoo

pytestmark = pytest.mark.conformance
QUESTION = "what is the red thing in this picture here"


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A function from a model type to the directory of a small checkpoint."""
    root = tmp_path_factory.mktemp("zoo")

    def built(model_type):
        if model_type not in zoo.BUILT:
            pytest.skip(f"transformers does not have {model_type} here")
        if not (root / model_type).is_dir():
            zoo.build(model_type, root / model_type)
        return root / model_type

    return built


@pytest.fixture
def load(build):
    """A function from a model type to a freshly loaded model."""
    return lambda model_type: load_model(f"tiny-{model_type}", build(model_type))


@pytest.fixture
def llava(load):
    return load("llava")


def ask(lvlm, seed=3):
    return lvlm.prompt(zoo.picture(60, 44, seed=seed), QUESTION)


def test_a_random_choice_is_not_ranked_by_attention(llava):
    prompt = ask(llava)
    logits = []
    for row in ("random", "last_image"):
        with truncated(llava, 2, keep=3, ranking_row=row):
            logits.append(llava.logits(prompt)[-1])
    [swept] = sweep(llava, [prompt], 1, keep=3, ranking_row="random")
    assert apart(logits[0], torch.from_numpy(swept.logits[2])) < llava.tolerance
    assert apart(logits[0], logits[1]) > 100 * llava.tolerance


@pytest.mark.parametrize("model_type", ["llava", "chameleon", "hunyuan_vl", "qwen3_5"])
def test_rounding_is_a_few_last_digits(load, model_type):
    assert load(model_type).tolerance < 3e-4


def test_logits_that_are_not_numbers_are_not_rounding():
    good, bad = torch.zeros(3), torch.tensor([0.0, float("nan"), 0.0])
    assert apart(good, bad) == apart(bad, good) == apart(bad, bad) == float("inf")
    assert apart(torch.tensor([1.0, -1e38]), torch.tensor([1.5, -3e38])) == 0.5


@pytest.mark.parametrize("instrument", ["shares", "cam", "truncation", "sweep", "deletion"])
def test_nothing_is_measured_on_a_prompt_that_was_not_proved(llava, monkeypatch, instrument):
    def prove_prompt(self):
        raise NotAdmitted("the prompt is another")

    monkeypatch.setattr(type(llava), "prove_prompt", prove_prompt)
    prompt = ask(llava)
    use = {
        "shares": lambda: attention_shares(llava, prompt),
        "cam": lambda: llava_cam(llava, prompt, [5]),
        "truncation": lambda: truncated(llava, 1).__enter__(),
        "sweep": lambda: sweep(llava, [prompt], 1),
        "deletion": lambda: deletion_curve(llava, prompt, [5], range(len(prompt.segments.image))),
    }
    with pytest.raises(NotAdmitted, match="prompt is refused for tiny-llava: the prompt is another"):
        use[instrument]()
    outcomes = {outcome.instrument: outcome for outcome in admission(llava)}
    assert not any(outcome.admitted for outcome in outcomes.values())
    assert "the prompt is another" in outcomes[instrument].note


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), MemoryError(), RuntimeError("CUDA out of memory. Tried to")], ids=repr
)
def test_a_proof_that_was_broken_off_is_no_outcome(llava, error):
    def broken(lvlm):
        raise error

    def wrong(lvlm):
        raise NotAdmitted("it is wrong")

    with pytest.raises(type(error)):
        llava.admit("shares", broken)
    assert "shares" not in llava.admission
    with pytest.raises(NotAdmitted, match="it is wrong"):
        llava.admit("shares", wrong)


def test_lack_of_memory_leaves_the_sweep_in_one_pass(llava, monkeypatch):
    def broken(*_):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr("repro.packed.PackedPass.prefill", broken)
        with pytest.raises(RuntimeError, match="allocate memory"):
            sweep(llava, [ask(llava)], 1)
    assert llava.packs
    sweep(llava, [ask(llava)], 1)
    assert "in one pass" in str(llava.admission["sweep"])


def test_lack_of_memory_while_an_image_is_prepared_is_not_put_down_to_the_image(llava, monkeypatch):
    def broken(self, *_):
        raise RuntimeError(reason)

    monkeypatch.setattr(type(llava), "processed", broken)
    reason = "CUDA out of memory. Tried to allocate"
    with pytest.raises(RuntimeError, match=f"^{reason}"):
        ask(llava)
    reason = "shapes do not match"
    with pytest.raises(ValueError, match=f"cannot prepare an image of .*: {reason}"):
        ask(llava)


def test_proofs_reach_beyond_a_window_of_half_the_context():
    lvlm = load_model("llava-1.5")
    config = lvlm.model.config.get_text_config()
    config.max_position_embeddings, config.sliding_window = 4096, 2048
    lvlm.__dict__.pop("trial_prompts", None)
    assert min(len(prompt.segments) for prompt in lvlm.trial_prompts) > config.sliding_window


@pytest.mark.parametrize("context", ["truncated", "observed", "replaced"])
def test_a_first_use_within_a_context_proves_the_untouched_model(load, context):
    apart_from, within = load("llava"), load("llava")
    expected = {outcome.instrument: str(outcome) for outcome in admission(apart_from)}
    seen = []
    contexts = {
        "truncated": lambda: truncated(within, 1),
        "observed": lambda: within.observed(seen.append),
        "replaced": lambda: within.attention_replaced(lambda attending: attending.query.transpose(1, 2) * 0),
    }
    with contexts[context]():
        found = {outcome.instrument: str(outcome) for outcome in admission(within)}
    assert found == expected
    assert not seen


def test_instruments_come_first_within_a_truncation(load):
    prompt, results = None, []
    for first_use in (True, False):
        lvlm = load("llava")
        prompt = prompt or ask(lvlm)
        if not first_use:
            list(admission(lvlm))
        with truncated(lvlm, 1):
            results.append(
                (attention_shares(lvlm, prompt, [5, 6]).raw, llava_cam(lvlm, prompt, [5], noise=0))
            )
    for first, later in zip(*results, strict=True):
        assert np.array_equal(first, later)


def test_a_pass_that_failed_leaves_nothing_to_the_next(llava):
    token = llava.tokenizer.convert_ids_to_tokens(llava.image_token_id)
    long = llava.prompt(
        zoo.picture(60, 44), "red", template=f"what is the red thing {token} here {{question}}"
    )
    short = llava.prompt(zoo.picture(60, 44), "red")
    assert long.segments.image[0] != short.segments.image[0]
    with truncated(llava, 1):
        expected = llava.answer(short, 3)
    with truncated(llava, 1):
        for fails in (
            lambda: llava.forward([long], image_inputs={"pixel_values": torch.zeros(1)}),
            lambda: llava.model(input_ids=long.input_ids, pixel_values=torch.zeros(1)),
        ):
            with pytest.raises((RuntimeError, ValueError, IndexError)):
                fails()
            assert llava.answer(short, 3) == expected
            assert apart(llava.logits(short)[-1], llava.logits(short)[-1]) == 0


@pytest.mark.parametrize("model_type", ["gemma4"])
def test_deletion_is_refused_where_the_image_enters_beside_its_tokens(load, model_type):
    lvlm = load(model_type)
    prompt = ask(lvlm)
    with pytest.raises(NotAdmitted, match="deletion is refused .* still differ by"):
        deletion_curve(lvlm, prompt, [5], range(len(prompt.segments.image)))


def test_heat_lies_on_the_image_that_the_tower_sees(llava):
    """CLIP's processor cuts the middle square out."""
    image = Image.new("RGB", (96, 32), "black")
    image.paste("red", (32, 0, 48, 32))
    prompt = llava.prompt(image, QUESTION)
    assert prompt.spatial
    seen = np.asarray(prompt.image).astype(int)
    assert seen.shape == (16, 16, 3)
    assert (seen[:, :7, 0] > 200).all() and (seen[:, 9:] < 60).all()


def test_noise_is_one_image_in_all_frames(load):
    lvlm = load("qwen2_5_vl")
    prompt = ask(lvlm)
    pixels = prompt.image_inputs["pixel_values"]
    noisy = lvlm.with_noise(prompt, torch.randn(1, *pixels.shape))["pixel_values"]
    frames = lvlm.processor.image_processor.temporal_patch_size
    difference = (noisy - pixels).view(len(pixels), 3, frames, -1)
    assert frames == 2 and torch.allclose(difference[:, :, 0], difference[:, :, 1])
    assert difference.std() > 1


def test_a_sweep_layer_by_layer_refuses_what_is_not_a_number(llava):
    list(admission(llava))
    llava.packs = False
    with torch.no_grad():
        llava.layers[-1].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="truncated after 0, are not finite at answer token 1"):
        sweep(llava, [ask(llava)], 1)


def test_a_sweep_layer_by_layer_is_one_in_one_pass(llava):
    [swept] = sweep(llava, [ask(llava)], 3)
    single = layer_by_layer(llava, ask(llava), 3)
    assert single.answers == swept.answers
    assert apart(torch.from_numpy(single.logits), torch.from_numpy(swept.logits)) < llava.tolerance


def test_a_prompt_without_room_for_an_answer_is_refused(llava):
    with pytest.raises(ValueError, match="leaves no room for an answer within"):
        llava.prompt(zoo.picture(60, 44), "what " * llava.context)


def test_what_the_processor_stumbles_over_is_said(llava, monkeypatch):
    def stumble(*_, **__):
        raise TypeError("no such image")

    image = zoo.picture(60, 44)
    monkeypatch.setattr(type(llava.processor), "__call__", stumble)
    with pytest.raises(ValueError, match="cannot prepare an image of 60 x 44 .*TypeError: no such image"):
        llava.prompt(image, QUESTION)


def test_an_image_that_the_processor_refuses_keeps_its_words(llava, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("an image with a side of 1")

    image = zoo.picture(60, 44)
    llava.prompt(image, QUESTION)
    monkeypatch.setattr(type(llava.processor), "__call__", refuse)
    with pytest.raises(ValueError, match="an image with a side of 1"):
        llava.prompt(image, QUESTION)


@pytest.mark.parametrize("model_type", ["llava", "blip-2"])
def test_an_image_token_in_a_question_is_refused(load, model_type):
    lvlm = load(model_type)
    token = lvlm.tokenizer.convert_ids_to_tokens(lvlm.image_token_id)
    with pytest.raises(ValueError, match="reads as a token of its own and not as text"):
        lvlm.prompt(zoo.picture(60, 44), f"what is {token} here")


def test_stop_strings_are_refused_by_name_before_anything_is_proved(build, tmp_path):
    path = shutil.copytree(build("llava"), tmp_path / "stopping")
    file = path / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"stop_strings": ["."]}))
    lvlm = load_model(str(path))
    with pytest.raises(ValueError, match="stop_strings"):
        sweep(lvlm, [ask(lvlm)], 1)


def test_a_name_stays_with_its_directory(build, tmp_path):
    path = shutil.copytree(build("llava"), tmp_path / "other")
    assert load_model("named-twice", build("llava")).card.hub_id == str(build("llava").resolve())
    with pytest.raises(KeyError, match="would be called named-twice, which is another model"):
        load_model("named-twice", path)
    assert load_model("named-twice").path == build("llava").resolve()
