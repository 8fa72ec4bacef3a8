"""Where the heat of LLaVA-CAM falls, and whether it explains: on miniatures, whose pictures have known boxes.

Measured on items whose baseline answer is right, evenly spaced over those. Intervals are 95 %, Student's t
over items. InstructBLIP is left out: its image tokens have no place in the picture.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.stats import spearmanr

from repro.audit.experiments.common import DATA, Case, above, every, items_of, record_of, shown
from repro.audit.ledger import Load, Shown
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.miniworld import asked_boxes
from repro.cam import Module, llava_cam
from repro.curves import deletion_curve, token_heat
from repro.evaluation.flow import coverage, energy_inside, spread
from repro.evaluation.run import evaluate, make_prompt
from repro.models.lvlm import Lvlm, Prompt, read_image
from repro.statistics import mean_interval

#: Models with maps over the picture, and benchmarks with one object asked about and a short answer.
MODELS = ("llava-1.5", "llava-1.6", "qwen-vl", "shikra", "intern-vl")
ASKED = ("pope", "textvqa")
ITEMS = 8
#: Noisy copies of a picture, as in the report.
SAMPLES = 4


@dataclass(frozen=True, eq=False)
class Asked:
    """A question answered right.

    Attributes:
        prompt, answer: with the ids of the baseline answer, without the closing token.
        covered: share of each cell of the grid that the boxes of what is asked about take.
    """

    prompt: Prompt
    answer: tuple[int, ...]
    covered: np.ndarray


@cache
def asked(load: Load, model: str, benchmark: str) -> list[Asked]:
    """``ITEMS`` questions of a benchmark that a model answers right about what is in the picture."""
    lvlm, right = load(model), record_of(model, benchmark).goodness[:, -1] == 1
    known = [
        item
        for item, fits in zip(items_of(benchmark), right, strict=True)
        if fits and asked_boxes(item, DATA)
    ]
    evaluation = evaluate(lvlm, BENCHMARKS[benchmark], spread(known, ITEMS), progress=False)
    found = []
    for item, answer in zip(evaluation.items, evaluation.answers, strict=True):
        prompt = make_prompt(lvlm, BENCHMARKS[benchmark], item)
        ids = answer.ids[:-1] if len(answer.ids) > 1 and answer.ids[-1] in lvlm.stop_ids else answer.ids
        assert item.image is not None, "an item with boxes was asked about a picture"
        covered = coverage(asked_boxes(item, DATA), read_image(item.image).size, prompt.grid)
        found.append(Asked(prompt, ids, covered))
    return found


@cache
def maps(load: Load, model: str, benchmark: str) -> list[np.ndarray]:
    """Heat [N, rows, columns] of each of ``asked``."""
    questions = asked(load, model, benchmark)
    return [llava_cam(load(model), one.prompt, one.answer, SAMPLES) for one in questions]


def plain_gain(load: Load, model: str, benchmark: str, module: Module) -> np.ndarray:
    """Gain (see ``gains``) of a module's maps without noise, mean over all layers but the last: [items]."""
    questions = asked(load, model, benchmark)
    heats = [llava_cam(load(model), one.prompt, one.answer, noise=0, module=module) for one in questions]
    return np.nanmean(gains(heats, questions)[:, :-1], axis=1)


def gains(heats: Sequence[np.ndarray], questions: Sequence[Asked]) -> np.ndarray:
    """Share of the heat in the boxes less their share of the area [items, N]: what an even map lacks."""
    inside = [energy_inside(heat, one.covered) for heat, one in zip(heats, questions, strict=True)]
    return np.stack(inside) - np.array([[one.covered.mean()] for one in questions])


def _points(values: np.ndarray) -> tuple[float, float, float]:
    mean, low, high = mean_interval(values)
    return 100 * float(mean), 100 * float(low), 100 * float(high)


def pointing_by_layer(load: Load) -> Shown:
    """Figs. 3-4: the flow converges on the right region in shallow layers, and disperses in deeper ones.

    Measure: gain of the heat (see ``gains``), mean over the layers of the first half and of the second, the
    last one left out, where there is no heat. A case, a model on a benchmark, holds where the first half's
    gain is above 0 and above the second's, both for certain, and does not where one of them is below for
    certain.
    """
    held, first, second = [], [], []
    figures: dict[str, float] = {}
    for model in MODELS:
        for name in ASKED:
            gain = gains(maps(load, model, name), asked(load, model, name))
            half = gain.shape[1] // 2
            shallow, deep = (np.nanmean(part, axis=1) for part in (gain[:, :half], gain[:, half:-1]))
            mean, low, high = _points(shallow)
            more, least, most = _points(shallow - deep)
            held.append(every(above(low, high), above(least, most)))
            first.append(mean)
            second.append(100 * float(deep.mean()))
            figures |= {
                f"{model} {name}, first half": mean,
                f"{model} {name}, first half, low": low,
                f"{model} {name}, first half, high": high,
                f"{model} {name}, first less second": more,
                f"{model} {name}, first less second, low": least,
                f"{model} {name}, first less second, high": most,
            }
    evidence = (
        f"Of the heat, {min(first):+.0f} to {max(first):+.0f} points more than of the area fall on what is asked "
        f"about in the first half of the layers, {min(second):+.0f} to {max(second):+.0f} in the second (five "
        f"miniatures, POPE and TextVQA, {ITEMS} items each). Claimed is more than of the area in the first half, "
        "and more than in the second."
    )
    return shown(held, evidence, figures)


def pointing_by_module(load: Load) -> Shown:
    """A.1: maps are clearest behind the post-attention norm.

    Measure: gain of the heat of each module's output, item by item against the post-attention norm's; one map
    without noise each. A case, a model on a benchmark with another module, holds where the
    norm's gain is larger for certain.
    """
    held: list[Case] = []
    figures: dict[str, float] = {}
    told: dict[Module, int] = dict.fromkeys(("input_norm", "attention", "mlp", "layer"), 0)
    for model in MODELS:
        for name in ASKED:
            own = plain_gain(load, model, name, "post_attention_norm")
            for module in told:
                mean, low, high = _points(own - plain_gain(load, model, name, module))
                held.append(above(low, high))
                told[module] += low > 0
                figures |= {
                    f"{model} {name}, less {module}": mean,
                    f"{model} {name}, less {module}, low": low,
                    f"{model} {name}, less {module}, high": high,
                }
    each = len(MODELS) * len(ASKED)
    listed = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in told.items())
    evidence = (
        "The post-attention norm's maps have more heat on what is asked about than another module's, for "
        f"certain, in (of {each} cases each) {listed} (five miniatures, POPE and TextVQA, {ITEMS} items each)."
    )
    return shown(held, evidence, figures)


def randomised(lvlm: Lvlm, seed: int = 0) -> Lvlm:
    """A copy whose decoder's weights are shuffled, each matrix within itself; the given model stays as it is."""
    made = copy.deepcopy(lvlm)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in made.decoder.layers.parameters():
            if weight.dim() > 1:
                order = torch.randperm(weight.numel(), generator=draw).to(weight.device)
                weight.copy_(weight.flatten()[order].view_as(weight))
    return made


def likeness(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """Rank correlation (Spearman) of maps [N, rows, columns], mean over layers with heat in both: [items]."""
    found = []
    for one, other in zip(some, others, strict=True):
        pairs = [(a.ravel(), b.ravel()) for a, b in zip(one, other, strict=True) if np.ptp(a) > 0 < np.ptp(b)]
        found.append(np.mean([spearmanr(a, b).statistic for a, b in pairs]) if pairs else 0.0)
    return np.array(found)


def parameter_randomisation(load: Load) -> Shown:
    """A map that does not change when the weights do explains nothing (Adebayo et al. 2018).

    Measure: rank correlation of each map with that of the same question and answer after shuffling the
    decoder's weights, against the same map with other noise: what a map keeps of itself. A case, a model on a
    benchmark, holds where the whole interval of the first lies below that of the second. Beside it, maps of
    other pictures: what maps have in common whatever they show.
    """
    held = []
    figures: dict[str, float] = {}
    means: dict[str, list[float]] = {"shuffled": [], "noise": [], "picture": []}
    for model in MODELS:
        lvlm = load(model)
        shuffled = randomised(lvlm)
        for name in ASKED:
            questions, own = asked(load, model, name), maps(load, model, name)
            against = {
                "shuffled": [llava_cam(shuffled, one.prompt, one.answer, SAMPLES) for one in questions],
                "noise": [llava_cam(lvlm, one.prompt, one.answer, SAMPLES, seed=1) for one in questions],
                "picture": [*own[1:], own[0]],
            }
            ends = {}
            for which, others in against.items():
                mean, low, high = map(float, mean_interval(likeness(own, others)))
                means[which].append(mean)
                ends[which] = low, high
                figures |= {
                    f"{model} {name}, {which}": mean,
                    f"{model} {name}, {which}, low": low,
                    f"{model} {name}, {which}, high": high,
                }
            held.append(above(ends["noise"][0] - ends["shuffled"][1], ends["noise"][1] - ends["shuffled"][0]))
    span = {which: f"{min(values):.2f} to {max(values):.2f}" for which, values in means.items()}
    evidence = (
        f"With the decoder's weights shuffled a map's rank correlation with itself is {span['shuffled']}, with "
        f"other noise {span['noise']}, with another picture's map {span['picture']} (means over layers and "
        f"{ITEMS} items; five miniatures, POPE and TextVQA). A map must change by more than noise does to "
        "explain anything; that it does is not enough."
    )
    return shown(held, evidence, figures)


def areas(lvlm: Lvlm, one: Asked, order: np.ndarray) -> tuple[float, float]:
    """Mean of the deletion and of the insertion curve."""
    ids = order.tolist()
    curves = (deletion_curve(lvlm, one.prompt, one.answer, ids, insert=insert) for insert in (False, True))
    deleted, inserted = (float(curve.mean()) for curve in curves)
    return deleted, inserted


def deletion_insertion(load: Load) -> Shown:
    """Sec. 1: the maps show how image features contribute to the answer.

    Measure: the answer's probability, mean over a deletion and an insertion curve (``repro.curves``), in the
    order of the heat's mean over layers, against a random order. A case, a model on a benchmark, holds where
    deletion lowers the probability faster than at random and insertion raises it faster, both for certain.
    The tokens in the boxes of what is asked about, first of all, show what the best of orders would give.
    """
    held: list[Case] = []
    control: list[Case] = []
    figures: dict[str, float] = {}
    seen: dict[str, list[float]] = {}
    for model in MODELS:
        lvlm = load(model)
        for name in ASKED:
            draw = np.random.default_rng(0)
            found = []
            for one, heat in zip(asked(load, model, name), maps(load, model, name), strict=True):
                marks = (token_heat(grid, one.prompt) for grid in (heat.mean(axis=0), one.covered))
                orders = [np.argsort(-mark, kind="stable") for mark in marks]
                found.append(
                    [areas(lvlm, one, order) for order in (*orders, draw.permutation(len(orders[0])))]
                )
            by_heat, by_box, at_random = np.array(found).transpose(1, 0, 2)
            for order, cases, (deleted, inserted) in (
                ("heat", held, (by_heat - at_random).T),
                ("box", control, (by_box - at_random).T),
            ):
                certain = []
                for curve, gain in (("deletion", -deleted), ("insertion", inserted)):
                    mean, low, high = _points(gain)
                    certain.append(above(low, high))
                    seen.setdefault(f"{order} {curve}", []).append(mean)
                    figures |= {
                        f"{model} {name}, {order}, {curve}": mean,
                        f"{model} {name}, {order}, {curve}, low": low,
                        f"{model} {name}, {order}, {curve}, high": high,
                    }
                cases.append(every(*certain))
    figures["cases, boxes"] = control.count(True)
    span = {which: f"{min(values):+.0f} to {max(values):+.0f}" for which, values in seen.items()}
    evidence = (
        "Against a random order, deleting the hottest image tokens first lowers the answer's probability by "
        f"{span['heat deletion']} points, inserting them first raises it by {span['heat insertion']} (means over "
        f"the curve; five miniatures, POPE and TextVQA, {ITEMS} items each). With the tokens of what is asked "
        f"about first it is {span['box deletion']} and {span['box insertion']}, both for certain in "
        f"{control.count(True)} of {len(control)}."
    )
    return shown(held, evidence, figures)
