"""Table 1: its columns, for the terminal and the page alike, and the notes that belong to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from repro import text
from repro.cliff import BORDERLINE, MOST, TOO_FEW, unchanged_is_evidence
from repro.evaluation.measured import Measured, TableRow
from repro.report.pages import NAME

_MINIATURE = (
    "measured as a miniature, a small model of the real architecture, trained on rendered scenes. It exercises "
    "the method and the code; it is not the published model, and its numbers say nothing about that one."
)
_LAYERS = (
    "L is the number of decoder layers that see the image tokens: L = 0 none, L = N all. The cliff layer is the "
    "smallest L from which on the score is non-inferior to L = N by a margin of {margin} "
    "(lower end of the paired 95 % bootstrap interval). It is chosen on half of the images; the scores beside it "
    "come from the other half."
)
_BORDERLINE = (
    f"A cliff layer is borderline if an end of its interval stays undecided after {MOST:,} resamples: a limit is "
    "so close to the margin that other resamples could move it."
)


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: its name; the page adds ``unit``.
        cell: the text of a row; ``interval`` follows it, on the page in small print.
        note: what the page adds in small print.
        wraps: whether the page may break a long name anywhere.
    """

    heading: str
    cell: Callable[[TableRow], str]
    interval: Callable[[TableRow], str] | None = None
    note: Callable[[TableRow], str] | None = None
    unit: str = ""
    wraps: bool = False

    def line(self, row: TableRow) -> str:
        """The cell with its interval, in one line."""
        return f"{self.cell(row)} {self.interval(row)}" if self.interval else self.cell(row)


TABLE_1 = (
    Column("model", lambda row: text.visible(row.model, NAME), wraps=True),
    Column("benchmark", lambda row: text.visible(row.benchmark, NAME), wraps=True),
    Column("protocol", lambda row: text.visible(row.protocol, NAME), wraps=True),
    Column("metric", lambda row: f"{text.visible(row.metric, NAME)} {text.arrow(row.higher_is_better)}"),
    Column(
        "n",
        lambda row: f"{row.n}, too few" if row.caveat == TOO_FEW else str(row.n),
        note=lambda row: f"cliff: {row.chosen_on} others",
    ),
    Column(
        "baseline",
        lambda row: text.percent(row.baseline),
        lambda row: text.percent_interval(row.baseline_interval),
        unit="%",
    ),
    Column(
        "cliff layer",
        lambda row: f"{text.layer(row.cliff)} of {row.n_layers}",
        lambda row: text.cliff_interval(row.cliff_interval, row.caveat),
        lambda row: f"margin {text.margin_points(row.margin)}",
    ),
    Column(
        "at the cliff",
        lambda row: text.percent(row.at_cliff),
        lambda row: text.percent_interval(row.at_cliff_interval),
        unit="%",
    ),
    Column(
        "difference",
        lambda row: text.points(row.difference),
        lambda row: text.points_interval(row.difference_interval),
        unit="points",
    ),
)


def table_lines(parts: Sequence[Measured]) -> list[str]:
    """Table 1 for a terminal, columns aligned, and its notes."""
    rows = [[column.line(row) for column in TABLE_1] for part in parts for row in part.table]
    return [*text.columns([[column.heading for column in TABLE_1], *rows]), "", *notes(parts)]


def model_of(part: Measured) -> str:
    """The name of the model."""
    return part.table[0].model


def notes(parts: Sequence[Measured]) -> list[str]:
    """Which models were measured on which data, and how to read a cliff layer."""
    checkpoints = dict.fromkeys(
        f"{model_of(part)} is the checkpoint in {part.checkpoint}." for part in parts if part.checkpoint
    )
    shipped = dict.fromkeys(model_of(part) for part in parts if not part.checkpoint)
    rows = [row for part in parts for row in part.table]
    protocols = dict.fromkeys(row.protocol for row in rows)
    margins = dict.fromkeys(row.margin for row in rows)
    admissions = [f"{model_of(part)}: {line}." for part in parts for line in part.admission]
    return [
        *checkpoints,
        *dict.fromkeys(admissions),
        *([f"{', '.join(shipped)}: {_MINIATURE}"] if shipped else []),
        f"Prompts, pictures, decoding and scores follow protocol {', '.join(protocols)}.",
        *dict.fromkeys(f"{row.benchmark}: {row.data}." for row in rows),
        *(_LAYERS.format(margin=text.margin_points(margin)) for margin in margins),
        *(warning for margin in margins for warning in too_few(parts, margin)),
        *([_BORDERLINE] if any(row.caveat == BORDERLINE for row in rows) else []),
    ]


def too_few(parts: Sequence[Measured], margin: float) -> list[str]:
    """A warning if "no answer changed" is no evidence yet."""
    enough = unchanged_is_evidence(margin)
    first = [part.table[0] for part in parts]
    counts = [row.chosen_on for row in first if row.margin == margin and row.chosen_on < enough]
    if not counts:
        return []
    return [
        f"Too few items to choose a layer on in {len(counts)} of {len(parts)} cases (at least {min(counts)}). "
        f"Where none of n answers changes, up to 3.7 / n of all may: a margin of {text.margin_points(margin)} "
        f"takes {enough} items, and these intervals are too narrow."
    ]
