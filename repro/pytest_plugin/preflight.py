"""What would stop tests one by one is looked for before any model is loaded, and fails once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import DataError
from repro.benchmarks.hub import HUB
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.models import find_checkpoint
from repro.models.card import NOT_INSTALLED, PRETRAINED
from repro.pytest_plugin.options import models_of

#: The cause that a test fails for in place of all that it stops.
CAUSE = pytest.StashKey[str]()


def without_stopped(config: pytest.Config, items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The items, but one for each cause that stops some: it fails, and says how many."""
    causes: dict[str, str] = {}
    stopped: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if cause := _cause(config, item, causes):
            stopped[cause].append(item)
    for cause, own in stopped.items():
        count = f"; {len(own)} tests are stopped by this" if len(own) > 1 else ""
        own[0].stash[CAUSE] = f"{cause}{count}"
    left_out = {id(item) for own in stopped.values() for item in own[1:]}
    return [item for item in items if id(item) not in left_out]


def _cause(config: pytest.Config, item: pytest.Item, known: dict[str, str]) -> str:
    """Why a test cannot run; empty if nothing is in its way. What is ``known`` is not looked for again."""
    fixtures = getattr(item, "fixturenames", ())
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if item.get_closest_marker("fullsize") and "model_name" in parameters:
        path = models_of(config)[parameters["model_name"]]
        return (
            f"--model {path}: -m fullsize writes a checkpoint of its own: give the name alone" if path else ""
        )
    if item.get_closest_marker("smol"):
        parameters = {"model_name": PRETRAINED} | parameters
    if "model_name" in parameters:
        model, device = parameters["model_name"], parameters.get("device_name", "cpu")
        key = f"{model} on {device}"
        if key not in known:
            known[key] = _model(config, model, device)
        if known[key]:
            return known[key]
    if "data" in fixtures and "recorded_answers" not in fixtures:
        benchmark = parameters.get("benchmark_name", "")
        if benchmark not in known:
            known[benchmark] = _data(config.getoption("--data"), benchmark)
        return known[benchmark]
    return ""


def _model(config: pytest.Config, model: str, device: str) -> str:
    """Weights are looked for before CUDA: on a machine without either, both have to be got."""
    from repro.models.loading import CheckpointError

    published = device == "cuda" and bool(config.getoption("--model"))
    try:
        find_checkpoint(model, models_of(config).get(model), published)
    except CheckpointError as error:
        return f"--model {model}: {error}"
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            return "-m gpu: torch sees no CUDA device on this machine"
    return ""


def _data(directory: Path, benchmark: str) -> str:
    """The files of a benchmark are read once here, unless they are the shipped ones."""
    if directory == MINIWORLD:
        missing = f"--data: no data at {directory}, which is {NOT_INSTALLED}, or name others"
        return "" if directory.is_dir() else missing
    if directory != HUB and not directory.is_dir():
        return f"--data {directory}: there is no such directory"
    try:
        if benchmark:
            BENCHMARKS[benchmark].load(directory)
    except DataError as error:
        return f"--data {directory}: {error}"
    return ""
