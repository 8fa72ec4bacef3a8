"""The recorder of ``vectors/*.json`` runs every evaluator they name, from its source alone."""

import importlib
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.conformance

FOLDER = Path(__file__).parent


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("record_vectors")


def test_every_evaluator_named_can_be_run(recorder):
    files = [json.loads(file.read_text()) for file in FOLDER.glob("vectors/*.json")]
    named = [name for vectors in files for name in vectors["evaluators"]]
    assert len(files) == 4 and sorted(named) == sorted(recorder.EVALUATORS)
    for vectors in files:
        for name in vectors["evaluators"]:
            assert set(recorder.EVALUATORS[name]) <= set(vectors), name


def test_definitions_are_executed_without_the_rest_of_their_module(recorder, tmp_path):
    source = """
import json
import absent_package
from absent_package import scale
LIMIT, UNUSED = 3, 4
LIMIT = LIMIT + 1
def helper(x): return scale(x) + LIMIT
def wanted(x): return json.dumps(helper(x))
def other(x): return absent_package.load(x)
class Model(absent_package.Module): pass
raise RuntimeError
"""
    (tmp_path / "script.py").write_text(source)
    evaluators = importlib.import_module("official_evaluators")
    assert evaluators.official(tmp_path / "script.py", "wanted", scale=lambda x: 10 * x).wanted(2) == "24"


def test_differences_in_type_and_value_are_named(recorder):
    recorded = {"a": [1.0, "x"], "b": {"c": True}, "d": [1]}
    assert not list(recorder.differences(recorded, recorded, "file"))
    actual = {"a": [1, "y"], "b": {}, "d": [1, 2]}
    assert list(recorder.differences(recorded, actual, "file")) == [
        "file a 0: recorded 1.0, now 1",
        "file a 1: recorded 'x', now 'y'",
        "file b c: recorded True, now None",
        "file d: recorded [1], now [1, 2]",
    ]


def test_a_checkout_of_another_commit_is_refused(recorder, tmp_path):
    with pytest.raises(SystemExit, match=f"{tmp_path} is at no commit of git, expected 0f: git checkout 0f"):
        recorder.check_commit(tmp_path, "0f")
