"""What is answered without the image: prompts without image tokens, against truncation after layer 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from repro.audit.experiments.common import MODELS, above, percent, record_of, shown
from repro.audit.ledger import Load, Shown
from repro.benchmarks import BENCHMARKS
from repro.evaluation.flow import spread
from repro.evaluation.run import make_prompt
from repro.models.lvlm import Answer, Lvlm, Prompt
from repro.protocols import find_task
from repro.segments import IMAGE
from repro.statistics import flips, mcnemar, wilson
from repro.sweep import until_stop
from repro.truncation import truncated

#: Benchmarks that can be guessed.
BENCHMARKS_ASKED = ("pope", "scienceqa")
#: Items per model and benchmark, evenly spaced; of so many first ones distributions are compared too.
ITEMS, COMPARED = 30, 4
#: Distance of distributions that rounding leaves.
SAME = 1e-5
#: Enough for "The answer is A ." and "Yes".
NEW_TOKENS = 8


def without_image(prompt: Prompt) -> Tensor:
    """Ids [T'] of a prompt less its image tokens; words around the image stay, as "<img>" of Qwen-VL does."""
    return prompt.input_ids[0, torch.from_numpy(prompt.segments.labels != IMAGE)]


def answers_without_image(lvlm: Lvlm, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Answer]:
    """Greedy answers to prompts without their image tokens, whose places the others take. Without a cache."""
    given = [without_image(prompt) for prompt in prompts]
    rows = given
    ended = torch.zeros(len(rows), dtype=torch.bool)
    with torch.inference_mode():
        for _ in range(max_new_tokens):
            # Padding on the right is never seen, as attention is causal.
            hidden = lvlm.hidden_states(lvlm.embeddings(pad_sequence(rows, batch_first=True)))
            last = torch.stack([states[len(row) - 1] for states, row in zip(hidden, rows, strict=True)])
            chosen = lvlm.head(last).argmax(dim=-1)
            rows = [torch.cat([row, token[None]]) for row, token in zip(rows, chosen, strict=True)]
            ended |= torch.isin(chosen, torch.tensor(sorted(lvlm.stop_ids)))
            if ended.all():
                break
    said = [row[len(start) :].tolist() for row, start in zip(rows, given, strict=True)]
    return [lvlm.decode(until_stop(ids, lvlm.stop_ids)) for ids in said]


def moved(lvlm: Lvlm, prompt: Prompt) -> float:
    """Total variation between the first answer token's distributions, without the image and at L = 0."""
    with torch.inference_mode():
        hidden = lvlm.hidden_states(lvlm.embeddings(without_image(prompt)[None]))
        alone = lvlm.head(hidden[0, -1]).softmax(dim=-1)
        with truncated(lvlm, after=0):
            masked = lvlm.logits(prompt)[-1].softmax(dim=-1)
    return float((alone - masked).abs().sum() / 2)


def no_image(load: Load) -> Shown:
    """A.2: with no image token the model answers from the text alone, by what it knows (47.5 % right).

    Measure: share of right answers to POPE's and ScienceQA's questions at L = 0, recorded of all items,
    against guessing. A case, a model on a benchmark, holds where Wilson's interval, 95 % for all cases
    together (Bonferroni), is above guessing, and does not where it is below. Miniatures know nothing of the
    world but these scenes. And, item by item (McNemar), whether L = 0 is the same as no image: ``ITEMS`` items
    without image tokens in the prompt, where nothing keeps their positions.
    """
    level = 1 - 0.05 / (len(MODELS) * len(BENCHMARKS_ASKED))
    held, at_zero = [], []
    figures: dict[str, float] = {}
    distances: dict[str, float] = {}
    gained = lost = 0
    for model in MODELS:
        lvlm = load(model)
        for name in BENCHMARKS_ASKED:
            asked, record = BENCHMARKS[name], record_of(model, name)
            task = find_task("official", model, name)
            right = record.goodness[:, 0]
            chance = float(np.mean([1 / len(item.choices) if item.choices else 0.5 for item in record.items]))
            low, high = wilson(int(right.sum()), len(right), level)
            held.append(above(low, high, chance))
            at_zero.append(right.mean())

            chosen = spread(range(len(record.items)), ITEMS)
            prompts = [make_prompt(lvlm, asked, record.items[i]) for i in chosen]
            alone = np.array(
                [
                    task.score(record.items[i], task.read(answer.text))[asked.metrics[0].name][0]
                    for i, answer in zip(
                        chosen, answers_without_image(lvlm, prompts, NEW_TOKENS), strict=True
                    )
                ]
            )
            up, down = flips(alone, right[chosen])
            gained, lost = gained + up, lost + down
            apart = max(moved(lvlm, prompt) for prompt in prompts[:COMPARED])
            distances[model] = max(distances.get(model, 0.0), apart)
            figures |= {
                f"{model} {name}, L = 0": float(at_zero[-1]),
                f"{model} {name}, L = 0, low": low,
                f"{model} {name}, L = 0, high": high,
                f"{model} {name}, guessing": chance,
                f"{model} {name}, no image, of {ITEMS}": float(alone.mean()),
                f"{model} {name}, L = 0, of the same": float(right[chosen].mean()),
                f"{model} {name}, distance": apart,
            }
    p = mcnemar(gained, lost)
    figures |= {"right at L = 0 alone": gained, "right without image alone": lost, "p": p}
    same = [model for model, distance in distances.items() if distance < SAME]
    evidence = (
        f"At L = 0 {percent(min(at_zero[::2]))} to {percent(max(at_zero[::2]))} of POPE's and "
        f"{percent(min(at_zero[1::2]))} to {percent(max(at_zero[1::2]))} of ScienceQA's answers are right (six "
        f"miniatures, all items), above guessing ({percent(0.5)}, {percent(chance)}) in {held.count(True)} of "
        f"{len(held)} cases. Without image tokens in the prompt, of {len(held) * ITEMS} answers {lost} turn "
        f"right and {gained} wrong (p = {p:.2f}), and the first token's distribution moves by up to "
        f"{max(distances.values()):.2f} (total variation; {COMPARED} items a case; not at all with "
        f"{', '.join(same) or 'none'})."
    )
    return shown(held, evidence, figures)
