"""The entries of the ledger, in the order of the paper's subjects."""

from __future__ import annotations

from repro.audit.claims import cliffs, table1
from repro.audit.ledger import Claim

CLAIMS: tuple[Claim, ...] = (*table1.CLAIMS, *cliffs.CLAIMS)
