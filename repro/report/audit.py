"""The ledger of claims as lines of a terminal and as a page, from the properties of a session's tests."""

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import repro.audit
from repro.audit.ledger import Claim, Paper, Verdict
from repro.audit.marks import COLUMNS, marks
from repro.audit.needs import need
from repro.evaluation.environment import environment, now
from repro.models.card import FIXTURES, PRETRAINED
from repro.report.pages import AUDIT, NAME, check_writable, render, write
from repro.text import columns, visible

HEADER = ["claim", "where", "verdict", "recomputed", "on miniatures", "recomputed"]
#: Verdicts in the order of the page.
FIRST = ("contradicted", "undefined", "holds", "not measured here")
#: What tests compute anew: verdicts from the paper and its arithmetic; outcomes of miniatures and ``PRETRAINED``.
KINDS = ("verdict", "outcome", "pretrained")
#: The sources of the checks; what the paper prints and claims.
SOURCES = Path(repro.audit.__file__).parent
DATA = FIXTURES / "paper"


@dataclass(frozen=True)
class Part:
    """A verdict or an outcome in the ledger, and its test in a session.

    Attributes:
        recorded: empty if there is nothing to compute.
        tested: whether a test computed it anew.
        supported: what the evidence supports; empty if the test failed before that.
        evidence: for people.
    """

    recorded: str
    tested: bool = False
    supported: str = ""
    evidence: str = ""

    @property
    def broken(self) -> bool:
        """Whether the evidence of a test does not support what is recorded."""
        return self.tested and self.supported != self.recorded

    @property
    def recomputed(self) -> str:
        """The result of the test, in words."""
        if not self.tested:
            return "not in this run" if self.recorded else ""
        if not self.supported:
            return "failed"
        return f"recorded {self.recorded}, evidence supports {self.supported}" if self.broken else "yes"


@dataclass(frozen=True)
class Code:
    """A function: its anchor on the page, its file and line, and its source."""

    anchor: str
    place: str
    source: str


def _function(function: Any) -> Any:
    return _function(function.func) if isinstance(function, partial) else function


@cache
def _code(function: Any) -> Code | None:
    """None for what is not among the sources of the audit."""
    try:
        path = Path(inspect.getsourcefile(function) or "").relative_to(SOURCES)
        lines, start = inspect.getsourcelines(function)
    except (OSError, TypeError, ValueError):
        return None
    anchor = f"code-{'-'.join(path.with_suffix('').parts)}-{function.__name__}"
    return Code(anchor, f"repro/audit/{path.as_posix()}, line {start}", "".join(lines))


@dataclass(frozen=True)
class Entry:
    """A claim, its verdict, and what miniatures and a pretrained decoder show."""

    claim: Claim
    verdict: Part
    outcome: Part
    pretrained: Part

    @property
    def broken(self) -> bool:
        return self.verdict.broken or self.outcome.broken or self.pretrained.broken

    @property
    def code(self) -> list[Code]:
        """What computes the verdict and the outcome, as far as this package has it."""
        functions = [inspect.unwrap(_function(f)) for f in (self.claim.compute, self.claim.experiment) if f]
        return [code for function in functions if (code := _code(function))]


@dataclass(frozen=True)
class Audit:
    """Everything the page shows.

    Attributes:
        paper: the audited paper.
        entries: its claims.
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


def entries(claims: Sequence[Claim], tests: Sequence[Mapping[str, str]]) -> list[Entry]:
    """The ledger with the results of tests: properties by name, as tests/audit/test_ledger.py records them."""
    parts = {
        (test["claim"], kind): Part(
            test[f"recorded {kind}"], True, test.get(kind, ""), test.get("evidence", "")
        )
        for test in tests
        for kind in KINDS
        if f"recorded {kind}" in test
    }
    return [
        Entry(
            claim,
            parts.get((claim.id, "verdict"), Part(claim.verdict)),
            parts.get((claim.id, "outcome"), Part(claim.outcome or "")),
            parts.get((claim.id, "pretrained"), Part(claim.pretrained or "")),
        )
        for claim in claims
    ]


def ledger_lines(ledger: Sequence[Entry]) -> list[str]:
    """The ledger for a terminal, columns aligned, and its counts; a pretrained decoder's where it was run."""
    further = [PRETRAINED, "recomputed"] if any(entry.pretrained.tested for entry in ledger) else []
    rows = [HEADER + further]
    for entry in ledger:
        parts = [entry.verdict, entry.outcome, *[entry.pretrained] * bool(further)]
        cells = [cell for part in parts for cell in (part.recorded, part.recomputed)]
        rows.append([visible(cell, NAME) for cell in (entry.claim.id, entry.claim.where, *cells)])
    return [*columns(rows), "", counted(ledger), recomputed_line(ledger)]


def counted(ledger: Sequence[Entry]) -> str:
    """How many claims have each verdict, as recorded."""
    counts = Counter(entry.claim.verdict for entry in ledger)
    return f"{len(ledger)} claims: " + ", ".join(f"{counts[word]} {word}" for word in get_args(Verdict))


def recomputed_line(ledger: Sequence[Entry]) -> str:
    """How many verdicts and outcomes the session computed anew."""
    apart = [entry.pretrained for entry in ledger if entry.pretrained.recorded]
    parts = [part for entry in ledger for part in (entry.verdict, entry.outcome) if part.recorded]
    if any(part.tested for part in apart):
        parts, apart = [*parts, *apart], []
    tested = sum(part.tested for part in parts)
    whole = f"All {len(parts)}" if tested == len(parts) else f"Only {tested} of {len(parts)}"
    others = "; the others are as recorded" * (tested < len(parts))
    beside = f"; {len(apart)} of {PRETRAINED} are as recorded" if apart and not others else ""
    return f"{whole} verdicts and outcomes were computed anew{others}{beside}."


def broken_line(ledger: Sequence[Entry]) -> str:
    """Names the claims whose evidence no longer supports what is recorded; empty if there are none."""
    names = [visible(entry.claim.id, NAME) for entry in ledger if entry.broken]
    return f"Not supported by evidence any more: {', '.join(names)}" if names else ""


def digest(paths: Sequence[Path]) -> str:
    """SHA-256 of the concatenated files."""
    return sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def measuring(paper: Paper) -> list[tuple[list[str], str]]:
    """Ids of the claims that take the same published models, and what measuring them takes."""
    claims: dict[tuple[str, ...], list[str]] = {}
    for claim in paper.claims:
        if claim.takes:
            models = tuple(model for model in paper.models if model in claim.takes)
            claims.setdefault(models, []).append(claim.id)
    return [(ids, need(paper, models).text) for models, ids in claims.items()]


def build_audit(paper: Paper, ledger: Sequence[Entry], command: str) -> Audit:
    """Everything the page shows, of a session that ends now."""
    data = sorted(DATA.glob("*.toml"))
    sources = [*data, *sorted(SOURCES.rglob("*.py"), key=Path.as_posix)]
    return Audit(
        paper,
        ledger,
        command,
        now(),
        {
            "repro": version("repro"),
            **environment(),
            "sha256 of fixtures/paper": digest(data),
            "sha256 of fixtures/paper and repro/audit": digest(sources),
        },
        f"Audit of the claims of {paper.citation}",
    )


def _place(verdict: str) -> int:
    """Where a verdict stands in ``FIRST``; last if it does not."""
    return FIRST.index(verdict) if verdict in FIRST else len(FIRST)


def write_audit(audit: Audit, directory: str | Path) -> Path:
    """Write ``audit.html``, whose path is returned; the same audit gives the same bytes.

    The directory is created if missing; ReportError as in ``check_writable``.
    """
    directory = Path(directory)
    check_writable(directory)
    paper, marked = audit.paper, marks(audit.paper)
    page = render(
        "audit.html.j2",
        report=audit,
        paper=paper,
        entries=sorted(audit.entries, key=lambda entry: _place(entry.verdict.recorded)),
        verdicts=[verdict for verdict in FIRST if any(e.verdict.recorded == verdict for e in audit.entries)],
        code=sorted({code for entry in audit.entries for code in entry.code}, key=lambda code: code.anchor),
        measuring=measuring(paper),
        pretrained=PRETRAINED if any(entry.pretrained.recorded for entry in audit.entries) else "",
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
