"""Can the numbers of Table 1 be what they say? What arithmetic alone finds, without a model."""

from __future__ import annotations

import pytest

from repro.audit import arithmetic as a
from repro.audit.paper import TEXT

pytestmark = pytest.mark.audit


COLUMNS = ("baseline", "at_cliff")
#: (model, benchmark) -> what is printed at the baseline and at the cliff layer, and POPE's F1 by model.
PRINTED, F1 = {}, {}
for cell in TEXT.table:
    if cell.baseline is not None:
        if cell.metric == "F1":
            F1[cell.model] = (cell.baseline, cell.at_cliff)
        else:
            PRINTED[cell.model, cell.benchmark] = (cell.baseline, cell.at_cliff)
CELLS = [(model, column) for model in F1 for column in COLUMNS]
INTERN_VL = [("intern-vl", column) for column in COLUMNS]


def pope(model: str, column: str) -> tuple[float, float]:
    """Accuracy and F1."""
    which = COLUMNS.index(column)
    return PRINTED[model, "pope"][which], F1[model][which]


def numbers(name: str) -> list[float]:
    """What Table 1 prints for a benchmark, but for F1."""
    return sorted({number for (_, of), pair in PRINTED.items() if of == name for number in pair})


# Accuracy and F1


@pytest.mark.parametrize(
    ("n", "possible"),
    [
        (2910, {("instructblip", "baseline"), ("qwen-vl", "at_cliff")}),
        (3000, {("llava-1.5", "baseline"), ("qwen-vl", "at_cliff")}),
        (8910, set(CELLS) - set(INTERN_VL)),
        (9000, set(CELLS) - set(INTERN_VL) - {("instructblip", "baseline")}),
    ],
)
def test_which_pope_scores_go_together_in_pooled_questions(n, possible):
    assert {cell for cell in CELLS if a.has_table(*pope(*cell), a.POPE[n])} == possible


def test_no_reading_makes_intern_vls_pope_scores_possible():
    """Of one table, and of three whose scores are averaged; of every other model they are, of one."""
    assert {cell for cell in CELLS if a.contradict(*pope(*cell))} == set(INTERN_VL)
    assert {cell for cell in CELLS if not a.fits(*pope(*cell))} == set(INTERN_VL)


@pytest.mark.parametrize(
    ("column", "allowed", "of_means", "yes"),
    [("baseline", (93.63, 94.35), 92.70, (18.9, 24.9)), ("at_cliff", (94.27, 94.86), 93.53, (18.5, 23.9))],
)
def test_what_intern_vls_accuracy_would_need(column, allowed, of_means, yes):
    """F1 some seven points higher on POPE, where half of the answers are yes, or a set with a fifth of them."""
    accuracy, f1 = pope("intern-vl", column)
    low, high = a.f1_range(accuracy)
    assert (round(low, 2), round(high, 2)) == allowed
    assert f1 < round(a.mean_f1_at_least(accuracy, 3), 2) == of_means < low
    assert a.yes_needed(accuracy, f1) == pytest.approx(yes, abs=0.05)


# Granularity

T, D = "truncated", "padded"
#: POPE accuracies that no category has, of either edition, however read.
NEVER = {number: [] for number in (75.41, 76.34, 80.81, 85.44, 85.51, 94.01, 94.58)}


@pytest.mark.parametrize(
    ("name", "n", "impossible"),
    [
        ("pope", 2910, {**NEVER, 84.70: [T, D]}),
        ("pope", 3000, {**NEVER, 84.85: []}),
        ("pope", 8910, {}),
        ("pope", 9000, {84.85: [T]}),
        ("scienceqa", 2017, {45.80: [D], 60.50: [D], 66.20: [D], 66.85: [], 67.12: [T]}),
        ("scienceqa", 4241, {45.80: [D], 46.70: [D], 65.00: [T, D], 66.20: [D], 66.48: [], 67.12: []}),
        ("chair", 500, {12.50: [], 12.90: [], 24.50: []}),
        ("chair", 1000, {}),
        ("chair", 5000, {}),
    ],
)
def test_which_numbers_no_n_items_can_have_and_how_else_they_might_be_read(name, n, impossible):
    assert n in a.SIZES[name]
    assert {
        number: [reading for reading in a.READINGS if a.counts(number, n, reading)]
        for number in numbers(name)
        if not a.counts(number, n)
    } == impossible


@pytest.mark.parametrize(
    ("name", "rounded", "anyhow"),
    [("pope", [8910], [8910, 9000]), ("scienceqa", [], []), ("chair", [1000, 5000], [1000, 5000])],
)
def test_which_single_size_fits_a_benchmarks_rows(name, rounded, anyhow):
    assert a.sizes(numbers(name), a.SIZES[name], ["rounded"]) == rounded
    assert a.sizes(numbers(name), a.SIZES[name]) == anyhow


@pytest.mark.parametrize(
    ("model", "rounded", "anyhow"),
    [
        ("llava-1.5", [2017], [2017]),
        ("qwen-vl", [], [2017]),
        ("instructblip", [4241], [2017, 4241]),
        ("shikra", [], [2017, 4241]),
        ("intern-vl", [], [4241]),
    ],
)
def test_which_size_fits_a_models_scienceqa_row(model, rounded, anyhow):
    """LLaVA's is of the questions with an image, Intern-VL's cannot be: the rows are not of the same questions."""
    pair = PRINTED[model, "scienceqa"]
    assert a.sizes(pair, a.SIZES["scienceqa"], ["rounded"]) == rounded
    assert a.sizes(pair, a.SIZES["scienceqa"]) == anyhow


@pytest.mark.parametrize(
    ("n", "percent"), [(500, 5.0), (2017, 20.2), (3000, 30.0), (4241, 42.4), (8910, 89.1), (9000, 90.0)]
)
def test_how_many_numbers_pass_by_chance(n, percent):
    assert a.power(n) == pytest.approx(percent, abs=0.05)


# Significance

#: What changed, by number of items: z, and the most flips that leave it significant.
CHANGES = {
    ("llava-1.5", "pope"): ({3000: 0.88, 8910: 1.52, 9000: 1.53}, {3000: 138, 8910: 1349, 9000: 1349}),
    ("llava-1.5", "scienceqa"): ({2017: 0.99, 4241: 1.44}, {2017: 218, 4241: 1001}),
    ("llava-1.5", "textvqa"): ({5000: 0.69}, {5000: 282}),
    ("qwen-vl", "pope"): ({3000: 0.32, 8910: 0.54, 9000: 0.55}, {3000: None, 8910: 203, 9000: 203}),
    ("qwen-vl", "scienceqa"): ({2017: 0.37, 4241: 0.54}, {2017: 25, 4241: 125}),
    ("qwen-vl", "textvqa"): ({5000: 0.13}, {5000: 9}),
    ("instructblip", "pope"): ({3000: 0.64, 8910: 1.11, 9000: 1.11}, {3000: 74, 8910: 703, 9000: 730}),
    ("instructblip", "textvqa"): ({5000: 0.52}, {5000: 162}),
    ("instructblip", "chair"): ({500: -0.63, 1000: -0.89}, {500: None, 1000: 67}),
    ("shikra", "pope"): ({3000: 0.84, 8910: 1.45, 9000: 1.46}, {3000: 190, 8910: 1749, 9000: 1792}),
    ("shikra", "scienceqa"): ({2017: 0.57, 4241: 0.83}, {2017: 74, 4241: 356}),
    ("intern-vl", "pope"): ({3000: 0.95, 8910: 1.64, 9000: 1.65}, {3000: 67, 8910: 651, 9000: 676}),
    ("intern-vl", "scienceqa"): ({2017: 0.44, 4241: 0.63}, {2017: 37, 4241: None}),
    ("intern-vl", "textvqa"): ({5000: 1.19}, {5000: 875}),
}


def test_every_change_of_table_1_is_judged():
    changed = {key for key, (baseline, at_cliff) in PRINTED.items() if baseline != at_cliff}
    assert changed == set(CHANGES)


@pytest.mark.parametrize(("model", "name"), list(CHANGES))
def test_no_change_is_significant_between_different_items(model, name):
    """The largest |z| is 1.65, of Intern-VL on POPE, where the scores are impossible; else 1.53, of LLaVA."""
    pair, (expected, _) = PRINTED[model, name], CHANGES[model, name]
    found = {n: round(a.unpaired_z(*pair, n), 2) for n in expected}
    assert found == expected
    assert max(map(abs, found.values())) <= (1.65 if (model, name) == ("intern-vl", "pope") else 1.53)


def test_chair_would_be_significant_if_it_were_a_share_of_5000_captions():
    assert a.unpaired_z(*PRINTED["instructblip", "chair"], 5000) == pytest.approx(-2.00, abs=0.005)


@pytest.mark.parametrize(("model", "name"), list(CHANGES))
def test_how_many_answers_may_flip_for_a_change_to_be_significant(model, name):
    """None: no n items can have the change. TextVQA is taken as if its answers were right or wrong."""
    pair, (_, expected) = PRINTED[model, name], CHANGES[model, name]
    nets = {n: a.net_changes(*pair, n) for n in expected}
    assert {n: max(map(a.most_flips, net), default=None) for n, net in nets.items()} == expected


# Selection


@pytest.mark.parametrize(
    ("n", "gain"), [(2017, 0.595), (4241, 0.410), (5000, 0.378), (8910, 0.282), (9000, 0.281)]
)
def test_the_best_of_ten_layers_gains_though_nothing_changes(n, gain):
    """With 3 % of the answers flipping: 1.54 standard deviations sqrt(0.03 / n)."""
    seen = a.selection_effect(n, layers=10, flips=3.0)
    assert seen.gain == pytest.approx(gain, abs=0.01)
    assert 0 < seen.low < seen.gain < seen.high


def test_all_changes_are_for_the_better_as_selection_has_it():
    """17 scores rise and none falls, of those where higher is better."""
    pairs = [*F1.values(), *(pair for (_, name), pair in PRINTED.items() if name != "chair")]
    changes = [at_cliff - baseline for baseline, at_cliff in pairs]
    assert (sum(c > 0 for c in changes), sum(c < 0 for c in changes), len(changes)) == (17, 0, 19)
