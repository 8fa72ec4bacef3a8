"""The whole report, and Table 1 as lines of a terminal, from measured parts."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from repro.cliff import unchanged_is_evidence
from repro.evaluation.measured import Measured
from repro.report.columns import TABLE_1
from repro.report.page import Report
from repro.text import columns, margin_points

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


def notes(parts: Sequence[Measured]) -> list[str]:
    """What was measured on what, and how to read a cliff layer."""
    given = dict.fromkeys(
        f"{model_of(part)} is the checkpoint in {part.checkpoint}." for part in parts if part.checkpoint
    )
    shipped = dict.fromkeys(model_of(part) for part in parts if not part.checkpoint)
    rows = [row for part in parts for row in part.table]
    protocols = dict.fromkeys(row.protocol for row in rows)
    data = dict.fromkeys(f"{row.benchmark}: {row.data}." for row in rows)
    margins = dict.fromkeys(row.margin for row in rows)
    return [
        *given,
        *([f"{', '.join(shipped)}: {_MINIATURE}"] if shipped else []),
        f"Prompts, pictures, decoding and scores follow protocol {', '.join(protocols)}.",
        *data,
        *(_LAYERS.format(margin=margin_points(margin)) for margin in margins),
        *(warning for margin in margins for warning in too_few(parts, margin)),
    ]


def too_few(parts: Sequence[Measured], margin: float) -> list[str]:
    """A warning where "no answer changed" is no evidence yet."""
    enough = unchanged_is_evidence(margin)
    few = [
        row for row in (part.table[0] for part in parts) if row.margin == margin and row.chosen_on < enough
    ]
    if not few:
        return []
    return [
        f"Too few items to choose a layer on in {len(few)} of {len(parts)} cases (at least "
        f"{min(row.chosen_on for row in few)}). Where none of n answers changes, up to 3.7 / n of all may: a "
        f"margin of {margin_points(margin)} takes {enough} items, and these intervals are too narrow."
    ]


def model_of(part: Measured) -> str:
    """The model a part is of."""
    return part.table[0].model


def labelled(parts: Sequence[Measured]) -> list[Measured]:
    """The parts; with the model before every benchmark's name in the figures where there are several models."""
    if len({model_of(part) for part in parts}) == 1:
        return list(parts)

    def named(part: Measured, shown: Sequence[Any]) -> list[Any]:
        return [replace(one, benchmark=f"{model_of(part)}: {one.benchmark}") for one in shown]

    return [
        replace(
            part,
            curves=named(part, part.curves),
            shares=named(part, part.shares),
            heats=named(part, part.heats),
            pointing=named(part, part.pointing),
            recorded=[(f"{model_of(part)}: {title}", header, rows) for title, header, rows in part.recorded],
        )
        for part in parts
    ]


def build(parts: Sequence[Measured], command: str) -> Report:
    """The report of everything measured in one session."""
    parts = labelled(parts)
    return Report(
        title="Where information flows: Table 1 and its figures",
        command=command,
        created=now(),
        environment=environment(),
        table=[row for part in parts for row in part.table],
        curves=[curve for part in parts for curve in part.curves],
        shares=[share for part in parts for share in part.shares],
        heats=[heat for part in parts for heat in part.heats],
        pointing=[point for part in parts for point in part.pointing],
        notes=notes(parts),
        recorded=[table for part in parts for table in part.recorded],
    )


def now() -> str:
    """Date and time, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> dict[str, str]:
    """What the numbers depend on, beside the code and the data."""
    return {
        **{name: version(name) for name in ("torch", "transformers", "numpy", "tokenizers")},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
    }


def table_lines(parts: Sequence[Measured]) -> list[str]:
    """Table 1 for a terminal, columns aligned."""
    rows = [[column.text(row) for column in TABLE_1] for part in parts for row in part.table]
    return [*columns([[column.heading for column in TABLE_1], *rows]), "", *notes(parts)]
