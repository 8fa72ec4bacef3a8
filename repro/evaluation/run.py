"""A model over a benchmark, at every truncation layer, and its scored answers."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from scipy.special import softmax
from tqdm import tqdm

from repro.benchmarks.benchmark import Benchmark, HubImage, Item, image_names
from repro.benchmarks.chair import GroundTruth
from repro.evaluation.digests import digest_of, revision_of, versions
from repro.evaluation.results import Asked, Configuration, Results, Row, Run
from repro.evaluation.scored import Scored
from repro.models.card import ModelCard
from repro.models.lvlm import Lvlm
from repro.models.prompts import Answer, Prompt
from repro.models.rounding import raise_if_passing
from repro.protocols.task import Task
from repro.reading import read_file
from repro.sweep import layout, memory_of, sweep

#: Told of a model on a benchmark: a title, items done, of how many, and how many an earlier session had left.
Progress = Callable[[str, int, int, int], None]


@dataclass(frozen=True, eq=False)
class Evaluation(Scored):
    """Answers and scores of n items at L = 0...N.

    Attributes:
        answers: n baseline answers (L = N).
        probability: float64 [n, N + 1], of the first token of the baseline answer, by the model truncated after L.
        failed: by item id, why an item has no answer; those are not among the n.
        texts: the n answers at L = 0...N, as text.
        known: how many of the answers an earlier session had left.
    """

    answers: list[Answer]
    probability: np.ndarray
    failed: dict[str, str] = field(default_factory=dict)
    texts: list[list[str]] = field(default_factory=list)
    known: int = 0

    def of(self, chosen: Sequence[int]) -> Self:
        """The same of some of the items, by their numbers."""
        some = list(chosen)
        return replace(
            self,
            items=[self.items[i] for i in some],
            parts={name: parts[some] for name, parts in self.parts.items()},
            answers=[self.answers[i] for i in some],
            probability=self.probability[some],
            texts=[self.texts[i] for i in some],
        )

    def prompt(self, lvlm: Lvlm, index: int) -> Prompt:
        """The prompt of an item."""
        return self.task.prompt(lvlm, self.items[index])


def limited(items: Sequence[Item], limit: int | None) -> list[Item]:
    """The first ``limit`` items of each stratum and kind, all of them for None."""
    if limit is None:
        return list(items)
    counts: Counter[tuple[str, str]] = Counter()
    chosen = []
    for item in items:
        counts[item.stratum, item.kind] += 1
        if counts[item.stratum, item.kind] <= limit:
            chosen.append(item)
    return chosen


def budget(devices: Sequence[torch.device]) -> int:
    """Bytes a sweep may hold: most of what is free on the model's GPUs, a fixed 4 GiB on a CPU."""
    if devices[0].type == "cuda":
        return int(0.7 * len(devices) * min(torch.cuda.mem_get_info(device)[0] for device in devices))
    return 4 * 2**30


def batches(
    lvlm: Lvlm,
    task: Task,
    items: Sequence[Item],
    size: int,
    known: Collection[str] = (),
    failed: dict[str, str] | None = None,
    part: tuple[int, int] = (0, 1),
) -> Iterator[list[tuple[int, Prompt]]]:
    """Prompts with the index of their item, equal in image positions and length.

    At most ``size`` at a time, and as many as the memory holds if answers get as long as they may. Which items go
    together does not depend on what is known, so that a resumed run has the answers of an uninterrupted one.

    Args:
        known: ids of items that need no answer: batches of those alone are left out.
        failed: receives, by item id, why an item has no prompt; None: that is an error.
        part: (k, n): only every n-th batch of ``size`` from the k-th on, counted from 0.
    """
    memory = budget(lvlm.devices)
    order = sorted(range(len(items)), key=lambda i: (len(task.ask(items[i])), i))
    for start in range(part[0] * size, len(order), part[1] * size):
        chunk = order[start : start + size]
        if all(items[i].id in known for i in chunk):
            continue
        groups: dict[tuple[int, ...], list[tuple[int, Prompt]]] = defaultdict(list)
        for i in chunk:
            try:
                prompt = task.prompt(lvlm, items[i])
            except (OSError, ValueError) as error:
                if failed is None:
                    raise
                failed[items[i].id] = str(error)
            else:
                groups[layout(prompt)].append((i, prompt))
        for _, group in sorted(groups.items()):
            longest = max((prompt for _, prompt in group), key=lambda prompt: len(prompt.segments))
            room = min(task.max_new_tokens, lvlm.room(longest))
            fit = max(1, memory // max(1, memory_of(lvlm, longest, room)))
            for first in range(0, len(group), fit):
                batch = group[first : first + fit]
                if any(items[i].id not in known for i, _ in batch):
                    yield batch


def question_digest(card: ModelCard, task: Task, item: Item) -> str:
    """Digest of what a task asks about an item, without the image, and of its reference."""
    template = task.template or card.template
    return digest_of([template, task.ask(item), item.choices, item.reference])


def right_answer(item: Item) -> str:
    """The right answer of an item in words: yes or no, the letter with its choice, all answers, all objects."""
    match item.reference:
        case bool(yes):
            return "yes" if yes else "no"
        case GroundTruth(objects):
            return ", ".join(sorted(objects))
        case str(letter) if len(letter) == 1 and ord(letter) - ord("A") in range(len(item.choices)):
            return f"{letter}: {item.choices[ord(letter) - ord('A')]}"
        case tuple(answers):
            return ", ".join(dict.fromkeys(map(str, answers)))
    return str(item.reference)


def asked_of(task: Task, item: Item) -> Asked:
    """An item in words; no picture for one without an image."""
    picture = image_names([item])[0] if item.image else ""
    return Asked(task.ask(item), picture, right_answer(item), item.stratum, item.kind)


def begin(
    results: Results,
    lvlm: Lvlm,
    task: Task,
    items: Sequence[Item],
    resume: bool = True,
    more: Mapping[str, str] | None = None,
) -> Run:
    """The interrupted run of these items, or a new one; ``more`` settings of which a run has its own."""
    return results.begin(configuration_of(lvlm, task, items, more), resume)


def configuration_of(
    lvlm: Lvlm, task: Task, items: Sequence[Item], more: Mapping[str, str] | None = None
) -> Configuration:
    """All that decides the answers to these items."""
    benchmark = task.benchmark
    settings: dict[str, str | int] = {
        **(more or {}),
        "items": digest_of([item.id for item in items]),
        "n": len(items),
        "data": benchmark.describe(items),
        "dtype": str(lvlm.computes_in),
        "device": torch.cuda.get_device_name(lvlm.device) if lvlm.device.type == "cuda" else "cpu",
        "max_new_tokens": task.max_new_tokens,
    }
    if benchmark.mode:
        settings["mode"] = benchmark.mode
    revision = revision_of(lvlm.path)
    return Configuration(task.model, revision, benchmark.name, task.protocol, settings, versions())


def evaluate(
    lvlm: Lvlm,
    task: Task,
    items: Sequence[Item],
    run: Run | None = None,
    batch_size: int = 24,
    progress: bool | Progress = True,
) -> Evaluation:
    """Sweep every item and score every answer.

    An item whose image cannot be read, or whose prompt cannot be built, fails alone; the others go on.

    Args:
        task: how to ask, decode, read and score.
        run: its answers are not computed again; new ones are written to it, batch by batch.
        batch_size: prompts swept at once, fewer if memory is short.
        progress: show items/s and the time left on stderr, or call this instead.

    Raises:
        ValueError: every item fails, or answers are not finite; the message names items.
        ResultsError: rows cannot be written.
    """
    rows, failed, known = answer_items(lvlm, task, items, run, batch_size, progress)
    if not rows:
        raise ValueError(
            f"{task.benchmark.name}: no item could be asked; the first: {next(iter(failed.values()))}"
        )
    answered_items = [item for item in items if item.id in rows]
    ordered = [rows[item.id] for item in answered_items]
    parts = parts_of(task.benchmark, ordered)
    baseline = [Answer(layers[-1].ids, layers[-1].answer) for layers in ordered]
    probability = np.array([[row.probability for row in layers] for layers in ordered])
    texts = [[row.answer for row in layers] for layers in ordered]
    return Evaluation(task, answered_items, parts, baseline, probability, failed, texts, known)


def parts_of(benchmark: Benchmark, rows: Sequence[Sequence[Row]]) -> dict[str, np.ndarray]:
    """By metric, float64 [n, N + 1, 2], of the rows of n items at L = 0...N; 0 of 0 where a row has none."""
    return {
        name: np.array([[row.score.get(name, (0.0, 0.0)) for row in layers] for layers in rows], float)
        for name in benchmark.metric_names
    }


def _silent(title: str, done: int, total: int, known: int) -> None:
    """Progress that nobody looks at."""


def answer_items(
    lvlm: Lvlm,
    task: Task,
    items: Sequence[Item],
    run: Run | None = None,
    batch_size: int = 24,
    progress: bool | Progress = True,
    part: tuple[int, int] = (0, 1),
) -> tuple[dict[str, list[Row]], dict[str, str], int]:
    """Rows at L = 0...N by item id, by item id why one has none, and how many were there before.

    See ``evaluate`` and ``batches``.
    """
    digests = item_digests(lvlm, task, items)
    rows = run.known(digests, lvlm.n_layers + 1) if run else {}
    known = len(rows)
    failed: dict[str, str] = {}
    title = f"{task.model} {task.benchmark.name}"
    shown = progress if callable(progress) else _silent
    shown(title, known, len(items), known)
    with tqdm(total=len(items), initial=known, desc=title, unit="item", disable=progress is not True) as bar:
        for batch in batches(lvlm, task, items, batch_size, rows.keys(), failed, part):
            answered = _answer(lvlm, task, [(items[i], prompt) for i, prompt in batch], digests)
            if run:
                asked = {items[i].id: asked_of(task, items[i]) for i, _ in batch}
                run.write([row for layers in answered.values() for row in layers], asked)
            bar.update(len(answered.keys() - rows.keys()))
            rows |= answered
            shown(title, len(rows), len(items), known)
    return rows, failed, known


def item_digests(lvlm: Lvlm, task: Task, items: Sequence[Item]) -> dict[str, tuple[str, str]]:
    """Digests of each item's question and image, by its id."""
    return dict(zip([item.id for item in items], _digests(lvlm, task, items), strict=True))


def _digests(lvlm: Lvlm, task: Task, items: Sequence[Item]) -> Iterator[tuple[str, str]]:
    """Digests of each item's question and image; empty for an image that cannot be read."""
    images: dict[Path | HubImage | None, str] = {None: ""}
    for item in items:
        if item.image is not None and item.image not in images:
            try:
                image = item.image
                content = read_file(image) if isinstance(image, Path) else image.read_bytes()
                images[image] = hashlib.sha256(content).hexdigest()
            except OSError:
                images[item.image] = ""
        yield question_digest(lvlm.card, task, item), images[item.image]


def _answer(
    lvlm: Lvlm, task: Task, batch: Sequence[tuple[Item, Prompt]], digests: dict[str, tuple[str, str]]
) -> dict[str, list[Row]]:
    """Rows of a batch at L = 0...N, by item id."""
    items, prompts = zip(*batch, strict=True)
    longest = min(task.max_new_tokens, *map(lvlm.room, prompts))
    try:
        swept = sweep(lvlm, prompts, longest, repetition_penalty=task.repetition_penalty)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise_if_passing(error)
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"items {', '.join(item.id for item in items)}: {kind}{error}") from error
    rows: dict[str, list[Row]] = {}
    for item, result in zip(items, swept, strict=True):
        rows[item.id] = []
        probability = _probability(result.logits, result.answers[-1].ids[0]).tolist()
        for layer, answer in enumerate(result.answers):
            score = task.score(item, task.read(answer.text))
            rows[item.id].append(
                Row(item.id, *digests[item.id], layer, 0, answer.text, answer.ids, score, probability[layer])
            )
    return rows


def _probability(logits: np.ndarray, token: int) -> np.ndarray:
    """Softmax of one token along the last axis of logits [N + 1, vocabulary]."""
    return softmax(logits.astype(np.float64), axis=-1)[:, token]
