"""Is a claim of the file read as it stands, and one that cannot be used refused with its place?"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from repro.audit.arithmetic import SIZES
from repro.audit.claims import CHECKS, EXPERIMENTS, FILE, PAPER
from repro.audit.ledger import Finding, Paper, listed
from repro.audit.readings import KINDS, read_claims
from repro.benchmarks.benchmark import DataError

pytestmark = pytest.mark.audit

TEXTS = """
[[claims]]
id = "sky"
where = "Section 1"
statement = "The sky of {paper.title} is blue."
quantity = "its colour"
verdict = "undefined"
evidence = "{reading}"
missing = ["of which day"]
takes = ["shikra"]
[claims.stated]
hour = "Section 2"
"""
ANOTHER = Paper("arXiv 0000.00000", "Another Paper")


def read(path, texts, checks=(), experiments=()):
    (path / "claims.toml").write_text(texts, encoding="utf-8")
    both = [dict.fromkeys(names, lambda *given: Finding("holds", {})) for names in (checks, experiments)]
    return read_claims(path / "claims.toml", ANOTHER, *both)


def test_a_claim_is_read(tmp_path):
    [claim] = read(tmp_path, TEXTS)
    assert claim.statement == "The sky of Another Paper is blue." and claim.takes == ("shikra",)
    assert claim.stated == {"hour": "Section 2", "of which day": None}
    assert claim.check(ANOTHER).evidence == "Stated: hour (Section 2). Missing: of which day."
    assert (claim.compute, claim.experiment, claim.outcome) == (None, None, None)


def test_what_miniatures_show_is_in_the_words_of_the_file(tmp_path):
    texts = TEXTS.replace("takes", 'outcome = "mixed"\nminiatures = "{skies} of {of} skies"\ntakes')
    (tmp_path / "claims.toml").write_text(texts, encoding="utf-8")
    shown = Finding("mixed", {"skies": 3}, {"of": 6})
    [claim] = read_claims(tmp_path / "claims.toml", ANOTHER, {}, {"sky": lambda paper, load: shown})
    assert claim.experiment(ANOTHER, None) == replace(shown, evidence="3 of 6 skies")


@pytest.mark.parametrize(
    ("texts", "checks", "experiments", "message"),
    [
        ("[[claims]", (), (), "expected TOML with [[claims]]; TOMLDecodeError"),
        ("[claims]\nid = 1", (), (), "expected TOML with [[claims]]; ValueError"),
        ("claims = [1]", (), (), "expected TOML with [[claims]]; TypeError"),
        ("[claim]", (), (), "expected TOML with [[claims]]; KeyError"),
        (TEXTS.replace('verdict = "undefined"\n', ""), (), (), "claim 1 (sky) has no verdict"),
        (
            TEXTS.replace("undefined", "true"),
            (),
            (),
            "has verdict = 'true'; expected one of holds, contradicted",
        ),
        (TEXTS.replace("takes", "needs"), (), (), "has the key 'needs'; expected only id, where"),
        (TEXTS.replace('["shikra"]', '"shikra"'), (), (), "has takes = 'shikra'; expected a list of strings"),
        (TEXTS.replace('"Section 2"', "2"), (), (), "has stated = {'hour': 2}; expected a dict of strings"),
        (TEXTS + TEXTS, (), (), "claim 2 (sky) is there twice"),
        (TEXTS.partition("missing")[0], (), (), "is decided by nothing"),
        (TEXTS, (), ("sky",), "has one or two of outcome, miniatures and an experiment of this id"),
        (TEXTS.replace("takes", 'outcome = "mixed"\ntakes'), (), (), "expected all or none"),
        (TEXTS.replace("takes", 'miniatures = "{n}"\ntakes'), (), (), "expected all or none"),
        (
            TEXTS.replace("paper.title", "paper.name"),
            (),
            (),
            "an unfilled template: 'Paper' object has no",
        ),
        (TEXTS, ("sea",), (), "no claim has the id sea"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(tmp_path, texts, checks, experiments, message):
    with pytest.raises(DataError, match=re.escape(message)) as error:
        read(tmp_path, texts, checks, experiments)
    assert str(error.value).startswith(str(tmp_path / "claims.toml"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="nothing.toml: expected TOML"):
        read_claims(tmp_path / "nothing.toml", ANOTHER, {}, {})


def test_the_file_explains_every_key():
    explained = FILE.read_text(encoding="utf-8").partition("\n\n")[0]
    assert all(re.search(rf"^# \[?{key}\b", explained, re.MULTILINE) for key in KINDS)


def test_a_reading_has_nothing_to_compute_and_the_rest_has():
    assert {claim.id for claim in PAPER.claims if claim.compute} == set(CHECKS)
    assert {claim.id for claim in PAPER.claims if claim.outcome} == set(EXPERIMENTS)


@pytest.mark.parametrize("name", SIZES)
def test_the_sizes_that_are_tried_are_those_that_are_named(name):
    [claim] = [claim for claim in PAPER.claims if claim.id == f"granularity-{name}"]
    assert claim.quantity.endswith(f"n = {listed(SIZES[name])}")
