"""``--plan``: what the run that the other options ask for would take. Nothing is loaded and nothing is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.models import find_card, find_family
from repro.models.card import FIXTURES, REGISTRY, register
from repro.protocols import ProtocolError, find_task
from repro.protocols.task import Task
from repro.pytest_plugin.options import benchmarks_of, models_of, usage_error

#: Configurations of published checkpoints, without weights.
SHAPES = FIXTURES / "published"


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Print the plan in place of a session."""
    if not config.getoption("--plan") or hasattr(config, "workerinput"):
        return None
    from repro.benchmarks.benchmark import DataError
    from repro.models.loading import CheckpointError

    try:
        for line in lines(config):
            print(line)
    except (CheckpointError, DataError, ProtocolError) as error:
        raise usage_error(f"--plan: {error}") from None
    return 0


def lines(config: pytest.Config) -> Iterator[str]:
    """The plans of all models asked for; without ``--model``, of the published shapes."""
    import torch

    from repro.plan import plan

    shapes = {shape.name: shape for shape in sorted(SHAPES.glob("*/"))}
    named = models_of(config, shapes)
    for name, path in named.items():
        place = path or shapes.get(name) or REGISTRY[name].miniature or SHAPES / name
        if name not in REGISTRY:
            register(place, name)
        card = find_card(name)
        settings = place if (place / "config.json").is_file() else place / "delta"
        dtype = getattr(torch, find_family(card).dtype(card, settings))
        yield from plan(card, place, dtype, list(_tasks(config, name)))


def _tasks(config: pytest.Config, model: str) -> Iterator[tuple[Task, int, float]]:
    """The tasks of a model, with items and the mean length of a turn: of ``--data``, or else as published."""
    from repro.evaluation.run import limited
    from repro.plan import PUBLISHED

    data: Path = config.getoption("--data")
    limit: int | None = config.getoption("--limit")
    for name in benchmarks_of(config):
        task = find_task(config.getoption("--protocol"), model, BENCHMARKS[name])
        if data == MINIWORLD:
            yield task, *PUBLISHED[name]
            continue
        items = limited(task.benchmark.load(data), limit)
        yield task, len(items), mean(len(task.ask(item)) for item in items)
