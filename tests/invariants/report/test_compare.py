"""Two runs that were measured for themselves, compared; and one report of several sessions."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from repro.benchmarks import find_benchmark
from repro.benchmarks.miniworld import DIRECTORY
from repro.compare import main, pairs, sides
from repro.evaluation.measured import Measured, save
from repro.evaluation.results import NAME as RESULTS
from repro.gate.record import ask
from repro.models import load_model
from repro.protocols import find_task
from repro.report.__main__ import main as merge_reports

pytestmark = pytest.mark.invariant

NAME = "llava-1.5"
TASK = find_task("official", NAME, find_benchmark("scienceqa"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Directories of two reports: of the miniature, and of one that has lost a layer's MLP."""
    directories = []
    lvlm = load_model(NAME)
    items = TASK.benchmark.load(DIRECTORY)[:40]
    for scale in (1, 0):
        lvlm.layers[1].mlp.down_proj.weight.data *= scale
        directory = tmp_path_factory.mktemp("report")
        ask(lvlm, TASK, items, items, directory, "here", progress=False)
        directories.append(directory)
    ask(lvlm, TASK, items[:20], items[:20], directories[1], "elsewhere", progress=False)
    return directories


def compared(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, arguments)])
    status = main()
    return status, *capsys.readouterr()


def test_a_run_against_another_is_the_gates_page(measured, tmp_path, monkeypatch, capsys):
    before, after = measured
    status, out, _ = compared(monkeypatch, capsys, before, f"{after}#1", "--out", tmp_path)
    assert status == 0 and "llava-1.5-scienceqa-official" in out and "of 40" in out
    [outcome] = json.loads((tmp_path / "gate.json").read_text())["outcomes"]
    assert outcome["flipped"] == len(outcome["flips"]) > 0 and outcome["stages"] == []
    assert "only answers were kept" in outcome["sentence"] and outcome["scores"][0]["n"] == 40
    assert len(outcome["values"][0]) == len(outcome["flips"][0]["before"]) == 11
    assert outcome["flips"][0]["picture"] and "gate.html" in out


def test_the_latest_run_of_a_side_counts_and_shared_items_are_compared(
    measured, tmp_path, monkeypatch, capsys
):
    before, after = measured
    assert [run.number for _, (run, _) in pairs(sides(str(before)), sides(str(after)))] == [2]
    status, out, _ = compared(monkeypatch, capsys, before / RESULTS, after, "--out", tmp_path)
    assert status == 0 and "of 20" in out


def test_a_run_and_itself_have_no_other_answer(measured, tmp_path, monkeypatch, capsys):
    status, _, _ = compared(monkeypatch, capsys, measured[0], measured[0], "--out", tmp_path)
    [outcome] = json.loads((tmp_path / "gate.json").read_text())["outcomes"]
    assert status == 0 and outcome["flipped"] == 0 and outcome["verdict"] in ("cannot tell", "not worse")


@pytest.mark.parametrize(
    ("before", "words"),
    [("{0}#9", "has no run 9, its runs are 1"), ("{0}/none", "none"), ("{0}#x", "has no run x")],
)
def test_what_cannot_be_compared_is_one_line(measured, tmp_path, monkeypatch, capsys, before, words):
    status, out, err = compared(
        monkeypatch, capsys, before.format(measured[0]), measured[1], "--out", tmp_path
    )
    assert status == 1 and not out and words in err and err.count("\n") == 1


@pytest.mark.parametrize("margin", ["0", "-1", "100"])
def test_a_margin_that_no_loss_could_pass_or_fail_is_one_line(
    measured, tmp_path, monkeypatch, capsys, margin
):
    status, out, err = compared(monkeypatch, capsys, *measured, f"--margin={margin}", "--out", tmp_path)
    assert status == 1 and not out and f"--margin {margin}: expected points" in err


def test_the_margin_is_one_point_unless_another_is_given(measured, tmp_path, monkeypatch, capsys):
    margins = []
    for given in ([], ["--margin", "2.5"]):
        status, _, _ = compared(monkeypatch, capsys, *measured, *given, "--out", tmp_path)
        [outcome] = json.loads((tmp_path / "gate.json").read_text())["outcomes"]
        margins.append(outcome["margin"])
        assert status == 0
    assert margins == pytest.approx([0.01, 0.025])


def test_other_data_have_no_item_in_common(measured, tmp_path, monkeypatch, capsys):
    status, _, err = compared(monkeypatch, capsys, *measured, "--data", tmp_path, "--out", tmp_path)
    assert status == 1 and err.count("\n") == 1


def test_a_merge_of_nothing_is_one_line(tmp_path):
    command = [sys.executable, "-m", "repro.report", str(tmp_path), "--out", str(tmp_path / "all")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "no measured/*.npz" in done.stderr and "Traceback" not in done.stderr


def test_a_merge_shows_the_table_of_all_sessions_and_where_the_page_is(tmp_path, sample, monkeypatch, capsys):
    for model in ("llava-1.5", "shikra"):
        measured = Measured("", [sample.row(model=model)], [], [], [], [], [])
        save(measured, tmp_path / model / "measured" / f"{model}.npz")
    directories = [str(tmp_path / model) for model in ("llava-1.5", "shikra")]
    monkeypatch.setattr(sys, "argv", ["report", *directories, "--out", str(tmp_path / "all")])
    assert merge_reports() == 0
    header, first, second, *_, last = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["model", "benchmark"]
    assert (first.split()[0], second.split()[0]) == ("llava-1.5", "shikra")
    assert (
        last == f"report: {tmp_path / 'all' / 'index.html'}" and (tmp_path / "all" / "index.html").is_file()
    )
