"""The suite as a pytest plugin: markers, fixtures, terminal summary and report; its options are beside it.

Starting takes little longer than pytest alone: what is slow to import is imported by what runs.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.chair import BY_MODE, CHAIR
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.models import find_checkpoint, load_model
from repro.models.card import REGISTRY, has_card
from repro.protocols import ProtocolError, find_task
from repro.pytest_plugin.options import (
    answers_of,
    benchmarks_of,
    check_gate,
    models_of,
    shard_of,
    usage_error,
    wanted,
)
from repro.pytest_plugin.options import pytest_addoption as pytest_addoption
from repro.pytest_plugin.planning import pytest_cmdline_main as pytest_cmdline_main
from repro.pytest_plugin.preflight import CAUSE, without_stopped
from repro.pytest_plugin.progress import Board, Cell
from repro.report.terminal import Gates, Ledger, Reasons, Replays, Summary
from repro.text import printable

if TYPE_CHECKING:
    from repro.benchmarks.benchmark import Benchmark
    from repro.models.lvlm import Lvlm

MARKERS = {
    "table1": "Table 1 and the figures: a model over the benchmarks at every truncation layer",
    "invariant": "what must hold of any model and any input",
    "golden": "recorded arrays the code must keep reproducing",
    "conformance": "equality with the official evaluators and the published formats",
    "audit": "each claim of the paper: its verdict, its evidence, and what miniatures show",
    "performance": "speed and memory ratios (deselected by default)",
    "faults": "faults put in on purpose, each of which the gate must find (deselected by default)",
    "gate": "what an upgrade changed of a model, by --record and --against (deselected by default)",
    "gpu": "the same measurements on CUDA (deselected by default)",
    "devices": "every test body with its model on a device that is not the CPU (deselected by default)",
    "cluster": "shards by Ray, which has to be installed (deselected by default)",
    "vocabularies": "prompt ids by real vocabularies, which have to be installed (deselected by default)",
    "smol": "a LLaVA over a pretrained decoder, whose weights have to be installed (deselected by default)",
    "fullsize": "a random checkpoint of the published sizes on the CPU, against --plan (deselected by default)",
    "families": "every model type of transformers, by tiny random checkpoints (deselected by default)",
    "browser": "the pages in headless Chromium (deselected where there is none, unless named)",
    "without(*names)": "what cannot hold of the models of these names, and is not asked of them",
}
#: Extras that a model may need.
EXTRAS = {card.extra for card in REGISTRY.values() if card.extra}
#: Deselected unless named in ``-m``.
OPT_IN = (
    "gpu",
    "performance",
    "fullsize",
    "devices",
    "cluster",
    "vocabularies",
    "families",
    "gate",
    "faults",
    *EXTRAS,
)
#: The browser of the tests of pages; empty if there is none.
CHROMIUM = shutil.which("chromium") or ""
#: Markers of the tests whose figures go into the report.
REPORTED = ("table1", "audit", "gate", *EXTRAS)


def pytest_configure(config: pytest.Config) -> None:
    for name, text in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {text}")
    answers_of(config)
    for model, benchmark in itertools.product(models_of(config), benchmarks_of(config)):
        try:
            find_task(config.getoption("--protocol"), model, BENCHMARKS[benchmark.partition(":")[0]])
        except ProtocolError as error:
            raise usage_error(f"--protocol: {error}") from None
    if _is_worker(config):
        _take_gpu(getattr(config, "workerinput")["workerid"])  # noqa: B009  (xdist adds the attribute)
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    else:
        config.pluginmanager.register(Board(), "repro-progress")
        config.pluginmanager.register(Summary())
        config.pluginmanager.register(Replays())
        config.pluginmanager.register(Ledger())
        config.pluginmanager.register(Gates(wanted(config, "gate")))
        config.pluginmanager.register(Reasons())
    limit = config.getoption("--limit")
    other_data = config.getoption("--data").resolve() != MINIWORLD
    # All items take hours on a model that needs an extra, so its record may be of some.
    part = limit is not None and not all(
        has_card(name) and REGISTRY[name].extra for name in models_of(config)
    )
    other = part or other_data or config.getoption("--protocol") != "official"
    if config.getoption("update_snapshots", False) and other:
        raise usage_error(
            "--snapshot-update records whole runs of the shipped data under protocol official: leave --limit, "
            "--data and --protocol out"
        )
    check_gate(config)
    shard_of(config)
    margin = config.getoption("--margin")
    if margin is not None and not 0 < margin < 100:
        raise usage_error(f"--margin {margin:g}: expected points of a score, above 0 and below 100")
    if limit is not None and limit < 8:
        raise usage_error(
            f"--limit {limit}: at least 8 items are needed to form two halves with intervals; of POPE 19, as it "
            "asks six questions of a category about an image"
        )


def _end_with(controller: int) -> None:
    """End this worker once its parent is another process than its controller, which has been killed.

    At once: what a session was about to write is the controller's, and a results file bears any end.
    """
    while os.getppid() == controller:
        time.sleep(0.5)
    os._exit(1)


def _take_gpu(worker: str) -> None:
    """Leave this worker, "gw" and its number, one of the GPUs that the caller's CUDA_VISIBLE_DEVICES names."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if not visible:  # all that the driver has, asked without a library
        visible = [str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]
    if len(visible) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(worker.removeprefix("gw")) % len(visible)]


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Workers that each use every core wait for each other more than they compute."""
    # Modules of tests that compute have imported torch by now.
    if _is_worker(session.config) and (torch := sys.modules.get("torch")):
        workers = getattr(session.config, "workerinput")["workercount"]  # noqa: B009  (xdist adds the attribute)
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def pytest_report_header(config: pytest.Config) -> str:
    """Versions and where models run, without importing what is slow to import."""
    names = ", ".join(f"{name} {version(name)}" for name in ("repro", "torch", "transformers"))
    gpu = "gpu" in (config.getoption("-m") or "").split()
    return f"{names}; models run {'on a GPU, in the number type of their cards' if gpu else 'on cpu, in float32'}"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse a report directory that cannot be written before anything long starts; none is left behind."""
    config = session.config
    expression = config.getoption("-m") or "table1"
    idle = config.getoption("--collect-only") or config.getoption("--answers")
    if _is_worker(config) or idle or not any(word in expression for word in REPORTED):
        return
    from repro.report.pages import ReportError, check_writable

    report: Path = config.getoption("--report")
    missing = [place for place in (report, *report.parents) if not os.path.lexists(place)]
    try:
        check_writable(report)
    except ReportError as error:
        raise usage_error(f"--report: {error}") from None
    finally:
        with suppress(OSError, ValueError):
            for place in missing:
                place.rmdir()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture: a test that stands for all that its cause stops."""
    if cause := item.stash.get(CAUSE, ""):
        pytest.fail(cause, pytrace=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> None:
    """A failure's message may quote data: nothing invisible of it reaches the terminal or a file."""
    if call.excinfo and isinstance(failure := call.excinfo.value, pytest.fail.Exception):
        failure.msg = printable(str(failure.msg))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Goldens of tests that a session broken off has not come to are not unused, to be removed by an update."""
    if session.shouldfail or session.shouldstop or exitstatus == pytest.ExitCode.INTERRUPTED:
        session.config.option.disable_unused_snapshots = True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # Every registered model is a parameter; what --model leaves out is deselected later, after the goldens
    # have been counted, so that narrowing a run never makes another model's goldens look unused.
    if "model_name" in metafunc.fixturenames:
        left_out = {name for mark in metafunc.definition.iter_markers("without") for name in mark.args}
        names = [
            pytest.param(name, marks=[getattr(pytest.mark, card.extra)] if card.extra else [])
            for name, card in REGISTRY.items()
            if name not in left_out
        ]
        metafunc.parametrize("model_name", names, scope="session")
    if "benchmark_name" in metafunc.fixturenames:
        # Of no wider scope, which would have pytest group tests by benchmark and load each model several times.
        metafunc.parametrize("benchmark_name", list(BENCHMARKS))
    if "recorded_answers" in metafunc.fixturenames:
        metafunc.parametrize("recorded_answers", answers_of(metafunc.config), ids=str)
    if "device_name" in metafunc.fixturenames:
        on_gpu = pytest.param("cuda", marks=pytest.mark.gpu)
        metafunc.parametrize("device_name", ["cpu", on_gpu], scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = {
        "model_name": set(models_of(config)),
        "benchmark_name": {name.partition(":")[0] for name in benchmarks_of(config)},
    }
    expression = config.getoption("-m") or ""
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        named = all(parameters[key] in names for key, names in wanted.items() if key in parameters)
        # A model that needs an extra is not asked unless it is named, or the extra is.
        by_name = EXTRAS if "model_name" in parameters else set()
        optional = {*OPT_IN, *([] if CHROMIUM else ["browser"])} - by_name
        opted = all(marker in expression for marker in optional if item.get_closest_marker(marker))
        # Recorded answers take the place of every model's in Table 1.
        replays = "recorded_answers" in getattr(item, "fixturenames", ())
        asked = replays == bool(config.getoption("--answers")) or not item.get_closest_marker("table1")
        (kept if named and opted and asked else left).append(item)
    if not config.getoption("--collect-only"):
        chosen, kept = kept, without_stopped(config, kept)
        left += [item for item in chosen if item not in set(kept)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


@pytest.fixture(scope="session")
def lvlm(request: pytest.FixtureRequest, model_name: str, device_name: str) -> Lvlm:
    """The model, loaded once per worker; on CUDA under ``-m gpu``, where it must be there.

    Whose name alone is given with ``--model`` is asked for itself on CUDA, and as its miniature elsewhere. What is
    missing has been looked for before, see ``preflight``.
    """
    from repro.admission import admission
    from repro.models.loading import CheckpointError

    published = device_name == "cuda" and bool(request.config.getoption("--model"))
    try:
        path = find_checkpoint(model_name, models_of(request.config)[model_name], published)
        lvlm = load_model(model_name, path, device=device_name, **_dtype(request.config))
    except CheckpointError as error:
        raise pytest.fail.Exception(f"--model {model_name}: {error}", pytrace=False) from None
    for _ in admission(lvlm):  # before any test can disturb it
        pass
    return lvlm


def _dtype(config: pytest.Config) -> dict[str, Any]:
    """The number type of ``--dtype`` as an argument of ``load_model``; none without the option."""
    import torch

    named: str | None = config.getoption("--dtype")
    return {"dtype": named if named == "own" else getattr(torch, named)} if named else {}


@pytest.fixture(scope="session")
def data(request: pytest.FixtureRequest) -> Path:
    """Directory of the benchmarks' files."""
    directory: Path = request.config.getoption("--data")
    return directory


@pytest.fixture
def margin(request: pytest.FixtureRequest) -> float:
    """The margin of ``--margin``, in units of the score."""
    from repro.cliff import MARGIN

    points: float | None = request.config.getoption("--margin")
    return MARGIN if points is None else points / 100


@pytest.fixture
def benchmark_set(request: pytest.FixtureRequest, benchmark_name: str) -> Benchmark:
    """The benchmark by its name; CHAIR in the mode of ``--chair``."""
    if benchmark_name == CHAIR.name:
        return BY_MODE[request.config.getoption("--chair") or "approx"]
    return BENCHMARKS[benchmark_name]


@pytest.fixture
def progress(request: pytest.FixtureRequest) -> Iterator[Cell]:
    """What shows items done on the terminal of the controller, although pytest captures output."""
    config = request.config
    board = config.pluginmanager.getplugin("repro-progress")
    folder = Path(getattr(config, "workerinput")["progress"]) if board is None else board.folder  # noqa: B009
    cell = Cell(folder)
    yield cell
    cell.end()
