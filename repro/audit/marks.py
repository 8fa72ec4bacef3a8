"""Which cells of Table 1 arithmetic has something against, and what; nothing here is written down by hand.

Two marks, of different strength. A POPE cell is *impossible* where no table of answers gives the accuracy and the
F1 printed beside each other (``fits``). A cell is marked by *granularity* where it is no whole number of the items
that the benchmark is usually taken to have: weaker, as the paper states no item counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from repro.audit.arithmetic import READINGS, SIZES, counts, f1_range, mean_f1_at_least
from repro.audit.claims.table1 import fits
from repro.audit.paper import ITEMS, TABLE_1, Cell

Column = Literal["baseline", "at_cliff"]
COLUMNS: tuple[Column, ...] = ("baseline", "at_cliff")
#: Labels of figures that are a number of items over all of them.
_SHARES = ("Acc ↑", "CHAIR_s ↓")
_READ = {"rounded": "", "truncated": " if cut off", "padded": " if rounded to one decimal"}


@dataclass(frozen=True)
class Mark:
    """What is against a printed figure.

    Attributes:
        kind: how strong it is, see this module.
        why: for people.
        n: items that ``granularity`` is about, else None.
    """

    kind: Literal["impossible", "granularity"]
    why: str
    n: int | None = None


def marks(table: Sequence[Cell] = TABLE_1) -> dict[tuple[Cell, Column], Mark]:
    """The marked cells of a table, by row and column."""
    found: dict[tuple[Cell, Column], Mark] = {}
    for cell in table:
        for column in COLUMNS:
            mark = _pope(table, cell, column) or _granularity(cell, column)
            if mark is not None:
                found[cell, column] = mark
    return found


def _pope(table: Sequence[Cell], cell: Cell, column: Column) -> Mark | None:
    """The mark of an accuracy and F1 that do not go together."""
    pair = {
        other.metric: getattr(other, column)
        for other in table
        if (other.model, other.benchmark) == (cell.model, cell.benchmark) == (cell.model, "pope")
    }
    accuracy, f1 = pair.get("accuracy"), pair.get("F1")
    if accuracy is None or f1 is None or fits(accuracy, f1):
        return None
    low, high = f1_range(accuracy)
    return Mark(
        "impossible",
        f"Accuracy {accuracy:.2f} leaves F1 {low:.2f} to {high:.2f} (a mean of three categories at least "
        f"{mean_f1_at_least(accuracy, 3):.2f}), printed is {f1:.2f}.",
    )


def _granularity(cell: Cell, column: Column) -> Mark | None:
    """The mark of a figure that is no whole number of right answers, or of captions, of the usual items."""
    printed, n = getattr(cell, column), ITEMS[cell.benchmark]
    if printed is None or cell.benchmark not in SIZES or cell.label not in _SHARES or counts(printed, n):
        return None
    others = list(_otherwise(printed, SIZES[cell.benchmark]))
    return Mark(
        "granularity",
        f"No whole number of {n} is {printed:.2f} %; possible {' or '.join(others) or 'in no way tried'}.",
        n,
    )


def _otherwise(printed: float, candidates: Sequence[int]) -> Iterator[str]:
    """The sizes of which a figure is possible, each with the first reading in which it is."""
    for n in candidates:
        for reading in READINGS:
            if counts(printed, n, reading):
                yield f"of {n}{_READ[reading]}"
                break
