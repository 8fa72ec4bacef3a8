"""Is a model without a card measured right, or refused with the reason, and never wrong in silence?"""

from __future__ import annotations

import pytest

from tests.families import zoo
from tests.families.outcome import outcome_of

#: Spread over what sets architectures apart; all others are tried under ``-m families``.
SAMPLE = {
    "llava": "the plain case",
    "qwen3_vl": "image features enter again in the first layers",
    "paligemma": "attends to the whole prompt in both directions",
    "gemma3": "image tokens see each other; windows",
    "gemma4": "keys handed on to later layers, inputs of each layer",
    "qwen2_5_vl": "rotary positions of the image",
    "ernie4_5_vl_moe": "types of tokens, experts",
    "blip-2": "a Q-Former, learned positions",
    "idefics3": "tiles between tokens of their own",
    "cohere_compass": "attention and MLP side by side",
    "qwen3_5": "layers without attention",
    "ovis2": "tokens around the image that the model fills in",
    "hyperclovax_vision_v2": "multipliers",
    "dots3_note": "attention to chosen keys",
}
#: Versions of transformers have different types.
TRIED = [name for name in SAMPLE if name in zoo.BUILT]
#: What they are refused, each for a reason that is stated.
REFUSED = {
    "qwen3_5": {"shares"},
    "dots3_note": {"shares"},
    "gemma4": {"deletion"},
}
if zoo.OLD:  # an answer there changes how the prompt is masked
    REFUSED["paligemma"] = {"prompt", "shares", "cam", "truncation", "sweep", "deletion"}


def check(model_type, tmp_path):
    outcome = outcome_of(model_type, tmp_path / model_type)
    assert not outcome.wrong
    return outcome


@pytest.mark.conformance
@pytest.mark.parametrize("model_type", TRIED)
def test_a_model_without_a_card_is_measured_right(model_type, tmp_path):
    outcome = check(model_type, tmp_path)
    assert set(outcome.refused) == REFUSED.get(model_type, set()), outcome.refused


@pytest.mark.families
@pytest.mark.parametrize("model_type", sorted(set(zoo.BUILT) - set(SAMPLE)))
def test_no_model_type_is_wrong_in_silence(model_type, tmp_path):
    outcome = check(model_type, tmp_path)
    assert outcome.equal or outcome.refused
