"""What is written stays, once, and never mixes with another configuration's; what cannot be used says why."""

import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest
from pyarrow import parquet

from repro.evaluation import results as module
from repro.evaluation.digests import digest_of, versions
from repro.evaluation.export import export, main
from repro.evaluation.prune import main as prune_runs
from repro.evaluation.results import Asked, Configuration, Results, ResultsError, Row
from repro.evaluation.sources import PACKAGE

pytestmark = pytest.mark.invariant

ASKED = Configuration("llava-1.5", "0123", "pope", "official", {"dtype": "float32", "n": 2}, {"torch": "2"})


def row(item="1", layer=0, answer="No", question="a", keep=0):
    return Row(
        item,
        question,
        "picture",
        layer,
        keep,
        answer,
        (3, 2),
        {"accuracy": (1.0, 1.0), "F1": (2.0, 3.0)},
        0.25,
    )


@pytest.fixture
def results(tmp_path):
    opened = Results(tmp_path / "results.sqlite", new=True)
    yield opened
    opened.close()


def test_what_is_committed_is_on_the_disk(results):
    """SQLite's FULL: a commit waits until the disk has it."""
    assert results._ask("PRAGMA synchronous") == 2


def test_rows_come_back_as_they_were_written(results):
    run = results.begin(ASKED)
    rows = [row("2", 0, "<b>\0\u2028\u20ac"), row("1", 1, ""), row("1", 0, "x" * 10_000_000)]
    run.write(rows)
    assert list(results.rows(run.number)) == [rows[2], rows[1], rows[0]]
    [recorded] = results.runs()
    assert recorded.model == "llava-1.5" and recorded.settings == ASKED.settings and recorded.finished is None


def test_an_unfinished_run_goes_on_in_another_process_and_a_finished_one_does_not(results):
    first = results.begin(ASKED)
    first.write([row()])
    again = Results(results.path).begin(ASKED)
    assert again.number == first.number and again.known({"1": ("a", "picture")}, 1) == {"1": [row()]}
    results.finish([again.number])
    assert results.begin(ASKED).number != first.number


def test_without_resume_a_run_begins_anew_and_leaves_the_old_one_until_it_is_finished(results):
    old = results.begin(ASKED)
    old.write([row()])
    new = results.begin(ASKED, resume=False)
    assert new.number != old.number and new.known({"1": ("a", "picture")}, 1) == {}
    assert len(list(results.rows(old.number))) == 1
    new.write([row(answer="Yes")])
    results.finish([new.number])
    assert [run.number for run in results.runs()] == [new.number]
    assert list(results.rows(old.number)) == []


@pytest.mark.parametrize(
    "change",
    [
        {"model": "shikra"},
        {"revision": "0124"},
        {"dataset": "chair"},
        {"protocol": "opera"},
        {"settings": {"dtype": "float16", "n": 2}},
        {"settings": {"dtype": "float32", "n": 3}},
        {"versions": {"torch": "3"}},
    ],
)
def test_another_configuration_starts_new_rows_and_keeps_the_others(results, change):
    run = results.begin(ASKED)
    run.write([row()])
    other = results.begin(replace(ASKED, **change))
    assert other.number != run.number and other.known({"1": ("a", "picture")}, 1) == {}
    other.write([row(answer="Yes")])
    results.finish([other.number])
    assert list(results.rows(run.number)) == [row()]
    assert results.begin(ASKED).number == run.number


def test_known_are_whole_items_that_were_asked_the_same(results):
    run = results.begin(ASKED)
    run.write([row("whole", 0), row("whole", 1), row("part", 0), row("later", 1), row("kept", 0, keep=1)])
    run.write([row("other", 0, question="b"), row("other", 1, question="b")])
    asked = dict.fromkeys(("whole", "part", "later", "other", "kept"), ("a", "picture"))
    assert run.known(asked, 2) == {"whole": [row("whole", 0), row("whole", 1)]}
    assert run.known(asked, 3) == {}
    assert run.known({"whole": ("a", "repainted")}, 2) == {}


def test_an_export_that_is_broken_off_says_so(results, tmp_path, monkeypatch, capsys):
    def broken_off(*_: object) -> None:
        raise KeyboardInterrupt

    results.begin(ASKED).write([row()])
    out = tmp_path / "out.parquet"
    monkeypatch.setattr("repro.evaluation.export._plain", broken_off)
    monkeypatch.setattr(sys, "argv", ["export", str(results.path), str(out)])
    assert main() == 130 and "broken off" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["results.sqlite"]


def test_runs_no_longer_wanted_are_listed_and_removed(results, monkeypatch, capsys):
    """A changed library, and a limit: both would stay for good."""
    runs = [
        results.begin(c)
        for c in (ASKED, replace(ASKED, settings={"n": 8}), replace(ASKED, versions=versions()))
    ]
    for run in runs:
        run.write([row(answer="x" * 1_000_000)])
    before = results.path.stat().st_size

    def prune(*numbers: int) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["prune", str(results.path), *map(str, numbers)])
        code = prune_runs()
        return code, "".join(capsys.readouterr())

    code, shown = prune()
    assert code == 0 and [line.split()[-1] for line in shown.splitlines()[1:4]] == [
        "others",
        "others",
        "installed",
    ]
    assert f"{before / 1e6:.1f} MB, 3 runs" in shown
    assert prune(1, 7) == (1, f"{results.path}: has no run 7; nothing is removed\n")
    assert prune(1, 2)[0] == 0
    assert [run.number for run in results.runs()] == [3] and len(list(results.rows(3))) == 1
    assert results.path.stat().st_size < before / 2


@pytest.mark.parametrize("name", ["export", "prune", "shards"])
def test_what_is_done_with_results_is_a_command(name):
    command = [sys.executable, "-m", f"repro.evaluation.{name}", "--help"]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "usage:" in done.stdout


def test_a_row_written_again_replaces_the_first(results):
    run = results.begin(ASKED)
    run.write([row(answer="No")])
    run.write([row(answer="Yes")])
    assert [found.answer for found in results.rows(run.number)] == ["Yes"]


def test_a_batch_is_written_whole_or_not_at_all(results):
    run = results.begin(ASKED)
    with pytest.raises(TypeError):
        run.write([row("1"), replace(row("2"), score={"accuracy": object()})])
    results._open.execute(
        "CREATE TRIGGER stop BEFORE INSERT ON answers WHEN NEW.item = 'bad' BEGIN "
        "SELECT RAISE(ABORT, 'stopped'); END"
    )
    with pytest.raises(ResultsError, match="stopped"):
        run.write([row("1"), row("bad")])
    assert list(results.rows(run.number)) == []
    run.write([row("1")])
    assert list(results.rows(run.number)) == [row("1")]


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    code = """
import sys
from pathlib import Path
from repro.evaluation.results import Configuration, Results, Row
model = sys.argv[2]
results = Results(Path(sys.argv[1]), new=True)
run = results.begin(Configuration(model, "r", "pope", "official", {}, {}))
for i in range(40):
    run.write([Row(f"{i}", "a", "p", layer, 0, model, (1,), {"accuracy": (1.0, 1.0)}, 0.5) for layer in range(5)])
results.finish([run.number])
"""
    path = tmp_path / "new" / "results.sqlite"
    started = [subprocess.Popen([sys.executable, "-c", code, path, f"m{i}"]) for i in range(3)]
    assert [one.wait(timeout=120) for one in started] == [0, 0, 0]
    opened = Results(path)
    found = opened.runs()
    assert sorted(run.model for run in found) == ["m0", "m1", "m2"] and all(run.finished for run in found)
    for run in found:
        rows = list(opened.rows(run.number))
        assert len(rows) == 200 and {one.answer for one in rows} == {run.model}


# What cannot be used


def refused(path, *words, new=False):
    with pytest.raises(ResultsError) as caught:
        Results(path, new=new)
    for word in (str(path), *words):
        assert word in str(caught.value), caught.value


@pytest.mark.parametrize("new", [True, False])
def test_another_file_is_refused(tmp_path, new):
    text = tmp_path / "text.sqlite"
    text.write_text("no data base " * 100)
    refused(text, "is no SQLite file", new=new)
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as other:
        other.execute("CREATE TABLE runs (a)")
    refused(foreign, "no results file of this suite", new=new)


def test_a_missing_file_is_not_made_where_one_is_read(tmp_path):
    refused(tmp_path / "none.sqlite", "cannot be opened")
    assert not list(tmp_path.iterdir())


def test_another_schema_is_refused_and_left_as_it_is(results):
    results.begin(ASKED)
    results._open.execute("PRAGMA user_version = 7")
    refused(results.path, "has schema 7", "reads and writes 2", new=True)
    assert len(results.runs()) == 1


def test_a_place_that_is_no_directory_is_refused(tmp_path):
    (tmp_path / "report").write_text("a file stands here")
    refused(tmp_path / "report" / "results.sqlite", "cannot be used", new=True)


def test_a_damaged_file_says_so(results):
    run = results.begin(ASKED)
    run.write([row(str(i)) for i in range(500)])
    results.close()
    content = bytearray(results.path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    results.path.write_bytes(content)
    with pytest.raises(ResultsError, match="is damaged"):
        Results(results.path).runs()


def test_a_locked_file_says_so(results, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    other = Results(results.path)
    results._open.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ResultsError, match="another process"):
        other.begin(ASKED)


def test_a_reader_that_stays_costs_one_batch_and_locks_nobody_out(results, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    impatient = Results(results.path)
    run = impatient.begin(ASKED)
    reader = sqlite3.connect(results.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM runs").fetchall()
    with pytest.raises(ResultsError, match="another process"):
        run.write([row("1")])
    reader.execute("ROLLBACK")
    run.write([row("2")])
    assert [found.item for found in Results(results.path).rows(run.number)] == ["2"]


def test_a_full_disk_keeps_what_was_written(results):
    run = results.begin(ASKED)
    run.write([row("1")])
    pages = results._open.execute("PRAGMA page_count").fetchone()[0]
    results._open.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ResultsError, match="the disk is full"):
        run.write([row("2", answer="x" * 100_000)])
    results._open.execute("PRAGMA max_page_count = 10000")
    assert list(results.rows(run.number)) == [row("1")]
    run.write([row("2")])
    assert len(list(results.rows(run.number))) == 2


# Digests and export


def test_parquet_holds_every_row_with_its_run(results, tmp_path, monkeypatch, capsys):
    run = results.begin(ASKED)
    rows = [row(str(i), layer, answer="=1+1\n<b>") for i in range(3) for layer in range(2)]
    asked = {"1": Asked("Is there a kite?", "val2014/1.jpg", "yes", "popular", "animal")}
    run.write(rows, asked)
    results.finish([run.number])
    results.begin(replace(ASKED, protocol="opera")).write([row("9")])
    assert results.asked(run.number) == {"0": Asked(), **asked, "2": Asked()}
    assert results._ask("SELECT count(*) FROM items") == 4, "digests are stored once per item, not per layer"
    monkeypatch.setattr("repro.evaluation.export.GROUP", 4)
    out = tmp_path / "out.parquet"
    monkeypatch.setattr(sys, "argv", ["export", str(results.path), str(out)])
    assert main() == 0 and "7 rows" in capsys.readouterr().out
    found = parquet.read_table(out).to_pylist()
    assert [one["item"] for one in found] == ["0", "0", "1", "1", "2", "2", "9"]
    assert [one["layer"] for one in found[:2]] == [0, 1]
    assert found[0]["answer"] == "=1+1\n<b>" and found[0]["ids"] == [3, 2]
    assert dict(found[0]["score"])["F1"] == {"numerator": 2.0, "denominator": 3.0}
    assert found[0]["finished"] and found[6]["finished"] is None and found[6]["protocol"] == "opera"
    assert found[0]["ids_digest"] == digest_of((3, 2)) and found[2]["question"] == "a"
    assert [found[2][name] for name in ("text", "picture", "right", "category", "kind")] == [
        "Is there a kite?", "val2014/1.jpg", "yes", "popular", "animal",
    ]  # fmt: skip


def test_an_export_that_fails_leaves_no_file_and_says_why(results, tmp_path, monkeypatch, capsys):
    results.begin(ASKED).write([row()])
    monkeypatch.setattr(sys, "argv", ["export", str(results.path), str(tmp_path / "none" / "out.parquet")])
    assert main() == 1 and "none" in capsys.readouterr().err
    monkeypatch.setattr(Results, "rows", lambda self, run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(results, tmp_path / "out.parquet")
    assert not list(tmp_path.glob("out.parquet*"))


def test_an_export_writes_over_nothing(results, monkeypatch, capsys):
    results.begin(ASKED).write([row()])
    monkeypatch.setattr(sys, "argv", ["export", str(results.path), str(results.path)])
    assert main() == 1 and "is there already" in capsys.readouterr().err
    assert len(list(Results(results.path).rows(1))) == 1
