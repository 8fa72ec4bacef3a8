"""The suite as a pytest plugin: options, markers, fixtures, terminal summary and report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Benchmark, DataError
from repro.models import CheckpointError, find_card, load_model
from repro.models.card import FIXTURES, REGISTRY
from repro.models.lvlm import Lvlm
from repro.report.page import ReportError, check_writable, write_report

MARKERS = {
    "table1": "Table 1 and the figures: a model over the benchmarks at every truncation layer",
    "invariant": "what must hold of any model and any input",
    "golden": "recorded arrays the code must keep reproducing",
    "conformance": "equality with the official evaluators and the published formats",
    "performance": "speed and memory ratios (deselected by default)",
    "gpu": "the same measurements on CUDA (deselected by default)",
}
#: Deselected unless named in ``-m``.
OPT_IN = ("gpu", "performance")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("repro", "information flow in vision-language models")
    group.addoption(
        "--model",
        action="append",
        default=[],
        metavar="NAME[=PATH]",
        help="only this model, from PATH or its shipped miniature; may be repeated (default: all miniatures)",
    )
    group.addoption(
        "--benchmark",
        action="append",
        default=[],
        metavar="NAME",
        help=f"only this benchmark; may be repeated ({', '.join(BENCHMARKS)})",
    )
    group.addoption("--limit", type=int, metavar="N", help="only the first N items of each benchmark and stratum")
    group.addoption("--report", type=Path, default=Path("report"), metavar="DIR", help="where the report goes")
    group.addoption(
        "--data",
        type=Path,
        default=FIXTURES / "miniworld",
        metavar="DIR",
        help="data sets in the published layout (default: the miniature data sets)",
    )


def models_of(config: pytest.Config) -> dict[str, Path | None]:
    """The models of ``--model`` by name, with the paths given; all of the registry by default."""
    chosen: dict[str, Path | None] = {}
    for given in config.getoption("--model"):
        name, _, path = given.partition("=")
        try:
            find_card(name)
        except KeyError as error:
            raise pytest.UsageError(f"--model {given}: {error.args[0]}") from None
        chosen[name] = Path(path) if path else None
    return chosen or dict.fromkeys(REGISTRY)


def benchmarks_of(config: pytest.Config) -> list[str]:
    """The benchmarks of ``--benchmark``; all by default."""
    chosen = config.getoption("--benchmark") or list(BENCHMARKS)
    for name in chosen:
        if name not in BENCHMARKS:
            raise pytest.UsageError(
                f"--benchmark {name}: no such benchmark; the benchmarks are {', '.join(BENCHMARKS)}"
            )
    return chosen


def pytest_configure(config: pytest.Config) -> None:
    for name, text in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {text}")
    models_of(config), benchmarks_of(config)
    limit = config.getoption("--limit")
    if limit is not None and limit < 8:
        raise pytest.UsageError(f"--limit {limit}: at least 8 items are needed to form two halves with intervals")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # Every registered model is a parameter; what --model leaves out is deselected later, after the goldens
    # have been counted, so that narrowing a run never makes another model's goldens look unused.
    if "model_name" in metafunc.fixturenames:
        metafunc.parametrize("model_name", list(REGISTRY), scope="session")
    if "benchmark_name" in metafunc.fixturenames:
        metafunc.parametrize("benchmark_name", list(BENCHMARKS), scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = {"model_name": set(models_of(config)), "benchmark_name": set(benchmarks_of(config))}
    expression = config.getoption("-m") or ""
    kept, left = [], []
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        named = all(parameters[key] in names for key, names in wanted.items() if key in parameters)
        opted = all(marker in expression for marker in OPT_IN if item.get_closest_marker(marker))
        (kept if named and opted else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """CUDA under ``-m gpu``, where it must be there; otherwise the CPU."""
    if "gpu" not in (request.config.getoption("-m") or ""):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.fail("-m gpu: torch sees no CUDA device on this machine", pytrace=False)
    return torch.device("cuda")


@pytest.fixture(scope="session")
def lvlm(request: pytest.FixtureRequest, model_name: str, device: torch.device) -> Lvlm:
    """The model, loaded once per worker."""
    try:
        return load_model(model_name, models_of(request.config)[model_name], device=device)
    except CheckpointError as error:
        pytest.fail(f"--model {model_name}: {error}", pytrace=False)


@pytest.fixture(scope="session")
def data(request: pytest.FixtureRequest) -> Path:
    """Directory of the data sets."""
    return request.config.getoption("--data")


@pytest.fixture(scope="session")
def benchmark_set(benchmark_name: str) -> Benchmark:
    """The benchmark by its name."""
    return BENCHMARKS[benchmark_name]
