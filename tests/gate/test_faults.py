"""Does the gate fail for faults that were put in on purpose, and name the stage where they begin?"""

from __future__ import annotations

import os
import re

import pytest
import torch

from repro.benchmarks.miniworld import DIRECTORY
from repro.gate import FAILING
from repro.gate.gate import check, record
from repro.gate.record import GateError
from repro.models import load_model
from tests.gate.faults import OWN, REPORTED

#: Tried on every run; the others by ``-m faults``.
SAMPLE = ("3 ", "11 ", "13 ", "17 ")
ALL = REPORTED | OWN


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """A function from a model to the directory of its record."""
    directories = {}

    def of(model):
        if model not in directories:
            directories[model] = tmp_path_factory.mktemp("record")
            record(
                load_model(model),
                "textvqa",
                DIRECTORY,
                directories[model],
                count=24,
                report=tmp_path_factory.mktemp("report"),
                progress=False,
            )
        return directories[model]

    return of


def outcome_of(lvlm, directory, report):
    return check(lvlm, "textvqa", DIRECTORY, directory, report=report, progress=False)


def judged(name, recorded, tmp_path):
    """Verdict and sentence for a fault."""
    fault = ALL[name]
    directory = recorded(fault.model)
    lvlm = load_model(fault.model)
    fault.put(lvlm)
    try:
        outcome = outcome_of(lvlm, directory, tmp_path)
    except GateError as error:
        return "refused", str(error)
    assert outcome.same_weights
    return outcome.verdict, outcome.sentence


def fails_and_names(name, recorded, tmp_path):
    verdict, sentence = judged(name, recorded, tmp_path)
    assert verdict in (*FAILING, "refused"), sentence
    assert re.search(ALL[name].says, sentence.split("; everything before")[0]), f"{verdict}: {sentence}"


@pytest.mark.invariant
@pytest.mark.parametrize("name", [name for name in ALL if name.startswith(SAMPLE)])
def test_a_fault_fails_the_gate_where_it_begins(name, recorded, tmp_path):
    fails_and_names(name, recorded, tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("name", [name for name in ALL if not name.startswith(SAMPLE)])
def test_every_fault_fails_the_gate_where_it_begins(name, recorded, tmp_path):
    fails_and_names(name, recorded, tmp_path)


@pytest.mark.invariant
def test_nothing_changed_is_identical(recorded, tmp_path):
    outcome = outcome_of(load_model("llava-1.5"), recorded("llava-1.5"), tmp_path)
    assert outcome.verdict in ("identical", "same within noise"), outcome.sentence


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(50))
def test_other_threads_kernels_and_batches_pass(seed, recorded, tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(seed)
    threads, batch = (int(torch.randint(1, 9, (), generator=generator)) for _ in range(2))
    own = torch.get_num_threads()
    monkeypatch.setattr("repro.gate.record.BATCH", batch)
    lvlm = load_model("llava-1.5")
    torch.set_num_threads(min(threads, os.cpu_count() or 1))
    try:
        with lvlm.kernel("eager" if seed % 3 == 0 else "sdpa"):
            outcome = outcome_of(lvlm, recorded("llava-1.5"), tmp_path)
    finally:
        torch.set_num_threads(own)
    assert outcome.verdict in ("identical", "same within noise"), outcome.sentence
