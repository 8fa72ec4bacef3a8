"""What a user names must run or fail, never be skipped; what cannot work is refused before it starts."""

import errno
import itertools
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

from repro.benchmarks import BENCHMARKS
from repro.evaluation.results import Results
from repro.evaluation.shards import merge
from repro.models import load_model
from repro.models.card import FIXTURES, MINIATURES, REGISTRY
from repro.protocols import PROTOCOLS
from repro.pytest_plugin.options import models_of
from repro.pytest_plugin.suite import _take_gpu
from repro.sweep import sweep

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).resolve().parents[2]

ONE = ("--model", "llava-1.5")


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


def said(result: pytest.RunResult) -> str:
    return "\n".join([*result.outlines, *result.errlines])


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


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_workers_end_with_their_controller(pytester):
    """Killed, it tells nobody; a worker in the midst of a test would go on to its end."""
    pytester.makepyfile(
        """
        import os, pathlib, time

        def test_it():
            pathlib.Path(f"{os.getpid()}.worker").touch()
            time.sleep(60)

        def test_another():
            test_it()
        """
    )
    command = [sys.executable, "-m", "pytest", "-p", "repro.pytest_plugin.suite", "-n", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=pytester.path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as controller:
        workers: list[int] = []
        for _ in range(600):
            workers = [int(path.stem) for path in pytester.path.glob("*.worker")]
            if len(workers) == 2:
                break
            time.sleep(0.1)
        assert len(workers) == 2 and controller.poll() is None
        controller.kill()
    for _ in range(30):
        if not any(map(runs, workers)):
            return
        time.sleep(0.1)
    pytest.fail(f"workers {[worker for worker in workers if runs(worker)]} run 3 s after their controller")


def runs(process: int) -> bool:
    """Whether a process runs; one that has ended may wait for its parent to ask."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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


def test_a_corrupt_image_fails_its_item_alone_and_names_both(run, swept, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(FIXTURES / "miniworld" / "textvqa", data / "textvqa")
    rows = json.loads((data / "textvqa" / "TextVQA_0.5.1_val.json").read_text())["data"]
    [image] = (data / "textvqa" / "train_images").glob(f"{rows[3]['image_id']}.*")
    image.write_bytes(image.read_bytes()[:40])
    only = (*ONE, "--benchmark", "textvqa", "--limit", "24")
    result = run("--data", data, *only, "--report", tmp_path / "report")
    result.assert_outcomes(failed=1)
    assert image.name in said(result) and f"item {rows[3]['question_id']}" in said(result)
    assert "llava-1.5-textvqa-official: 1 of 24 items failed" in said(result)
    assert "report: " in said(result) and swept["prompts"] == 23
    # The session came to its end, but the run has not all it needs.
    [broken] = Results(tmp_path / "report" / "results.sqlite").runs()
    assert broken.finished is None


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


def test_a_session_that_is_broken_off_goes_on_and_a_finished_one_begins_anew(run, swept, tmp_path):
    """Three batches of POPE; the second session is broken off behind the second one."""
    command = (*ONE, "--benchmark", "textvqa", "--benchmark", "pope", "--limit", "24", "--report", tmp_path)
    swept["stop"] = 50
    stopped = run(*command)
    assert stopped.ret == pytest.ExitCode.INTERRUPTED
    assert f"broken off: {tmp_path / 'results.sqlite'} has the answers so far" in said(stopped)
    assert "the same command goes on from them" in said(stopped)
    assert "kept: llava-1.5 on " in said(
        stopped
    ) and f"to go on: pytest -c {ROOT / 'pyproject.toml'}" in said(stopped)
    first, results = swept["prompts"], Results(tmp_path / "results.sqlite")
    assert 48 <= first < 96 and [one.finished for one in results.runs()].count(None) == len(results.runs())
    swept.update(prompts=0, stop=10**9)
    whole = run(*command)
    whole.assert_outcomes(passed=2)
    assert "broken off" not in said(whole)
    resumed = [line for line in whole.outlines if line.startswith("resumed: llava-1.5-")]
    assert resumed and all(line.endswith("items were answered before and are used again") for line in resumed)
    assert f"results: {tmp_path / 'results.sqlite'}: " in said(
        whole
    ) and " MB, 2 runs; those no longer" in said(whole)
    assert "Too few items to choose a layer on in 2 of 2 cases (at least 12)." in said(whole)
    rows = [line for line in whole.outlines if line.startswith("llava-1.5") and " official " in line]
    assert re.search("^=+ Table 1 =+$", said(whole), re.MULTILINE)
    assert len(rows) == 3 and all(", too few " in row and "] too few items " in row for row in rows)
    assert swept["prompts"] == 96 - first
    assert len(results.runs()) == 2 and all(one.finished for one in results.runs())
    swept["prompts"] = 0
    run(*command).assert_outcomes(passed=2)
    assert swept["prompts"] == 96 and len(results.runs()) == 2
    swept["stop"] = 150
    assert run(*command).ret == pytest.ExitCode.INTERRUPTED
    swept.update(prompts=0, stop=10**9)
    run(*command, "--no-resume").assert_outcomes(passed=2)
    assert swept["prompts"] == 96 and len(results.runs()) == 2


@pytest.mark.parametrize(("stop", "asked"), [("-x", 0), ("--maxfail=1", 0), ("--maxfail=2", 8)])
def test_a_session_that_a_failure_stops_goes_on(run, swept, tmp_path, stop, asked):
    """The data of CHAIR is missing, and comes last: of two failures the second would have stopped it."""
    shutil.copytree(FIXTURES / "miniworld" / "textvqa", tmp_path / "textvqa")
    both = ("--benchmark", "textvqa", "--benchmark", "chair", "--limit", "8")
    command = (*ONE, *both, "--data", tmp_path, "--report", tmp_path / "report")
    run(*command, stop).assert_outcomes(passed=1, errors=1)
    [one] = Results(tmp_path / "report" / "results.sqlite").runs()
    assert swept["prompts"] == 8 and (one.finished is None) == (asked == 0)
    run(*command).assert_outcomes(passed=1, errors=1)
    assert swept["prompts"] == 8 + asked


@pytest.mark.usefixtures("swept")
def test_a_results_file_locked_at_the_end_leaves_the_runs_open_and_says_so(run, monkeypatch, tmp_path):
    held = []

    def locked(path: Path) -> Results:
        if not held:
            held.append(sqlite3.connect(path))
            held[0].execute("BEGIN EXCLUSIVE")
        return Results(path)

    monkeypatch.setattr("repro.report.terminal.Results", locked)
    monkeypatch.setattr("repro.evaluation.results.PATIENCE", 0.05)
    result = run(*ONE, "--benchmark", "textvqa", "--limit", "8", "--report", tmp_path)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert f"report: {tmp_path / 'index.html'}" in said(result)
    assert "the runs are not marked as finished, and go on the next time: " in said(result)
    assert f"{tmp_path / 'results.sqlite'}: another process" in said(result)
    assert not list(tmp_path.glob("items-*.html")) and "there are no pages of items" in said(result)
    held[0].close()
    [one] = Results(tmp_path / "results.sqlite").runs()
    assert one.finished is None


@pytest.mark.usefixtures("swept")
def test_a_disk_that_fills_up_while_the_pages_are_written_fails_and_leaves_the_runs_open(
    run, monkeypatch, tmp_path
):
    command = (*ONE, "--benchmark", "textvqa", "--limit", "8", "--report", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("repro.report.pages.write_file", disk_full)
        result = run(*command)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert f"the report is not written: cannot write the report to {str(tmp_path)!r}: No space" in said(
        result
    )
    assert "the runs are not marked as finished, and go on the next time: their report is" in said(result)
    [one] = Results(tmp_path / "results.sqlite").runs()
    assert one.finished is None
    assert run(*command).ret == pytest.ExitCode.OK
    [again] = Results(tmp_path / "results.sqlite").runs()
    assert again.number == one.number and again.finished


def test_a_page_of_the_audit_that_cannot_be_written_fails(pytester, monkeypatch, tmp_path):
    monkeypatch.setattr("repro.report.pages.write_file", disk_full)
    result = audited(pytester, tmp_path)
    assert "failed" not in result.parseoutcomes() and "passed" in result.parseoutcomes()
    assert "the report is not written: " in said(result)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_claims_without_support_end_the_audit_and_its_page_names_no_place_of_this_machine(
    pytester, monkeypatch, tmp_path
):
    monkeypatch.setattr("repro.report.audit.broken_line", lambda entries: f"broken: {len(entries) > 9}")
    shown = said(audited(pytester, tmp_path))
    assert "Audit of the paper's claims" in shown and "broken: True" in shown
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "--report DIR" in page and str(tmp_path) not in page


def audited(pytester: pytest.Pytester, report: Path) -> pytest.RunResult:
    """A few claims of the audit."""
    chosen = ROOT / "tests" / "audit" / "test_ledger.py"
    fixed = ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "no:cacheprovider"]
    arguments = ["-m", "audit", "-k", "verdict and cliff", "--report", report, chosen]
    return pytester.runpytest_inprocess(*map(str, [*fixed, *arguments]))


def test_no_control_character_of_the_reports_path_reaches_the_terminal(pytester, tmp_path):
    result = audited(pytester, tmp_path / "a\x1b[2Jb")
    assert result.ret == pytest.ExitCode.OK and "\x1b" not in said(result)
    assert f"report: {tmp_path}/a␛[2Jb/audit.html" in said(result)


def disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_results_file_that_cannot_be_used_fails_and_names_it(run, tmp_path):
    (tmp_path / "results.sqlite").write_text("something else " * 100)
    result = run(*ONE, "--benchmark", "textvqa", "--limit", "8", "--report", tmp_path)
    result.assert_outcomes(failed=1)
    assert f"{tmp_path / 'results.sqlite'}: is no SQLite file" in said(result)


def test_gpu_without_cuda_fails(run, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    given = ("--model", f"llava-1.5={FIXTURES / 'llava-1.5'}")
    result = run("-m", "gpu", *given, "--benchmark", "pope", "--report", tmp_path / "report")
    result.assert_outcomes(errors=1)
    assert "no CUDA device" in said(result)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache of huggingface_hub, on a machine without CUDA."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return tmp_path / "hub"


def store_snapshot(cache: Path, repository: str, *files: Path) -> Path:
    """A snapshot of these files in the cache, as ``hf download`` leaves it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abc")
    snapshot = folder / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    for file in files:
        (snapshot / file.name).symlink_to(file)
    return snapshot


def test_gpu_by_name_alone_asks_for_the_published_weights_before_cuda(run, cache, tmp_path):
    result = run("-m", "gpu", "--model", "qwen-vl", "--benchmark", "pope", "--report", tmp_path / "report")
    result.assert_outcomes(errors=1)
    message = said(result)
    assert str(cache / "models--Qwen--Qwen-VL" / "refs" / "main") + " is missing" in message
    assert "hf download Qwen/Qwen-VL --local-dir DIR" in message
    assert "python -m repro.models.convert DIR OUT" in message and "--model qwen-vl=OUT" in message
    assert "CUDA" not in message


def test_a_snapshot_without_its_files_names_the_first_that_is_missing(run, cache, tmp_path):
    snapshot = store_snapshot(cache, "llava-hf/llava-1.5-7b-hf")
    arguments = ("-m", "gpu", "--model", "llava-1.5", "--benchmark", "pope", "--report", tmp_path / "report")
    assert f"{snapshot / 'config.json'} is missing" in said(run(*arguments))
    (snapshot / "config.json").symlink_to(REGISTRY["llava-1.5"].miniature / "config.json")
    message = said(run(*arguments))
    assert f"{snapshot} holds no weights: expected model.safetensors" in message
    assert "hf download llava-hf/llava-1.5-7b-hf" in message and "--model llava-1.5=DIR" in message


def test_weights_that_are_there_lead_on_to_cuda(run, cache, monkeypatch, tmp_path):
    miniature = REGISTRY["llava-1.5"].miniature
    store_snapshot(cache, "llava-hf/llava-1.5-7b-hf", *miniature.iterdir())
    monkeypatch.chdir(miniature.parent)
    for given in ("llava-1.5", f"llava-1.5={miniature}", "llava-1.5=llava-1.5"):
        result = run("-m", "gpu", "--model", given, "--benchmark", "pope", "--report", tmp_path / "report")
        result.assert_outcomes(errors=1)
        assert "no CUDA device" in said(result)


def test_a_relative_path_to_the_miniature_is_the_miniature(pytester, monkeypatch):
    monkeypatch.chdir(FIXTURES)
    config = pytester.parseconfig("-c", ROOT / "pyproject.toml", "--model", "llava-1.5=llava-1.5")
    assert models_of(config) == {"llava-1.5": REGISTRY["llava-1.5"].miniature}


def test_a_name_alone_is_the_miniature_on_a_cpu(run, cache, tmp_path):
    result = run(
        "--model", "llava-1.5", "--data", tmp_path, "--benchmark", "textvqa", "--report", tmp_path / "r"
    )
    result.assert_outcomes(errors=1)
    assert "TextVQA_0.5.1_val.json" in said(result) and str(cache) not in said(result)


@pytest.fixture
def as_real(monkeypatch, tmp_path):
    """``--model`` with a copy of the miniature, which counts as a real model; the CPU stands in for CUDA."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a stand-in")
    monkeypatch.setattr(
        "repro.pytest_plugin.suite.load_model", lambda name, path, device: load_model(name, path)
    )
    copy = shutil.copytree(REGISTRY["llava-1.5"].miniature, tmp_path / "checkpoint")
    return f"--model=llava-1.5={copy}"


@pytest.mark.parametrize("chosen", ["checkpoint", "chair", "cuda"])
def test_an_update_that_would_record_nothing_fails_before_it_measures(
    run, swept, monkeypatch, tmp_path, chosen
):
    records = tmp_path / "records"
    monkeypatch.setattr("repro.evaluation.recorded.RECORDS", records)
    copy = shutil.copytree(REGISTRY["llava-1.5"].miniature, tmp_path / "checkpoint")
    arguments = {
        "checkpoint": [f"--model=llava-1.5={copy}", "--benchmark", "textvqa"],
        "chair": [*ONE, "--benchmark", "chair", "--chair", "exact"],
        "cuda": [
            *ONE[:1],
            f"llava-1.5={REGISTRY['llava-1.5'].miniature}",
            "-m",
            "gpu",
            "--benchmark",
            "pope",
        ],
    }[chosen]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a stand-in")
    monkeypatch.setattr(
        "repro.pytest_plugin.suite.load_model", lambda name, path, device: load_model(name, path)
    )
    result = run(*arguments, "--snapshot-update", "--report", tmp_path / "report")
    result.assert_outcomes(failed=1)
    assert "--snapshot-update records shipped miniatures" in said(result) and swept["prompts"] == 0
    assert not records.exists()


def test_on_cuda_a_real_model_is_not_compared_on_miniature_data(run, as_real, tmp_path):
    result = run("-m", "gpu", as_real, "--benchmark", "textvqa", "--report", tmp_path / "report")
    result.assert_outcomes(failed=1)
    assert "TextVQA are of the published data" in said(result) and "--data DIR" in said(result)


def test_on_cuda_a_real_model_is_compared_with_the_paper(run, as_real, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(FIXTURES / "miniworld" / "textvqa", data / "textvqa")
    arguments = ("--data", data, "--benchmark", "textvqa", "--limit", "8", "--report", tmp_path / "report")
    result = run("-m", "gpu", as_real, *arguments)
    result.assert_outcomes(failed=1)
    message = said(result)
    assert (
        "llava-1.5 on TextVQA, protocol official: " in message
        and "the paper's is 59.34 % on 5000 (Table 1, " in message
    )
    assert "on 8 items, 95 % interval [" in message and "tolerance " in message
    assert "report: " in message  # what was measured is shown although it differs


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


def test_gpu_and_performance_run_only_when_named(run):
    result = run("--collect-only", "-q")
    assert "cuda" not in said(result) and "cpu" in said(result)
    result = run("--collect-only", "-q", "-m", "gpu")
    assert "cuda" in said(result) and "cpu" not in said(result)


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


@pytest.mark.parametrize(
    ("visible", "taken"),
    [("4,7,9", ["4", "7", "9", "4"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"]), ("5", ["5", "5"])],
)
def test_every_worker_takes_one_gpu(monkeypatch, visible, taken):
    for worker, gpu in enumerate(taken):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        _take_gpu(f"gw{worker}")
        assert os.environ["CUDA_VISIBLE_DEVICES"] == gpu


def test_a_shard_is_measured_merged_and_gone_on_with(run, swept, tmp_path):
    given = [*ONE, "--benchmark", "textvqa", "--limit", "30", "--report", tmp_path, "-m", "table1"]
    for shard in ("2/2", "1/2"):
        run(*given, "--shard", shard).assert_outcomes(passed=1)
    assert swept["prompts"] == 30 and len(list(merge(tmp_path))) == 1
    result = run(*given)
    result.assert_outcomes(passed=1)
    assert swept["prompts"] == 30 and "TextVQA" in said(result)


def test_naming_a_benchmark_runs_that_one_alone(run):
    result = run("--collect-only", "-q", "--benchmark", "chair")
    assert "chair" in said(result) and "pope" not in said(result)


def test_a_protocol_narrows_what_was_not_named(run):
    result = run("--collect-only", "-q", "--protocol", "opera")
    assert "pope" in said(result) and "chair" in said(result)
    assert "scienceqa" not in said(result) and "textvqa" not in said(result)


def test_answers_that_say_nothing_fail_and_are_told_where(run, tmp_path):
    """The miniature of Qwen-VL was never shown lmms-eval's "Picture 1: ", and captions nothing behind it."""
    arguments = ("--model", "qwen-vl", "--benchmark", "chair", "--limit", "8", "--protocol", "lmms-eval")
    result = run(*arguments, "--report", tmp_path / "report")
    result.assert_outcomes(failed=1)
    message = said(result)
    assert "qwen-vl-chair-lmms-eval: the score of the baseline is undefined" in message
    assert f"the answers are in {tmp_path / 'report' / 'results.sqlite'}" in message
    assert "Traceback" not in message and "raise UndefinedScore" not in message


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
