"""A model over a benchmark, at every truncation layer."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from repro.benchmarks.benchmark import HubImage, Item
from repro.benchmarks.versions import describe
from repro.evaluation.results import Configuration, Results, Row, Run, digest_of, revision_of, versions
from repro.evaluation.scored import Scored
from repro.models.card import ModelCard
from repro.models.lvlm import Answer, Lvlm, Prompt
from repro.protocols.task import Task
from repro.sweep import layout, memory_of, sweep


@dataclass(frozen=True, eq=False)
class Evaluation(Scored):
    """Answers and scores of n items at L = 0...N.

    Attributes:
        answers: n baseline answers (L = N).
        probability: float64 [n, N + 1], what the model truncated after L gives to the first token of the
            baseline answer.
        failed: by item id, why an item has no answer; those are not among the n.
    """

    answers: list[Answer]
    probability: np.ndarray
    failed: dict[str, str] = field(default_factory=dict)

    def prompt(self, lvlm: Lvlm, index: int) -> Prompt:
        """The prompt of an item, as it was asked."""
        return self.task.prompt(lvlm, self.items[index])


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


def budget(device: torch.device) -> int:
    """Bytes a sweep may hold: most of what is free on a GPU, a fixed 4 GiB on a CPU."""
    if device.type == "cuda":
        return int(0.7 * torch.cuda.mem_get_info(device)[0])
    return 4 * 2**30


def batches(
    lvlm: Lvlm,
    task: Task,
    items: Sequence[Item],
    size: int,
    known: Collection[str] = (),
    failed: dict[str, str] | None = None,
) -> Iterator[list[tuple[int, Prompt]]]:
    """Prompts with the index of their item, alike in image positions and length.

    At most ``size`` at a time, and as many as the memory holds if their answers are as long as they may be. Which
    items go together does not depend on what is known, so that a run that goes on has the answers of one that was
    never broken off.

    Args:
        known: ids of items that need no answer: batches of those alone are left out.
        failed: gets, by item id, why an item has no prompt; None: that is an error.
    """
    memory = budget(lvlm.device)
    order = sorted(range(len(items)), key=lambda i: (len(task.ask(items[i])), i))
    for start in range(0, len(order), size):
        chunk = order[start : start + size]
        if all(items[i].id in known for i in chunk):
            continue
        made = []
        for i in chunk:
            try:
                made.append((i, task.prompt(lvlm, items[i])))
            except (OSError, ValueError) as error:
                if failed is None:
                    raise
                failed[items[i].id] = str(error)
        made.sort(key=lambda pair: layout(pair[1]))
        for _, same in itertools.groupby(made, key=lambda pair: layout(pair[1])):
            group = list(same)
            longest = max((prompt for _, prompt in group), key=lambda prompt: len(prompt.segments))
            room = min(task.max_new_tokens, lvlm.room(longest))
            fit = max(1, memory // max(1, memory_of(lvlm, longest, room)))
            for first in range(0, len(group), fit):
                batch = group[first : first + fit]
                if any(items[i].id not in known for i, _ in batch):
                    yield batch


def question_digest(card: ModelCard, task: Task, item: Item) -> str:
    """Digest of what a task asks about an item, but for the picture, and of what is right."""
    template = task.template or card.template
    return digest_of([template, task.ask(item), item.choices, item.reference])


def begin(results: Results, lvlm: Lvlm, task: Task, items: Sequence[Item], resume: bool = True) -> Run:
    """The run of these items that was broken off, or a new one."""
    benchmark = task.benchmark
    on_gpu = lvlm.device.type == "cuda"
    settings: dict[str, str | int] = {
        "items": digest_of([item.id for item in items]),
        "n": len(items),
        "data": describe(benchmark.name, items),
        "dtype": str(lvlm.model.dtype),
        "device": torch.cuda.get_device_name(lvlm.device) if on_gpu else "cpu",
        "max_new_tokens": task.max_new_tokens,
    }
    if benchmark.mode:
        settings["mode"] = benchmark.mode
    revision = revision_of(lvlm.path)
    return results.begin(
        Configuration(task.model, revision, benchmark.name, task.protocol, settings, versions()), resume
    )


def evaluate(
    lvlm: Lvlm,
    task: Task,
    items: Sequence[Item],
    run: Run | None = None,
    batch_size: int = 24,
    progress: bool = True,
) -> Evaluation:
    """Sweep every item and score every answer.

    An item whose picture cannot be read, or whose prompt cannot be made, fails by itself; the others go on.

    Args:
        task: how to ask, decode, read and score.
        run: what it knows is not asked again; what is answered is written to it, batch by batch.
        batch_size: prompts swept at once, fewer where memory is short.
        progress: show items/s and the time left on stderr.

    Raises:
        ValueError: every item fails, or answers are not finite; the message names items.
        ResultsError: rows cannot be written.
    """
    asked = dict(zip([item.id for item in items], _asked(lvlm, task, items), strict=True))
    rows = run.known(asked, lvlm.n_layers + 1) if run else {}
    failed: dict[str, str] = {}
    title = f"{task.model} {task.benchmark.name}"
    with tqdm(total=len(items), initial=len(rows), desc=title, unit="item", disable=not progress) as bar:
        for batch in batches(lvlm, task, items, batch_size, rows.keys(), failed):
            answered = _answer(lvlm, task, [items[i] for i, _ in batch], [p for _, p in batch], asked)
            if run:
                run.write([row for one in answered.values() for row in one])
            bar.update(len(answered.keys() - rows.keys()))
            rows |= answered
    if not rows:
        raise ValueError(
            f"{task.benchmark.name}: no item could be asked; the first: {next(iter(failed.values()))}"
        )
    kept = [item for item in items if item.id in rows]
    parts = {
        name: np.array(
            [[row.score.get(name, (0.0, 0.0)) for row in rows[item.id]] for item in kept], dtype=np.float64
        )
        for name in task.benchmark.metric_names
    }
    baseline = [rows[item.id][-1] for item in kept]
    return Evaluation(
        task,
        kept,
        parts,
        [Answer(row.ids, row.answer) for row in baseline],
        np.array([[row.probability for row in rows[item.id]] for item in kept]),
        failed,
    )


def _asked(lvlm: Lvlm, task: Task, items: Sequence[Item]) -> Iterator[tuple[str, str]]:
    """Digests of each item's question and of its picture; that of a picture that cannot be read is empty."""
    pictures: dict[Path | HubImage, str] = {}
    for item in items:
        if item.image is not None and item.image not in pictures:
            try:
                pictures[item.image] = hashlib.sha256(item.image.read_bytes()).hexdigest()
            except OSError:
                pictures[item.image] = ""
        yield question_digest(lvlm.card, task, item), pictures[item.image] if item.image else ""


def _answer(
    lvlm: Lvlm,
    task: Task,
    items: Sequence[Item],
    prompts: Sequence[Prompt],
    asked: dict[str, tuple[str, str]],
) -> dict[str, list[Row]]:
    """Rows of a batch at L = 0...N, by item id."""
    room = min(lvlm.room(prompt) for prompt in prompts)
    try:
        swept = sweep(
            lvlm, prompts, min(task.max_new_tokens, room), repetition_penalty=task.repetition_penalty
        )
    except ValueError as error:
        raise ValueError(f"items {', '.join(item.id for item in items)}: {error}") from error
    rows: dict[str, list[Row]] = {}
    for item, result in zip(items, swept, strict=True):
        likely = _probability(result.logits, result.answers[-1].ids[0])
        rows[item.id] = [
            Row(
                item=item.id,
                question=asked[item.id][0],
                image=asked[item.id][1],
                layer=layer,
                keep=0,
                answer=answer.text,
                ids=answer.ids,
                score=task.score(item, task.read(answer.text)),
                probability=float(likely[layer]),
            )
            for layer, answer in enumerate(result.answers)
        ]
    return rows


def _probability(logits: np.ndarray, token: int) -> np.ndarray:
    """Softmax of one token along the last axis of logits [N + 1, vocabulary]."""
    logits = logits.astype(np.float64)
    peak = logits.max(axis=-1)
    return np.exp(logits[:, token] - peak) / np.exp(logits - peak[:, None]).sum(axis=-1)
