"""Is a claim of the file read as it stands, and one that cannot be used refused with its place?"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from repro.audit.arithmetic import SIZES
from repro.audit.claims import CHECKS, EXPERIMENTS, PAPER
from repro.audit.ledger import Finding, Paper, listed
from repro.audit.paper import FILE, TEXT, read_text
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


def test_what_was_measured_is_named_by_how_many_or_by_itself(tmp_path):
    texts = TEXTS.replace(
        "takes", 'outcome = "mixed"\nminiatures = "{subjects}"\npretrained = "mixed"\ntakes'
    )
    (tmp_path / "claims.toml").write_text(texts, encoding="utf-8")
    shown = Finding("mixed", {})
    [claim] = read_claims(tmp_path / "claims.toml", ANOTHER, {}, {"sky": lambda paper, load: shown})
    assert claim.pretrained == "mixed"
    for models, said in ((("a", "b", "c"), "three miniatures"), (("smol-llava",), "smol-llava")):
        assert claim.experiment(replace(ANOTHER, models=models), None).evidence == said


def test_what_miniatures_show_is_in_the_words_of_the_file(tmp_path):
    texts = TEXTS.replace("takes", 'outcome = "mixed"\nminiatures = "{skies} of {of} skies"\ntakes')
    (tmp_path / "claims.toml").write_text(texts, encoding="utf-8")
    shown = Finding("mixed", {"skies": 3}, {"of": 6})
    [claim] = read_claims(tmp_path / "claims.toml", ANOTHER, {}, {"sky": lambda paper, load: shown})
    assert claim.experiment(ANOTHER, None) == replace(shown, evidence="3 of 6 skies")


@pytest.mark.parametrize(
    ("texts", "checks", "experiments", "message"),
    [
        ("[[claims]", (), (), "expected a file of TOML: "),
        ("[claims]\nid = 1", (), (), "expected [[claims]]"),
        ("claims = [1]", (), (), "expected [[claims]]"),
        ("[claim]", (), (), "has no 'claims'"),
        (TEXTS.replace('verdict = "undefined"\n', ""), (), (), "claim 1 (sky) has no verdict"),
        (
            TEXTS.replace("undefined", "true"),
            (),
            (),
            "has verdict = 'true'; expected one of holds, contradicted",
        ),
        (TEXTS.replace("takes", "needs"), (), (), "has the key 'needs'; expected only id, where"),
        (TEXTS.replace('["shikra"]', '"shikra"'), (), (), "has takes = 'shikra'; expected strings"),
        (TEXTS.replace('"Section 1"', "1"), (), (), "has where = 1; expected a string"),
        (TEXTS.replace('"Section 2"', "2"), (), (), "has stated = {'hour': 2}; expected strings"),
        (TEXTS + TEXTS, (), (), "claim 2 (sky) is there twice"),
        (TEXTS.partition("missing")[0], (), (), "is decided by nothing"),
        (TEXTS, (), ("sky",), "has one or two of outcome, miniatures and an experiment of this id"),
        (TEXTS.replace("takes", 'outcome = "mixed"\ntakes'), (), (), "expected all or none"),
        (TEXTS.replace("takes", 'miniatures = "{n}"\ntakes'), (), (), "expected all or none"),
        (TEXTS.replace("takes", 'pretrained = "mixed"\ntakes'), (), (), "has pretrained and no outcome"),
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
    with pytest.raises(DataError, match="nothing.toml: expected a file of TOML"):
        read_claims(tmp_path / "nothing.toml", ANOTHER, {}, {})


def test_a_paper_is_read(tmp_path):
    (tmp_path / "paper.toml").write_bytes(FILE.read_bytes())
    assert vars(read_text(tmp_path / "paper.toml")) == vars(TEXT)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title =", "name =", "unexpected keyword argument 'name'"),
        ("gpu = ", "# ", "missing 1 required keyword-only argument: 'gpu'"),
        ('  ["llava-1.5", "scienceqa", [12], ', '  ["llava-1.5", "scienceqa", ', "'place'"),
        ("[without_image]", "[with_image]", "has no 'without_image'"),
        ("k_values = [0]", "k_values = 0", "k_values = 0; expected tuple"),
        ("share_limit = 2.0", 'share_limit = "2"', "share_limit = '2'; expected <class 'float'>"),
    ],
)
def test_a_paper_with_other_keys_or_types_is_refused(tmp_path, old, new, message):
    texts = FILE.read_text(encoding="utf-8")
    assert texts.count(old) == 1
    (tmp_path / "paper.toml").write_text(texts.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(message)) as error:
        read_text(tmp_path / "paper.toml")
    assert str(error.value).startswith(str(tmp_path / "paper.toml"))


def test_the_file_explains_every_key():
    explained = FILE.read_text(encoding="utf-8")
    assert all(re.search(rf"^# \[?{key}\b", explained, re.MULTILINE) for key in KINDS)


def test_a_reading_has_nothing_to_compute_and_the_rest_has():
    assert {claim.id for claim in PAPER.claims if claim.compute} == set(CHECKS)
    assert {claim.id for claim in PAPER.claims if claim.outcome} == set(EXPERIMENTS)


@pytest.mark.parametrize("name", SIZES)
def test_the_sizes_that_are_tried_are_those_that_are_named(name):
    [claim] = [claim for claim in PAPER.claims if claim.id == f"granularity-{name}"]
    assert claim.quantity.endswith(f"n = {listed(SIZES[name])}")


def test_a_list_in_words_has_commas_and_one_and():
    words = ["a", "b", "c"]
    assert [listed(words[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
