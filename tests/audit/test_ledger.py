"""Does the evidence, computed anew, support the verdict that the ledger records on each claim of the paper?"""

from __future__ import annotations

import pytest

from repro.audit.claims import CLAIMS

pytestmark = pytest.mark.audit


@pytest.mark.parametrize("claim", [pytest.param(claim, id=claim.id) for claim in CLAIMS])
def test_the_evidence_supports_the_verdict(claim, record_property):
    found = claim.check()
    for name, value in (
        ("claim", claim.id),
        ("statement", claim.statement),
        ("verdict", found.verdict),
        ("evidence", found.evidence),
    ):
        record_property(name, value)
    assert found.verdict == claim.verdict, f"{claim.where}: {found.evidence}"
