"""Where the heat of LLaVA-CAM falls, and whether it explains: on miniatures, whose images have known boxes.

Measured on items whose baseline answer is right, evenly spaced over those. Intervals are 95 %, Student's t
over items.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from repro.audit.experiments.common import Case, above, every, positive, record_of, shown, span
from repro.audit.ledger import Finding, Load, Paper, subjects
from repro.benchmarks.miniworld import DIRECTORY, asked_boxes
from repro.cam import llava_cam
from repro.curves import deletion_curve, token_heat
from repro.evaluation.flow import coverage, energy_inside, spread
from repro.evaluation.run import evaluate
from repro.models.anatomy import Role
from repro.models.images import read_image
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.statistics import mean_interval

#: Left out: its image tokens have no place in the image.
WITHOUT_MAP = "instructblip"
#: Benchmarks with one object asked about and a short answer.
ASKED = ("pope", "textvqa")
ITEMS = 8
#: Noisy copies of an image, as in the report.
SAMPLES = 4
#: Modules that are compared with the norm behind the attention.
OTHERS: tuple[Role, ...] = ("input_norm", "attention", "mlp", "layer")


@dataclass(frozen=True, eq=False)
class Question:
    """A question answered right.

    Attributes:
        prompt, answer: with the ids of the baseline answer, without the closing token.
        covered: share of each cell of the grid that the boxes of what is asked about take.
    """

    prompt: Prompt
    answer: tuple[int, ...]
    covered: np.ndarray


@cache
def questions_of(load: Load, model: str, benchmark: str) -> list[Question]:
    """``ITEMS`` questions of a benchmark that a model answers right about what is in the image."""
    lvlm, record = load(model), record_of(model, benchmark)
    right = record.scores().goodness[:, -1] == 1
    usable = [i for i, item in enumerate(record.items) if right[i] and asked_boxes(item, DIRECTORY)]
    items = [record.items[i] for i in spread(usable, ITEMS)]
    evaluation = evaluate(lvlm, record.task, items, progress=False)
    questions = []
    for i, (item, answer) in enumerate(zip(evaluation.items, evaluation.answers, strict=True)):
        prompt = evaluation.prompt(lvlm, i)
        ids = answer.ids[:-1] if len(answer.ids) > 1 and answer.ids[-1] in lvlm.stop_ids else answer.ids
        assert item.image is not None, "an item with boxes was asked about an image"
        covered = coverage(asked_boxes(item, DIRECTORY), read_image(item.image).size, prompt.grid)
        questions.append(Question(prompt, ids, covered))
    return questions


@cache
def maps(load: Load, model: str, benchmark: str) -> list[np.ndarray]:
    """Heat [N, rows, columns] of each of ``questions_of``."""
    return cams(load(model), questions_of(load, model, benchmark), samples=SAMPLES)


def cams(lvlm: Lvlm, questions: Sequence[Question], **settings: Any) -> list[np.ndarray]:
    """LLaVA-CAM [N, rows, columns] of each question, by other ``settings`` than its own."""
    return [llava_cam(lvlm, question.prompt, question.answer, **settings) for question in questions]


def models_of(paper: Paper) -> list[str]:
    """The models with maps over the image."""
    return [model for model in paper.models if model != WITHOUT_MAP]


def cells(paper: Paper) -> list[tuple[str, str, str]]:
    """Model, benchmark, and both in words."""
    return [(model, name, f"{model} {name}") for model in models_of(paper) for name in ASKED]


def plain_gain(load: Load, model: str, benchmark: str, module: Role) -> np.ndarray:
    """Gain (see ``gains``) of a module's maps without noise, mean over all layers but the last: [items]."""
    questions = questions_of(load, model, benchmark)
    heats = cams(load(model), questions, noise=0, module=module)
    return np.nanmean(gains(heats, questions)[:, :-1], axis=1)


def gains(heats: Sequence[np.ndarray], questions: Sequence[Question]) -> np.ndarray:
    """Share of the heat in the boxes less their share of the area [items, N]: what an even map lacks."""
    inside = [energy_inside(heat, question.covered) for heat, question in zip(heats, questions, strict=True)]
    area = np.array([[question.covered.mean()] for question in questions])
    return np.stack(inside) - area


def pointing_by_layer(paper: Paper, load: Load) -> Finding:
    """Figs. 3-4: the flow converges on the right region in shallow layers, and disperses in deeper ones.

    Measure: gain of the heat (see ``gains``), mean over the layers of the first half and of the second, the
    last one left out, where there is no heat. A case, a model on a benchmark, holds where the first half's
    gain is above 0 and above the second's, both for certain, and does not where one of them is below for
    certain.
    """
    cases, first, second = [], [], []
    numbers: dict[str, float] = {}
    for model, name, cell in cells(paper):
        gain = gains(maps(load, model, name), questions_of(load, model, name))
        half = gain.shape[1] // 2
        shallow, deep = (np.nanmean(part, axis=1) for part in (gain[:, :half], gain[:, half:-1]))
        cases.append(every(positive(shallow), positive(shallow - deep)))
        first.append(100 * float(shallow.mean()))
        second.append(100 * float(deep.mean()))
        numbers[f"{cell}, first half"] = first[-1]
    return shown(
        cases,
        numbers,
        items=ITEMS,
        mapped=subjects(models_of(paper)),
        first=span(first, "{:+.0f}".format),
        second=span(second, "{:+.0f}".format),
    )


def pointing_by_module(paper: Paper, load: Load) -> Finding:
    """A.1: maps are clearest behind the post-attention norm.

    Measure: gain of the heat of each module's output, item by item against the post-attention norm's; one map
    without noise each. A case, a model on a benchmark with another module, holds where the
    norm's gain is larger for certain.
    """
    cases: dict[Role, list[Case]] = {module: [] for module in OTHERS}
    for model, name, _ in cells(paper):
        own = plain_gain(load, model, name, "post_attention_norm")
        for module, held in cases.items():
            held.append(positive(own - plain_gain(load, model, name, module)))
    return shown(
        [case for held in cases.values() for case in held],
        {},
        items=ITEMS,
        mapped=subjects(models_of(paper)),
        each=len(cells(paper)),
        modules=", ".join(f"{module.replace('_', ' ')} {held.count(True)}" for module, held in cases.items()),
    )


def randomised(lvlm: Lvlm, seed: int = 0) -> Lvlm:
    """A copy whose decoder's weights are shuffled, each matrix within itself; the model itself stays as it is."""
    shuffled = copy.deepcopy(lvlm)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in shuffled.decoder.layers.parameters():
            if weight.dim() > 1:
                order = torch.randperm(weight.numel(), generator=draw).to(weight.device)
                weight.copy_(weight.flatten()[order].view_as(weight))
    return shuffled


def likeness(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """Rank correlation (Spearman) of maps [N, rows, columns], mean over layers with heat in both: [items]."""
    means = []
    for own, other in zip(some, others, strict=True):
        pairs = [(a.ravel(), b.ravel()) for a, b in zip(own, other, strict=True) if np.ptp(a) > 0 < np.ptp(b)]
        means.append(np.mean([spearmanr(a, b).statistic for a, b in pairs]) if pairs else 0.0)
    return np.array(means)


def parameter_randomisation(paper: Paper, load: Load) -> Finding:
    """A map that does not change when the weights do explains nothing (Adebayo et al. 2018).

    Measure: rank correlation of each map with that of the same question and answer after shuffling the
    decoder's weights, against the same map with other noise: what a map keeps of itself. A case, a model on a
    benchmark, holds where the interval of the first lies below that of the second. Beside it, maps of
    other images: what maps have in common whatever they show.
    """
    cases = []
    numbers: dict[str, float] = {}
    means: dict[str, list[float]] = {"shuffled": [], "noise": [], "image": []}
    shuffled = {model: randomised(load(model)) for model in models_of(paper)}
    for model, name, cell in cells(paper):
        questions, own = questions_of(load, model, name), maps(load, model, name)
        against = {
            "shuffled": cams(shuffled[model], questions, samples=SAMPLES),
            "noise": cams(load(model), questions, samples=SAMPLES, seed=1),
            "image": [*own[1:], own[0]],
        }
        ends = {}
        for which, others in against.items():
            mean, *ends[which] = map(float, mean_interval(likeness(own, others)))
            means[which].append(mean)
        numbers[f"{cell}, shuffled"] = means["shuffled"][-1]
        cases.append(above(ends["noise"][0] - ends["shuffled"][1], ends["noise"][1] - ends["shuffled"][0]))
    return shown(
        cases,
        numbers,
        items=ITEMS,
        mapped=subjects(models_of(paper)),
        **{which: span(values, "{:.2f}".format) for which, values in means.items()},
    )


def areas(lvlm: Lvlm, question: Question, order: np.ndarray) -> tuple[float, float]:
    """Mean of the deletion and of the insertion curve."""
    deleted, inserted = (
        float(deletion_curve(lvlm, question.prompt, question.answer, order.tolist(), insert=insert).mean())
        for insert in (False, True)
    )
    return deleted, inserted


def deletion_insertion(paper: Paper, load: Load) -> Finding:
    """Sec. 1: the maps show how image features contribute to the answer.

    Measure: the answer's probability, mean over a deletion and an insertion curve (``repro.curves``), in the
    order of the heat's mean over layers, against a random order. A case, a model on a benchmark, holds where
    deletion lowers the probability faster than at random and insertion raises it faster, both for certain.
    The tokens in the boxes of what is asked about, first of all, show what the best of orders would give.
    """
    cases: dict[str, list[Case]] = {"heat": [], "box": []}
    means: dict[str, list[float]] = {}
    for model, name, _ in cells(paper):
        lvlm, draw = load(model), np.random.default_rng(0)
        curves = []
        for question, heat in zip(questions_of(load, model, name), maps(load, model, name), strict=True):
            marks = (token_heat(grid, question.prompt) for grid in (heat.mean(axis=0), question.covered))
            orders = [np.argsort(-mark, kind="stable") for mark in marks]
            orders.append(draw.permutation(len(orders[0])))
            curves.append([areas(lvlm, question, order) for order in orders])
        *marked, at_random = np.array(curves).transpose(1, 0, 2)
        for (order, held), by_mark in zip(cases.items(), marked, strict=True):
            deleted, inserted = (by_mark - at_random).T
            by_curve = {"deletion": -deleted, "insertion": inserted}
            held.append(every(*map(positive, by_curve.values())))
            for curve, gain in by_curve.items():
                means.setdefault(f"{order}_{curve}", []).append(100 * float(gain.mean()))
    return shown(
        cases["heat"],
        {"cases, boxes": cases["box"].count(True)},
        **{which: span(values, "{:+.0f}".format) for which, values in means.items()},
        of=len(cases["box"]),
        items=ITEMS,
        mapped=subjects(models_of(paper)),
    )
