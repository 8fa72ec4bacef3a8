"""Can the experiments on heat maps come out otherwise?"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from repro.audit.claims import PAPER
from repro.audit.experiments import heat
from repro.models import load_model

pytestmark = pytest.mark.audit

load = cache(load_model)
ONE = replace(PAPER, models=("llava-1.5",))


@pytest.fixture
def small(monkeypatch):
    """One model, one benchmark, six items; nothing kept of other runs."""
    monkeypatch.setattr(heat, "ASKED", ("textvqa",))
    monkeypatch.setattr(heat, "ITEMS", 6)
    kept = heat.questions_of, heat.maps
    for one in kept:
        one.cache_clear()
    yield heat.questions_of(load, "llava-1.5", "textvqa")
    for one in kept:
        one.cache_clear()


def filled(grids):
    """Maps of ten layers, the last empty."""
    return [np.stack([*np.repeat(grid[None], 9, axis=0), np.zeros_like(grid)]) for grid in grids]


def test_items_are_answered_right_and_have_boxes(small):
    lvlm = load("llava-1.5")
    assert len(small) == 6
    for one in small:
        assert 0 < one.covered.mean() < 0.5
        assert lvlm.answer(one.prompt, 8).ids[: len(one.answer)] == one.answer
        assert one.answer[-1] not in lvlm.stop_ids


def test_heat_on_the_boxes_points_and_heat_beside_them_does_not(small, monkeypatch):
    boxes = [one.covered for one in small]
    gain = heat.gains(filled(boxes), small)
    expected = [[((box * box).sum() / box.sum() - box.mean())] * 9 for box in boxes]
    np.testing.assert_allclose(gain[:, :-1], expected)
    for marks, outcome in ((boxes, "inconclusive"), ([1 - box for box in boxes], "not as claimed")):
        monkeypatch.setattr(heat, "maps", lambda *given, marks=marks: filled(marks))
        shown = heat.pointing_by_layer(ONE, load)
        assert shown.supports == outcome  # equal in both halves, or beside the boxes
        assert (shown.numbers["llava-1.5 textvqa, first half"] > 0) == (marks is boxes)
    early = filled(boxes)
    for one, box in zip(early, boxes, strict=True):
        one[5:] = 1 - box
    monkeypatch.setattr(heat, "maps", lambda *given: early)
    assert heat.pointing_by_layer(ONE, load).supports == "as claimed"
    for one, box in zip(early, boxes, strict=True):
        one[4] = 1 - box  # the last layer of the first half
    expected = 100 * heat.gains(early, small)[:, :5].mean()
    assert heat.pointing_by_layer(ONE, load).numbers["llava-1.5 textvqa, first half"] == pytest.approx(
        expected
    )


def test_a_module_that_points_worse_makes_the_norm_the_clearest(small, monkeypatch):
    best = "post_attention_norm"

    def gain(load, model, benchmark, module):
        return np.array([0.5, 0.6, 0.55]) if module == best else np.array([0.1, 0.15, 0.1])

    monkeypatch.setattr(heat, "plain_gain", gain)
    assert heat.pointing_by_module(ONE, load).supports == "as claimed"
    best = "mlp"
    shown = heat.pointing_by_module(ONE, load)
    assert shown.supports == "in part not" and shown.numbers["cases not as claimed"] == 1


def test_maps_that_survive_other_weights_are_refused(small, monkeypatch):
    assert heat.parameter_randomisation(ONE, load).supports == "as claimed"
    monkeypatch.setattr(heat, "randomised", lambda lvlm: lvlm)
    shown = heat.parameter_randomisation(ONE, load)
    assert shown.supports == "not as claimed"
    assert shown.numbers["llava-1.5 textvqa, shuffled"] == pytest.approx(1)


def test_a_shuffled_copy_keeps_the_weights_apart_from_their_places():
    lvlm = load("llava-1.5")
    before = {name: weight.clone() for name, weight in lvlm.model.named_parameters()}
    shuffled = heat.randomised(lvlm)
    for name, weight in lvlm.model.named_parameters():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0)
    moved = 0
    for own, other in zip(
        lvlm.decoder.layers.parameters(), shuffled.decoder.layers.parameters(), strict=True
    ):
        torch.testing.assert_close(own.flatten().sort().values, other.flatten().sort().values, rtol=0, atol=0)
        moved += not torch.equal(own, other)
    assert moved == 7 * lvlm.n_layers


def test_likeness_is_of_ranks_and_leaves_empty_layers_out():
    draw = np.random.default_rng(0)
    one = draw.random((3, 4, 4))
    one[2] = 0
    assert heat.likeness([one], [np.exp(one)]) == pytest.approx(1)
    assert heat.likeness([one], [1 - one]) == pytest.approx(-1)
    assert heat.likeness([one], [np.zeros_like(one)]) == 0


def test_marking_what_is_asked_about_passes_and_marking_the_rest_fails(small, monkeypatch):
    boxes = [one.covered for one in small]
    monkeypatch.setattr(heat, "maps", lambda *given: filled(boxes))
    shown = heat.deletion_insertion(ONE, load)
    assert shown.supports == "as claimed" and shown.numbers["cases, boxes"] == 1
    monkeypatch.setattr(heat, "maps", lambda *given: filled([1 - box for box in boxes]))
    assert heat.deletion_insertion(ONE, load).supports == "not as claimed"
