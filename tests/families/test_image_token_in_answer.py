"""Is an image token that a model says read as that model's own ``generate`` reads it, and never as an image?"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from repro.admission import admission
from repro.models import load_model
from repro.models.rounding import apart
from repro.sweep import layer_by_layer, sweep
from repro.truncation import truncated
from tests.families import zoo

pytestmark = pytest.mark.conformance
#: Plain embeddings of the token; others of padding, and inputs of each layer; tokens of types; rotary positions.
TYPES = ("llava", "gemma4", "gemma3", "paligemma", "qwen2_5_vl", "idefics3")


class Saying(LogitsProcessor):
    """Has ``generate`` say these ids, whatever its logits."""

    def __init__(self, length, ids):
        self.length, self.ids = length, ids

    def __call__(self, input_ids, scores):
        forced = torch.full_like(scores, float("-inf"))
        forced[:, self.ids[input_ids.shape[1] - self.length]] = 0
        return forced


@pytest.fixture(params=TYPES)
def lvlm(request, tmp_path):
    if request.param not in zoo.BUILT:
        pytest.skip(f"transformers does not have {request.param} here")
    zoo.build(request.param, tmp_path / request.param)
    model = load_model(f"tiny-{request.param}", tmp_path / request.param)
    assert all(list(map(str, admission(model))))  # settles what an answer is to the prompt
    return model


def generated(lvlm, prompt, ids):
    """Logits of the model's own decoding, one row for each of the ids."""
    start = 0 if lvlm.generator is not lvlm.model else prompt.input_ids.shape[1]
    with torch.inference_mode():
        out = lvlm.model.generate(
            input_ids=prompt.input_ids,
            attention_mask=torch.ones_like(prompt.input_ids),
            **prompt.sequence_inputs,
            **prompt.image_inputs,
            logits_processor=LogitsProcessorList([Saying(start, ids)]),
            max_new_tokens=len(ids),
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            return_dict_in_generate=True,
            output_logits=True,
        )
    return torch.cat(out.logits)


@pytest.mark.parametrize("after", [None, 1])
def test_logits_behind_it_are_those_of_generate(lvlm, after):
    prompt = lvlm.prompt(zoo.picture(60, 44, seed=3), "what is the red thing")
    plain = int(prompt.input_ids[0, -1])
    ids = [plain, lvlm.image_token_id, plain, plain]
    with truncated(lvlm, after) if after is not None else nullcontext():
        expected = generated(lvlm, prompt, ids)
        found = lvlm.logits(prompt, ids[:-1])[-len(ids) :]
    assert apart(found, expected) < 1e-4


@pytest.mark.parametrize("lvlm", ["gemma4"], indirect=True)
def test_both_sweeps_read_it_alike(lvlm, monkeypatch):
    """The greatest logit of every second token is the image's."""
    head, prompt = lvlm.head, lvlm.prompt(zoo.picture(60, 44, seed=3), "what is the red thing")
    list(map(int, sweep(lvlm, [prompt], 1)[0].answers[0].ids))
    head.register_forward_hook(
        lambda module, args, out: out.index_fill(-1, torch.tensor([lvlm.image_token_id]), 1e3)
    )
    [swept], alone = sweep(lvlm, [prompt], 4), layer_by_layer(lvlm, prompt, 4)
    assert set(swept.answers[0].ids) == {lvlm.image_token_id}
    assert swept.answers == alone.answers
    with truncated(lvlm, 1):
        ids, rows = lvlm.generate(prompt, 4)
        again = lvlm.logits(prompt, ids[:-1])[-4:]
    kept = torch.arange(rows.shape[-1]) != lvlm.image_token_id
    assert apart(rows[:, kept], again[:, kept]) < 1e-4


@pytest.mark.parametrize("name", ["paligemma", "gemma3"])
def test_logits_need_no_instrument_first(tmp_path, name):
    """Which type the tokens of an answer have is found out before the first of them is read."""
    if name not in zoo.BUILT:
        pytest.skip(f"transformers does not have {name} here")
    zoo.build(name, tmp_path / name)
    lvlm = load_model(f"tiny-{name}-first", tmp_path / name)
    prompt = lvlm.prompt(zoo.picture(60, 44, seed=3), "what is the red thing")
    ids = [int(prompt.input_ids[0, -1])] * 3
    assert apart(lvlm.logits(prompt, ids[:-1])[-len(ids) :], generated(lvlm, prompt, ids)) < 1e-4
