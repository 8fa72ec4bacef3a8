"""Which cells of a table arithmetic has something against, and what; nothing here is written down by hand.

Two marks, of different strength. A POPE cell is *impossible* where no answers give the accuracy and the F1 printed
beside each other (``contradict``). A cell is marked by *granularity* where it is no whole number of the items that
the benchmark is usually taken to have: weaker, as the paper states no item counts.
"""

from typing import Literal, NamedTuple

from repro.audit.arithmetic import READINGS, SIZES, contradict, counts, f1_range, mean_f1_at_least
from repro.audit.ledger import Cell, Paper

Column = Literal["baseline", "at_cliff"]
COLUMNS: tuple[Column, ...] = ("baseline", "at_cliff")
#: Labels of numbers that are a number of items over all of them.
_SHARES = ("Acc ↑", "CHAIR_s ↓")
_READ = {"rounded": "", "truncated": " if cut off", "padded": " if rounded to one decimal"}


class Mark(NamedTuple):
    """What is against a printed number: how strong it is, why, and the items that ``granularity`` is about."""

    kind: Literal["impossible", "granularity"]
    why: str
    n: int | None = None


def marks(paper: Paper) -> dict[tuple[Cell, Column], Mark]:
    """The marked cells of the table, by row and column."""
    both = [
        (cell, column, _pope(paper, cell, column) or _granularity(paper, cell, column))
        for cell in paper.table
        for column in COLUMNS
    ]
    return {(cell, column): mark for cell, column, mark in both if mark is not None}


def _pope(paper: Paper, cell: Cell, column: Column) -> Mark | None:
    """The mark of an accuracy and F1 that do not go together."""
    pair = {
        other.metric: getattr(other, column)
        for other in paper.table
        if (other.model, other.benchmark) == (cell.model, cell.benchmark) == (cell.model, "pope")
    }
    accuracy, f1 = pair.get("accuracy"), pair.get("F1")
    if accuracy is None or f1 is None or not contradict(accuracy, f1):
        return None
    low, high = f1_range(accuracy)
    return Mark(
        "impossible",
        f"Accuracy {accuracy:.2f} leaves F1 {low:.2f} to {high:.2f} (a mean of three categories at least "
        f"{mean_f1_at_least(accuracy, 3):.2f}), printed is {f1:.2f}.",
    )


def _granularity(paper: Paper, cell: Cell, column: Column) -> Mark | None:
    """The mark of a number that is no whole number of right answers, or of captions, of the usual items."""
    printed, n = getattr(cell, column), paper.items[cell.benchmark]
    if printed is None or cell.benchmark not in SIZES or cell.label not in _SHARES or counts(printed, n):
        return None
    # The sizes of which it is possible, each with the first reading in which it is.
    ways = {size: [_READ[r] for r in READINGS if counts(printed, size, r)] for size in SIZES[cell.benchmark]}
    others = " or ".join(f"of {size}{way[0]}" for size, way in ways.items() if way) or "in no way tried"
    return Mark("granularity", f"No whole number of {n} is {printed:.2f} %; possible {others}.", n)
