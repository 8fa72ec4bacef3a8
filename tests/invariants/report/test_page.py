"""The page prints what it was given, for everyone, and nothing it was given can take it over."""

from __future__ import annotations

import errno
import io
import math
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from repro import text
from repro.evaluation.measured import MeanShares, Measured, Pointing
from repro.report import pages
from repro.report.index import FILES, Report, write_report
from repro.report.pages import ReportError, check_writable
from repro.report.table import table_lines

pytestmark = pytest.mark.invariant


@pytest.fixture(scope="module")
def written(tmp_path_factory, sample) -> Path:
    return write_report(sample.full_report(), tmp_path_factory.mktemp("report"))


def test_page_needs_nothing_but_itself(written, sample):
    sample.read(written).check_alone()


def test_names_in_table_1_may_break_and_numbers_may_not(written):
    html = written.read_text(encoding="utf-8")
    header = re.findall(
        r"<th[^>]*>(.*?)</th>", html.partition("<tbody>")[0].rpartition("<thead>")[2], re.DOTALL
    )
    row = re.findall(r'<td class="(long|number)">', html.partition("<tbody>")[2].partition("</tr>")[0])
    names = [
        re.sub("<.*?>", "", one).strip() for one, look in zip(header, row, strict=True) if look == "long"
    ]
    assert names == ["Model", "Benchmark", "Protocol"] and row.count("number") > 5


def test_internal_links_lead_somewhere(written, sample):
    page = sample.read(written)
    anchors = {value for _, name, value in page.attributes if name == "id"}
    links = {value[1:] for _, name, value in page.attributes if name == "href" and value.startswith("#")}
    sections = {value for tag, name, value in page.attributes if (tag, name) == ("section", "id")}
    assert sections <= links <= anchors and len(sections) == 9
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(anchors), "each once"


def test_what_was_measured_comes_first_then_table_figures_and_reproduction(written, sample):
    page = sample.read(written).text
    order = [
        "Measured: llava-mini on POPE", "In short POPE needs the image until layer 6 of 10 [5, 7]",
        "Table 1: baseline", "Figure 5: score", "Does the CAM point at the object? Does", "Figure 2: what",
        "Figures 3–4:", "How to read it llava-mini is a miniature on rendered scenes.", "Further tables 1 tables",
        "How to reproduce Created 2024-06-10T08:00:00+00:00. pytest -m table1 --report out",
    ]  # fmt: skip
    # The navigation repeats the headings, hence the last occurrence.
    places = [page.rfind(part) for part in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "number",
    ["84.7 [82.1, 87.3]", "6 of 10 [5, 7]", "85.5 [83.1, 88.0]", "+0.8 [−0.2, +1.8]",
     "612 cliff: 306 others", "[5, 7] margin 3 points",
     "CHAIR_s ↓", "Acc ↑", "−1.2 ["],
)  # fmt: skip
def test_table_prints_every_number_with_its_interval(written, number, sample):
    assert number in sample.read(written).text.replace("\xa0", " ")


def test_figures_come_with_their_numbers(written, sample):
    page = sample.read(written).text
    given = sample.full_report()
    for part, shown in (
        (given.curves[0], given.curves[0].score),
        (given.pointing[0], given.pointing[0].energy),
    ):
        for value, low, high in zip(shown, part.low, part.high, strict=True):
            assert f"{text.percent(value)} {text.percent_interval((low, high))}" in page
    for layer in range(10):
        for value, low, high in zip(*(getattr(given.shares[0], k)[layer] for k in ("mean", "low", "high")),
                                    strict=True):  # fmt: skip
            assert f"{text.percent(value)} {text.percent_interval((low, high))}" in page
        assert " / ".join(text.percent(value) for value in given.shares[0].raw[layer]) in page
    for value in given.curves[0].probability:
        assert f" {text.percent(value)} " in page
    assert page.count("●") == 3 + 1 and page.count("○") == 8 + 1  # once each in the heading of the table
    # Of longer answers it says little about the rest: 100 % at L = 0 where all begin alike.
    assert "POPE Acc, n = 612: probability of the baseline answer's first token, %" in page
    assert page.count("every object for a caption") == 2 and "asked about." not in page
    for part in ("n = 77", "n = 41", "box 9.9 % of the area", "Is there a donut in the image?"):
        assert part in page


def test_every_figure_has_alternative_text_and_equations(written, sample):
    page = sample.read(written)
    pictures = page.attributes.count(("svg", "role", "img"))
    alternatives = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(alternatives) == pictures == 3 + 1 + 10 and all(len(value) > 14 for value in alternatives)
    assert alternatives[0] == "POPE Acc ↑: cliff 8 [7, 9], n = 612"
    for equations in ("Eqs. 9–13", "Eqs. 7–8", "Eqs. 1–5"):
        assert equations in page.text


def test_hostile_text_never_becomes_markup(tmp_path, sample):
    def told(words: str):
        report = sample.full_report()
        hostile = replace(
            report, title=words, command=words, created=words, environment={words: words}, notes=[words],
            table=[sample.row(model=words, benchmark=words, metric=words)],
            curves=[sample.curve(benchmark=words, metric=words)],
            shares=[replace(sample.shares(), benchmark=words)],
            heats=[sample.heats(benchmark=words, question=words, answer=words)],
            pointing=[replace(sample.pointing(), benchmark=words)],
            recorded=[(words, [words], [[words]])],
        )  # fmt: skip
        return sample.read(write_report(hostile, tmp_path))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hostile, harmless = told(sample.hostile), told("harmless")
    hostile.check_markup_of(harmless)


def test_long_text_is_cut_for_display(tmp_path, sample):
    report = Report(
        "t", "c", "now", heats=[sample.heats(question="W" * 5000, answer="")], notes=["N" * 90_000]
    )
    page = sample.read(write_report(report, tmp_path))
    assert "W" * 299 + "…" in page.text and "W" * 300 not in page.source
    assert "N" * 3999 + "…" in page.text and "N" * 4000 not in page.source
    assert "(nothing)" in page.text


@pytest.mark.parametrize(
    ("caveat", "n"), [("borderline", "612 cliff"), ("too few items", "612, too few cliff"), ("", "612 cliff")]
)
def test_a_cliff_that_says_little_is_marked(tmp_path, caveat, n, sample):
    report = Report("t", "c", "now", table=[sample.row(caveat=caveat)], curves=[sample.curve(caveat=caveat)])
    page = sample.read(write_report(report, tmp_path))
    shown = page.text.replace("\xa0", " ")
    marked = f" {caveat}".rstrip()
    assert f"6 of 10 [5, 7]{marked} margin 3 points" in shown and n in shown
    assert ("svg", "aria-label", f"POPE Acc ↑: cliff 8 [7, 9]{marked}, n = 612") in page.attributes
    part = Measured("", list(report.table), [], [], [], [], [])
    header, line, *words = table_lines([part])
    assert f"6 of 10 [5, 7]{marked}  " in line and (", too few" in line) == (caveat == "too few items")
    assert any("stays undecided after 100,000 resamples" in word for word in words) == (
        caveat == "borderline"
    )


def test_empty_sections_are_left_out(tmp_path, sample):
    write_report(sample.full_report(), tmp_path)
    (tmp_path / "own-notes.png").write_bytes(b"kept")
    page = sample.read(write_report(Report("Nothing yet", "pytest", "now"), tmp_path))
    assert "img" not in page.tags and "table" not in page.tags
    assert page.tags.count("section") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.html", "own-notes.png"]


@pytest.mark.parametrize("name", ["curves", "shares", "heats", "pointing", "table", "recorded"])
def test_every_section_stands_alone(tmp_path, name, sample):
    report = Report("One", "pytest", "now", **{name: getattr(sample.full_report(), name)})
    page = sample.read(write_report(report, tmp_path))
    assert page.tags.count("section") == 2 + (name == "table")
    assert len(list(tmp_path.glob("*.png"))) == (name not in ("table", "recorded"))


def test_undefined_values_are_said_to_be_undefined(tmp_path, sample):
    nan = math.nan
    nothing = np.full(11, nan)
    report = Report(
        "t", "c", "now",
        table=[sample.row(baseline=nan, baseline_interval=(nan, nan), cliff=None, cliff_interval=None,
                          at_cliff=nan, at_cliff_interval=(nan, nan),
                          difference=nan, difference_interval=(-math.inf, math.inf))],
        curves=[sample.curve(score=nothing, low=nothing, high=nothing, cliff=None, cliff_interval=None,
                             probability=None, limit=nan, n=0),
                sample.curve(low=np.full(11, -math.inf), high=np.full(11, math.inf))],
        shares=[MeanShares("x", *(np.full((10, 3), nan),) * 3, np.full((10, 4), nan), n=0)],
        heats=[sample.heats(heat=np.full((10, 6, 6), nan), boxes=[])],
        pointing=[Pointing("x", *(np.full(10, nan),) * 3, nan, 0)],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = sample.read(write_report(report, tmp_path)).text
    assert "n/a [n/a, n/a]" in page and "n/a of 10 [n/a]" in page and "n/a [−∞, ∞]" in page
    assert "nan" not in page.lower().replace("information", "") and "None" not in page


# Files


def test_figures_lie_beside_the_page_that_links_them(written, sample):
    assert {p.name for p in written.parent.iterdir()} == {"index.html", *FILES}
    page = sample.read(written)
    for name in ("figure-5-truncation.png", "figure-2-shares.png", "figures-3-4-cam.png", "pointing.png"):
        assert ("a", "href", name) in page.attributes
        content = (written.parent / name).read_bytes()
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            assert picture.format == "PNG" and picture.width > 300
            assert not picture.info.keys() & {"Software", "Creation Time", "date"}


def test_same_report_gives_the_same_bytes_whatever_the_matplotlibrc(written, tmp_path, sample):
    changed = {"font.size": 20.0, "text.usetex": True, "figure.facecolor": "red", "savefig.dpi": 10}
    with matplotlib.rc_context(changed):
        again = write_report(sample.full_report(), tmp_path)
        assert matplotlib.rcParams["font.size"] == 20.0 and matplotlib.rcParams["text.usetex"]
    for name in ("index.html", *FILES):
        assert (again.parent / name).read_bytes() == (written.parent / name).read_bytes(), name


def test_pyplot_is_not_imported():
    code = "import sys, repro.report.index; sys.exit('matplotlib.pyplot' in sys.modules)"
    root = Path(pages.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=120).returncode == 0


@pytest.mark.parametrize("write", [check_writable, lambda place: write_report(Report("t", "c", "n"), place)])
@pytest.mark.parametrize(
    "kind", ["file", "file above", "page is a directory", "audit is a directory", "name too long", "dangling"]
)
def test_an_impossible_place_is_named_with_the_way_out(tmp_path, kind, write):
    (tmp_path / "taken").write_text("mine")
    place, reason = {
        "file": (tmp_path / "taken", "is not a directory"),
        "file above": (tmp_path / "taken" / "a" / "b", f"{str(tmp_path / 'taken')!r} is not a directory"),
        "page is a directory": (tmp_path / "report", "index.html in it is a directory"),
        "audit is a directory": (tmp_path / "report", "audit.html in it is a directory"),
        "name too long": (tmp_path / ("x" * 300), "File name too long"),
        "dangling": (tmp_path / "link", "is not a directory"),
    }[kind]  # fmt: skip
    if kind.endswith("is a directory"):
        (place / reason.split()[0]).mkdir(parents=True)
    if kind == "dangling":
        place.symlink_to(tmp_path / "gone" / "far")
    with pytest.raises(ReportError) as caught:
        write(place)
    message = str(caught.value)
    assert str(place) in message and reason in message and "--report" in message
    assert (tmp_path / "taken").read_text() == "mine"


def test_check_makes_the_directory_and_leaves_it_empty(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_failed_write_keeps_the_old_page(tmp_path, monkeypatch):
    old = write_report(Report("old", "c", "now"), tmp_path).read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pages.os, "replace", full)
    with pytest.raises(ReportError, match="No space left on device.*--report"):
        write_report(Report("new", "c", "now"), tmp_path)
    assert (tmp_path / "index.html").read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]


def test_page_of_32_layers_and_four_tasks_stays_small(tmp_path, sample):
    """Photographs, modelled as noise, compress worst."""
    report = replace(
        sample.full_report(32), curves=[sample.curve(32)] * 6, shares=[sample.shares(32)] * 4,
        heats=[sample.heats(32, size=(336, 336))] * 4, pointing=[sample.pointing(32)] * 4,
    )  # fmt: skip
    assert write_report(report, tmp_path).stat().st_size < 2_000_000


def test_visible_spells_out_what_cannot_be_seen():
    assert text.visible("a\nb\x7f\u202ec\ue000", 100) == "a␊b⟨U+007F⟩⟨U+202E⟩c⟨U+E000⟩"
    assert text.visible("é ß 日本 🎉", 100) == "é ß 日本 🎉"
    assert text.visible("abcdef", 6) == "abcdef" and text.visible("abcdefg", 6) == "abcde…"
    assert text.visible("ab\u202e\u202e", 12) == "ab⟨U+202E⟩…", "a code is never halved"


def test_numbers_as_printed():
    assert [text.percent(v) for v in (0.847, 1, 0, -0.0001, None, math.nan)] == [
        "84.7", "100.0", "0.0", "0.0", "n/a", "n/a",
    ]  # fmt: skip
    assert [text.points(v) for v in (0.0081, -0.0123, 0.0001, -0.0001)] == ["+0.8", "−1.2", "0.0", "0.0"]
    assert text.layer_interval((0, 3)) == "[0, 3]" and text.layer(None) == "n/a"
