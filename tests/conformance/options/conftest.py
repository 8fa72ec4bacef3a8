"""A run of the suite's own Table 1 tests, in the process of the test."""

from importlib import import_module

import pytest

from repro.models import load_model
from repro.models.card import MINIATURES
from repro.sweep import sweep
from tests.conformance.options.running import ROOT


@pytest.fixture(scope="module", autouse=True)
def _everything_imported(suite_imported):
    """pytester forgets modules first imported within it, as transformers does a model's when it is made."""
    for name in MINIATURES:
        load_model(name)


@pytest.fixture
def run(pytester):
    """Run the suite's own Table 1 tests in this process, in an empty directory."""

    def run(*arguments: object) -> pytest.RunResult:
        fixed = ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "no:cacheprovider"]
        return pytester.runpytest_inprocess(*map(str, [*fixed, *arguments, ROOT / "tests" / "table1"]))

    return run


@pytest.fixture
def swept(monkeypatch):
    """Counts the prompts swept, and breaks the session off before what follows ``stop`` of them; few heat maps."""
    counted = {"prompts": 0, "stop": 10**9}

    def counting(lvlm, prompts, *args, **settings):
        if counted["prompts"] >= counted["stop"]:
            pytest.exit("broken off")
        counted["prompts"] += len(prompts)
        return sweep(lvlm, prompts, *args, **settings)

    monkeypatch.setattr("repro.evaluation.run.sweep", counting)
    monkeypatch.setattr(import_module("repro.table1"), "FLOW_ITEMS", 2)
    return counted
