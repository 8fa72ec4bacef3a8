"""Table 1: each model on each benchmark at every truncation layer, and everything the report shows."""

from functools import partial

import pytest

from repro.benchmarks.benchmark import DataError
from repro.benchmarks.miniworld import asked_boxes
from repro.evaluation.recorded import compare_with_record
from repro.evaluation.run import evaluate, limited
from repro.report.sections import cliff_of, measure, save

pytestmark = pytest.mark.table1

#: What a shipped miniature has not learned: it answers no better with the image than without, so its cliff layer
#: says nothing. Kept as a claim of its own, which fails once a better miniature disproves it.
NOT_LEARNED = {("llava-1.5", "scienceqa")}


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

    shipped = lvlm.path == lvlm.card.miniature
    needs_image = bool(held.cliff.high[0] < 0)
    expected = not (shipped and (lvlm.card.name, benchmark_set.name) in NOT_LEARNED)
    assert needs_image == expected, (
        f"{name}: score without the image (L = 0) minus baseline lies in [{100 * held.cliff.low[0]:+.1f}, "
        f"{100 * held.cliff.high[0]:+.1f}] points on {held.chosen_on} items; expected "
        + (
            "below 0, or there is no information flow to measure"
            if expected
            else "to include 0 (NOT_LEARNED)"
        )
    )
    if shipped:
        compare_with_record(evaluation, update=config.getoption("update_snapshots", False))
