"""Table 1 of a miniature as recorded: every item's answer at every layer, compared item by item."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import error

import numpy as np

from repro.benchmarks.benchmark import Benchmark
from repro.evaluation.run import Evaluation
from repro.reading import write_file

RECORDS = Path(__file__).resolve().parents[2] / "golden" / "table1"
#: Largest share of answers (items x layers) that may score differently than recorded.
CHANGED = 0.002
#: Arrays of a record beside the parts of further metrics, which have their names.
PARTS, TEXTS, PROBABILITY = "parts", "texts", "probability"
#: Largest difference of a probability that is rounding. Measured between attention kernels and batches: 2e-6 (60
#: items each of three models on three benchmarks); times 50, for other machines and versions.
NEAR = 1e-4
#: Answers that score differently which a message names, at most.
SHOWN = 20


def record_path(model: str, benchmark: Benchmark) -> Path:
    """The record of a model on a benchmark."""
    return RECORDS / f"{model}-{benchmark.name}.npz"


def recorded_parts(model: str, benchmark: Benchmark, ids: Sequence[str]) -> np.ndarray:
    """Parts [items, N + 1, 2] of the benchmark's first metric, as recorded for the items of these ids.

    AssertionError if there is no record or it is damaged, or for items that it does not have.
    """
    return _recorded(model, benchmark, ids)[PARTS]


def recorded_ids(model: str, benchmark: Benchmark) -> set[str]:
    """Ids of the items that are recorded; AssertionError as of ``recorded_parts``."""
    return set(_read(model, benchmark)[0])


def _keys(benchmark: Benchmark) -> dict[str, str]:
    """Metrics by the name of their array in a record."""
    first, *others = benchmark.metric_names
    return {PARTS: first} | {name: name for name in others}


def _read(model: str, benchmark: Benchmark) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """The row of each id in a record, and its arrays: parts by metric, answers and probabilities [items, N + 1].

    AssertionError if there is no record or it is damaged.
    """
    path = record_path(model, benchmark)
    assert path.is_file(), f"no record at {path}; write it with --snapshot-update"
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as record:
            row = {str(name): i for i, name in enumerate(record["ids"])}
            arrays = {name: record[name] for name in (*_keys(benchmark), TEXTS, PROBABILITY)}
        shape = arrays[TEXTS].shape
        expected = {TEXTS: ("U", shape), PROBABILITY: ("f", shape)}
        for name, array in arrays.items():
            kind, size = expected.get(name, ("f", (*shape, 2)))
            if array.dtype.kind != kind or array.shape != size or len(array) != len(row):
                raise ValueError(f"{name} is {array.dtype} {list(array.shape)} for {len(row)} ids")
    except (
        ValueError,
        OSError,
        EOFError,
        LookupError,
        AttributeError,
        TypeError,
        BadZipFile,
        error,
    ) as cause:
        raise AssertionError(
            f"{path} is damaged; expected ids, scores, answers and probabilities: restore it from version control"
        ) from cause
    return row, arrays


def _recorded(model: str, benchmark: Benchmark, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """What is recorded of the items of these ids, see ``_read``; AssertionError for items that are not."""
    row, arrays = _read(model, benchmark)
    unknown = [name for name in ids if name not in row]
    assert not unknown, (
        f"{record_path(model, benchmark)} knows nothing of items {unknown[:5]}; record anew with --snapshot-update"
    )
    chosen = [row[name] for name in ids]
    return {name: array[chosen] for name, array in arrays.items()}


def compare_with_record(evaluation: Evaluation, update: bool = False, in_part: bool = False) -> None:
    """AssertionError unless the answers score as recorded; items are matched by id.

    A run of some of the items is compared on those. With ``update`` the record is written instead. A record may
    itself be of some of the items ``in_part``; the others are then compared with nothing.

    Raises:
        AssertionError: no record, items that the record does not have, more than ``CHANGED`` of the answers
            score differently by any metric, or as many probabilities are others; the message says how many, at
            which layers, and how that changes the score.
    """
    model, benchmark = evaluation.task.model, evaluation.benchmark
    ids = [item.id for item in evaluation.items]
    if update:
        path = record_path(model, benchmark)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        arrays: dict[str, Any] = {
            key: evaluation.parts[name].astype(np.float32) for key, name in _keys(benchmark).items()
        }
        arrays |= {TEXTS: np.array(evaluation.texts), PROBABILITY: evaluation.probability.astype(np.float32)}
        np.savez_compressed(content, ids=np.array(ids), **arrays)
        write_file(path, content.getvalue())
        return
    if in_part:
        known = recorded_ids(model, benchmark)
        chosen = [i for i, name in enumerate(ids) if name in known]
        evaluation, ids = evaluation.of(chosen), [ids[i] for i in chosen]
    recorded = _recorded(model, benchmark, ids)
    metric = benchmark.metrics[0].name
    by_metric = {
        key: np.abs(evaluation.parts[name] - recorded[key]).max(axis=-1) > 1e-6
        for key, name in _keys(benchmark).items()
    }
    changed = np.any(list(by_metric.values()), axis=0)
    allowed = CHANGED * changed.size
    layers = {layer: int(n) for layer, n in enumerate(changed.sum(axis=0)) if n}
    moved = (evaluation.parts[metric][..., 0].sum(axis=0) - recorded[PARTS][..., 0].sum(axis=0)) / len(ids)
    assert changed.sum() <= allowed, (
        f"{model} on {benchmark.name}: {int(changed.sum())} of {changed.size} answers "
        f"score differently than recorded (allowed {allowed:.1f}, {100 * CHANGED:.1f} %). Changed by layer L: "
        f"{layers}; mean {metric} moved by {100 * moved[-1]:+.2f} points at the baseline and by up to "
        f"{100 * np.abs(moved).max():.2f} elsewhere. If the change is wanted, record anew with --snapshot-update\n"
        + "\n".join(_moved(evaluation, recorded, by_metric, changed))
    )
    distance = np.abs(evaluation.probability - recorded[PROBABILITY])
    other = int((distance > NEAR).sum())
    assert other <= allowed, (
        f"{model} on {benchmark.name}: {other} of {distance.size} probabilities of the baseline answer's first "
        f"token differ from the recorded ones by more than {NEAR:g}, the largest by {distance.max():.2g}"
    )


def _moved(
    evaluation: Evaluation,
    recorded: Mapping[str, np.ndarray],
    by_metric: Mapping[str, np.ndarray],
    changed: np.ndarray,
) -> list[str]:
    """A line per answer that scores differently, the first ``SHOWN``: item, both scores and both answers."""
    places = np.argwhere(changed).tolist()
    lines = []
    for i, layer in places[:SHOWN]:
        key = next(key for key, where in by_metric.items() if where[i, layer])
        metric = _keys(evaluation.benchmark)[key]
        before, now = (
            f"{metric} {part[0]:g} of {part[1]:g}, {text!r:.80}"
            for part, text in (
                (recorded[key][i, layer], str(recorded[TEXTS][i, layer])),
                (evaluation.parts[metric][i, layer], evaluation.texts[i][layer]),
            )
        )
        lines.append(f"item {evaluation.items[i].id}, L = {layer}: recorded {before}; now {now}")
    return lines + ([f"and {len(places) - SHOWN} more"] if len(places) > SHOWN else [])
