"""The gate: did an upgrade change a model, where, and does it matter? Run by ``-m gate``."""

import pytest

from repro.benchmarks.benchmark import DataError
from repro.cliff import UndefinedScore
from repro.evaluation.results import ResultsError
from repro.gate.gate import check, record, write_outcome
from repro.gate.record import GateError
from repro.gate.verdict import FAILING, MARGIN
from repro.models.rounding import NotAdmitted
from repro.protocols import ProtocolError
from repro.scores import TooFew


@pytest.mark.gate
def test_gate(lvlm, benchmark_name, benchmark_set, data, progress, request, record_property):
    options = request.config.getoption
    points, report = options("--margin"), options("--report")
    settings = {
        "protocol": options("--protocol"),
        "margin": MARGIN if points is None else points / 100,
        "report": report,
        "progress": progress,
    }
    try:
        if (directory := options("--record")) is not None:
            record(lvlm, benchmark_set, data, directory, count=options("--gate-items"), **settings)
            return
        decisions = sum("test_gate[" in item.name for item in request.session.items)
        outcome = check(lvlm, benchmark_set, data, options("--against"), decisions=decisions, **settings)
        record_property("gate", str(write_outcome(outcome, report)))
    except (
        DataError, GateError, NotAdmitted, OSError, ProtocolError, ResultsError, TooFew, UndefinedScore,
    ) as error:  # fmt: skip
        raise pytest.fail.Exception(f"{lvlm.card.name} on {benchmark_name}: {error}", pytrace=False) from None
    record_property("verdict", outcome.verdict)
    if outcome.verdict in FAILING and outcome.verdict not in options("--allow"):
        pytest.fail(f"{outcome.name}: {outcome.verdict}: {outcome.sentence}", pytrace=False)
