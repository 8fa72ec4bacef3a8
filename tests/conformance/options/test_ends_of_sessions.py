"""How a session ends that is broken off, fails, or cannot write, and how the next one goes on."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repro.evaluation.results import Results
from repro.evaluation.shards import merge
from repro.models.card import FIXTURES
from tests.conformance.options.running import ONE, ROOT, audited, disk_full, said

pytestmark = pytest.mark.conformance


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


def test_no_control_character_of_the_reports_path_reaches_the_terminal(pytester, tmp_path):
    result = audited(pytester, tmp_path / "a\x1b[2Jb")
    assert result.ret == pytest.ExitCode.OK and "\x1b" not in said(result)
    assert f"report: {tmp_path}/a␛[2Jb/audit.html" in said(result)


def test_a_results_file_that_cannot_be_used_fails_and_names_it(run, tmp_path):
    (tmp_path / "results.sqlite").write_text("something else " * 100)
    result = run(*ONE, "--benchmark", "textvqa", "--limit", "8", "--report", tmp_path)
    result.assert_outcomes(failed=1)
    assert f"{tmp_path / 'results.sqlite'}: is no SQLite file" in said(result)


def test_a_shard_is_measured_merged_and_gone_on_with(run, swept, tmp_path):
    given = [*ONE, "--benchmark", "textvqa", "--limit", "30", "--report", tmp_path, "-m", "table1"]
    for shard in ("2/2", "1/2"):
        run(*given, "--shard", shard).assert_outcomes(passed=1)
    assert swept["prompts"] == 30 and len(list(merge(tmp_path))) == 1
    result = run(*given)
    result.assert_outcomes(passed=1)
    assert swept["prompts"] == 30 and "TextVQA" in said(result)


def test_answers_that_say_nothing_fail_and_are_told_where(run, tmp_path):
    """The miniature of Qwen-VL was never shown lmms-eval's "Picture 1: ", and captions nothing behind it."""
    arguments = ("--model", "qwen-vl", "--benchmark", "chair", "--limit", "8", "--protocol", "lmms-eval")
    result = run(*arguments, "--report", tmp_path / "report")
    result.assert_outcomes(failed=1)
    message = said(result)
    assert "qwen-vl-chair-lmms-eval: the score of the baseline is undefined" in message
    assert f"the answers are in {tmp_path / 'report' / 'results.sqlite'}" in message
    assert "Traceback" not in message and "raise UndefinedScore" not in message
