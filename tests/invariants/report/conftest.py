"""A report with every part, made up, and what reads the page of it."""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.evaluation.measured import (
    Curve,
    HeatRow,
    ItemFlow,
    MeanShares,
    Measured,
    Pointing,
    TableRow,
    save,
)
from repro.evaluation.results import Asked, Configuration, Recorded, Results, Row
from repro.models.images import read_image, thumbnail
from repro.report.index import FILES, Report

HOSTILE = (
    "\"><script>alert(1)</script>'><img src=x onerror=alert(1)></title></style>{{ 7*7 }}&lt;"
    "\x00\x07\x1b[31m\x7f\x9b\u202egnp.exe\u2066\u200b\u2028 $x^2$ $\\frac{ \ud800 日本語 🎉"
)


class Page(HTMLParser):
    """Tags in order, attributes, and the text outside of the style sheet."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.shown: list[str] = []
        self.css = self.script = ""
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "style" and ":root" in data:
            self.css = data
        elif self.tags[-1:] == ["script"] and data.strip():
            self.script = data
        else:
            self.shown.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.shown).split())

    def check_alone(self) -> None:
        """It needs nothing but itself, and runs nothing but the suite's own script, which the policy names."""
        assert not {"link", "iframe", "object", "embed", "base"} & set(self.tags)
        assert self.tags.count("script") == 1 and not [
            name for tag, name, _ in self.attributes if tag == "script"
        ]
        assert not {"action", "method"} & {name for tag, name, _ in self.attributes if tag == "form"}
        for tag, name, value in self.attributes:
            assert not name.startswith("on"), f"<{tag}> carries the event handler {name}"
            assert name != "style"
            if name == "src":
                assert value.startswith("data:image/png;base64,")
            if name in ("href", "srcset", "action", "poster", "background"):
                beside = (
                    "#",
                    "index.html",
                    "audit.html",
                    "items-",
                    "results.sqlite",
                    "data:text/csv",
                    *FILES,
                )
                if tag == "image":
                    beside = ("data:image/png;base64,", "data:image/jpeg;base64,")
                assert value.startswith(beside), f"<{tag} {name}> leaves the report: {value[:60]}"
        assert ":root" in self.css
        assert "url(" not in self.css and "@import" not in self.css
        policy = next(v for tag, name, v in self.attributes if name == "content" and "default-src" in v)
        digest = base64.b64encode(hashlib.sha256(self.script.encode()).digest()).decode()
        assert [part.strip() for part in policy.split(";")][:4] == [
            "default-src 'none'",
            "style-src 'unsafe-inline'",
            "img-src data:",
            f"script-src 'sha256-{digest}'",
        ]
        assert ("meta", "content", "width=device-width, initial-scale=1") in self.attributes
        assert "prefers-color-scheme: dark" in self.css

    def check_markup_of(self, harmless: Page) -> None:
        """It has the same tags and attributes as a page of harmless words, and shows ``HOSTILE``."""
        assert self.tags == harmless.tags
        names = [(tag, name) for tag, name, _ in self.attributes]
        assert names == [(tag, name) for tag, name, _ in harmless.attributes]
        allowed = {"\n"}
        invisible = {c for c in self.source if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
        assert invisible <= allowed
        for shown in ("␀", "␇", "␛[31m", "⟨U+202E⟩gnp.exe", "⟨U+D800⟩", "<script>alert(1)</script>", "{{ 7*7 }}",
                      "日本語 🎉"):  # fmt: skip
            assert shown in self.text


def curve(n_layers: int = 10, **changes) -> Curve:
    score = np.linspace(0.5123, 0.8471, n_layers + 1)
    given = {
        "benchmark": "POPE", "metric": "Acc", "score": score, "low": score - 0.021, "high": score + 0.019,
        "cliff": n_layers - 2, "cliff_interval": (n_layers - 3, n_layers - 1),
        "non_inferior": np.arange(n_layers + 1) >= n_layers - 2,
        "probability": np.linspace(0.1234, 0.9, n_layers + 1), "limit": score[-1] - 0.03, "n": 612,
    }  # fmt: skip
    return Curve(**(given | changes))


def shares(n_layers: int = 10) -> MeanShares:
    image = np.linspace(0.5432, 0.0321, n_layers)
    mean = np.stack([0.9 - image, image, np.full(n_layers, 0.1)], axis=1)
    raw = np.concatenate([0.95 * mean, np.full((n_layers, 1), 0.05)], axis=1)
    return MeanShares("POPE", mean, mean - 0.011, mean + 0.012, raw, n=77)


def heats(n_layers: int = 10, size: tuple[int, int] = (48, 48), **changes) -> HeatRow:
    rng = np.random.default_rng(0)
    heat = rng.random((n_layers, 6, 6), dtype=np.float32)
    heat[-1] = 0
    image = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    row = HeatRow("POPE", "Is there a donut in the image?", "Yes", image, heat, [(12, 6, 24, 18)])
    return replace(row, **changes)


def pointing(n_layers: int = 10) -> Pointing:
    energy = np.linspace(0.6543, 0.1, n_layers)
    energy[-1] = np.nan
    return Pointing("POPE", energy, energy - 0.031, energy + 0.032, 0.0987, 41)


def row(**changes) -> TableRow:
    given = TableRow(
        "llava-mini", "POPE", "Acc", True, 612, 0.8471, (0.8212, 0.8734), 6, (5, 7), 0.8551,
        (0.8312, 0.8799), 0.0080,
        (-0.0021, 0.0178), 10, 306, 0.03, "official", "612 questions",
    )  # fmt: skip
    return replace(given, **changes)


def full_report(n_layers: int = 10) -> Report:
    return Report(
        title="Where information flows",
        command="pytest -m table1 --report out",
        created="2024-06-10T08:00:00+00:00",
        environment={"torch": "2.9.0"},
        table=[row(), row(metric="CHAIR_s", higher_is_better=False, difference=-0.0123)],
        curves=[curve(n_layers)],
        shares=[shares(n_layers)],
        heats=[heats(n_layers)],
        pointing=[pointing(n_layers)],
        notes=["llava-mini is a miniature on rendered scenes."],
        recorded=[("Claims", ("claim", "verdict"), [("image share falls", "holds")])],
    )


LAYERS = 4
#: Score at L = 0...4 of items that stay right, flip to wrong or to right at the cliff (L = 2), and stay wrong.
SCORES = {"right": "01111", "lost": "01011", "gained": "01110", "wrong": "00000"}


def stored(directory: Path) -> tuple[Results, Recorded, Measured, dict[str, str]]:
    """A results file of one run over four items of POPE, two of them with flows, and what lies beside it."""
    known = [item.id for item in BENCHMARKS["pope"].load(MINIWORLD)[:4]]
    names = dict(zip(SCORES, known, strict=True))
    results = Results(directory / "results.sqlite", new=True)
    run = results.begin(Configuration("llava-1.5", "r", "pope", "official", {"n": 4}, {}))
    for number, (name, scores) in enumerate(SCORES.items()):
        said = ["Yes" if one == "1" else f"No {HOSTILE.replace(chr(0xD800), '')}" for one in scores]
        rows = [
            Row(names[name], "q", "i", layer, 0, answer, (1,), {"accuracy": (float(scores[layer]), 1.0)}, 0.5)
            for layer, answer in enumerate(said)
        ]
        asked = Asked(
            f"Is there a kite?\n{HOSTILE.replace(chr(0xD800), '')}",
            "val2014/a.png",
            "yes",
            "popular",
            f"kind {number}",
        )
        run.write(rows, {names[name]: asked})
    results.finish([run.number])
    heat = np.zeros((LAYERS, 3, 3), np.uint8)
    heat[0, 1, 1] = 255
    picture = thumbnail(read_image(BENCHMARKS["pope"].load(MINIWORLD)[0].image), 40)
    flows = [
        ItemFlow(names[name], np.full((LAYERS, 4), 0.25), heat, np.frombuffer(picture, np.uint8))
        for name in ("right", "lost")
    ]
    first = row(model="llava-1.5", metric="accuracy", cliff=2, cliff_interval=(1, 3), n_layers=LAYERS)
    measured = Measured("", [first], [], [], [], [], [], flows=flows)
    save(measured, directory / "measured" / "llava-1.5-pope-official.npz")
    return results, results.runs()[0], measured, names


@pytest.fixture(scope="session")
def sample() -> SimpleNamespace:
    """What makes the parts, by name: ``sample.curve(n_layers, cliff=None)``; and what reads a page."""
    return SimpleNamespace(
        curve=curve,
        shares=shares,
        heats=heats,
        pointing=pointing,
        row=row,
        full_report=full_report,
        read=Page,
        hostile=HOSTILE,
        stored=stored,
        layers=LAYERS,
    )
