"""The gate: did an upgrade change a model, where, and does it matter? Run by ``-m gate``."""

import pytest

from repro.evaluation.results import ResultsError
from repro.gate.gate import check, record
from repro.models.rounding import NotAdmitted
from repro.paired import MARGIN
from repro.protocols import ProtocolError
from repro.report.outcomes import write_outcome


@pytest.mark.gate
def test_gate(lvlm, benchmark_name, benchmark_set, data, progress, request, record_property):
    options = request.config.getoption
    points = options("--margin")
    settings = {
        "protocol": options("--protocol"),
        "margin": MARGIN if points is None else points / 100,
        "report": options("--report"),
        "resume": options("--resume"),
        "progress": progress,
    }
    try:
        if (directory := options("--record")) is not None:
            record(lvlm, benchmark_set, data, directory, count=options("--gate-items"), **settings)
            return
        decisions = sum("test_gate[" in item.name for item in request.session.items)
        outcome = check(lvlm, benchmark_set, data, options("--against"), decisions=decisions, **settings)
        record_property("gate", str(write_outcome(outcome, options("--report"))))
    except (NotAdmitted, OSError, ProtocolError, ResultsError, ValueError) as error:
        raise pytest.fail.Exception(f"{lvlm.card.name} on {benchmark_name}: {error}", pytrace=False) from None
    record_property("verdict", outcome.verdict)
    if shut := [verdict for verdict in outcome.failing if verdict not in options("--allow")]:
        pytest.fail(f"{outcome.name}: {' and '.join(shut)}: {outcome.sentence}", pytrace=False)
