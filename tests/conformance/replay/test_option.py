"""The option ``--answers`` scores recorded answers instead of running a model."""

from pathlib import Path

import pytest

from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.evaluation.results import Configuration, Results

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def run(pytester, suite_imported):
    """Run the suite's own Table 1 in this process, in an empty directory."""

    def run(*arguments):
        fixed = ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "no:cacheprovider", "-m", "table1"]
        return pytester.runpytest_inprocess(*map(str, [*fixed, *arguments, ROOT / "tests" / "table1"]))

    return run


def test_the_option_scores_every_file_of_a_directory_and_runs_no_model(run, made):
    done = run("--answers", made / "llava-1.5-13b", "--data", made)
    done.stdout.fnmatch_lines(
        ["*Table 1, recorded answers*", "*pope_answers.jsonl*POPE 120*", "*ScienceQA 30*"]
    )
    assert done.parseoutcomes()["passed"] == 2 and "failed" not in done.parseoutcomes()
    done = run("--answers", made / "llava-1.5-13b", "--data", made, "--protocol", "opera")
    done.stdout.fnmatch_lines(["*opera does not define scienceqa*", "*pope_answers.jsonl*POPE 120*opera*"])
    assert done.parseoutcomes()["passed"] == done.parseoutcomes()["failed"] == 1


def test_the_option_fails_and_says_why_unless_missing_ids_are_allowed(run, made, change):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    change(path, lambda values: values[1:])
    done = run("--answers", path, "--data", made)
    assert done.parseoutcomes()["failed"] == 1 and "1 questions without an answer" in done.stdout.str()
    done = run("--answers", path, "--data", made, "--allow-missing")
    assert done.parseoutcomes()["passed"] == 1 and "left out 1 questions" in done.stdout.str()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--answers", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--answers", "."], ".jsonl"),
        (["--allow-missing"], "--answers"),
        (["--answers", __file__, "--model", "llava-1.5"], "--model"),
        (["--answers", __file__, "--limit", "8"], "--limit"),
        (["--answers", __file__, "--snapshot-update"], "--snapshot-update"),
    ],
)
def test_what_cannot_be_replayed_is_a_usage_error(run, arguments, said):
    done = run(*arguments)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert said in "\n".join([*done.outlines, *done.errlines])


ODD = "a\x1b[31m\x07\x9b\u202eb"


@pytest.mark.parametrize("place", ["doubled id", "file name", "no such file", "model", "report"])
def test_no_control_character_from_outside_reaches_the_terminal(run, made, change, tmp_path, place):
    answers, data, report = made / "llava-1.5-13b" / "pope_answers.jsonl", made, "report"
    if place == "doubled id":
        questions = answers.with_name("llava_pope_test.jsonl")
        change(questions, lambda values: [*values, *[values[0] | {"question_id": ODD}] * 2])
    elif place == "file name":
        answers = answers.rename(answers.with_name(f"{ODD}.jsonl"))
    elif place == "no such file":
        answers = tmp_path / ODD
    elif place == "model":
        answers, data = tmp_path / "results.sqlite", MINIWORLD
        results = Results(answers, new=True)
        results.begin(Configuration(ODD, "", "pope", "official", {}, {}))
        results.close()
    if place == "report":
        (tmp_path / ODD).write_text("taken")
        report = tmp_path / ODD
        done = run("--model", "llava-1.5", "--benchmark", "pope", "--report", report)
    else:
        done = run("--answers", answers, "--data", data, "--report", report)
    shown = "\n".join([*done.outlines, *done.errlines])
    assert not set(ODD[1:-1]) - set("[31m") & set(shown), shown
    if place != "report":  # spelled out; that of a report is quoted by repr
        assert "a␛[31m␇⟨U+009B⟩⟨U+202E⟩b" in shown


def test_without_the_option_nothing_is_replayed(run):
    assert "test_replay" not in run("--collect-only", "-q").stdout.str()
