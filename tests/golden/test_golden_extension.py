"""Goldens as such: what is stored, what a mismatch says, and that narrowing a run touches no other golden."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import repro
from repro.golden import Golden, pack, unpack

pytestmark = pytest.mark.golden


class Exact(Golden):
    atol = rtol = 0.0


def lines_of(expected, actual, tier=Exact, figure=None) -> str:
    extension = tier()
    extension.figure = figure
    stored = expected if isinstance(expected, bytes) else pack(expected)
    return "\n".join(extension.diff_lines(pack(actual), stored))


def test_stored_arrays_come_back_and_bytes_depend_on_nothing_else():
    arrays = {
        "floats": np.array([[0.1, np.nan], [np.inf, -0.0]], dtype=np.float32),
        "integers": np.arange(6).reshape(2, 3)[:, ::2],
        "text": np.array(["Yes", "naïve 猫", ""]),
        "one": np.array(3),
        "none": np.zeros((0, 4)),
    }
    content = pack(arrays)
    assert content == pack(dict(reversed(arrays.items())))
    back = unpack(content)
    assert list(back) == sorted(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array, strict=True)


def test_what_is_no_array_of_numbers_or_strings_is_refused_by_name():
    with pytest.raises(TypeError, match="'things' is of dtype object"):
        pack({"things": np.array([{}])})


@pytest.mark.parametrize("content", [b"<<<<<<< HEAD", b"version https://git-lfs", b"PK\x03\x04 cut off"])
def test_a_damaged_golden_is_a_mismatch_that_says_so(content):
    assert not Exact().matches(serialized_data=pack({"a": np.zeros(2)}), snapshot_data=content)
    assert "not a readable .npz" in lines_of(content, {"a": np.zeros(2)})


def test_a_missing_golden_says_how_to_record_it():
    message = lines_of(b"", {"a": np.zeros(2)})
    assert "nothing is recorded" in message and "--snapshot-update" in message


@pytest.mark.parametrize(
    ("actual", "said"),
    [
        ({}, "a: recorded, but not computed any more"),
        ({"a": np.zeros(2), "b": np.zeros(1)}, "b: computed, but not recorded"),
        ({"a": np.zeros((2, 1))}, "a: expected shape [2], actual [2, 1]"),
        ({"a": np.zeros(2, dtype=np.float32)}, "a: expected dtype float64, actual float32"),
        ({"a": np.array(["", ""])}, "a: expected dtype float64, actual str"),
    ],
)
def test_names_shapes_and_dtypes_are_compared_by_name(actual, said):
    expected = {"a": np.zeros(2)}
    assert not Exact().matches(serialized_data=pack(actual), snapshot_data=pack(expected))
    assert said in lines_of(expected, actual)


def test_a_mismatch_says_how_many_how_much_and_where(tmp_path):
    class Loose(Golden):
        atol, rtol = 0.01, 0.0

    expected = {"heat": np.zeros((2, 3, 4)), "curve": np.zeros(5), "ids": np.arange(3), "same": np.ones(2)}
    actual = {name: array.copy() for name, array in expected.items()}
    actual["heat"] += 0.005
    actual["heat"][1, 2, 0], actual["curve"][[1, 3]], actual["ids"][1] = 0.5, [0.2, -1], 7
    figure = tmp_path / "deep" / "mismatch.png"
    message = lines_of(expected, actual, Loose, figure)
    assert "heat float64 [2, 3, 4]: 1 of 24 differ beyond 0.01 + 0 |expected|" in message
    assert "at most 0.5, at [1, 2, 0] (expected 0, actual 0.5), 0.0256 on average" in message
    assert "curve float64 [5]: 2 of 5 differ" in message
    assert "at most 1, at [3] (expected 0, actual -1)" in message  # the farthest, not the first
    assert "ids int64 [3]: 1 of 3 differ; absolute difference at most 6, at [1]" in message
    assert "same" not in message
    assert str(figure) in message and figure.read_bytes().startswith(b"\x89PNG")


def test_strings_are_compared_exactly_and_quoted():
    expected, actual = {"answers": np.array(["Yes", "No"])}, {"answers": np.array(["Yes", "Nope"])}
    assert not Exact().matches(serialized_data=pack(actual), snapshot_data=pack(expected))
    assert "answers str [2]: 1 of 2 differ; first at [1]: expected 'No', actual 'Nope'" in lines_of(
        expected, actual
    )


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        (np.nan, np.nan, True),
        (np.inf, np.inf, True),
        (np.nan, 0.0, False),
        (np.inf, -np.inf, False),
        (0.0, -0.0, True),
        (1.0, 1.0 + 1e-15, False),
    ],
)
def test_nan_and_infinity_equal_themselves_only(expected, actual, same, tmp_path):
    first, second = {"a": np.full((2, 2), expected)}, {"a": np.full((2, 2), actual)}
    assert Exact().matches(serialized_data=pack(second), snapshot_data=pack(first)) is same
    if not same:
        assert "4 of 4 differ" in lines_of(first, second, figure=tmp_path / "mismatch.png")


# A checkout with two models, whose values come from a file so that a run can change them.
CONFTEST = """
from repro.golden import golden as golden
from repro.models.card import REGISTRY
card = next(iter(REGISTRY.values()))
REGISTRY.clear()
REGISTRY.update({"one": card, "two": card})
"""
TESTS = """
import json
from pathlib import Path
import numpy as np
import pytest

VALUES = json.loads(Path(__file__).with_name("values.json").read_text())

@pytest.mark.golden
def test_values(model_name, golden):
    golden({"v": np.array(VALUES[model_name])})

@pytest.mark.golden
def test_more(model_name, golden):
    golden({"v": np.array(VALUES[model_name])})

def test_other():
    pass
"""
DRIVER = """
import contextlib, io, json, sys
from pathlib import Path
import pytest
results = []
for step in json.loads(Path("steps.json").read_text()):
    if "write" in step:
        Path(step["write"]).write_text(step["text"])
        continue
    if "unlink" in step:
        Path(step["unlink"]).unlink()
        continue
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = pytest.main(["-p", "no:cacheprovider", *step["run"]])
    for name in [name for name in sys.modules if name in ("test_fake", "tests.test_fake", "conftest")]:
        del sys.modules[name]
    files = {str(p.relative_to("golden")): p.read_bytes().hex() for p in Path("golden").rglob("*") if p.is_file()}
    results.append({"code": int(code), "out": out.getvalue(), "files": files})
Path("results.json").write_text(json.dumps(results))
"""


def run_pytest(directory: Path, steps: list[dict]) -> list[dict]:
    """Exit code, output and goldens after each pytest run of ``steps``, all in one other process.

    Another process because syrupy keeps one session per process, and this one is under way.
    """
    (directory / "steps.json").write_text(json.dumps(steps))
    path = str(Path(repro.__file__).parents[1])
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER],
        cwd=directory,
        env={**environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((directory / "results.json").read_text())


@pytest.fixture
def checkout(tmp_path):
    options = "-p repro.pytest_plugin.suite --import-mode=importlib"
    (tmp_path / "pytest.ini").write_text(f"[pytest]\ntestpaths = tests\naddopts = {options}\n")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_fake.py").write_text(TESTS)
    # A record that something else keeps under golden/.
    (tmp_path / "golden" / "table1").mkdir(parents=True)
    (tmp_path / "golden" / "table1" / "one-pope.npz").write_bytes(pack({"a": np.zeros(1)}))
    return tmp_path


def values(one: float, two: float) -> dict:
    return {"write": "tests/values.json", "text": json.dumps({"one": [one, 2.0], "two": [two, 2.0]})}


def test_narrowing_a_run_touches_no_other_golden(checkout):
    update = "--snapshot-update"
    narrowed = [
        ["--model", "one", update],
        ["-k", "one", update],
        ["-k", "test_values", update],
        ["-m", "not golden", update],
        ["tests/test_fake.py::test_values", update],
        ["--model", "one"],
        ["-k", "one"],
    ]
    first, *others, missing, drifted, changed, last = run_pytest(
        checkout,
        [
            values(1.0, 1.0),
            {"run": [update]},
            *({"run": arguments} for arguments in narrowed),
            {"unlink": "golden/test_fake/test_more[two].npz"},
            {"run": []},
            values(1.0 + 1e-7, 1.0),
            # Narrowed and on two workers at once.
            {"run": ["-k", "one or test_more", "-n", "2", update]},
            values(1.5, 1.0),
            {"run": ["--report", "elsewhere"]},
            {"run": ["--model", "one", update]},
        ],
    )
    assert first["code"] == 0, first["out"]
    own = {f"test_fake/test_{test}[{model}].npz" for test in ("values", "more") for model in ("one", "two")}
    assert set(first["files"]) == own | {"table1/one-pope.npz"}
    for result in others:
        assert result["code"] == 0, result["out"]
        assert result["files"] == first["files"], result["out"]
        assert "unused" not in result["out"]

    assert missing["code"] == 1
    assert "nothing is recorded for this test yet" in missing["out"] and update in missing["out"]
    # Recorded again, while what drifted within the tolerance kept its bytes.
    assert drifted["code"] == 0, drifted["out"]
    assert drifted["files"] == first["files"]

    assert changed["code"] == 1
    assert "v float64 [2]: 1 of 2 differ" in changed["out"]
    figure = checkout / "elsewhere" / "golden" / "test_values[one].png"
    assert str(figure) in changed["out"] and figure.is_file()
    assert changed["files"] == first["files"]
    assert last["code"] == 0, last["out"]
    assert {name for name in own if last["files"][name] != first["files"][name]} == {
        name for name in own if "[one]" in name
    }
