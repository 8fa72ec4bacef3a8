"""Another project in the same environment is left alone, and what only tests need is not imported to start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).resolve().parents[2]
#: What takes long to import; numpy too, but a light test may need it.
SLOW = (
    "torch",
    "transformers",
    "nltk",
    "datasets",
    "pyarrow",
    "sklearn",
    "scipy",
    "matplotlib",
    "PIL",
    "jinja2",
)
#: Runs pytest and says what of the modules named first is imported in the end.
RUN = """
import sys, pytest
code = pytest.main(sys.argv[2:])
print("imported:", *(name for name in sys.argv[1].split() if name in sys.modules))
raise SystemExit(code)
"""

OTHER_CONFTEST = """
def pytest_addoption(parser):
    for name in ("--model", "--data", "--report", "--benchmark", "--protocol", "--limit", "--answers"):
        parser.addoption(name, default="its own")
"""
OTHER_TEST = """
import sys
import pytest

@pytest.mark.parametrize("model_name", ["theirs", "another"])
def test_names(model_name, request):
    assert request.config.getoption("--model") == "mine" and request.config.getoption("--limit") == "its own"

@pytest.mark.parametrize("benchmark_name", ["speed"])
@pytest.mark.parametrize("device_name", ["tpu"])
def test_other_names(benchmark_name, device_name):
    pass

@pytest.mark.gpu
def test_marked_gpu():
    pass

@pytest.mark.performance
def test_marked_performance():
    pass

@pytest.mark.table1
def test_modules(request):
    assert "repro.pytest_plugin" in sys.modules, "no entry point here: run `python -m pip install -e .`"
    assert {name for name in sys.modules if name.startswith("repro")} == {"repro", "repro.pytest_plugin"}
    assert not {"torch", "transformers", "numpy"} & set(sys.modules)
    assert not any(line.startswith("golden:") for line in request.config.getini("markers"))
"""


def run_pytest(
    directory: Path, *arguments: object, slow: tuple[str, ...] = SLOW, package: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """pytest in a process of its own, with the package in ``package``; prints which of ``slow`` it imported."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-c", RUN, " ".join(slow), "-p", "no:cacheprovider", *map(str, arguments)],
        cwd=directory,
        env=environ | {"PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def other(tmp_path):
    """Another project, with options, parameters and marks of the same names."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu\n    performance\n    table1\n")
    (tmp_path / "conftest.py").write_text(OTHER_CONFTEST)
    (tmp_path / "test_other.py").write_text(OTHER_TEST)
    return tmp_path


def test_another_project_keeps_its_options_parameters_and_marks(other):
    done = run_pytest(other, "--model", "mine", "-p", "no:benchmark")
    assert "6 passed" in done.stdout and done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in other.iterdir()} <= {
        "pytest.ini",
        "conftest.py",
        "test_other.py",
        "__pycache__",
    }


def test_another_project_is_shown_no_option_of_the_suite(other):
    (other / "conftest.py").unlink()
    shown = run_pytest(other, "--help").stdout
    assert "--strict-markers" in shown
    for option in ("--model", "--protocol", "--limit", "--allow-missing", "information flow"):
        assert option not in shown
    assert "conformance" not in run_pytest(other, "--markers").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], "--allow-missing"),
        (["--markers"], "@pytest.mark.without"),
        (["--model", "nonsense"], "no model 'nonsense', nor a directory of this name; the models are "),
        (["--benchmark", "nonsense"], "no such benchmark; the benchmarks are pope, "),
        (["--protocol", "opera", "--model", "qwen-vl"], "opera does not define pope for qwen-vl"),
        (["--limit", "3"], "at least 8 items"),
    ],
)
def test_help_and_usage_errors_import_nothing_slow(arguments, words):
    done = run_pytest(ROOT, *arguments, slow=(*SLOW, "numpy"))
    assert words in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].split() == ["imported:"]


def test_a_light_test_imports_nothing_slow_and_leaves_no_report(tmp_path):
    light = ROOT / "tests" / "invariants" / "test_segments.py"
    collected = run_pytest(tmp_path, "--collect-only", "-q", light)
    assert collected.stdout.splitlines()[-1].split() == ["imported:"]
    done = run_pytest(tmp_path, light, "-k", "follows")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("place", "arguments"),
    [
        (".", ["--data", "{other}"]),
        (".", ["--answers", "{other}", "tests/table1"]),
        (".", ["--report", "{other}", "tests/conformance/test_protocols.py::test_one"]),
        ("tests", ["--report", "{other}", "conformance", "--model", "llava-1.5"]),
        ("tests/conformance", ["--data", "{other}"]),
        ("{empty}", ["--data", "{empty}", "{root}/tests/conformance"]),
        ("{empty}", ["-c", "{root}/pyproject.toml", "--data", "{empty}"]),
    ],
)
def test_a_directory_behind_an_option_is_no_place_of_tests(tmp_path, place, arguments):
    """Another project's settings and conftest in it do not count, nor that pytest looks there first."""
    places = {"root": ROOT, "other": tmp_path / "other", "empty": tmp_path / "empty"}
    places["other"].mkdir(), places["empty"].mkdir()
    (places["other"] / "pytest.ini").write_text("[pytest]\n")
    (places["other"] / "conftest.py").write_text("1 / 0")
    (places["other"] / "answers.jsonl").write_text('{"question_id": 1, "text": "Yes"}\n')
    place, *arguments = (one.format(**places) for one in (place, *arguments))
    done = run_pytest(ROOT / place, "--collect-only", f"--ignore-glob={ROOT}/tests/*", *arguments)
    assert f"rootdir: {ROOT}\n" in done.stdout and "configfile: pyproject.toml" in done.stdout, done.stderr
    assert "unrecognized" not in done.stderr and "ZeroDivisionError" not in done.stdout + done.stderr


def test_an_installed_package_says_where_miniatures_and_their_data_are(tmp_path):
    """Of a wheel there is the package alone."""
    package = tmp_path / "installed"
    shutil.copytree(ROOT / "repro", package / "repro", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_theirs.py").write_text("def test_model(lvlm): ...\ndef test_data(data): ...")
    done = run_pytest(
        tmp_path, "-p", "repro.pytest_plugin.suite", "--model", "llava-1.5", "-rA", package=package
    )
    assert "2 errors" in done.stdout, done.stdout + done.stderr
    for name in ("llava-1.5", "miniworld"):
        assert f"at {package / 'fixtures' / name}, which is part of the repository" in done.stdout
    assert "clone it, `python -m pip install -e .` there" in done.stdout
