"""Does what is computed anew support the verdict, and the outcome on miniatures, that the ledger records?

What each test finds goes into its properties, from which the summary, the page and ``--junitxml`` take it.
"""

from __future__ import annotations

import math
from functools import cache, partial

import pytest

from repro.audit.claims import CLAIMS
from repro.models import load_model

pytestmark = pytest.mark.audit


@pytest.fixture(scope="session")
def load():
    """A miniature by its name, loaded once per worker."""
    return cache(load_model)


def recompute(claim, kind, compute, record_property):
    recorded = getattr(claim, kind)
    for name, value in (
        ("claim", claim.id),
        ("statement", claim.statement),
        (f"recorded {kind}", recorded),
    ):
        record_property(name, value)
    found = compute()
    record_property(kind, getattr(found, kind))
    record_property("evidence", found.evidence)
    assert getattr(found, kind) == recorded, f"{claim.where}: {found.evidence}"
    assert found.evidence and all(map(math.isfinite, found.figures.values()))


@pytest.mark.parametrize("claim", [pytest.param(claim, id=claim.id) for claim in CLAIMS])
def test_the_evidence_supports_the_verdict(claim, record_property):
    recompute(claim, "verdict", claim.check, record_property)


@pytest.mark.parametrize(
    "claim", [pytest.param(claim, id=claim.id) for claim in CLAIMS if claim.experiment is not None]
)
def test_miniatures_show_what_is_recorded(claim, load, record_property):
    recompute(claim, "outcome", partial(claim.experiment, load), record_property)


def test_each_claim_has_a_name_of_its_own():
    names = [claim.id for claim in CLAIMS]
    assert sorted(set(names)) == sorted(names)
