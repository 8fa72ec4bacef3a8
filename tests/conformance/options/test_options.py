"""What a user names must run or fail, never be skipped; what cannot work is refused before it starts."""

import itertools
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from repro.benchmarks import BENCHMARKS
from repro.models.card import FIXTURES, REGISTRY
from repro.protocols import PROTOCOLS
from tests.conformance.options.running import ONE, ROOT, said

pytestmark = pytest.mark.conformance


@pytest.mark.parametrize(
    ("option", "choices"),
    [("--model", list(REGISTRY)), ("--benchmark", list(BENCHMARKS)), ("--protocol", list(PROTOCOLS))],
)
def test_an_unknown_name_is_a_usage_error_that_lists_the_choices(run, option, choices):
    result = run(option, "blip-9000")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert re.search(f"{option}.{{0,20}} '?blip-9000", said(result)), "the option that was wrong"
    for name in choices:
        assert name in said(result)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "llava-1.5="], "no directory"),
        (["--model", "llava-1.5=a", "--model", "llava-1.5=b"], "named twice"),
        (["--snapshot-update", "--limit", "8"], "whole runs"),
        (["--snapshot-update", "--data", "elsewhere"], "whole runs"),
        (["--snapshot-update", "--protocol", "lmms-eval"], "whole runs"),
        (
            ["--protocol", "opera", "--benchmark", "scienceqa"],
            "opera does not define scienceqa for llava-1.5",
        ),
        (["--protocol", "opera", "--model", "qwen-vl"], "opera does not define pope for qwen-vl"),
        (["--protocol", "lmms-eval", "--model", "shikra=a"], "lmms-eval does not define pope for shikra"),
    ],
)
def test_what_would_measure_or_record_something_else_is_refused(run, arguments, words):
    result = run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert words in said(result)


def test_directories_behind_options_do_not_move_the_suite(tmp_path):
    """With workers, in a process of its own, from the checkout, as a user would."""
    (tmp_path / "report").mkdir()
    command = [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", "--report"]
    command += [tmp_path / "report", "--data", tmp_path, "-m", "table1", *ONE, "--benchmark", "pope"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert f"rootdir: {ROOT}" in done.stdout and "coco_pope_adversarial.json" in done.stdout
    assert "1 error" in done.stdout and "node down" not in done.stdout


@pytest.mark.parametrize("marker", ["table1", "audit"])
def test_a_report_that_cannot_be_written_is_refused_before_anything_runs(run, tmp_path, marker):
    (tmp_path / "report").write_text("a file stands here")
    result = run("-m", marker, "--report", tmp_path / "report")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert str(tmp_path / "report") in said(result) and "--report" in said(result)


def test_a_limit_too_small_for_two_halves_is_refused(run):
    result = run("--limit", 3)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--limit 3: at least 8 items" in said(result) and "POPE 19" in said(result)


def test_a_limit_too_small_for_a_benchmark_names_the_least(run, swept, tmp_path):
    """Six questions of each category about an image: 18 items are of three images."""
    command = (*ONE, "--benchmark", "pope", "--report", tmp_path)
    result = run(*command, "--limit", 18)
    result.assert_outcomes(failed=1)
    assert "too few images of POPE" in said(result) and "--limit 19 is the least" in said(result)
    assert swept["prompts"] == 0
    run(*command, "--limit", 19).assert_outcomes(passed=1)


def test_a_missing_checkpoint_fails_and_names_the_place(run, tmp_path):
    result = run(
        "--model", f"llava-1.5={tmp_path / 'nowhere'}", "--benchmark", "pope", "--report", tmp_path / "r"
    )
    result.assert_outcomes(errors=1)
    assert str(tmp_path / "nowhere") in said(result)


def test_one_cause_fails_once_with_the_number_of_tests_it_stops(run, swept, tmp_path):
    """Before any model is loaded; the line on it begins with the reason."""
    result = run(
        "--model", f"mine={tmp_path / 'nowhere'}", "--model", "llava-1.5", "--data", tmp_path / "gone"
    )
    result.assert_outcomes(errors=2)
    assert swept["prompts"] == 0
    for words in (
        f"--model mine: no checkpoint directory at {tmp_path / 'nowhere'}; 4 tests are stopped by this  [",
        f"--data {tmp_path / 'gone'}: there is no such directory; 4 tests are stopped by this  [",
    ):
        assert [line for line in result.outlines if line.startswith(words)], words


def test_an_update_that_records_nothing_says_why(run):
    words = (
        "--snapshot-update: nothing is recorded, as no test was run that records anything: choose -m golden"
    )
    assert words in said(run("--snapshot-update", "-k", "no_such_test"))


def test_the_header_says_what_runs_where(run):
    header = said(run("--collect-only", *ONE))
    assert (
        f"torch {version('torch')}, transformers {version('transformers')}; models run on cpu, in float32"
        in header
    )


def test_missing_data_fails_and_names_the_file(run, tmp_path):
    result = run(*ONE, "--data", tmp_path, "--benchmark", "textvqa", "--report", tmp_path / "report")
    result.assert_outcomes(errors=1)
    assert "TextVQA_0.5.1_val.json" in said(result)


def test_goldens_of_tests_not_come_to_are_not_called_unused(pytester, monkeypatch):
    """After -x, advice to update would have the fault recorded."""
    monkeypatch.setattr("repro.golden.Golden.compare", lambda *_: (["broken on purpose"], {}, {}))
    goldens = ROOT / "tests" / "golden" / "test_goldens.py"
    fixed = ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "no:cacheprovider", "-m", "golden"]
    arguments = [*fixed, *ONE, "-x", f"{goldens}::test_prompt"]
    result = pytester.runpytest_inprocess(*map(str, arguments))
    result.assert_outcomes(failed=1)
    assert "broken on purpose" in said(result)
    assert "snapshots unused" not in said(result) and "Re-run pytest" not in said(result)


@pytest.mark.parametrize(("given", "margin"), [(["--margin", "2.5"], 0.025), ([], 0.03)])
def test_a_margin_is_given_in_points(pytester, given, margin):
    pytester.makepyfile(f"def test_it(margin): assert abs(margin - {margin}) < 1e-9")
    result = pytester.runpytest_inprocess("-p", "repro.pytest_plugin.suite", "-p", "no:cacheprovider", *given)
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "table1", "--shard", "17/16"], "'17/16' is no shard; expected K/N"),
        (["--shard", "1/2"], "--shard: is an option of -m table1"),
        (["--executor", "ray"], "--executor: is an option of -m table1"),
    ],
)
def test_a_shard_that_cannot_be_is_a_usage_error(run, arguments, message):
    result = run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR and message in said(result)


def test_an_executor_that_is_not_installed_is_a_usage_error(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("-m", "table1", "--executor", "ray")
    assert result.ret == pytest.ExitCode.USAGE_ERROR and "pip install repro[ray]" in said(result)


def test_naming_a_benchmark_runs_that_one_alone(run):
    result = run("--collect-only", "-q", "--benchmark", "chair")
    assert "chair" in said(result) and "pope" not in said(result)


def test_a_protocol_narrows_what_was_not_named(run):
    result = run("--collect-only", "-q", "--protocol", "opera")
    assert "pope" in said(result) and "chair" in said(result)
    assert "scienceqa" not in said(result) and "textvqa" not in said(result)


def test_a_model_without_a_miniature_fails_and_says_what_to_give(run):
    name = next(name for name, card in REGISTRY.items() if card.miniature is None)
    result = run("--model", name, "--benchmark", "pope")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "has no miniature" in said(result) and f"--model {name}=PATH" in said(result)


def test_a_published_size_is_written_and_needs_no_miniature(run):
    chosen = ("-m", "fullsize", "--model", "qwen2.5-vl", "-k", "published", "--setup-plan")
    result = run(*chosen, ROOT / "tests" / "fullsize")
    assert "test_published_sizes_run_as_planned[qwen2.5-vl]" in said(result)
    assert "has no miniature" not in said(result) and result.ret == pytest.ExitCode.OK
    result = run(*chosen[:3], f"llava-1.5={FIXTURES}", *chosen[4:-1], ROOT / "tests" / "fullsize")
    result.assert_outcomes(errors=1)
    assert "writes a checkpoint of its own: give the name alone" in said(result)


def test_no_model_is_loaded_twice(run):
    lines = [line for line in run("--collect-only", "-q").outlines if "test_table1[" in line]
    models = [max((name for name in REGISTRY if f"[{name}-" in line), key=len) for line in lines]
    groups = [name for name, _ in itertools.groupby(models)]
    assert len(groups) == len(set(groups)) > 1 and len(lines) == len(groups) * len(BENCHMARKS)
