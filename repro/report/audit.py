"""The ledger of claims as lines of a terminal and as a page, from what the tests of a session handed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import repro.audit
from repro.audit.ledger import Claim, Paper, Verdict
from repro.audit.marks import COLUMNS, marks
from repro.audit.needs import need
from repro.report.pages import AUDIT, check_writable, environment, now, render, write
from repro.report.table import NAME
from repro.text import columns, visible

HEADER = ["claim", "where", "verdict", "recomputed", "on miniatures", "recomputed"]
#: What a test may have computed anew: the one from the paper and its arithmetic, the other on miniatures.
KINDS = ("verdict", "outcome")
#: The sources of the claims.
SOURCES = Path(repro.audit.__file__).parent


@dataclass(frozen=True)
class Part:
    """A verdict or an outcome in the ledger, and what became of it in a session.

    Attributes:
        recorded: empty where there is nothing to compute.
        asked: whether a test computed it anew.
        found: what the evidence supports; empty where there is none.
        evidence: for people.
    """

    recorded: str
    asked: bool = False
    found: str = ""
    evidence: str = ""

    @property
    def broken(self) -> bool:
        """Whether a test did not find what is recorded."""
        return self.asked and self.found != self.recorded

    @property
    def recomputed(self) -> str:
        """What became of it, in words."""
        if not self.asked:
            return "not in this run" if self.recorded else ""
        if not self.found:
            return "failed"
        return f"recorded {self.recorded}, evidence supports {self.found}" if self.broken else "yes"


@dataclass(frozen=True)
class Entry:
    """A claim, its verdict, and what miniatures show."""

    claim: Claim
    verdict: Part
    outcome: Part

    @property
    def broken(self) -> bool:
        return self.verdict.broken or self.outcome.broken


@dataclass(frozen=True)
class Audit:
    """Everything the page shows.

    Attributes:
        paper: whose claims these are.
        command: the command line that produced it.
        created: ISO 8601 date and time.
        environment: versions, settings and digests.
    """

    paper: Paper
    entries: Sequence[Entry]
    command: str
    created: str
    environment: dict[str, str]
    title: str


def entries(claims: Sequence[Claim], handed: Sequence[Mapping[str, str]]) -> list[Entry]:
    """The ledger beside what tests handed over: properties by name, as tests/audit/test_ledger.py records them."""
    parts = {
        (told["claim"], kind): Part(
            told[f"recorded {kind}"], True, told.get(kind, ""), told.get("evidence", "")
        )
        for told in handed
        for kind in KINDS
        if f"recorded {kind}" in told
    }
    return [
        Entry(
            claim,
            parts.get((claim.id, "verdict"), Part(claim.verdict)),
            parts.get((claim.id, "outcome"), Part(claim.outcome or "")),
        )
        for claim in claims
    ]


def ledger_lines(ledger: Sequence[Entry]) -> list[str]:
    """The ledger for a terminal, columns aligned, and its counts."""
    rows = [
        [
            visible(cell, NAME)
            for cell in (
                entry.claim.id,
                entry.claim.where,
                *(
                    word
                    for part in (entry.verdict, entry.outcome)
                    for word in (part.recorded, part.recomputed)
                ),
            )
        ]
        for entry in ledger
    ]
    return [*columns([HEADER, *rows]), "", counted(ledger), recomputed_line(ledger)]


def counted(ledger: Sequence[Entry]) -> str:
    """How many claims have each verdict, as recorded."""
    by = Counter(entry.claim.verdict for entry in ledger)
    return f"{len(ledger)} claims: " + ", ".join(f"{by[word]} {word}" for word in get_args(Verdict))


def recomputed_line(ledger: Sequence[Entry]) -> str:
    """How many verdicts and outcomes the session computed anew."""
    parts = [part for entry in ledger for part in (entry.verdict, entry.outcome) if part.recorded]
    asked = sum(part.asked for part in parts)
    if asked == len(parts):
        return f"All {len(parts)} verdicts and outcomes were computed anew."
    return (
        f"Only {asked} of {len(parts)} verdicts and outcomes were computed anew; the others are as recorded."
    )


def broken_line(ledger: Sequence[Entry]) -> str:
    """Names the claims whose evidence no longer supports what is recorded; empty where there are none."""
    names = [visible(entry.claim.id, NAME) for entry in ledger if entry.broken]
    return f"Not supported by evidence any more: {', '.join(names)}" if names else ""


def digest(paths: Sequence[Path]) -> str:
    """SHA-256 of files one after the other."""
    return sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def measuring(paper: Paper) -> list[tuple[list[str], str]]:
    """The claims that take published models, by which of them, and what measuring these takes."""
    claims: dict[tuple[str, ...], list[str]] = {}
    for claim in paper.claims:
        if claim.takes:
            models = tuple(model for model in paper.models if model in claim.takes)
            claims.setdefault(models, []).append(claim.id)
    return [(ids, need(paper, models).text) for models, ids in claims.items()]


def build_audit(paper: Paper, ledger: Sequence[Entry], command: str) -> Audit:
    """The page of what one session found."""
    sources = sorted(SOURCES.rglob("*.py"), key=Path.as_posix)
    return Audit(
        paper,
        ledger,
        command,
        now(),
        {
            "repro": version("repro"),
            **environment(),
            "sha256 of repro/audit/paper.py": digest([SOURCES / "paper.py"]),
            "sha256 of repro/audit": digest(sources),
        },
        f"Audit of the claims of {paper.citation}",
    )


def write_audit(audit: Audit, directory: str | Path) -> Path:
    """Write ``audit.html``; the same audit gives the same bytes.

    Args:
        directory: created if missing.

    Returns:
        Path of ``audit.html``.

    Raises:
        ReportError: as in ``check_writable``.
    """
    directory = Path(directory)
    check_writable(directory)
    paper, marked = audit.paper, marks(audit.paper)
    page = render(
        "audit.html.j2",
        report=audit,
        paper=paper,
        measuring=measuring(paper),
        counted=counted(audit.entries),
        recomputed=recomputed_line(audit.entries),
        broken=broken_line(audit.entries),
        table=[
            (cell, [(getattr(cell, column), marked.get((cell, column))) for column in COLUMNS])
            for cell in paper.table
        ],
    )
    write(directory, {AUDIT: page})
    return directory / AUDIT
