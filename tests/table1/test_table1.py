"""Table 1: each model on each benchmark at every truncation layer, and everything the report shows.

A shipped miniature on the shipped data is compared with its own record; on CUDA, any other checkpoint with the
paper's cells, where Table 1 has any of that model and benchmark.
"""

import pytest

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import DataError
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.cliff import UndefinedScore
from repro.evaluation.recorded import compare_with_record
from repro.evaluation.results import ResultsError
from repro.evaluation.shards import ClusterError
from repro.models import find_card
from repro.models.rounding import NotAdmitted
from repro.pytest_plugin.options import shard_of
from repro.scores import TooFew
from repro.table1 import failures, shard_of_table1, table1

pytestmark = pytest.mark.table1


def test_table1(
    lvlm, device_name, benchmark_name, benchmark_set, data, margin, progress, request, record_property
):
    options = request.config.getoption
    protocol, limit, update = options("--protocol"), options("--limit"), options("update_snapshots", False)
    miniature, miniworld = lvlm.path == lvlm.card.miniature, data.resolve() == MINIWORLD
    # Other data and protocols have no record, and a part of the data too little power to ask whether the image is
    # needed.
    shipped = (
        miniature and miniworld and protocol == "official" and benchmark_set is BENCHMARKS[benchmark_name]
    )
    if update and not (shipped and device_name == "cpu"):
        pytest.fail(
            f"--snapshot-update records shipped miniatures on the CPU, and CHAIR approx, not {lvlm.card.name} "
            f"from {lvlm.path} on {device_name} over {benchmark_set.title} {benchmark_set.mode}: leave the option "
            "out, or --model's path, --chair and -m gpu",
            pytrace=False,
        )
    with_paper = device_name == "cuda" and not miniature
    if with_paper:
        from repro.audit.agreement import cells_of, compare_with_paper
        from repro.audit.claims import PAPER

        if miniworld and cells_of(PAPER, lvlm.card.name, benchmark_name):
            pytest.fail(
                f"the paper's figures for {benchmark_set.title} are of the published data: give their directory "
                "by --data DIR",
                pytrace=False,
            )
    shard = shard_of(request.config)
    given = {"protocol": protocol, "limit": limit, "report": options("--report")}
    try:
        if shard is not None:
            shard_of_table1(lvlm, benchmark_set, data, shard, **given)
            return
        if options("--executor"):
            from repro.evaluation.cluster import answers_by_ray

            answers_by_ray(lvlm, benchmark_set, data, **given)
        table = table1(
            lvlm,
            benchmark_set,
            data,
            margin=margin,
            resume=options("--resume"),
            progress=progress,
            **given,
        )
    except DataError as error:
        raise pytest.fail.Exception(f"--data {data}: {error}", pytrace=False) from None
    except (UndefinedScore, ClusterError, NotAdmitted, TooFew, ResultsError, OSError) as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    evaluation, held = table.evaluation, table.held
    name = f"{lvlm.card.name}-{benchmark_set.name}-{evaluation.task.protocol}"
    record_property("measured", str(table.path))
    if evaluation.failed:
        pytest.fail(f"{name}: {failures(evaluation)}", pytrace=False)
    record_property("run", table.run)
    if evaluation.known:
        record_property("resumed", f"{name}: {evaluation.known} of {len(evaluation.items)} items")

    if with_paper:
        compare_with_paper(PAPER, evaluation, held)
    if limit is not None:
        if shipped:
            compared(evaluation, update)
        return
    low, high = 100 * held.cliff.low[0], 100 * held.cliff.high[0]
    assert high < 0, (
        f"{name}: score without the image (L = 0) minus baseline lies in [{low:+.1f}, {high:+.1f}] points on "
        f"{held.chosen_on} items; expected below 0, or there is no information flow to measure"
    )
    if shipped:
        compared(evaluation, update)


def compared(evaluation, update=False):
    """With the record; a difference is said without this file's source."""
    try:
        compare_with_record(evaluation, update, in_part=bool(find_card(evaluation.task.model).extra))
    except AssertionError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
