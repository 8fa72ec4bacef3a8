"""What is answered without the image: prompts without image tokens, against truncation after layer 0."""

import numpy as np
import torch
from torch import Tensor

from repro.audit.experiments.common import Case, above, percent, record_of, shown, span
from repro.audit.ledger import Finding, Load, Paper
from repro.evaluation.flow import spread
from repro.models.lvlm import Lvlm
from repro.models.prompts import Answer, Prompt
from repro.segments import IMAGE
from repro.statistics import flips, mcnemar, wilson
from repro.truncation import truncated

#: Benchmarks that can be guessed.
GUESSED = ("pope", "scienceqa")
#: Items per model and benchmark, evenly spaced; of so many first ones distributions are compared too.
ITEMS, COMPARED = 30, 4
#: Distance of distributions that rounding leaves.
SAME = 1e-5
#: Enough for "The answer is A ." and "Yes".
NEW_TOKENS = 8


def without_image(prompt: Prompt) -> Tensor:
    """Ids [T'] of a prompt less its image tokens; words around the image stay, as "<img>" of Qwen-VL does."""
    return prompt.input_ids[0, torch.from_numpy(prompt.segments.labels != IMAGE)]


def answer_without_image(lvlm: Lvlm, prompt: Prompt, max_new_tokens: int) -> Answer:
    """Greedy answer to a prompt without its image tokens, whose places the others take."""
    ids = without_image(prompt)
    answer: list[int] = []
    with torch.inference_mode():
        while len(answer) < max_new_tokens and not lvlm.stop_ids.intersection(answer):
            sequence = torch.cat([ids, ids.new_tensor(answer)])
            answer.append(int(lvlm.text_logits(sequence[None])[0, -1].argmax()))
    return lvlm.decode(answer)


def moved(lvlm: Lvlm, prompt: Prompt) -> float:
    """Total variation between the first answer token's distributions, without the image and at L = 0."""
    with torch.inference_mode():
        alone = lvlm.text_logits(without_image(prompt)[None])[0, -1].softmax(dim=-1)
        with truncated(lvlm, after=0):
            masked = lvlm.logits(prompt)[-1].softmax(dim=-1)
    return float((alone - masked).abs().sum() / 2)


def no_image(paper: Paper, load: Load) -> Finding:
    """A.2: with no image token the model answers from the text alone, by what it knows (47.5 % right).

    Measure: share of right answers to POPE's and ScienceQA's questions at L = 0, as recorded,
    against guessing. A case, a model on a benchmark, holds where Wilson's interval, 95 % for all cases
    together (Bonferroni), is above guessing, and does not where it is below. Miniatures know nothing of the
    world but these scenes. And, item by item (McNemar), whether L = 0 is the same as no image: ``ITEMS`` items
    without image tokens in the prompt, where nothing keeps their positions.
    """
    level = 1 - 0.05 / (len(paper.models) * len(GUESSED))
    cases: list[Case] = []
    at_zero: dict[str, list[float]] = {name: [] for name in GUESSED}
    distances = dict.fromkeys(paper.models, 0.0)
    gained = lost = 0
    for model in paper.models:
        lvlm = load(model)
        for name in GUESSED:
            record = record_of(model, name)
            task, items, right = record.task, record.items, record.scores().goodness[:, 0]
            chance = float(np.mean([1 / len(item.choices) if item.choices else 0.5 for item in items]))
            ends = wilson(int(right.sum()), len(right), level)
            cases.append(above(*ends, chance))
            at_zero[name].append(float(right.mean()))

            chosen = spread(range(len(items)), ITEMS)
            prompts = {i: task.prompt(lvlm, items[i]) for i in chosen}
            texts = {i: answer_without_image(lvlm, prompt, NEW_TOKENS).text for i, prompt in prompts.items()}
            metric = task.benchmark.metrics[0].name
            alone = np.array([task.score(items[i], task.read(text))[metric][0] for i, text in texts.items()])
            up, down = flips(alone, right[chosen])
            gained, lost = gained + up, lost + down
            apart = max(moved(lvlm, prompts[i]) for i in chosen[:COMPARED])
            distances[model] = max(distances[model], apart)
    return shown(
        cases,
        {"right at L = 0 alone": gained, "right without image alone": lost, "p": mcnemar(gained, lost)},
        **{name: span(values) for name, values in at_zero.items()},
        even=percent(0.5),
        chance=percent(chance),
        compared=COMPARED,
        answers=len(cases) * ITEMS,
        distance=max(distances.values()),
        same=", ".join(model for model, apart in distances.items() if apart < SAME) or "none",
    )
