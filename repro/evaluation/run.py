"""A model over a benchmark, at every truncation layer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from repro.benchmarks.benchmark import Benchmark, Item
from repro.benchmarks.versions import describe
from repro.models.lvlm import Answer, Lvlm, Prompt, middle_square, read_image
from repro.protocols import find_task
from repro.sweep import layout, memory_of, sweep


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Answers and scores of n items at L = 0...N.

    Attributes:
        model: name of the model.
        benchmark: what was asked.
        protocol: how, a name in ``repro.protocols.PROTOCOLS``.
        items: the n items.
        answers: n baseline answers (L = N).
        parts: by name of a metric or detail, float64 [n, N + 1, 2]: numerators and denominators.
        probability: float64 [n, N + 1], what the model truncated after L gives to the first token of the
            baseline answer.
    """

    model: str
    benchmark: Benchmark
    protocol: str
    items: list[Item]
    answers: list[Answer]
    parts: dict[str, np.ndarray]
    probability: np.ndarray

    @property
    def strata(self) -> list[str]:
        """Within what metrics are formed before they are averaged, of each item."""
        return find_task(self.protocol, self.model, self.benchmark.name).strata(self.items)

    def prompt(self, lvlm: Lvlm, index: int) -> Prompt:
        """The prompt of an item, as it was asked."""
        return make_prompt(lvlm, self.benchmark, self.items[index], self.protocol)

    @property
    def data(self) -> str:
        """Which data the items are; see ``repro.benchmarks.versions``."""
        return describe(self.benchmark.name, self.items)

    @property
    def images(self) -> list[str]:
        """Image of each item; see ``image_names``."""
        return image_names(self.items)


def image_names(items: Sequence[Item]) -> list[str]:
    """Image of each item, by folder and name: questions about one image succeed or fail together.

    The rest of its path is left out: names decide halves and resamples, wherever the data lie. A question
    without an image stands for itself.
    """
    return ["/".join(item.image.parts[-2:]) if item.image else f"question {item.id}" for item in items]


def limited(items: Sequence[Item], limit: int | None) -> list[Item]:
    """The first ``limit`` items of each stratum and kind, all of them for None."""
    if limit is None:
        return list(items)
    seen: dict[tuple[str, str], int] = {}
    kept = []
    for item in items:
        key = (item.stratum, item.kind)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= limit:
            kept.append(item)
    return kept


def make_prompt(lvlm: Lvlm, benchmark: Benchmark, item: Item, protocol: str = "official") -> Prompt:
    """The prompt of an item as a protocol asks it; errors name the item, one without an image included."""
    task = find_task(protocol, lvlm.card.name, benchmark.name)
    try:
        if item.image is None:
            raise ValueError("has no image, hence no image tokens to truncate")
        picture = read_image(item.image)
        if task.crop:
            picture = middle_square(picture, lvlm.crop_side)
        return lvlm.prompt(picture, task.ask(item), task.template)
    except (OSError, ValueError) as error:
        raise type(error)(f"item {item.id}: {error}") from error


def budget(device: torch.device) -> int:
    """Bytes a sweep may hold: most of what is free on a GPU, a fixed 4 GiB on a CPU."""
    if device.type == "cuda":
        return int(0.7 * torch.cuda.mem_get_info(device)[0])
    return 4 * 2**30


def room_for(lvlm: Lvlm, prompt: Prompt) -> int:
    """Tokens an answer may have."""
    return lvlm.context - len(prompt.segments)


def batches(
    lvlm: Lvlm, benchmark: Benchmark, items: Sequence[Item], size: int, protocol: str
) -> Iterator[list[tuple[int, Prompt]]]:
    """Prompts with the index of their item, alike in image positions and length.

    At most ``size`` at a time, and as many as the memory holds if their answers are as long as they may be.
    """
    memory = budget(lvlm.device)
    task = find_task(protocol, lvlm.card.name, benchmark.name)
    order = sorted(range(len(items)), key=lambda i: (len(task.ask(items[i])), i))
    for start in range(0, len(order), size):
        made = [(i, make_prompt(lvlm, benchmark, items[i], protocol)) for i in order[start : start + size]]
        made.sort(key=lambda pair: layout(pair[1]))
        for _, same in itertools.groupby(made, key=lambda pair: layout(pair[1])):
            group = list(same)
            longest = max((prompt for _, prompt in group), key=lambda prompt: len(prompt.segments))
            room = min(task.max_new_tokens, room_for(lvlm, longest))
            fit = max(1, memory // max(1, memory_of(lvlm, longest, room)))
            for first in range(0, len(group), fit):
                yield group[first : first + fit]


def evaluate(
    lvlm: Lvlm,
    benchmark: Benchmark,
    items: Sequence[Item],
    log: Path | None = None,
    batch_size: int = 24,
    progress: bool = True,
    protocol: str = "official",
) -> Evaluation:
    """Sweep every item and score every answer.

    Args:
        log: a JSON-lines file that gets one row per item and layer as soon as it is known: protocol, item,
            layer, answer, and by metric the numerator and denominator it adds.
        batch_size: prompts swept at once, fewer where memory is short.
        progress: show items/s and the time left on stderr.
        protocol: how to ask, decode, read and score.

    Raises:
        ProtocolError: the protocol does not define the benchmark for the model.
        OSError, ValueError: an image that cannot be read, a prompt that cannot be made, or answers that are
            not finite; the message starts with the items concerned.
    """
    task = find_task(protocol, lvlm.card.name, benchmark.name)
    shape = (len(items), lvlm.n_layers + 1)
    parts = {name: np.zeros((*shape, 2)) for name in benchmark.figures}
    probability = np.zeros(shape)
    baseline: list[Answer | None] = [None] * len(items)
    out = log.open("w", encoding="utf-8") if log else None
    bar = tqdm(total=len(items), desc=f"{lvlm.card.name} {benchmark.name}", unit="item", disable=not progress)
    try:
        for batch in batches(lvlm, benchmark, items, batch_size, protocol):
            indices, prompts = [i for i, _ in batch], [p for _, p in batch]
            room = min(room_for(lvlm, prompt) for prompt in prompts)
            try:
                if room < 1:
                    raise ValueError(
                        f"a prompt of {max(len(p.segments) for p in prompts)} tokens leaves no room for an answer "
                        f"within {lvlm.context}"
                    )
                swept = sweep(
                    lvlm,
                    prompts,
                    min(task.max_new_tokens, room),
                    repetition_penalty=task.repetition_penalty,
                )
            except ValueError as error:
                ids = ", ".join(items[i].id for i in indices)
                raise ValueError(f"{benchmark.name} items {ids}: {error}") from error
            for i, result in zip(indices, swept, strict=True):
                baseline[i] = result.answers[-1]
                probability[i] = _probability(result.logits, result.answers[-1].ids[0])
                for layer, answer in enumerate(result.answers):
                    scored = task.score(items[i], task.read(answer.text))
                    for name, part in scored.items():
                        parts[name][i, layer] = part
                    if out:
                        row = {
                            "protocol": protocol,
                            "item": items[i].id,
                            "layer": layer,
                            "answer": answer.text,
                        }
                        out.write(json.dumps(row | scored, ensure_ascii=True) + "\n")
            if out:
                out.flush()
            bar.update(len(batch))
    finally:
        bar.close()
        if out:
            out.close()
    answers = [answer for answer in baseline if answer is not None]
    return Evaluation(lvlm.card.name, benchmark, protocol, list(items), answers, parts, probability)


def _probability(logits: np.ndarray, token: int) -> np.ndarray:
    """Softmax of one token along the last axis of logits [N + 1, vocabulary]."""
    logits = logits.astype(np.float64)
    peak = logits.max(axis=-1)
    return np.exp(logits[:, token] - peak) / np.exp(logits - peak[:, None]).sum(axis=-1)
