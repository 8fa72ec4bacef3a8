"""What a user names must run or fail, never be skipped; what cannot work is refused before it starts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repro.benchmarks import BENCHMARKS
from repro.models import load_model
from repro.models.card import FIXTURES, REGISTRY
from repro.protocols import PROTOCOLS

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def _everything_imported():
    """pytester forgets modules first imported within it, as transformers does a model's when it is made."""
    for name, card in REGISTRY.items():
        if card.miniature is not None:
            load_model(name)


@pytest.fixture
def run(pytester):
    """Run the suite's own Table 1 tests in this process, in an empty directory."""

    def run(*arguments: object) -> pytest.RunResult:
        fixed = ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "no:cacheprovider"]
        return pytester.runpytest_inprocess(*map(str, [*fixed, *arguments, ROOT / "tests" / "table1"]))

    return run


def said(result: pytest.RunResult) -> str:
    return "\n".join([*result.outlines, *result.errlines])


@pytest.mark.parametrize(
    ("option", "choices"),
    [("--model", list(REGISTRY)), ("--benchmark", list(BENCHMARKS)), ("--protocol", list(PROTOCOLS))],
)
def test_an_unknown_name_is_a_usage_error_that_lists_the_choices(run, option, choices):
    result = run(option, "blip-9000")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "blip-9000" in said(result)
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
    command += [tmp_path / "report", "--data", tmp_path, "-m", "table1", "--benchmark", "pope"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert f"rootdir: {ROOT}" in done.stdout and "coco_pope_adversarial.json" in done.stdout
    assert "1 failed" in done.stdout and "node down" not in done.stdout


def test_a_report_that_cannot_be_written_is_refused_before_anything_runs(run, tmp_path):
    (tmp_path / "report").write_text("a file stands here")
    result = run("--report", tmp_path / "report")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert str(tmp_path / "report") in said(result) and "--report" in said(result)


def test_a_limit_too_small_for_two_halves_is_refused(run):
    result = run("--limit", 3)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--limit 3" in said(result)


def test_a_missing_checkpoint_fails_and_names_the_place(run, tmp_path):
    result = run(
        "--model", f"llava-1.5={tmp_path / 'nowhere'}", "--benchmark", "pope", "--report", tmp_path / "r"
    )
    result.assert_outcomes(errors=1)
    assert str(tmp_path / "nowhere") in said(result)


def test_missing_data_fails_and_names_the_file(run, tmp_path):
    result = run("--data", tmp_path, "--benchmark", "textvqa", "--report", tmp_path / "report")
    result.assert_outcomes(failed=1)
    assert "TextVQA_0.5.1_val.json" in said(result)


def test_a_corrupt_image_fails_and_names_item_and_file(run, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(FIXTURES / "miniworld" / "textvqa", data / "textvqa")
    rows = json.loads((data / "textvqa" / "TextVQA_0.5.1_val.json").read_text())["data"]
    [image] = (data / "textvqa" / "train_images").glob(f"{rows[3]['image_id']}.*")
    image.write_bytes(image.read_bytes()[:40])
    result = run("--data", data, "--benchmark", "textvqa", "--limit", "8", "--report", tmp_path / "report")
    result.assert_outcomes(failed=1)
    assert image.name in said(result) and f"item {rows[3]['question_id']}" in said(result)


def test_gpu_without_cuda_fails(run, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = run("-m", "gpu", "--benchmark", "pope", "--report", tmp_path / "report")
    result.assert_outcomes(errors=1)
    assert "no CUDA device" in said(result)


def test_gpu_and_performance_run_only_when_named(run):
    result = run("--collect-only", "-q")
    assert "cuda" not in said(result) and "cpu" in said(result)
    result = run("--collect-only", "-q", "-m", "gpu")
    assert "cuda" in said(result) and "cpu" not in said(result)


def test_naming_a_benchmark_runs_that_one_alone(run):
    result = run("--collect-only", "-q", "--benchmark", "chair")
    assert "chair" in said(result) and "pope" not in said(result)


def test_a_protocol_narrows_what_was_not_named(run):
    result = run("--collect-only", "-q", "--protocol", "opera")
    assert "pope" in said(result) and "chair" in said(result)
    assert "scienceqa" not in said(result) and "textvqa" not in said(result)


def test_a_model_without_a_miniature_fails_and_says_what_to_give(run):
    result = run("--model", "intern-vl", "--benchmark", "pope")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "has no miniature" in said(result) and "--model intern-vl=PATH" in said(result)
