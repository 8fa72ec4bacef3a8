"""Numbers on the finished page and behind its figures, against values computed another way."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from repro import text
from repro.attention import attention_shares
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Item
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.cam import llava_cam
from repro.cliff import _Resampler, compare, held_out
from repro.evaluation.flow import heat_maps
from repro.evaluation.measured import Measured
from repro.evaluation.run import Evaluation, evaluate
from repro.models import load_model
from repro.protocols import find_task
from repro.report.figures import figure5
from repro.report.index import build, write_report
from repro.scores import Scores
from repro.table1 import curves, pointing_of, shares_of, table_rows
from repro.truncation import truncated

pytestmark = pytest.mark.invariant

#: The normal quantile of 97.5 %, from a table.
Z = 1.959964


class Tables(HTMLParser):
    """The cells of every table of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.open = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self.open = True

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("th", "td")

    def handle_data(self, data):
        if self.open:
            self.tables[-1][-1][-1] += data


def page_of(part: Measured, directory: Path) -> Path:
    return write_report(build([part], "pytest"), directory)


def number(cell: str) -> float:
    """The first number of a cell, in percent."""
    return float(cell.split()[0].replace("−", "-"))


@pytest.fixture(scope="module")
def lvlm():
    return load_model("llava-1.5")


@pytest.fixture(scope="module")
def answered(lvlm):
    """Answers of several tokens and a closing one, and 24 of one word."""
    return {
        name: evaluate(
            lvlm, task := find_task("official", "llava-1.5", BENCHMARKS[name]),
            task.benchmark.load(MINIWORLD)[:count], progress=False,
        )
        for name, count in (("textvqa", 6), ("chair", 2), ("pope", 24))
    }  # fmt: skip


def captions() -> Evaluation:
    """400 captions over three layers and the baseline.

    At L = 0 every object is made up and none named; L = 1 is 2 points worse than the baseline in all respects, by
    the same captions in every twenty; L = 2 differs from it in nothing.
    """
    n, benchmark = 400, BENCHMARKS["chair"]
    wrong = np.zeros((n, 4))
    wrong[:, 0] = 1
    wrong[::5, 1:] = 1
    wrong[1::50, 1] = 1
    ones = np.ones_like(wrong)
    parts = {"CHAIR_s": np.stack([wrong, ones], axis=-1), "CHAIR_i": np.stack([wrong, ones], axis=-1)}
    parts["recall"] = np.stack([1 - wrong, ones], axis=-1)
    items = [Item(f"{i}", Path("val2014", f"{i}.jpg"), "", None) for i in range(n)]
    task = find_task("official", "llava-1.5", benchmark)
    return Evaluation(task, items, parts, [], np.tile([0.1, 0.2, 0.3, 0.4], (n, 1)))


def test_intervals_of_a_row_are_about_its_own_scores():
    """With a layer before the last that makes nothing up: its interval would be [0, 0]."""
    evaluation = captions()
    evaluation.parts["CHAIR_s"][:, 2, 0] = 0
    held = held_out(evaluation.scores(), 0.08)
    row = table_rows(evaluation, held)[0]
    reporting = compare(evaluation.scores("CHAIR_s").halves()[1])
    assert held.cliff.layer == 1 and row.metric == "CHAIR_s"
    for interval, value, layer in (
        (row.baseline_interval, row.baseline, 3),
        (row.at_cliff_interval, row.at_cliff, 1),
    ):
        assert interval[0] < value < interval[1]
        assert interval == reporting.score_interval(layer)


def test_heat_is_of_four_noisy_images_and_the_answer_without_its_closing_token(lvlm, answered):
    evaluation = answered["textvqa"]
    [found] = heat_maps(lvlm, evaluation, [1])
    ids = evaluation.answers[1].ids[:-1]
    expected = llava_cam(lvlm, evaluation.prompt(lvlm, 1), ids, samples=4)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_layers_of_the_tables_are_those_of_the_arrays(tmp_path, sample):
    """Attention and heat from layer 1 on, scores from L = 0 on, each row with its own layer's numbers."""
    given = sample.full_report()
    tables = Tables(write_report(given, tmp_path)).tables
    by_head = {table[0][1]: table for table in tables}
    assert len(by_head) == len(tables)
    for head, first, values in (
        ("POPE Acc, n = 612, %", 0, given.curves[0].score),
        ("POPE, n = 77: system, %", 1, given.shares[0].mean[:, 0]),
        ("POPE, n = 41, box 9.9 % of the area, heat inside, %", 1, given.pointing[0].energy),
    ):
        rows = by_head[head][1:]
        assert [row[0] for row in rows] == [str(first + i) for i in range(len(values))]
        assert [row[1].split()[0] for row in rows] == [text.percent(value) for value in values]


def test_shares_are_of_the_rows_that_predict_the_answer(lvlm, answered):
    """The closing token is predicted too; the row behind it predicts nothing."""
    for evaluation in (answered["textvqa"], answered["chair"]):
        rows = []
        for i, answer in enumerate(evaluation.answers):
            assert len(answer.ids) > 1 and answer.ids[-1] in lvlm.stop_ids
            every = attention_shares(lvlm, evaluation.prompt(lvlm, i), answer.ids).raw
            assert every.shape[1] == len(answer.ids) + 1
            rows.append(every[:, :-1])
        eq7 = [raw[..., :3] / raw[..., :3].sum(axis=-1, keepdims=True) for raw in rows]
        paper = np.stack([shares.mean(axis=1) for shares in eq7])
        half = Z * np.sqrt(((paper - paper.mean(axis=0)) ** 2).sum(axis=0) / (len(paper) - 1) / len(paper))
        shown = shares_of(lvlm, evaluation)
        np.testing.assert_allclose(shown.raw, np.mean([raw.mean(axis=1) for raw in rows], axis=0), atol=2e-5)
        np.testing.assert_allclose(shown.mean, paper.mean(axis=0), atol=2e-5)
        np.testing.assert_allclose(shown.low, paper.mean(axis=0) - half, atol=2e-5)
        np.testing.assert_allclose(shown.high, paper.mean(axis=0) + half, atol=2e-5)


def test_the_interval_of_pointing_is_the_normal_one():
    energy = np.random.default_rng(0).random((40, 3))
    energy[:5, 1] = energy[1:, 2] = np.nan
    shown = pointing_of("POPE", energy, 0.1)
    for layer, values in ((0, energy[:, 0]), (1, energy[5:, 1])):
        half = Z * np.sqrt(((values - values.mean()) ** 2).sum() / (len(values) - 1) / len(values))
        ends = (shown.energy[layer], shown.low[layer], shown.high[layer])
        np.testing.assert_allclose(
            ends, (values.mean(), values.mean() - half, values.mean() + half), atol=1e-5
        )
    assert np.isnan([shown.energy[2], shown.low[2], shown.high[2]]).all(), "of one value there is no interval"


def test_the_probability_is_of_the_first_token_of_the_baseline(lvlm, answered):
    """Layer by layer under truncation, in place of the sweep."""
    evaluation = answered["pope"]
    expected = np.zeros_like(evaluation.probability)
    for i, answer in enumerate(evaluation.answers):
        prompt = evaluation.prompt(lvlm, i)
        for layer in range(lvlm.n_layers + 1):
            with truncated(lvlm, after=layer):
                logits = torch.as_tensor(lvlm.logits(prompt))[-1]
            expected[i, layer] = logits.double().softmax(dim=0)[answer.ids[0]]
    np.testing.assert_allclose(evaluation.probability, expected, atol=1e-5)
    assert np.ptp(expected) > 0.1
    panel = curves(evaluation, held_out(evaluation.scores()))[0]
    np.testing.assert_allclose(panel.probability, expected.mean(axis=0), atol=1e-5)


def test_what_the_margin_allows_lies_on_the_worse_side_of_every_metric(tmp_path):
    evaluation = captions()
    held = held_out(evaluation.scores(), 0.08)
    panels = curves(evaluation, held)
    page = page_of(Measured("", table_rows(evaluation, held), panels, [], [], [], []), tmp_path)
    [table] = [table for table in Tables(page).tables if table[0][0] == "L"]
    drawn = figure5(panels).axes
    for name, baseline, limit, one in (
        ("CHAIR_s", 20, 28, 22),
        ("CHAIR_i", 20, 28, 22),
        ("recall", 80, 72, 78),
    ):
        [column] = [i for i, head in enumerate(table[0]) if head.endswith(f" {name}, n = 400, %")]
        cells = [row[column] for row in table[1:]]
        assert [number(cell) for cell in cells] == [100 - 100 * (name == "recall"), one, baseline, baseline]
        assert [cell[-1] for cell in cells] == ["○", "●", "●", "●"]
        [axes] = [ax for ax in drawn if name in ax.get_title(loc="left")]
        flat = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 2]
        level = {round(ends[0], 6) for ends in flat if ends[0] == ends[1]}
        assert {float(baseline), float(limit)} <= level
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        filled = [list(line.get_xdata()) for line in dots if line.get_markerfacecolor() != "white"]
        assert filled == [[1, 2, 3]]


def test_the_margin_decides_for_further_metrics_as_for_the_first():
    """A loss of 2 points, with a margin of 0.1 and of 8: the same for each metric's direction."""
    evaluation = captions()
    for margin, passes in ((0.001, [False, False, True, True]), (0.08, [False, True, True, True])):
        for panel in curves(evaluation, held_out(evaluation.scores(), margin)):
            assert panel.non_inferior.tolist() == passes, panel.metric


def test_the_ends_of_an_interval_leave_as_many_resamples_out_on_either_side(monkeypatch):
    """2.5 % of 2000 are 50: the 51st from below, and the 51st from above."""
    scores = Scores(np.ones((8, 2, 2)), np.zeros(8))
    drawn = np.random.default_rng(0).permutation(2000) / 2000

    def draw(self: _Resampler, replicates: int) -> np.ndarray:
        assert replicates == 2000
        return np.stack([drawn, np.zeros(2000)], axis=1)

    monkeypatch.setattr(_Resampler, "draw", draw)
    seen = compare(scores)
    assert seen.score_interval(0) == (50 / 2000, 1949 / 2000)
    assert (seen.low[0], seen.high[0]) == (50 / 2000, 1949 / 2000)


def test_rows_of_the_table_are_of_the_reporting_half(tmp_path):
    """By hand, in percent; the difference in the metric's own direction."""
    evaluation = captions()
    held = held_out(evaluation.scores(), 0.08)
    reporting = {name: evaluation.scores(name).halves()[1].parts for name in ("CHAIR_s", "recall")}
    page = page_of(Measured("", table_rows(evaluation, held), [], [], [], [], []), tmp_path)
    header, *rows = Tables(page).tables[0]
    at = held.cliff.layer
    assert at == 1
    for name, sign in (("CHAIR_s", "+"), ("recall", "−")):
        [row] = [row for row in rows if row[3].startswith(name)]
        cells = dict(zip(header, row, strict=True))
        totals = reporting[name].sum(axis=0)
        percent = 100 * totals[:, 0] / totals[:, 1]
        assert number(cells["Baseline, %"]) == pytest.approx(percent[-1], abs=0.05)
        assert number(cells["At the cliff, %"]) == pytest.approx(percent[at], abs=0.05)
        assert number(cells["Difference, points"]) == pytest.approx(percent[at] - percent[-1], abs=0.05)
        ends = cells["Difference, points"].split("[")[1].rstrip("]").split(", ")
        low, high = (float(end.replace("−", "-")) for end in ends)
        assert low < percent[at] - percent[-1] < high and cells["Difference, points"].startswith(sign)
        assert cells["Cliff layer"].startswith("1 of 3 [1, 1]") and cells["n"].startswith("200")
