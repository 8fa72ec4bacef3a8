"""A report with every part, made up."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from repro.report.data import Curve, HeatRow, Pointing, Report, Shares, TableRow


def curve(n_layers: int = 10, **changes) -> Curve:
    score = np.linspace(0.5123, 0.8471, n_layers + 1)
    given = {
        "benchmark": "POPE", "metric": "Acc", "score": score, "low": score - 0.021, "high": score + 0.019,
        "cliff": n_layers - 2, "cliff_interval": (n_layers - 3, n_layers - 1),
        "non_inferior": np.arange(n_layers + 1) >= n_layers - 2, "chance": 0.5,
        "probability": np.linspace(0.1234, 0.9, n_layers + 1), "limit": score[-1] - 0.03, "n": 612,
    }  # fmt: skip
    return Curve(**(given | changes))


def shares(n_layers: int = 10) -> Shares:
    image = np.linspace(0.5432, 0.0321, n_layers)
    mean = np.stack([0.9 - image, image, np.full(n_layers, 0.1)], axis=1)
    raw = np.concatenate([0.95 * mean, np.full((n_layers, 1), 0.05)], axis=1)
    return Shares("POPE", mean, mean - 0.011, mean + 0.012, raw, n=77)


def heats(n_layers: int = 10, size: tuple[int, int] = (48, 48), **changes) -> HeatRow:
    rng = np.random.default_rng(0)
    heat = rng.random((n_layers, 6, 6), dtype=np.float32)
    heat[-1] = 0
    image = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    row = HeatRow("POPE", "Is there a donut in the image?", "Yes", image, heat, (12, 6, 24, 18))
    return replace(row, **changes)


def pointing(n_layers: int = 10) -> Pointing:
    energy = np.linspace(0.6543, 0.1, n_layers)
    energy[-1] = np.nan
    return Pointing("POPE", energy, energy - 0.031, energy + 0.032, 0.0987, 41)


def row(**changes) -> TableRow:
    given = TableRow(
        "llava-mini", "POPE", "Acc", True, 612, 0.8471, (0.8212, 0.8734), 6, (5, 7), 0.8551,
        (0.8312, 0.8799), 0.0080,
        (-0.0021, 0.0178), 10, 306, "official", "612 questions",
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


@pytest.fixture(scope="session")
def sample() -> SimpleNamespace:
    """What makes the parts, by name: ``sample.curve(n_layers, cliff=None)``."""
    return SimpleNamespace(
        curve=curve, shares=shares, heats=heats, pointing=pointing, row=row, full_report=full_report
    )
