"""The audit as a reviewer meets it: in the terminal, on its page, and in a report for machines."""

from __future__ import annotations

import os
import re
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from repro.audit.claims import PAPER
from repro.audit.ledger import Claim, Finding
from repro.models.card import PRETRAINED
from repro.report.audit import (
    SOURCES,
    Audit,
    broken_line,
    build_audit,
    counted,
    entries,
    ledger_lines,
    write_audit,
)
from repro.report.index import Report, write_report

pytestmark = pytest.mark.invariant

ROOT = SOURCES.parents[1]


def made_claim(name: str, verdict: str = "holds", **changes) -> Claim:
    given = {"where": "Section 1", "statement": "The sky is blue.", "quantity": "its colour against blue"}
    claim = Claim(id=name, verdict=verdict, evidence="It is.", **(given | changes))
    return claim(lambda paper: Finding(verdict, {}))


#: What becomes of a claim: held, changed, broken off, not asked; on miniatures: held, changed.
CLAIMS = (
    made_claim("kept"),
    made_claim("turned", "undefined"),
    made_claim("stopped", "contradicted"),
    made_claim("left-out", "not measured here"),
    made_claim("shown", outcome="mixed", figure="figure-5"),
    made_claim("not-shown", outcome="as claimed"),
)
HANDED = (
    {"claim": "kept", "recorded verdict": "holds", "verdict": "holds", "evidence": "blue, 470 nm"},
    {"claim": "turned", "recorded verdict": "undefined", "verdict": "contradicted", "evidence": "now green"},
    {"claim": "stopped", "recorded verdict": "contradicted"},
    {"claim": "shown", "recorded verdict": "holds", "verdict": "holds", "evidence": "blue still"},
    {"claim": "shown", "recorded outcome": "mixed", "outcome": "mixed", "evidence": "3 of 6 skies"},
    {"claim": "not-shown", "recorded verdict": "holds", "verdict": "holds", "evidence": "blue yet"},
    {"claim": "not-shown", "recorded outcome": "as claimed", "outcome": "mixed", "evidence": "5 of 6 skies"},
)


@pytest.fixture(scope="module")
def audit() -> Audit:
    return build_audit(replace(PAPER, claims=CLAIMS), entries(CLAIMS, HANDED), "pytest -m audit")


@pytest.fixture(scope="module")
def written(audit, tmp_path_factory) -> Path:
    return write_audit(audit, tmp_path_factory.mktemp("report"))


def rows_of(page: str) -> dict[str, str]:
    """Each claim's row of the ledger, tags left out."""
    rows = re.findall(r'<tr role="row" id="claim-([^"]*)" data-words="[^"]*">(.*?)</tr>', page, re.DOTALL)
    return {name: " ".join(re.sub(r"<[^>]*>", " ", row).split()) for name, row in rows}


# Terminal


def test_terminal_says_what_became_of_each_claim():
    ledger = entries(CLAIMS, HANDED)
    header, *lines, blank, counts, recomputed = ledger_lines(ledger)
    assert header.split() == ["claim", "where", "verdict", "recomputed", "on", "miniatures", "recomputed"]
    assert [re.split(r"\s{2,}", line) for line in lines] == [
        ["kept", "Section 1", "holds", "yes"],
        ["turned", "Section 1", "undefined", "recorded undefined, evidence supports contradicted"],
        ["stopped", "Section 1", "contradicted", "failed"],
        ["left-out", "Section 1", "not measured here", "not in this run"],
        ["shown", "Section 1", "holds", "yes", "mixed", "yes"],
        ["not-shown", "Section 1", "holds", "yes", "as claimed",
         "recorded as claimed, evidence supports mixed"],
    ]  # fmt: skip
    assert {line.index("Section 1") for line in lines} == {header.index("where")}
    assert counts == "6 claims: 3 holds, 1 contradicted, 1 undefined, 1 not measured here" == counted(ledger)
    assert recomputed == "Only 7 of 8 verdicts and outcomes were computed anew; the others are as recorded."
    assert broken_line(ledger) == "Not supported by evidence any more: turned, stopped, not-shown"


def test_a_pretrained_decoder_stands_apart(tmp_path):
    """In the terminal where it was run; on the page with what became of it; and counted where it was run."""
    claims = (made_claim("one", outcome="mixed", pretrained="as claimed"), made_claim("two"))
    handed = [
        {"claim": name, "recorded verdict": "holds", "verdict": "holds", "evidence": "."}
        for name in ("one", "two")
    ]
    handed.append(
        {"claim": "one", "recorded outcome": "mixed", "outcome": "mixed", "evidence": "3 of 6 skies"}
    )
    own = {
        "claim": "one",
        "recorded pretrained": "as claimed",
        "pretrained": "mixed",
        "evidence": "1 of 2 seas",
    }

    header, *lines, _, _, counted_line = ledger_lines(entries(claims, handed))
    assert PRETRAINED not in header
    assert counted_line == (
        f"All 3 verdicts and outcomes were computed anew; 1 of {PRETRAINED} are as recorded."
    )
    header, first, second, _, _, counted_line = ledger_lines(entries(claims, [*handed, own]))
    assert re.split(r"\s{2,}", header)[-2:] == [PRETRAINED, "recomputed"]
    assert re.split(r"\s{2,}", first)[-2:] == ["as claimed", "recorded as claimed, evidence supports mixed"]
    assert counted_line == "All 4 verdicts and outcomes were computed anew."
    assert broken_line(entries(claims, [*handed, own])) == "Not supported by evidence any more: one"

    audit = build_audit(replace(PAPER, claims=claims), entries(claims, [*handed, own]), "pytest -m smol")
    page = write_audit(audit, tmp_path).read_text(encoding="utf-8")
    column = f"{PRETRAINED}: a pretrained decoder, 30 layers"
    assert (
        f"{column} as claimed recorded as claimed, evidence supports mixed 1 of 2 seas"
        in rows_of(page)["one"]
    )
    assert rows_of(page)["two"].endswith(f"{column} –") and f'class="aside">{column}</th>' in page


def test_a_page_without_a_pretrained_decoder_does_not_name_one(written):
    assert PRETRAINED not in written.read_text(encoding="utf-8")


def test_a_whole_session_says_so():
    ledger = entries(CLAIMS[:1], HANDED[:1])
    assert ledger_lines(ledger)[-1] == "All 1 verdicts and outcomes were computed anew."


def test_nothing_is_called_broken_where_all_is_supported():
    assert broken_line(entries(CLAIMS[:1], HANDED[:1])) == ""


def test_terminal_shows_what_is_invisible(sample):
    ledger = entries([made_claim(sample.hostile, where=sample.hostile)], [])
    for line in ledger_lines(ledger):
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202e\u2066\u200b\u2028\ud800]", line)


# Page


def test_page_shows_claims_with_verdict_evidence_and_what_became_of_them(written):
    rows = rows_of(written.read_text(encoding="utf-8"))
    start = "Section 1 {} The sky is blue. Compared: its colour against blue Evidence {}"
    beside = "On miniatures: not about the paper's models"
    for name, verdict, evidence, shown in (
        ("kept", "holds", "blue, 470 nm", "–"),
        ("turned", "undefined recorded undefined, evidence supports contradicted", "now green", "–"),
        ("stopped", "contradicted failed", "–", "–"),
        ("left-out", "not measured here not in this run", "–", "–"),
        ("shown", "holds", "blue still", "mixed 3 of 6 skies"),
        ("not-shown", "holds", "blue yet",
         "as claimed recorded as claimed, evidence supports mixed 5 of 6 skies"),
    ):  # fmt: skip
        figure = " Figure of what was measured here" if name == "shown" else ""
        assert rows[name] == f"{name} {start.format(verdict, evidence)} {beside} {shown}{figure}"
    assert list(rows) == ["stopped", "turned", "kept", "shown", "not-shown", "left-out"], "contradicted first"


def test_page_names_first_what_is_no_longer_supported(audit, written, tmp_path, sample):
    text = sample.read(written).text
    # Beside the counts, and where the page says how to cite it.
    assert text.count("Only 7 of 8 verdicts and outcomes were computed anew") == 2
    assert text.index("6 claims: 3 holds") < text.index("any more: turned, stopped, not-shown")
    assert text.index("any more: turned, stopped, not-shown") < text.index("Ledger verdict")
    kept = replace(audit, entries=entries(CLAIMS[:1], HANDED[:1]))
    assert "any more" not in sample.read(write_audit(kept, tmp_path)).text


def test_page_marks_the_impossible_cells_and_weaker_those_of_another_size(written):
    page = written.read_text(encoding="utf-8")
    marked = re.findall(r'<td class="number (\w+)">([\d.]+)\n<small>(.*?)</small>', page)
    assert [figure for kind, figure, words in marked if (kind, words) == ("impossible", "✗ impossible")] == [
        "94.01", "94.58", "86.31", "87.21",
    ]  # fmt: skip
    weaker = {(figure, words) for kind, figure, words in marked if kind == "granularity"}
    assert weaker == {
        *((figure, "△ not of 2017") for figure in ("67.12", "60.50", "45.80", "66.20", "66.85")),
        *((figure, "△ not of 500") for figure in ("24.50", "12.50", "12.90")),
    }
    assert "Accuracy 94.01 leaves F1 93.63 to 94.35" in page
    assert page.count('<td class="number">') == 25 + 50 - len(marked)


def test_a_claim_links_to_the_code_of_its_check_and_filters_name_its_verdict(tmp_path):
    page = write_audit(build_audit(PAPER, entries(PAPER.claims, []), "pytest -m audit"), tmp_path).read_text()
    row = re.search(r'<tr role="row" id="claim-table-1" data-words="([^"]*)">(.*?)</tr>', page, re.DOTALL)
    [claim] = [claim for claim in PAPER.claims if claim.id == "table-1"]
    assert row[1].split("|")[0] == claim.verdict
    anchor = re.search(
        r'href="#(code-claims-table1-table_1)">repro/audit/claims/table1.py, line \d+<', row[2]
    )[1]
    code = page.split(f'id="{anchor}"')[1].split("</details>")[0]
    assert "def table_1(" in code and "␊" not in code
    assert f"<option>{claim.verdict}</option>" in page


def test_page_can_be_cited(audit, written, sample):
    text = sample.read(written).text
    found = "find fixtures/paper repro/audit -name '*.toml' -o -name '*.py'"
    command = f"{found} | LC_ALL=C sort | xargs cat | sha256sum"
    assert command in text
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    digest = done.stdout.split()[0]
    versions = audit.environment
    assert (
        f"repro {versions['repro']} with transformers {versions['transformers']} and torch {versions['torch']}, "
        f"{audit.created[:10]}. Ledger sha256:{digest}"
    ) in text
    data = "cat fixtures/paper/*.toml | sha256sum"
    done = subprocess.run(data, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"sha256 of fixtures/paper {done.stdout.split()[0]}" in text
    assert "2406.06579" in text


def test_page_needs_nothing_but_itself(written, sample):
    page = sample.read(written)
    page.check_alone()
    anchors = {value for _, name, value in page.attributes if name == "id"}
    links = {value[1:] for _, name, value in page.attributes if name == "href" and value.startswith("#")}
    sections = {value for tag, name, value in page.attributes if (tag, name) == ("section", "id")}
    assert sections <= links <= anchors


def test_hostile_text_never_becomes_markup(audit, tmp_path, sample):
    def told(words: str):
        claim = made_claim(words, where=words, statement=words, quantity=words, outcome="mixed", figure=words)
        handed = [
            {"claim": words, f"recorded {kind}": words, kind: found, "evidence": words}
            for kind, found in (("verdict", words), ("outcome", words + words))
        ]
        hostile = replace(
            audit, entries=entries([claim], handed), command=words, created=words, title=words,
            environment=audit.environment | {words: words, "torch": words},
        )  # fmt: skip
        return sample.read(write_audit(hostile, tmp_path))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told(sample.hostile).check_markup_of(told("harmless"))


# Links between the pages


def links(path: Path) -> dict[str, bool]:
    """Links to another page, and whether they are shown."""
    found = re.findall(r'<a href="((?:index|audit)\.html[^"]*)"( hidden)?>', path.read_text(encoding="utf-8"))
    return {target: not hidden for target, hidden in found}


@pytest.mark.parametrize("first", ["index.html", "audit.html"])
def test_pages_link_each_other_whichever_was_written_first(audit, tmp_path, sample, first):
    write = {
        "index.html": lambda: write_report(Report("t", "c", "n", curves=[sample.curve()]), tmp_path),
        "audit.html": lambda: write_audit(audit, tmp_path),
    }
    hidden = links(write.pop(first)())
    assert hidden and not any(hidden.values())
    [second] = write.values()
    second()
    assert links(tmp_path / "index.html") == {"audit.html": True}
    assert links(tmp_path / "audit.html") == {"index.html": True, "index.html#figure-5": True}


def test_a_figure_that_is_not_there_is_not_linked(audit, tmp_path, sample):
    write_report(Report("t", "c", "n", curves=[sample.curve()]), tmp_path)
    page = write_audit(audit, tmp_path)
    write_report(Report("t", "c", "n"), tmp_path)
    assert links(page) == {"index.html": True, "index.html#figure-5": False}


# The suite's own tests of the ledger, on claims made up for them

MADE_UP = """
from dataclasses import replace

from repro.audit import claims
from repro.audit.ledger import Claim, Finding

def supports(verdict):
    return lambda paper: Finding(verdict, {}, {"verdict": verdict})

def broken(paper):
    raise ValueError("no file")

def experiment(paper, load):
    assert load("llava-1.5") is load("llava-1.5")
    return Finding("mixed", {}, evidence=f"on the miniature of {load('llava-1.5').card.name}")

texts = {"where": "Section 1", "statement": "The sky is blue.", "quantity": "its colour",
         "evidence": "evidence of {verdict}, <b> & \\x1b[31m"}
claims.PAPER = replace(claims.PAPER, claims=(
    Claim("kept", verdict="holds", outcome="mixed", experiment=experiment, **texts)(supports("holds")),
    Claim("turned", verdict="undefined", outcome="as claimed", experiment=experiment, **texts)(
        supports("contradicted")
    ),
    Claim("stopped", verdict="holds", **texts)(broken),
))
"""


LEDGER = ROOT / "tests" / "audit" / "test_ledger.py"
RUN = ("-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "no:cacheprovider", "--report", "seen",
       "--junitxml", "results.xml")  # fmt: skip


def properties(path: Path) -> list[dict[str, str]]:
    """What ``--junitxml`` tells of each test beside its outcome."""
    cases = ElementTree.parse(path).iter("testcase")
    return [{p.get("name"): p.get("value") for p in case.iter("property")} for case in cases]


def test_verdicts_reach_xml_without_workers_and_without_a_warning(pytester):
    given = f"{LEDGER}::test_the_evidence_supports_the_verdict[cliff-pope]"
    result = pytester.runpytest_inprocess(*map(str, RUN), "-W", "error::pytest.PytestWarning", given)
    result.assert_outcomes(passed=1)
    [told] = properties(pytester.path / "results.xml")
    assert (told["claim"], told["verdict"]) == ("cliff-pope", "contradicted")
    result.stdout.fnmatch_lines(["table-1 *not in this run", "cliff-pope *contradicted *yes"])


def test_verdicts_reach_terminal_page_and_xml_from_workers(pytester):
    """In processes of their own, as claims are imported once in each."""
    pytester.makepyfile(made_up=MADE_UP)
    result = pytester.runpytest_subprocess(*RUN, "-p", "made_up", "-n", "1", "-m", "audit", LEDGER)
    result.assert_outcomes(passed=3, failed=3)
    result.stdout.fnmatch_lines(
        [
            "claim*where*verdict*recomputed*on miniatures*recomputed",
            "kept *holds *yes *mixed *yes",
            "turned *undefined *recorded undefined, evidence supports contradicted "
            "*as claimed *recorded as claimed, evidence supports mixed",
            "stopped *holds *failed",
            "3 claims: 2 holds, 0 contradicted, 1 undefined, 0 not measured here",
            "Not supported by evidence any more: turned, stopped",
            f"report: seen{os.sep}audit.html",
        ]
    )
    rows = rows_of((pytester.path / "seen" / "audit.html").read_text(encoding="utf-8"))
    assert (
        "evidence of holds, &lt;b&gt; &amp; ␛[31m" in rows["kept"]
        and "on the miniature of llava-1.5" in rows["kept"]
    )

    told = properties(pytester.path / "results.xml")
    common = {"claim": "turned", "statement": "The sky is blue."}
    verdict = {"recorded verdict": "undefined", "verdict": "contradicted"}
    outcome = {
        "recorded outcome": "as claimed",
        "outcome": "mixed",
        "evidence": "on the miniature of llava-1.5",
    }
    assert {**common, **outcome} in told
    [xml] = [one for one in told if one.get("claim") == "turned" and "verdict" in one]
    assert xml.pop("evidence").startswith("evidence of contradicted, <b> & ")
    assert xml == {**common, **verdict}
    assert {"claim": "stopped", "statement": "The sky is blue.", "recorded verdict": "holds"} in told
    assert not (pytester.path / "seen" / "index.html").exists()
