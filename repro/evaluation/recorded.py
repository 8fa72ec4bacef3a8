"""Table 1 of a miniature as recorded: every item's score at every layer, compared item by item."""

import io
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile
from zlib import error

import numpy as np

from repro.benchmarks.benchmark import Benchmark
from repro.evaluation.run import Evaluation
from repro.reading import write_file

RECORDS = Path(__file__).resolve().parents[2] / "golden" / "table1"
#: Largest share of answers (items x layers) that may score differently than recorded.
CHANGED = 0.002
#: Answers that score differently which a message names, at most.
SHOWN = 20


def record_path(model: str, benchmark: Benchmark) -> Path:
    """The record of a model on a benchmark."""
    return RECORDS / f"{model}-{benchmark.name}.npz"


def recorded_parts(model: str, benchmark: Benchmark, ids: Sequence[str]) -> np.ndarray:
    """Parts [items, N + 1, 2] of the benchmark's first metric, as recorded for the items of these ids.

    AssertionError if there is no record or it is damaged, or for items that it does not have.
    """
    path = record_path(model, benchmark)
    assert path.is_file(), f"no record at {path}; write it with --snapshot-update"
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as record:
            row, parts = {str(name): i for i, name in enumerate(record["ids"])}, record["parts"]
        if parts.ndim != 3 or len(parts) != len(row) or parts.dtype.kind != "f":
            raise ValueError(f"parts are {parts.dtype} {list(parts.shape)} for {len(row)} ids")
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
            f"{path} is damaged; expected the ids and parts of an .npz: restore it from version control"
        ) from cause
    unknown = [name for name in ids if name not in row]
    assert not unknown, f"{path} knows nothing of items {unknown[:5]}; record anew with --snapshot-update"
    return parts[[row[name] for name in ids]]


def compare_with_record(evaluation: Evaluation, update: bool = False) -> None:
    """AssertionError unless the answers score as recorded; items are matched by id.

    A run of some of the items is compared on those. With ``update`` the record is written instead.

    Raises:
        AssertionError: no record, items that the record does not have, or more than ``CHANGED`` of the answers
            score differently; the message says how many, at which layers, and how that changes the score.
    """
    model, benchmark = evaluation.task.model, evaluation.benchmark
    metric = benchmark.metrics[0].name
    measured, ids = evaluation.parts[metric], [item.id for item in evaluation.items]
    if update:
        path = record_path(model, benchmark)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.savez_compressed(content, ids=np.array(ids), parts=measured.astype(np.float32))
        write_file(path, content.getvalue())
        return
    recorded = recorded_parts(model, benchmark, ids)
    changed = np.abs(measured - recorded).max(axis=-1) > 1e-6
    allowed = CHANGED * changed.size
    layers = {layer: int(n) for layer, n in enumerate(changed.sum(axis=0)) if n}
    moved = (measured[..., 0].sum(axis=0) - recorded[..., 0].sum(axis=0)) / len(ids)
    assert changed.sum() <= allowed, (
        f"{model} on {benchmark.name}: {int(changed.sum())} of {changed.size} answers "
        f"score differently than recorded (allowed {allowed:.1f}, {100 * CHANGED:.1f} %). Changed by layer L: "
        f"{layers}; mean {metric} moved by {100 * moved[-1]:+.2f} points at the baseline and by up to "
        f"{100 * np.abs(moved).max():.2f} elsewhere. If the change is wanted, record anew with --snapshot-update\n"
        + "\n".join(_moved(evaluation, metric, recorded, changed))
    )


def _moved(evaluation: Evaluation, metric: str, recorded: np.ndarray, changed: np.ndarray) -> list[str]:
    """A line per answer that scores differently, the first ``SHOWN``: item, both scores, and what it is now."""
    places = np.argwhere(changed).tolist()
    lines = []
    for i, layer in places[:SHOWN]:
        before, now = (
            f"{part[0]:g} of {part[1]:g}" for part in (recorded[i, layer], evaluation.parts[metric][i, layer])
        )
        answer = f", answering {evaluation.texts[i][layer]!r:.80}" if evaluation.texts else ""
        lines.append(f"item {evaluation.items[i].id}, L = {layer}: recorded {before}, now {now}{answer}")
    return lines + ([f"and {len(places) - SHOWN} more"] if len(places) > SHOWN else [])
