"""What is answered without the image: prompts without image tokens, against the image truncated after layer 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from repro.audit.experiments.common import MODELS, items_of, outcome_of, percent, record_of
from repro.audit.ledger import Load, Shown
from repro.benchmarks import BENCHMARKS
from repro.evaluation.flow import spread
from repro.evaluation.run import make_prompt
from repro.models.lvlm import Answer, Lvlm, Prompt
from repro.protocols import OFFICIAL
from repro.segments import IMAGE
from repro.statistics import flips, mcnemar, wilson
from repro.sweep import until_stop
from repro.truncation import truncated

#: Benchmarks that can be guessed.
BENCHMARKS_ASKED = ("pope", "scienceqa")
#: Items per model and benchmark, evenly spaced; of so many first ones distributions are compared too.
ITEMS, COMPARED = 100, 6
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

    Measure: share of right answers to ``ITEMS`` questions of POPE and of ScienceQA without image tokens in the prompt,
    against guessing; and against the recorded answers at L = 0, which keep the positions behind the image, item by
    item. Intervals by Wilson, tests by McNemar. A case, a model on a benchmark, holds where the interval is above
    guessing. Miniatures know nothing of the world but these scenes.
    """
    held, found, recorded, apart, figures = [], [], [], [], {}
    gained = lost = 0
    for model in MODELS:
        lvlm = load(model)
        read = OFFICIAL[lvlm.card.style].read
        for name in BENCHMARKS_ASKED:
            asked, record = BENCHMARKS[name], record_of(model, name)
            chosen = spread(range(len(record.items)), ITEMS)
            items = [record.items[i] for i in chosen]
            prompts = [make_prompt(lvlm, asked, item) for item in items]
            said = answers_without_image(lvlm, prompts, NEW_TOKENS)
            metric = asked.metrics[0].name
            right = np.array(
                [
                    asked.score(item, read(name, one.text))[metric][0]
                    for item, one in zip(items, said, strict=True)
                ]
            )
            masked = record.goodness[chosen, 0]
            chance = float(np.mean([1 / len(item.choices) if item.choices else 0.5 for item in items]))
            low, high = wilson(int(right.sum()), len(right))
            held.append(low > chance)
            up, down = flips(right, masked)
            gained, lost = gained + up, lost + down
            found.append(right.mean())
            recorded.append(masked.mean())
            apart.append(max(moved(lvlm, prompt) for prompt in prompts[:COMPARED]))
            figures |= {
                f"{model} {name}, no image": float(right.mean()),
                f"{model} {name}, no image, low": low,
                f"{model} {name}, no image, high": high,
                f"{model} {name}, L = 0": float(masked.mean()),
                f"{model} {name}, guessing": chance,
                f"{model} {name}, distance of distributions": apart[-1],
            }
    p = mcnemar(gained, lost)
    figures |= {"right at L = 0 alone": gained, "right without image alone": lost, "p": p}
    same = [model for i, model in enumerate(MODELS) if max(apart[2 * i : 2 * i + 2]) < 1e-5]
    evidence = (
        f"Without image tokens {percent(min(found[::2]))} to {percent(max(found[::2]))} of POPE's and "
        f"{percent(min(found[1::2]))} to {percent(max(found[1::2]))} of ScienceQA's answers are right (six miniatures, "
        f"{ITEMS} items each), above guessing ({percent(0.5)}, {percent(chance)}) in {sum(held)} of {len(held)} cases. "
        f"At L = 0, where positions keep the gap, {gained} other answers are right and {lost} are not (p = {p:.2f}); the "
        f"distribution of the first token differs by up to {max(apart):.2f} (total variation, {COMPARED} items a case), "
        f"and not at all in {', '.join(same) or 'none'}."
    )
    return Shown(outcome_of(held), evidence, figures)
