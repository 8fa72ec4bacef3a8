"""The whole report, and Table 1 as lines of a terminal, from measured parts."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from repro.cliff import MARGIN, unchanged_is_evidence
from repro.models.card import REGISTRY
from repro.report.data import Environment, RecordedTable, Report
from repro.report.sections import Measured
from repro.report.text import columns, layer_interval, percent, percent_interval, points, points_interval

_MINIATURE = (
    "measured as a miniature, a small model of the real architecture, trained on rendered scenes. It exercises "
    "the method and the code; it is not the published model, and its numbers say nothing about that one."
)
_LAYERS = (
    "L is the number of decoder layers that see the image tokens: L = 0 none, L = N all. The cliff layer is the "
    f"smallest L from which on the score is non-inferior to L = N by a margin of {100 * MARGIN:.0f} points "
    "(lower end of the paired 95 % bootstrap interval). It is chosen on half of the images; the scores beside it "
    "come from the other half."
)


def notes(parts: Sequence[Measured]) -> list[str]:
    """What was measured on what, and how to read a cliff layer."""
    given = dict.fromkeys(
        f"{model_of(part)} is the checkpoint in {part.checkpoint}." for part in parts if part.checkpoint
    )
    shipped = dict.fromkeys(model_of(part) for part in parts if not part.checkpoint)
    protocols = dict.fromkeys(row.protocol for part in parts for row in part.table)
    asked = f"Prompts, pictures, decoding and scores follow protocol {', '.join(protocols)}."
    data = dict.fromkeys(f"{row.benchmark}: {row.data}." for part in parts for row in part.table)
    enough = unchanged_is_evidence(MARGIN)
    few = [row for row in (part.table[0] for part in parts) if row.chosen_on < enough]
    least = min((row.chosen_on for row in few), default=0)
    said = (
        f"Too few items to choose a layer on in {len(few)} of {len(parts)} cases (at least {least}). Where none "
        f"of n answers changes, up to 3.7 / n of all may: a margin of {100 * MARGIN:.0f} points takes {enough} "
        "items, and these intervals are too narrow."
    )
    return [
        *given,
        *([f"{', '.join(shipped)}: {_MINIATURE}"] if shipped else []),
        asked,
        *data,
        _LAYERS,
        *([said] if few else []),
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
    shipped = dict.fromkeys(model_of(part) for part in parts if not part.checkpoint)
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
        recorded=[
            *(table for part in parts for table in part.recorded),
            *(table for model in shipped for table in recorded_tables(model)),
        ],
    )


def now() -> str:
    """Date and time, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> Environment:
    """What figures depend on, beside the code and the data."""
    return {
        **{name: version(name) for name in ("torch", "transformers", "numpy", "tokenizers")},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
    }


def recorded_tables(model: str) -> list[RecordedTable]:
    """What was recorded when the miniature was trained: truncation curves of every seed."""
    miniature = REGISTRY[model].miniature
    if miniature is None or not (path := miniature / "seeds.json").is_file():
        return []
    seeds = json.loads(path.read_text(encoding="utf-8"))
    return [(f"{model}: {table['title']}", table["header"], table["rows"]) for table in seeds]


def table_lines(parts: Sequence[Measured]) -> list[str]:
    """Table 1 for a terminal, columns aligned."""
    header = ["model", "benchmark", "protocol", "metric", "n", "baseline", "cliff layer", "at the cliff"]
    rows = [[*header, "difference"]]
    for row in (row for part in parts for row in part.table):
        arrow = "↑" if row.higher_is_better else "↓"
        rows.append(
            [
                row.model,
                row.benchmark,
                row.protocol,
                f"{row.metric} {arrow}",
                str(row.n),
                f"{percent(row.baseline)} {percent_interval(row.baseline_interval)}",
                f"{row.cliff} of {row.n_layers} {layer_interval(row.cliff_interval)}",
                f"{percent(row.at_cliff)} {percent_interval(row.at_cliff_interval)}",
                f"{points(row.difference)} {points_interval(row.difference_interval)}",
            ]
        )
    return [*columns(rows), "", *notes(parts)]
