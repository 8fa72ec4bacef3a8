"""From a number to its items: each entry of the list is what the results file holds of that item."""

from __future__ import annotations

import re
import sys

import pytest

from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.report import items
from repro.report.items import Pictures, item_page, main
from repro.report.pages import csv_uri
from repro.report.sentences import cliff_sentence, deepest, pointing_sentence, spans

pytestmark = pytest.mark.invariant


@pytest.fixture
def stored(tmp_path, sample):
    """A results file of one run over four items of POPE, two of them with flows, and what lies beside it."""
    return sample.stored(tmp_path)


def entries_of(page: str) -> dict[str, str]:
    found = re.findall(
        r'<article class="item" id="[\w-]+" data-words="(.*?)">(.*?)</article>', page, re.DOTALL
    )
    return {re.search(r"Item (\S+?),", body)[1]: words for words, body in found}


def test_items_that_flip_come_first_and_each_carries_what_filters_ask_for(stored, tmp_path, sample):
    results, run, measured, names = stored
    page, content = item_page(results, run, measured, Pictures(MINIWORLD))
    assert (page.counts["gained"], page.counts["lost"], page.counts["wrong"]) == (1, 1, 2)
    assert [entry.item for entry in page.entries][3] == names["right"]
    assert {entry.item: entry.flip for entry in page.flips} == {
        names["lost"]: "worse",
        names["gained"]: "better",
    }
    words = {item: set(text.split("|")) for item, text in entries_of(content.decode()).items()}
    filters = {name: words[item] & {"flipped", "wrong", "heat"} for name, item in names.items()}
    assert filters == {
        "lost": {"flipped", "heat"},
        "gained": {"flipped", "wrong"},
        "wrong": {"wrong"},
        "right": {"heat"},
    }
    assert "category: popular" in words[names["lost"]] and "kind: 1" not in words[names["lost"]]
    [lost] = [entry for entry in page.entries if entry.item == names["lost"]]
    turns = [(turn.first, turn.last, turn.look, turn.at_cliff) for turn in lost.turns]
    assert turns == [(0, 0, "bad", False), (1, 1, "good", False), (2, 2, "bad", True), (3, 4, "good", False)]
    assert lost.heat.layers == sample.layers and [bool(note) for note in lost.heat.notes] == [
        False,
        True,
        True,
        True,
    ]


def test_the_page_is_alone_and_no_answer_becomes_markup(stored, tmp_path, sample):
    results, run, measured, _ = stored
    _, content = item_page(results, run, measured, Pictures(MINIWORLD))
    (tmp_path / "page.html").write_bytes(content)
    page = sample.read(tmp_path / "page.html")
    page.check_alone()
    assert "<script>alert(1)</script>" in page.text and page.tags.count("script") == 1
    assert page.tags.count("article") == 4
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_a_page_too_large_is_shortened_and_says_how_to_get_the_rest(stored, monkeypatch):
    results, run, measured, _ = stored
    whole = len(item_page(results, run, measured, Pictures(MINIWORLD))[1])
    monkeypatch.setattr(items, "LARGEST", whole - 1000)
    page, content = item_page(results, run, measured, Pictures(MINIWORLD))
    assert len(content) < whole and len(page.entries) < 4 and page.total == 4
    assert "python -m repro.report.items results.sqlite 1 --data DIR --limit 5000" in content.decode()
    page, content = item_page(results, run, measured, Pictures(MINIWORLD), limit=5000)
    assert len(page.entries) == 4


def test_the_command_writes_the_pages_and_says_what_is_missing(stored, monkeypatch, capsys):
    results, *_ = stored

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["items", *map(str, arguments)])
        code = main()
        return code, "".join(capsys.readouterr())

    code, said = call(results.path, 1, "--data", results.path.parent)
    assert code == 0 and "4 of 4 items" in said
    page = (results.path.parent / "items-llava-1.5-pope-official.html").read_text(encoding="utf-8")
    assert page.count("val2014/a.png: no picture here") == 2
    assert call(results.path, 7) == (1, f"{results.path}: has no run 7\n")
    (results.path.parent / "measured" / "llava-1.5-pope-official.npz").unlink()
    code, said = call(results.path)
    assert code == 1 and "is missing, which holds the cliff layer of run 1" in said


def test_sentences_say_what_the_interval_allows(sample):
    row = sample.row
    assert cliff_sentence(row()).startswith(
        "needs the image until layer 6 of 10 [5, 7]; from there on less than the margin of 3 points is lost: "
        "+0.8 points [−0.2, +1.8]"
    )
    worse = {"difference": -0.05, "difference_interval": (-0.09, -0.04)}
    assert "from there on more than the margin of 3 points is lost" in cliff_sentence(row(**worse))
    assert cliff_sentence(row(cliff=10)).startswith(
        "needs the image up to the last layer, 10 [5, 7]: truncated"
    )
    open_ = {"difference": -0.02, "difference_interval": (-0.06, 0.01)}
    assert "a loss of more than 3 points is not excluded" in cliff_sentence(row(**open_))
    falls = {"higher_is_better": False, "difference": 0.05, "difference_interval": (0.04, 0.09)}
    assert "more than the margin of 3 points is lost" in cliff_sentence(row(**falls))
    assert "does not need the image in any layer" in cliff_sentence(row(cliff=0, cliff_interval=(0, 1)))
    assert cliff_sentence(row(cliff=None, cliff_interval=None)).startswith("has no cliff layer")
    assert "Too few items" in cliff_sentence(row(caveat="too few items"))


def test_the_deepest_benchmark_is_named_with_those_it_cannot_be_told_from(sample):
    deep = sample.row(benchmark="CHAIR", cliff=9, cliff_interval=(8, 9))
    shallow = sample.row(benchmark="POPE", cliff=2, cliff_interval=(1, 3))
    near = sample.row(benchmark="TextVQA", cliff=7, cliff_interval=(6, 8))
    assert deepest([deep, shallow]) == "Deepest on CHAIR: layer 9 of 10 [8, 9]; no other interval reaches it."
    assert deepest([near, shallow, deep]).endswith("; the intervals of TextVQA overlap it.")
    assert deepest([deep]) == ""


def test_pointing_is_answered_by_layer(sample):
    part = sample.pointing()
    assert pointing_sentence(part).startswith("at layers 1–9 yes (")
    assert spans([1, 2, 3, 5, 9, 10]) == "1–3, 5, 9–10"


def test_no_cell_of_a_csv_starts_a_formula():
    uri = csv_uri([["=1+1", "@x", "+0.8 [1, 2]", "−1.2", "+cmd", 'a,"b"']])
    assert uri == (
        "data:text/csv;charset=utf-8,%27%3D1%2B1%2C%27%40x%2C%22%2B0.8%20%5B1%2C%202%5D%22%2C%E2%88%921.2%2C%27%2B"
        "cmd%2C%22a%2C%22%22b%22%22%22%0D%0A"
    )
