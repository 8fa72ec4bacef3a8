"""Table 1: each model on each benchmark at every truncation layer, and everything the report shows.

A shipped miniature on the shipped data is compared with its own record; on CUDA, any other checkpoint with the
paper's cells, where Table 1 has any of that model and benchmark.
"""

from contextlib import closing
from functools import partial

import pytest

from repro.audit.agreement import cells_of, compare_with_paper
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import DataError
from repro.benchmarks.miniworld import asked_boxes
from repro.cliff import TooFew, UndefinedScore, halves
from repro.evaluation.recorded import compare_with_record
from repro.evaluation.results import NAME as RESULTS
from repro.evaluation.results import Results, ResultsError
from repro.evaluation.run import begin, evaluate, image_names, limited
from repro.pytest_plugin.suite import MINIWORLD
from repro.report.sections import cliff_of, measure, save

pytestmark = pytest.mark.table1

#: How many of the items that failed are named.
SHOWN = 20


def test_table1(lvlm, device_name, benchmark_name, benchmark_set, data, progress, request, record_property):
    config = request.config
    report, protocol = config.getoption("--report"), config.getoption("--protocol")
    miniature, miniworld = lvlm.path == lvlm.card.miniature, data.resolve() == MINIWORLD
    with_paper = device_name == "cuda" and not miniature
    if with_paper and miniworld and cells_of(lvlm.card.name, benchmark_name):
        pytest.fail(
            f"the paper's figures for {benchmark_set.title} are of the published data: give their directory by "
            "--data DIR",
            pytrace=False,
        )
    try:
        items = limited(benchmark_set.load(data), config.getoption("--limit"))
        halves([item.stratum for item in items], image_names(items))
    except DataError as error:
        raise pytest.fail.Exception(f"--data {data}: {error}", pytrace=False) from None
    except TooFew as error:
        raise pytest.fail.Exception(
            f"too few images of {benchmark_set.title}: {error}", pytrace=False
        ) from None
    name = f"{lvlm.card.name}-{benchmark_set.name}-{protocol}"
    try:
        with closing(Results(report / RESULTS, new=True)) as results:
            run = begin(results, lvlm, benchmark_set, items, protocol, config.getoption("--resume"))
            evaluation = evaluate(lvlm, benchmark_set, items, run, protocol=protocol)
    except ResultsError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    failed = list(evaluation.failed.values())
    told = f"{len(failed)} of {len(items)} items failed\n" + "\n".join(failed[:SHOWN])
    boxes = partial(asked_boxes, directory=data) if (data / "boxes.json").is_file() else None
    path = report / "measured" / f"{name}.npz"
    try:
        held = cliff_of(evaluation)
        save(measure(lvlm, evaluation, held, boxes), path)
    except (UndefinedScore, TooFew, OSError) as error:
        raise pytest.fail.Exception(
            f"{name}: {error}; the answers are in {report / RESULTS}. {told}", pytrace=False
        ) from None
    record_property("measured", str(path))
    if failed:
        pytest.fail(f"{name}: {told}", pytrace=False)
    record_property("run", run.number)

    if with_paper:
        compare_with_paper(evaluation, held)
    # Other data and protocols have no record, and a part of the data too little power to ask whether the image is
    # needed.
    shipped = miniature and miniworld and protocol == "official" and benchmark_set.name in BENCHMARKS
    if config.getoption("--limit") is not None:
        if shipped:
            compare_with_record(evaluation)
        return
    assert held.cliff.high[0] < 0, (
        f"{name}: score without the image (L = 0) minus baseline lies in [{100 * held.cliff.low[0]:+.1f}, "
        f"{100 * held.cliff.high[0]:+.1f}] points on {held.chosen_on} items; expected below 0, or there is no "
        "information flow to measure"
    )
    if shipped:
        compare_with_record(evaluation, update=config.getoption("update_snapshots", False))
