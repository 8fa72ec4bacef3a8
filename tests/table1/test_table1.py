"""Table 1: each model on each benchmark at every truncation layer, and everything the report shows."""

from functools import partial

import pytest

from repro.benchmarks.benchmark import DataError
from repro.benchmarks.miniworld import asked_boxes
from repro.evaluation.recorded import compare_with_record
from repro.evaluation.run import evaluate, limited
from repro.report.sections import cliff_of, measure, save

pytestmark = pytest.mark.table1


def test_table1(lvlm, benchmark_set, data, progress, request, record_property):
    config = request.config
    report = config.getoption("--report")
    try:
        items = limited(benchmark_set.load(data), config.getoption("--limit"))
    except DataError as error:
        pytest.fail(f"--data {data}: {error}", pytrace=False)
    name = f"{lvlm.card.name}-{benchmark_set.name}"
    log = report / "answers" / f"{name}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)

    evaluation = evaluate(lvlm, benchmark_set, items, log=log)

    boxes = partial(asked_boxes, directory=data) if (data / "boxes.json").is_file() else None
    held = cliff_of(evaluation)
    path = report / "measured" / f"{name}.npz"
    save(measure(lvlm, evaluation, held, boxes), path)
    record_property("measured", str(path))

    blind, seeing = held.cliff.high[0], held.cliff.difference[-1]
    assert blind < seeing, (
        f"{name}: without the image (L = 0) the score is not below the baseline: paired difference at most "
        f"{100 * blind:+.1f} points on {held.chosen_on} images, so there is no information flow to measure"
    )
    if lvlm.path == lvlm.card.miniature:
        compare_with_record(evaluation, update=config.getoption("update_snapshots", False))
