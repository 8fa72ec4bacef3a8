"""Table 1 from recorded answers: read, matched to their questions and scored; no model runs."""

import json

import pytest

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import DataError
from repro.evaluation.answers import replay
from repro.report.replay import notes, rows

pytestmark = pytest.mark.table1


def test_replay(recorded_answers, data, request, record_property):
    config = request.config
    try:
        names = config.getoption("--benchmark") or list(BENCHMARKS)
        given = (config.getoption(name) for name in ("--allow-missing", "--protocol", "--chair"))
        scored = replay(recorded_answers, data, names, *given)
        margin = config.getoption("--margin") / 100
        record_property("replayed", json.dumps([rows(scored, margin), notes(scored, margin)]))
    except DataError as error:
        raise pytest.fail.Exception(f"--answers: {error}", pytrace=False) from None
    except ValueError as error:
        raise pytest.fail.Exception(f"--answers {recorded_answers}: {error}", pytrace=False) from None
