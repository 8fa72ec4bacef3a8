"""Does what is computed anew support the verdict, and the outcome on miniatures, that the ledger records?

What each test finds goes into its properties, from which the summary, the page and ``--junitxml`` take it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest

from repro.audit.claims import PAPER
from repro.models import load_model
from repro.models.card import PRETRAINED

pytestmark = pytest.mark.audit


#: The paper's claims, put to one model; without captions, 31 of which to each picture take too long.
ALONE = replace(
    PAPER, models=(PRETRAINED,), benchmarks=tuple(name for name in PAPER.benchmarks if name != "chair")
)
#: Numbers that recorded scores and counts decide, so exactly.
EXACT = {
    "cliff-order": {
        "llava-1.5 order as claimed": 0.0,
        "llava-1.5 textvqa cliff, low": 4,
        "llava-1.5 textvqa cliff": 6,
        "shikra chair cliff": 5,
    },
    "projector-independence": {
        "pairs with other projectors": 48,
        "equal with other projectors": 29,
        "apart with other projectors": 0,
        "pairs with MLPs": 12,
        "apart with MLPs": 0,
    },
    "retrospective": {
        "answers": 17400,
        "better with the last layer": 39,
        "worse with the last layer": 39,
        "cases as claimed": 0,
    },
    "cliff-definition": {"cases": 24, "inside": 5, "too early": 15, "at layer 0": 14, "too late": 4},
    "cost": {"pope, bytes when masked": 1.0, "textvqa, cliff": 6},
    "share-below-2": {"cases": 104, "cases as claimed": 0},
    "share-ordering": {"cases": 68, "system gets the most": 1},
}


@pytest.fixture(scope="session")
def load():
    """A miniature by its name, loaded once per worker."""
    return cache(load_model)


def recompute(claim, kind, compute, record_property, exact=()):
    recorded = getattr(claim, kind)
    for name, value in (
        ("claim", claim.id),
        ("statement", claim.statement),
        (f"recorded {kind}", recorded),
    ):
        record_property(name, value)
    found = compute()
    record_property("evidence", found.evidence)
    numbers = dict(found.numbers)
    assert numbers | dict(exact) == numbers, found.evidence
    assert found.evidence and all(map(math.isfinite, numbers.values()))
    # Last: what has no outcome is shown as failed.
    record_property(kind, found.supports)
    assert found.supports == recorded, f"{claim.where}: {found.evidence}"


@pytest.mark.parametrize("claim", [pytest.param(claim, id=claim.id) for claim in PAPER.claims])
def test_the_evidence_supports_the_verdict(claim, record_property):
    recompute(claim, "verdict", lambda: claim.check(PAPER), record_property)


@pytest.mark.parametrize(
    "claim", [pytest.param(claim, id=claim.id) for claim in PAPER.claims if claim.experiment is not None]
)
def test_miniatures_show_what_is_recorded(claim, load, record_property):
    def compute():
        shown = claim.experiment(PAPER, load)
        assert "miniature" in shown.evidence and len(shown.evidence) < 700
        return shown

    recompute(claim, "outcome", compute, record_property, EXACT.get(claim.id, {}))


@pytest.mark.smol
@pytest.mark.parametrize(
    "claim", [pytest.param(claim, id=claim.id) for claim in PAPER.claims if claim.pretrained is not None]
)
def test_a_pretrained_decoder_shows_what_is_recorded(claim, load, record_property):
    recompute(claim, "pretrained", lambda: claim.experiment(ALONE, load), record_property)


def test_each_claim_has_a_name_of_its_own():
    names = [claim.id for claim in PAPER.claims]
    assert sorted(set(names)) == sorted(names)
