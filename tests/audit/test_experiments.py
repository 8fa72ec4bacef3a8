"""Do the experiments on the miniatures come out as recorded, and can they come out otherwise?"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from repro.audit.claims import PAPER
from repro.audit.experiments import cliffs, common, complexity, cost, no_image, rankings, shares
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.miniworld import DIRECTORY, objects_of
from repro.cliff import cliff_draws
from repro.models import load_model
from repro.protocols import find_task
from repro.scores import Scores
from repro.truncation import truncated

pytestmark = pytest.mark.audit

load = cache(load_model)


def test_a_load_that_does_nothing_is_enough_for_recorded_scores():
    for experiment in (cliffs.cliff_order, cliffs.projectors, cliffs.retrospective, complexity.complexity):
        assert experiment(PAPER, None).supports


# Recorded scores


@pytest.fixture
def recorded(monkeypatch):
    """Puts other scores in place of the recorded ones: right or not [items, N + 1] by model and benchmark."""

    def put(right_of):
        @cache
        def record_of(model, benchmark):
            record = common.record_of(model, benchmark)
            metric = record.benchmark.metrics[0]
            right = right_of(record).astype(np.float64)
            scores = right if metric.higher_is_better else 1 - right
            return replace(record, parts={metric.name: np.stack([scores, np.ones_like(scores)], axis=-1)})

        for module in (cliffs, complexity, no_image, rankings, cost):
            monkeypatch.setattr(module, "record_of", record_of)

    return put


def steps(record, first) -> np.ndarray:
    """Right from layer ``first`` [items] on, wrong before: bool [items, N + 1]."""
    return np.arange(depth(record) + 1) >= np.broadcast_to(first, len(record.items))[:, None]


def depth(record) -> int:
    """N."""
    return record.scores().parts.shape[1] - 1


def test_scores_in_the_order_claimed_are_as_claimed(recorded):
    order = {"scienceqa": 1, "textvqa": 2, "pope": 3, "chair": 4}
    recorded(lambda record: steps(record, order[record.benchmark.name]))

    assert cliffs.cliff_order(PAPER, load).supports == "as claimed"


def test_a_late_linear_projector_is_seen(recorded):
    late = {"MLP": 1, "Q-Former": 1, "resampler": 1, "linear": 6}
    recorded(lambda record: steps(record, late[cliffs.PROJECTORS[record.task.model]]))

    shown = cliffs.projectors(PAPER, load)

    assert shown.supports == "mixed"
    # Shikra against five others, four benchmarks.
    assert shown.numbers["apart with other projectors"] == 20
    assert shown.numbers["equal with other projectors"] == 48 - 20
    assert shown.numbers["equal with MLPs"] == 12

    # One layer of 7 is within the margin, two are not, and one layer of 10 and three of 7 are further apart yet.
    recorded(lambda record: steps(record, 2 if record.task.model == "instructblip" else 1))
    assert cliffs.projectors(PAPER, load).supports == "mixed"
    assert cliffs.projectors(PAPER, load).numbers["apart with other projectors"] == 4
    recorded(lambda record: steps(record, 1))
    assert cliffs.projectors(PAPER, load).supports == "as claimed"


def test_cliffs_that_may_be_anywhere_are_no_evidence_of_independence(recorded):
    """As many answers need the sixth layer as the margin of a cliff forgives, so that resamples differ."""
    draws = np.random.default_rng(0)
    recorded(lambda record: steps(record, np.where(draws.random(len(record.items)) < 0.03, 6, 1)))

    shown = cliffs.projectors(PAPER, load)

    assert shown.supports != "as claimed"
    assert shown.numbers["open with other projectors"] > 20 > shown.numbers["apart with other projectors"]


def test_layers_that_tie_are_in_no_order():
    assert cliffs.ordered(np.array([[1, 2, 3], [1, 1, 2], [2, 1, 3]])).tolist() == [True, False, False]


def test_a_last_layer_that_rights_answers_is_as_claimed(recorded):
    recorded(lambda record: steps(record, np.where(np.arange(len(record.items)) % 20, 0, depth(record))))

    shown = cliffs.retrospective(PAPER, load)

    assert shown.supports == "as claimed"
    assert shown.numbers["better with the last layer"] == 6 * (90 + 25 + 15 + 15)
    assert shown.numbers["worse with the last layer"] == 0


def test_complex_scenes_that_need_fewer_layers_are_as_claimed(recorded):
    def first(record):
        kinds = [item.kind for item in record.items]
        objects = [len(objects_of(item, DIRECTORY)) for item in record.items]
        layers = 5 - np.array(objects) - np.array([kind == complexity.TWO_HOPS for kind in kinds])
        return steps(record, layers)

    recorded(first)
    shown = complexity.complexity(PAPER, load)

    assert shown.supports == "as claimed"
    assert shown.numbers["shikra chair, layers per object"] == pytest.approx(-1)


def test_an_item_has_the_layer_from_which_it_stays():
    goodness = np.array([[0, 1, 0, 1], [1, 1, 1, 1], [0.3, 0, 0.6, 0.6], [1, 1, 1, 0]])

    assert complexity.own_layers(goodness).tolist() == [3, 0, 2, 3]


def test_the_slope_takes_an_image_once():
    """Two questions about the first of three images."""
    objects, layers = np.array([2, 2, 3, 4]), np.array([1.0, 3.0, 4.0, 7.0])
    images = np.array(["a", "a", "b", "c"])
    x, y = np.array([2, 3, 4]), np.array([2.0, 4.0, 7.0])

    found, low, high = complexity.slope(layers, objects, images, 0.99)

    assert found == pytest.approx(np.polyfit(x, y, 1)[0]) == pytest.approx(2.5)
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    error = math.sqrt((residual**2).sum() / 1 / 2)
    # One degree of freedom: Cauchy's quantile.
    half = error * math.tan(math.pi * (0.99 / 2))
    assert (low, high) == pytest.approx((found - half, found + half))


def test_draws_of_the_cliff_agree_with_enumeration():
    """Three images in 27 equally likely samples; the first has two items."""
    right = np.array([[0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1], [0, 0, 1, 1]])
    images, margin, replicates = np.array(["a", "b", "c", "a"]), 0.5, 20_000
    expected = np.zeros(4)
    for drawn in itertools.product("abc", repeat=3):
        rows = [row for one in drawn for row, image in zip(right, images, strict=True) if one == image]
        passes = np.mean(rows, axis=0) - 1 > -margin
        expected[min(L for L in range(4) if passes[L:].all())] += 1 / 27

    for higher_is_better, scores in ((True, right), (False, 1 - right)):
        parts = np.stack([scores, np.ones_like(scores)], axis=-1)
        scores = Scores(parts, np.zeros(4), images, higher_is_better)
        drawn = cliff_draws(scores, margin, replicates, seed=1)
        # Five standard errors of a share.
        found = np.bincount(drawn, minlength=4) / replicates
        np.testing.assert_allclose(found, expected, rtol=0, atol=5 * math.sqrt(0.25 / replicates))
    assert (expected > 0).sum() >= 3


# Attention shares


@pytest.fixture
def figure_2(monkeypatch):
    """Puts shares of the shape of Fig. 2 in place of the measured ones."""
    found = {}
    for model in PAPER.models:
        for benchmark in PAPER.benchmarks:
            place = shares.scaled(8)
            image = np.where(place < 6, 0.3, 0.01) + 0.005 * (place == 32)
            user = np.where(place == 32, 0.4, 0.3)
            curve = np.stack([1 - image - user, image, user], axis=-1)
            noise = 1e-4 * np.random.default_rng(0).normal(size=(shares.IMAGES, *curve.shape))
            first = np.full((shares.IMAGES, 8), 0.1)
            found[model, benchmark] = shares.Measured(
                model, curve + noise, first, 0.9, model != "instructblip"
            )
    monkeypatch.setattr(shares, "measure", lambda paper, load: list(found.values()))
    return found


def test_shares_of_the_papers_shape_are_as_claimed(figure_2):
    for experiment in (shares.image_share, shares.share_ordering, shares.share_shape):
        assert experiment(PAPER, load).supports == "as claimed"


def test_one_model_that_differs_is_seen(figure_2):
    cell = figure_2["shikra", "chair"]
    figure_2["shikra", "chair"] = replace(cell, shares=cell.shares[:, ::-1][..., [1, 0, 2]])

    for experiment in (shares.image_share, shares.share_ordering, shares.share_shape):
        assert experiment(PAPER, load).supports == "mixed"


# Runs


@pytest.fixture(scope="module")
def lvlm():
    return load("llava-1.5")


def task_of(name):
    return find_task("official", "llava-1.5", BENCHMARKS[name])


def test_answers_without_the_image_are_those_of_generate(lvlm):
    items = common.items_of("scienceqa")[:3] + common.items_of("pope")[:3]
    names = ["scienceqa"] * 3 + ["pope"] * 3

    for name, item in zip(names, items, strict=True):
        prompt = task_of(name).prompt(lvlm, item)
        answer = no_image.answer_without_image(lvlm, prompt, 4)
        ids = no_image.without_image(prompt)[None]
        assert ids.shape[1] == len(prompt.segments.system) + len(prompt.segments.user)
        assert lvlm.image_token_id not in ids
        with torch.inference_mode():
            out = lvlm.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False
            )
        assert answer.ids == tuple(out[0, ids.shape[1] :].tolist())


def test_keys_and_values_are_counted(lvlm):
    """Against the lengths of one layer's, where all see the image and where one does."""
    config = lvlm.decoder.config
    width = 2 * config.hidden_size * lvlm.model.dtype.itemsize
    for after in (0, 1, lvlm.n_layers):
        seen = [
            cost.SYSTEM + cost.USER + cost.ANSWER + (cost.IMAGE if layer < after else 0)
            for layer in range(10)
        ]
        assert cost.token_layers(lvlm.n_layers, after) == sum(seen)
        assert cost.answered(lvlm, after, "drop")[0] == width * sum(seen)
    assert cost.answered(lvlm, 1, "mask")[0] == cost.answered(lvlm, lvlm.n_layers, "drop")[0]


def test_scores_with_tokens_kept_are_those_of_one_run_each(lvlm, monkeypatch):
    monkeypatch.setattr(rankings, "FASTV_ITEMS", 4)
    task = task_of(rankings.FASTV_BENCHMARK)
    items = rankings.spread(common.items_of(task.benchmark.name), 4)
    for ranking_row in ("last_prompt", "random"):
        expected = []
        for item in items:
            with truncated(lvlm, rankings.FASTV_LAYER, keep=18, ranking_row=ranking_row):
                answer = lvlm.answer(task.prompt(lvlm, item), 8)
            expected.append(task.score(item, answer.text)["accuracy"][0])
        assert rankings.goodness_with(lvlm, 0.5, ranking_row).tolist() == expected


@pytest.mark.parametrize(
    ("random", "outcome"), [(0.0, "as claimed"), (1.0, "not as claimed"), (0.5, "inconclusive")]
)
def test_ranked_tokens_have_to_beat_random_ones(monkeypatch, random, outcome):
    scores = {
        "last_prompt": np.full(rankings.FASTV_ITEMS, 0.5),
        "random": np.full(rankings.FASTV_ITEMS, random),
    }
    monkeypatch.setattr(rankings, "goodness_with", lambda lvlm, part, row: scores[row])

    assert rankings.fastv(PAPER, load).supports == outcome


@pytest.mark.parametrize(("right_from", "outcome"), [(0, "as claimed"), (1, "not as claimed")])
def test_answers_without_an_image_have_to_beat_guessing(recorded, monkeypatch, right_from, outcome):
    monkeypatch.setattr(no_image, "ITEMS", 2)
    monkeypatch.setattr(no_image, "COMPARED", 1)
    recorded(lambda record: steps(record, right_from))

    assert no_image.no_image(PAPER, load).supports == outcome


@pytest.mark.parametrize(
    ("held", "seconds", "outcome"),
    [(1.0, 0.5, "as claimed"), (1.0, 1.5, "not as claimed"), (1.1, 0.5, "not as claimed")],
)
def test_dropping_has_to_save_what_is_counted_and_time(monkeypatch, held, seconds, outcome):
    def answered(lvlm, after, mode):
        whole = after == lvlm.n_layers or mode == "mask"
        counted = cost.token_layers(lvlm.n_layers, lvlm.n_layers if whole else after)
        return (counted, 1.0) if whole else (held * counted, seconds)

    monkeypatch.setattr(cost, "answered", answered)

    assert cost.cost(PAPER, load).supports == outcome


def test_the_images_of_a_sample_are_different():
    """Student's t takes them as independent."""
    for benchmark in PAPER.benchmarks:
        for count in (shares.IMAGES, no_image.ITEMS, rankings.FASTV_ITEMS):
            images = [item.image for item in rankings.spread(common.items_of(benchmark), count)]
            assert len(set(images)) == count


def test_the_share_of_the_first_token_is_its_column(lvlm):
    """Row by row, each renormalised over the prompt."""
    prompt, answer = task_of("pope").prompt(lvlm, common.items_of("pope")[0]), (5, 6)
    length, columns = len(prompt.segments), []

    def look(attending):
        attention = attending.softmax_rows(torch.arange(length - 1, length + 2))[0]
        columns.append((attention[:, 0] / attention[:, :length].sum(dim=1)).mean())

    with lvlm.observed(look):
        lvlm.logits(prompt, answer)

    assert shares.first_share(lvlm, prompt, answer) == pytest.approx(np.array(columns), abs=1e-6)


def test_an_interval_shows_one_side_or_leaves_it_open():
    assert [common.above(*ends, 1.0) for ends in ((1.1, 2.0), (0.0, 0.9), (0.9, 1.1), (1.0, 1.0))] == [
        True,
        False,
        None,
        None,
    ]
    assert [common.every(*cases) for cases in ((True, True), (True, None), (None, False))] == [
        True,
        None,
        False,
    ]


def test_an_outcome_needs_cases():
    cases = ([True], [True, False, None], [True, None], [False, None], [False], [None])
    assert [common.outcome_of(held) for held in cases] == [
        "as claimed",
        "mixed",
        "in part as claimed",
        "in part not",
        "not as claimed",
        "inconclusive",
    ]
    with pytest.raises(ValueError, match="at least one case"):
        common.outcome_of([])
