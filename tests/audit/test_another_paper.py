"""Is a second paper one new file? This one: a paper of two claims, a reading and one that is computed.

It goes through the ledger, the lines of the terminal and the page; nothing of arXiv 2406.06579 does.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from repro.audit.ledger import Cell, Claim, Finding, Paper
from repro.report.audit import build_audit, entries, ledger_lines, write_audit

pytestmark = pytest.mark.audit


@Claim(
    id="sum",
    where="Table 2",
    statement="Its rows sum to 100 %.",
    quantity="the sum of a row",
    verdict="contradicted",
    evidence="{names} of {paper.title} sum to {sum:.1f} %.",
)
def rows_sum(paper: Paper) -> Finding:
    total = sum(cell.baseline or 0 for cell in paper.table)
    names = " and ".join(cell.label for cell in paper.table)
    return Finding("holds" if total == 100 else "contradicted", {"sum": total}, {"names": names})


PAPER = Paper(
    citation="arXiv 0000.00000",
    title="Another Paper",
    models=("shikra",),
    benchmarks=("textvqa",),
    names={"shikra": "SHIKRA", "textvqa": "Reading"},
    items={"textvqa": 1000},
    n_layers=32,
    table=(
        Cell("shikra", "textvqa", "accuracy", "right", 60.0, None),
        Cell("shikra", "textvqa", "", "wrong", 41.5, None),
    ),
    claims=(
        rows_sum,
        Claim(
            id="faster",
            where="Section 2",
            statement="It is faster.",
            quantity="time with and without",
            verdict="undefined",
            evidence="{runs} runs are reported. {reading}",
            stated={"on what": "Section 3", "than what": None, "how often": None},
            numbers={"runs": 2},
            takes=("shikra",),
        ),
    ),
)


def handed_over() -> list[dict[str, str]]:
    """What tests of its claims hand over."""
    findings = [claim.check(PAPER) for claim in PAPER.claims]
    return [
        {
            "claim": claim.id,
            "recorded verdict": claim.verdict,
            "verdict": str(finding.supports),
            "evidence": finding.evidence,
        }
        for claim, finding in zip(PAPER.claims, findings, strict=True)
    ]


def test_its_claims_are_checked():
    computed, read = (claim.check(PAPER) for claim in PAPER.claims)
    assert (computed.supports, computed.numbers) == ("contradicted", {"sum": 101.5})
    assert computed.evidence == "right and wrong of Another Paper sum to 101.5 %."
    assert (read.supports, read.numbers) == ("undefined", {"runs": 2, "things to state": 3, "stated": 1})
    assert read.evidence == "2 runs are reported. Stated: on what (Section 3). Missing: than what; how often."
    whole = replace(PAPER, table=(replace(PAPER.table[0], baseline=58.5), PAPER.table[1]))
    assert rows_sum.check(whole).supports == "holds"


def test_the_terminal_shows_its_ledger():
    _, *lines, blank, counts, recomputed = ledger_lines(entries(PAPER.claims, handed_over()))
    assert [re.split(r"\s{2,}", line) for line in lines] == [
        ["sum", "Table 2", "contradicted", "yes"],
        ["faster", "Section 2", "undefined", "yes"],
    ]
    assert counts == "2 claims: 0 holds, 1 contradicted, 1 undefined, 0 not measured here"
    assert recomputed == "All 2 verdicts and outcomes were computed anew."


def test_the_page_is_of_it_alone(tmp_path):
    audit = build_audit(PAPER, entries(PAPER.claims, handed_over()), "pytest")
    page = write_audit(audit, tmp_path).read_text(encoding="utf-8")
    text = " ".join(re.sub("<[^>]*>", " ", page).split())
    assert "Audit of the claims of arXiv 0000.00000" in text
    assert 'Audit of arXiv 0000.00000, "Another Paper". repro' in page
    assert "right and wrong of Another Paper sum to 101.5 %." in text
    assert re.search(
        r"<td>SHIKRA</td><td>Reading</td><td class=\"number\">wrong</td>\s*<td class=\"number\">41.50", page
    )
    assert (
        "faster : python -m pytest" in text
        and "--model shikra=DIR" in text
        and "Reading (1000 items)" in text
    )
    assert "2406.06579" not in page and "LLaVA" not in page
    ids, links = (set(re.findall(pattern, page)) for pattern in (r' id="([^"]*)"', r' href="#([^"]*)"'))
    assert links == ids - {"ledger-rows"}


def test_a_page_without_a_table_or_a_measurement_leaves_them_out(tmp_path):
    bare = replace(PAPER, table=(), claims=PAPER.claims[:1])
    page = write_audit(build_audit(bare, entries(bare.claims, []), "pytest"), tmp_path).read_text(
        encoding="utf-8"
    )
    assert "table-1" not in page and "measuring" not in page and "claim-sum" in page
