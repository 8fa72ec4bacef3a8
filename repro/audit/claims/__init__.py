"""The entries of the ledger, in the order of the paper's subjects."""

from __future__ import annotations

from repro.audit.claims import cam, cliffs, setup, shares, significance, table1, tokens
from repro.audit.ledger import Claim

CLAIMS: tuple[Claim, ...] = (
    *table1.CLAIMS,
    *significance.CLAIMS,
    *cliffs.CLAIMS,
    *shares.CLAIMS,
    *cam.CLAIMS,
    *tokens.CLAIMS,
    *setup.CLAIMS,
)
