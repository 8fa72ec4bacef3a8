"""Two runs of the same items, as the gate's page: ``python -m repro.compare BEFORE AFTER``.

Each side is a results file, a report's directory, or either with ``#RUN``, the number of one run of it. Runs of
the same benchmark and protocol are paired; of a side with several models, those of the same name. Answers and
scores are compared, as a gate does it; the way from image to answer is not, as results hold none of it.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from repro.benchmarks import find_benchmark
from repro.benchmarks.benchmark import Benchmark, DataError, Item
from repro.benchmarks.chair import BY_MODE
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.cliff import UndefinedScore
from repro.evaluation.results import NAME, Recorded, Results, ResultsError, Row
from repro.evaluation.run import parts_of
from repro.gate.compare import Outcome, compare
from repro.gate.record import Record
from repro.models.card import has_card, register
from repro.paired import MARGIN
from repro.protocols import ProtocolError, find_task
from repro.protocols.task import Task
from repro.report.gate import gate_lines, load_outcomes, write_gate
from repro.report.outcomes import write_outcome
from repro.report.pages import ReportError
from repro.scores import TooFew
from repro.text import printable

#: A run with its rows, by item.
RunRows = tuple[Recorded, Mapping[str, Sequence[Row]]]


def sides(place: str) -> dict[int, RunRows]:
    """Runs by number with their complete items: of a results file, of a report's directory, or one by ``#RUN``.

    Raises ResultsError for a file or a run that is not there, or that cannot be read.
    """
    name, _, number = place.partition("#")
    path = Path(name) / NAME if Path(name).is_dir() else Path(name)
    with closing(Results(path)) as results:
        known = {run.number: run for run in results.runs()}
        if number and (not number.isdecimal() or int(number) not in known):
            raise ResultsError(f"{path}: has no run {number}, its runs are {', '.join(map(str, known))}")
        found: dict[int, RunRows] = {}
        for run in [known[int(number)]] if number else known.values():
            rows: dict[str, list[Row]] = {}
            for row in results.rows(run.number):
                rows.setdefault(row.item, []).append(row)
            layers = max(map(len, rows.values()), default=0)
            found[run.number] = run, {item: each for item, each in rows.items() if len(each) == layers}
    return found


def pairs(before: Mapping[int, RunRows], after: Mapping[int, RunRows]) -> list[tuple[RunRows, RunRows]]:
    """Runs that ask the same: the latest of each side, of the same model unless each side has one alone."""
    single = (
        len({run.model for run, _ in before.values()}) == len({run.model for run, _ in after.values()}) == 1
    )

    def by_task(runs: Mapping[int, RunRows]) -> dict[tuple[str, ...], RunRows]:
        keyed: dict[tuple[str, ...], RunRows] = {}
        for _, (run, rows) in sorted(runs.items()):
            mode = str(run.settings.get("mode", ""))
            keyed["" if single else run.model, run.dataset, run.protocol, mode] = run, rows
        return keyed

    one, other = by_task(before), by_task(after)
    return [(one[task], other[task]) for task in one if task in other]


def outcome_of(before: RunRows, after: RunRows, data: Path, margin: float, decisions: int = 1) -> Outcome:
    """What became of the items that both runs answered.

    Raises ResultsError if there are none, or if a question or image of theirs was not the same; DataError,
    ProtocolError, UndefinedScore and TooFew for data and scores.
    """
    run = after[0]
    if not has_card(run.model):
        register(Path(run.model), run.model)
    modes: dict[str, Benchmark] = {str(mode): benchmark for mode, benchmark in BY_MODE.items()}
    benchmark = modes.get(str(run.settings.get("mode"))) or find_benchmark(run.dataset)
    task = find_task(run.protocol, run.model, benchmark)
    items = [item for item in benchmark.load(data) if item.id in before[1] and item.id in after[1]]
    pair = f"runs {before[0].number} and {after[0].number}"
    if not items:
        raise ResultsError(
            f"{pair} have no item of {data} in common: name the benchmark's directory by --data"
        )
    for item in items:
        one, other = before[1][item.id][0], after[1][item.id][0]
        if (one.question, one.image) != (other.question, other.image):
            raise ResultsError(f"{pair} do not ask the same: item {item.id} has another question or image")
    return compare(
        _record(*before, task, items), _record(*after, task, items), task, items, margin, decisions
    )


def _record(run: Recorded, rows: Mapping[str, Sequence[Row]], task: Task, items: Sequence[Item]) -> Record:
    """What a gate would have recorded of these answers, without the way to them."""
    ordered = [rows[item.id] for item in items]
    about = {
        "model": run.model,
        "model_type": run.model,
        "layers": len(ordered[0]) - 1,
        "revision": run.revision,
        "weights": run.revision,
        "dtype": run.settings.get("dtype", ""),
        "benchmark": run.dataset,
        "protocol": run.protocol,
        "grid": None,
        "created": run.started,
        "environment": {**run.versions, "device": str(run.settings.get("device", ""))},
    }
    answers = [[row.answer for row in layers] for layers in ordered]
    ids = [[str(row.ids) for row in layers] for layers in ordered]
    digests = [(layers[0].question, layers[0].image) for layers in ordered]
    return Record(
        about,
        [item.id for item in items],
        digests,
        parts_of(task.benchmark, ordered),
        answers,
        ids,
        {},
        [],
        [],
        {},
        (0, 0, 0),
    )


def main() -> int:
    """The command line: 0 for a page, whatever it says, 1 and a line on stderr if there is none."""
    parser = argparse.ArgumentParser(prog="python -m repro.compare", description=__doc__)
    parser.add_argument("before", help="results file, report directory, or either with #RUN")
    parser.add_argument("after", help="the same")
    parser.add_argument("--data", type=Path, default=MINIWORLD, help="directory of the benchmarks")
    parser.add_argument("--margin", type=float, default=100 * MARGIN, help="points of a score (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("report"), help="directory of gate.html")
    arguments = parser.parse_args()
    try:
        if not 0 < arguments.margin < 100:
            raise ResultsError(f"--margin {arguments.margin:g}: expected points, above 0 and below 100")
        found = pairs(sides(arguments.before), sides(arguments.after))
        if not found:
            raise ResultsError(
                f"{arguments.before} and {arguments.after} have no runs of the same benchmark and protocol, of "
                "the same model or of one each"
            )
        margin, decisions = arguments.margin / 100, len(found)
        outcomes = [outcome_of(*pair, arguments.data, margin, decisions) for pair in found]
        paths = [write_outcome(outcome, arguments.out) for outcome in outcomes]
        loaded = load_outcomes(paths)
        page = write_gate(
            loaded, f"python -m repro.compare {arguments.before} {arguments.after}", arguments.out
        )
    except (DataError, OSError, ProtocolError, ReportError, ResultsError, TooFew, UndefinedScore) as error:
        print(printable(str(error)), file=sys.stderr)
        return 1
    for line in [*gate_lines(loaded), f"report: {page}"]:
        print(printable(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
