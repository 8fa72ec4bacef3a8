"""The entries of the ledger of arXiv 2406.06579, in the order of its subjects, and the paper with them."""

from __future__ import annotations

from dataclasses import replace

from repro.audit.claims import cam, cliffs, setup, shares, significance, table1, tokens
from repro.audit.paper import TEXT

PAPER = replace(
    TEXT,
    claims=(
        *table1.CLAIMS,
        *significance.CLAIMS,
        *cliffs.CLAIMS,
        *shares.CLAIMS,
        *cam.CLAIMS,
        *tokens.CLAIMS,
        *setup.CLAIMS,
    ),
)
