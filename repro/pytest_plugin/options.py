"""The options of the suite, and what they ask for: models, benchmarks, recorded answers, a gate."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import DataError
from repro.benchmarks.chair import BY_MODE
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.models import find_card
from repro.models.card import REGISTRY, has_card, register
from repro.protocols import PROTOCOLS, tasks_of
from repro.text import printable

if TYPE_CHECKING:
    from repro.evaluation.answers import Source
    from repro.evaluation.shards import Shard


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("repro", "information flow in vision-language models")
    group.addoption(
        "--model",
        action="append",
        default=[],
        metavar="NAME[=PATH]",
        help="only this model; from PATH, or else its shipped miniature, or on CUDA (-m gpu) the published "
        "checkpoint in the cache of huggingface_hub; may be repeated (default: all miniatures)",
    )
    group.addoption(
        "--benchmark",
        action="append",
        default=[],
        metavar="NAME",
        help=f"only this benchmark; may be repeated ({', '.join(BENCHMARKS)})",
    )
    group.addoption(
        "--protocol",
        choices=list(PROTOCOLS),
        default="official",
        help="how to ask, decode, read and score (default: official, as each model's authors do)",
    )
    group.addoption(
        "--chair",
        choices=list(BY_MODE),
        help="how the words of captions are read: approx needs no data, exact needs NLTK's (default: approx; "
        "captions recorded elsewhere exact where NLTK's data is found)",
    )
    group.addoption(
        "--limit", type=int, metavar="N", help="only the first N items of each benchmark and stratum"
    )
    group.addoption(
        "--margin",
        type=float,
        metavar="POINTS",
        help="largest loss of score that counts as none where a cliff layer is chosen (default: that of "
        "repro.cliff.MARGIN, 3 points); the audit's is fixed",
    )
    group.addoption(
        "--report", type=Path, default=Path("report"), metavar="DIR", help="where the report goes"
    )
    group.addoption(
        "--data",
        type=Path,
        default=MINIWORLD,
        metavar="DIR",
        help="data sets in the published layout, or hub: for those in the cache of huggingface_hub (default: the "
        "miniature data sets)",
    )
    group.addoption(
        "--dtype",
        choices=["own", "float32", "bfloat16", "float16"],
        help="number type of the weights, own: as stored (default: float32 for a miniature and on a CPU whose "
        "memory holds that, else own; on CUDA what the model's authors use)",
    )
    group.addoption(
        "--plan",
        action="store_true",
        help="print what the run would take, from the configurations alone: memory, operations, hours of GPUs",
    )
    group.addoption(
        "--shard",
        metavar="K/N",
        help="with -m table1: answer only the K-th of N parts of each benchmark; merge them by python -m "
        "repro.evaluation.shards REPORT, and the command without --shard goes on",
    )
    group.addoption(
        "--executor",
        choices=["ray"],
        help="with -m table1: a replica of the model on every GPU (else CPU) of a Ray cluster, that of "
        "RAY_ADDRESS or of this machine (pip install repro[ray])",
    )
    _add_options_of_answers(group)
    _add_options_of_gate(group)


def _add_options_of_answers(group: pytest.OptionGroup) -> None:
    """Options about answers that are there already: recorded elsewhere, or by a run that was broken off."""
    group.addoption(
        "--answers",
        type=Path,
        metavar="PATH",
        help="score the answers recorded in this file, or in each of this directory (JSON, JSONL, TSV, xlsx, "
        "results.sqlite), and run no model",
    )
    group.addoption(
        "--allow-missing",
        action="store_true",
        help="with --answers: score what fits although ids are unknown or missing",
    )
    group.addoption(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with the answers of a run that was broken off, in the report's directory (default: --resume)",
    )


def _add_options_of_gate(group: pytest.OptionGroup) -> None:
    """Options of ``-m gate``."""
    group.addoption(
        "--record",
        type=Path,
        metavar="DIR",
        help="with -m gate: measure the model as it is trusted, into DIR",
    )
    group.addoption(
        "--against", type=Path, metavar="DIR", help="with -m gate: what changed since the record in DIR"
    )
    group.addoption(
        "--gate-items",
        type=int,
        metavar="N",
        help="with --record: about N items of each benchmark (default: as many as the margin needs)",
    )
    group.addoption(
        "--allow",
        action="append",
        default=[],
        choices=["changed", "cannot tell"],
        help="with --against: a verdict that does not fail; may be repeated",
    )


def wanted(config: pytest.Config, marker: str) -> bool:
    """Whether ``-m`` selects what has a marker."""
    expression = config.getoption("-m") or ""
    return bool(re.search(rf"(?<!not )\b{marker}\b", re.sub(r"\s+", " ", expression)))


def shard_of(config: pytest.Config) -> Shard | None:
    """The shard of ``--shard``; UsageError for a text that is none, and for both options without ``-m table1``.

    And for an executor that is not installed.
    """
    given: str | None = config.getoption("--shard")
    executor: str | None = config.getoption("--executor")
    if not (given or executor):
        return None
    if "table1" not in (config.getoption("-m") or "").split():
        option = "--shard" if given else "--executor"
        raise pytest.UsageError(f"{option}: is an option of -m table1, which is not given")
    if executor and importlib.util.find_spec(executor) is None:
        raise pytest.UsageError("--executor ray: ray is not installed: pip install repro[ray]")
    if given is None:
        return None
    from repro.evaluation.shards import Shard

    try:
        return Shard.read(given)
    except ValueError as error:
        raise usage_error(f"--shard: {error}") from None


def check_gate(config: pytest.Config) -> None:
    """UsageError unless the options of a gate say what to do."""
    given = {name: config.getoption(name) for name in ("--record", "--against")}
    gates = wanted(config, "gate")
    if gates and sum(value is not None for value in given.values()) != 1:
        raise pytest.UsageError(
            "-m gate: give --record DIR in the environment that is trusted, then --against DIR after the upgrade"
        )
    used = [name for name in ("--record", "--against", "--gate-items") if config.getoption(name) is not None]
    if not gates and (used or config.getoption("--allow")):
        raise pytest.UsageError(f"{(used or ['--allow'])[0]}: is an option of -m gate, which is not given")
    if config.getoption("--gate-items") is not None and (
        given["--record"] is None or config.getoption("--gate-items") < 8
    ):
        raise pytest.UsageError(
            "--gate-items: a number from 8 on, with --record; --against has the record's items"
        )
    if config.getoption("--allow") and given["--against"] is None:
        raise pytest.UsageError(
            "--allow: is about verdicts, which --record gives none of; use it with --against"
        )
    if gates and config.getoption("--limit") is not None:
        raise pytest.UsageError("-m gate: --limit is not for it, see --gate-items")


def usage_error(message: str) -> pytest.UsageError:
    """What is wrong with an option, with the invisible characters of names from outside spelled out."""
    return pytest.UsageError(printable(message))


def models_of(config: pytest.Config, others: Collection[str] = ()) -> dict[str, Path | None]:
    """The models of ``--model`` by name, with the paths given; by default all miniatures.

    And that ``--protocol`` defines; those that need an extra if ``-m`` names it.

    Args:
        others: names that need no card; by default these, if there are any.
    """
    chosen: dict[str, Path | None] = {}
    for given in config.getoption("--model"):
        name, given_path, path = given.partition("=")
        if given_path and not (name and path):
            missing = "directory behind" if name else "name before"
            raise usage_error(f"--model {given}: no {missing} the equals sign")
        try:
            if not has_card(name) and (path or Path(given).is_dir()):
                path = path or given
                name = register(Path(path), name if given_path else "").name
            if name not in others:
                find_card(name)
        except KeyError as error:
            raise usage_error(f"--model {given}: {error.args[0]}") from None
        if name in chosen:
            raise usage_error(f"--model {given}: {name} is named twice")
        chosen[name] = Path(path).expanduser().resolve() if path else None
    if others:
        return chosen or dict.fromkeys(others)
    defined = {model for model, _ in tasks_of(config.getoption("--protocol"))}
    own = [(name, card.extra) for name, card in REGISTRY.items() if card.miniature and name in defined]
    return chosen or {name: None for name, extra in own if not extra or wanted(config, extra)}


def benchmarks_of(config: pytest.Config) -> list[str]:
    """The benchmarks of ``--benchmark``; by default all that ``--protocol`` defines.

    Of a benchmark in categories one may be named behind a colon, for answers recorded elsewhere.
    """
    defined = {benchmark for _, benchmark in tasks_of(config.getoption("--protocol"))}
    chosen = config.getoption("--benchmark") or [name for name in BENCHMARKS if name in defined]
    for name in chosen:
        if name.partition(":")[0] not in BENCHMARKS or (":" in name and not config.getoption("--answers")):
            raise usage_error(
                f"--benchmark {name}: no such benchmark; the benchmarks are {', '.join(BENCHMARKS)}"
            )
    return chosen


def answers_of(config: pytest.Config) -> list[Source]:
    """What ``--answers`` names: files, and the runs of results files over ``--benchmark``; none without it."""
    given: Path | None = config.getoption("--answers")
    if given is None:
        if config.getoption("--allow-missing"):
            raise usage_error("--allow-missing: is about --answers, which is not given")
        return []
    for option in ("--model", "--limit", "--snapshot-update"):
        if config.getoption(option.lstrip("-").replace("snapshot-update", "update_snapshots"), None):
            raise usage_error(f"--answers runs no model: leave {option} out")
    from repro.evaluation.answers import sources
    from repro.evaluation.formats import SUFFIXES, answer_files

    files = answer_files(given) if given.is_dir() else [given] * os.path.exists(given)
    try:
        found = [source for path in files for source in sources(path)]
    except DataError as error:
        raise usage_error(f"--answers: {error}") from None
    asked = {name.partition(":")[0] for name in config.getoption("--benchmark") or BENCHMARKS}
    chosen = [source for source in found if source.run is None or source.run.dataset in asked]
    if not chosen:
        raise usage_error(
            f"--answers {given}: expected a file of answers, or a directory with files that end in "
            f"{', '.join(sorted(SUFFIXES))}"
        )
    return chosen
