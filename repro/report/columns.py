"""The columns of Table 1, for the terminal and the page alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from repro.evaluation.measured import TableRow
from repro.text import (
    arrow,
    layer,
    layer_interval,
    margin_points,
    percent,
    percent_interval,
    points,
    points_interval,
    visible,
)

#: Characters of a name.
NAME = 60


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: its name; ``unit`` what the page adds to it.
        cell: what a row has there; ``interval`` stands behind it, on the page in small print.
        note: what the page adds in small print.
        wraps: whether a long name may be broken anywhere.
    """

    heading: str
    cell: Callable[[TableRow], str]
    interval: Callable[[TableRow], str] | None = None
    note: Callable[[TableRow], str] | None = None
    unit: str = ""
    wraps: bool = False

    def text(self, row: TableRow) -> str:
        """The cell with its interval, in one line."""
        return f"{self.cell(row)} {self.interval(row)}" if self.interval else self.cell(row)


TABLE_1 = (
    Column("model", lambda row: visible(row.model, NAME), wraps=True),
    Column("benchmark", lambda row: visible(row.benchmark, NAME), wraps=True),
    Column("protocol", lambda row: visible(row.protocol, NAME), wraps=True),
    Column("metric", lambda row: f"{visible(row.metric, NAME)} {arrow(row.higher_is_better)}"),
    Column("n", lambda row: str(row.n), note=lambda row: f"cliff: {row.chosen_on} others"),
    Column(
        "baseline",
        lambda row: percent(row.baseline),
        lambda row: percent_interval(row.baseline_interval),
        unit="%",
    ),
    Column(
        "cliff layer",
        lambda row: f"{layer(row.cliff)} of {row.n_layers}",
        lambda row: layer_interval(row.cliff_interval),
        lambda row: f"margin {margin_points(row.margin)}",
    ),
    Column(
        "at the cliff",
        lambda row: percent(row.at_cliff),
        lambda row: percent_interval(row.at_cliff_interval),
        unit="%",
    ),
    Column(
        "difference",
        lambda row: points(row.difference),
        lambda row: points_interval(row.difference_interval),
        unit="points",
    ),
)
