"""The items behind a run's numbers, as a page: ``python -m repro.report.items RESULTS [RUN ...] --data DIR``.

Question, picture, right answer, the answer at every L, attention shares and heat maps, from the results file and
from what ``measured/`` beside it holds. Of many items the page shows those that flip at the cliff layer, then the
wrong ones, then others; ``--limit`` asks for more.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from markupsafe import Markup

from repro.benchmarks import find_benchmark
from repro.benchmarks.benchmark import Benchmark, DataError, Item
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.evaluation.measured import ItemFlow, Measured, load
from repro.evaluation.results import Asked, Recorded, Results, ResultsError, Row
from repro.models.images import read_image, thumbnail
from repro.report.heat import Heat, heat_of
from repro.report.pages import ReportError, data_uri, render, write
from repro.report.panels import Panel, share_panel
from repro.text import percent, printable

#: Items of a page, and its bytes, at most.
LIMIT, LARGEST = 500, 5_000_000
#: Characters of an answer in the strip of all L.
STRIP = 40


@dataclass(frozen=True)
class Turn:
    """The same answer from ``first`` to ``last``; how it scores, and whether the cliff layer is among them."""

    first: int
    last: int
    answer: str
    look: str
    at_cliff: bool


@dataclass(frozen=True)
class Entry:
    """One item; texts are untrusted.

    Attributes:
        words: what filters ask for.
        before, after: whether its score at the cliff and at the baseline are equal, in the sentence of the entry.
        probability: of the first token of the baseline answer at L = 0, at the cliff and at N, as printed.
    """

    anchor: str
    item: str
    asked: Asked
    turns: Sequence[Turn]
    words: Sequence[str]
    at_cliff: str
    baseline: str
    flip: str
    probability: tuple[str, str, str]
    picture: tuple[str, int, int] | None = None
    heat: Heat | None = None
    shares: Panel | None = None

    @property
    def long(self) -> bool:
        return any(len(turn.answer) > STRIP for turn in self.turns)


@dataclass
class ItemPage:
    """The items of one run.

    Attributes:
        file: name of the page; ``model``, ``benchmark`` as printed.
        cliff, n_layers: as in Table 1, 0...N.
        total: items of the run; ``counts``: how many of them flip either way and are wrong.
        pictures: addresses and sizes by key.
    """

    file: str
    model: str
    benchmark: str
    metric: str
    cliff: int
    n_layers: int
    total: int
    entries: list[Entry]
    counts: Counter[str]
    pictures: dict[str, tuple[Markup, int, int]] = field(default_factory=dict)
    title: str = ""
    run: int = 0

    @property
    def flips(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.flip]


def file_of(run: Recorded) -> str:
    """The name of a run's page."""
    return f"items-{run.model}-{run.dataset}-{run.protocol}.html"


def measured_beside(results: Results, run: Recorded) -> Measured:
    """What the session of a run measured besides answers; ResultsError if that is not there."""
    path = results.path.parent / "measured" / f"{run.model}-{run.dataset}-{run.protocol}.npz"
    if not path.is_file():
        raise ResultsError(
            f"{path} is missing, which holds the cliff layer of run {run.number}: measure it anew"
        )
    return load(path)


class Pictures:
    """Thumbnails of the benchmarks' images, each made once for all pages; none where data cannot be read.

    Args:
        data: directory of the benchmarks.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.items: dict[Benchmark, Mapping[str, Item]] = {}
        self.made: dict[object, tuple[Markup, int, int] | None] = {None: None}

    def of(self, benchmark: Benchmark, item: str) -> tuple[object, tuple[Markup, int, int] | None]:
        """An item's image, and its thumbnail's address with its own size; None if there is none."""
        if benchmark not in self.items:
            try:
                self.items[benchmark] = {one.id: one for one in benchmark.load(self.data)}
            except (DataError, OSError):
                self.items[benchmark] = {}
        asked = self.items[benchmark].get(item)
        image = asked.image if asked else None
        if image not in self.made:
            self.made[image] = None
            try:
                if image is not None:
                    read = read_image(image)
                    self.made[image] = (data_uri(thumbnail(read)), *read.size)
            except (OSError, ValueError):
                pass
        return image, self.made[image]


def item_page(
    results: Results, run: Recorded, measured: Measured, pictures: Pictures, limit: int = LIMIT
) -> tuple[ItemPage, bytes]:
    """The page of a run's items, and its bytes: at most ``limit`` items, and for the default ``LARGEST`` bytes.

    Args:
        pictures: thumbnails, which all pages share.

    Raises ResultsError for a damaged file or a run without answers.
    """
    page = _read(results, run, measured, pictures, limit)
    while True:
        content = render("items.html.j2", page=page, report=page, command=_command(run), strip=STRIP)
        if len(content) <= LARGEST or limit > LIMIT or len(page.entries) < 2:
            return page, content
        page.entries = page.entries[
            : min(len(page.entries) - 1, int(0.95 * len(page.entries) * LARGEST / len(content)))
        ]


def _command(run: Recorded) -> str:
    return f"python -m repro.report.items results.sqlite {run.number} --data DIR --limit 5000"


def _read(results: Results, run: Recorded, measured: Measured, pictures: Pictures, limit: int) -> ItemPage:
    benchmark = find_benchmark(run.dataset, str(run.settings.get("mode", "")))
    row = measured.table[0]
    asked = results.asked(run.number)
    answered = {
        item: layers
        for item, rows in groupby(results.rows(run.number), lambda row: row.item)
        if len(layers := [row for row in rows if row.keep == 0]) == row.n_layers + 1
    }
    if not answered:
        raise ResultsError(f"{results.path}, run {run.number}: holds no answers yet")
    goodness = {item: _goodness(benchmark, layers) for item, layers in answered.items()}
    cliff = row.n_layers if row.cliff is None else row.cliff
    flips = {item: value[cliff] - value[-1] for item, value in goodness.items()}
    counts = Counter(
        gained=sum(flip > 0 for flip in flips.values()),
        lost=sum(flip < 0 for flip in flips.values()),
        wrong=sum(value[-1] == 0 for value in goodness.values()),
    )
    ordered = sorted(answered, key=lambda item: (not flips[item], goodness[item][-1] > 0))
    page = ItemPage(
        file_of(run), run.model, benchmark.title, row.metric, cliff, row.n_layers, len(answered), [], counts,
        title=f"Items: {run.model} on {benchmark.title}", run=run.number,
    )  # fmt: skip
    seen = {flow.item: flow for flow in measured.flows}
    names: dict[object, str] = {}
    for number, item in enumerate(ordered[:limit]):
        entry = _entry(number, item, asked[item], answered[item], goodness[item], page, seen.get(item))
        image, picture = (None, None) if entry.heat else pictures.of(benchmark, item)
        if picture:
            name = names.setdefault(image, f"picture-{len(names)}")
            page.pictures[name] = picture
            entry = replace(entry, picture=(name, *picture[1:]))
        page.entries.append(entry)
    return page


def _goodness(benchmark: Benchmark, layers: Sequence[Row]) -> np.ndarray:
    """How good each answer is by the first metric, in [0, 1]."""
    metric = benchmark.metrics[0]
    parts = [row.score.get(metric.name, (0.0, 0.0)) for row in layers]
    values = np.array([part[0] / part[1] if part[1] else 0.0 for part in parts])
    return values if metric.higher_is_better else 1 - values


def _entry(
    number: int,
    item: str,
    asked: Asked,
    layers: Sequence[Row],
    goodness: np.ndarray,
    page: ItemPage,
    flow: ItemFlow | None,
) -> Entry:
    change = goodness[page.cliff] - goodness[-1]
    flip = "" if not change else "better" if change > 0 else "worse"
    words = [f"category: {asked.category}", f"kind: {asked.kind}"]
    words += [
        word for word, holds in (("flipped", flip), ("wrong", goodness[-1] == 0), ("heat", flow)) if holds
    ]
    heat = None
    if flow and flow.heat.size:
        label = f"item {item}, {asked.text}"
        heat = heat_of(f"heat-{number}", label, flow.picture.tobytes(), flow.heat / 255)
    shares = None
    if flow and flow.shares.size:
        eq7 = flow.shares[:, :3] / np.maximum(flow.shares[:, :3].sum(axis=1, keepdims=True), 1e-12)
        shares = share_panel("Attention of the answer", "this item", flow.shares, eq7)
    first, at, last = (percent(layers[i].probability) for i in (0, page.cliff, -1))
    return Entry(
        f"item-{number}", item, asked, list(_turns(layers, goodness, page.cliff)), words,
        layers[page.cliff].answer, layers[-1].answer, flip, (first, at, last),
        heat=heat, shares=shares,
    )  # fmt: skip


def _turns(layers: Sequence[Row], goodness: np.ndarray, cliff: int) -> Iterator[Turn]:
    """Runs of the same answer along L."""
    for answer, run in groupby(range(len(layers)), lambda i: layers[i].answer):
        indices = list(run)
        value = goodness[indices[0]]
        look = "good" if value > 0.999 else "bad" if value < 0.001 else "part"
        yield Turn(indices[0], indices[-1], answer, look, cliff in indices)


def main() -> int:
    """The command line; 1 and a line on stderr if a file cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m repro.report.items", description=__doc__)
    parser.add_argument("results", type=Path, help="a results.sqlite, with measured/ beside it")
    parser.add_argument(
        "runs", type=int, nargs="*", metavar="RUN", help="by number; default: all that are finished"
    )
    parser.add_argument(
        "--data", type=Path, default=MINIWORLD, help="directory of the benchmarks, for pictures"
    )
    parser.add_argument(
        "--limit", type=int, default=LIMIT, help=f"items of a page, at most (default: {LIMIT})"
    )
    arguments = parser.parse_args()
    try:
        results = Results(arguments.results)
        known = {run.number: run for run in results.runs()}
        if missing := set(arguments.runs) - set(known):
            raise ResultsError(f"{arguments.results}: has no run {', '.join(map(str, sorted(missing)))}")
        pictures = Pictures(arguments.data)
        for number in arguments.runs or [n for n, run in known.items() if run.finished]:
            run = known[number]
            measured = measured_beside(results, run)
            page, content = item_page(results, run, measured, pictures, arguments.limit)
            write(arguments.results.parent, {page.file: content})
            shown = f"{len(page.entries)} of {page.total} items"
            print(printable(f"{arguments.results.parent / page.file}: {shown}, {len(content) / 1e6:.1f} MB"))
    except (ResultsError, ReportError) as error:
        print(printable(str(error)), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
