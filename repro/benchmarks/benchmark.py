"""What a benchmark is: items to ask, and a score for each answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from repro.scores import Part


class DataError(ValueError):
    """A data file that cannot be used; the message names the file, the place, and what was expected."""


@dataclass(frozen=True)
class HubImage:
    """An image within a data set of the hub; of a ``Path`` it has what an image file is asked for.

    Attributes:
        path: where the published image folders have it; nothing is there.
        repository: id and commit of the data set.
        index: number of its row.
        rows: by number, {"image": {"bytes": the encoded image}}.
    """

    path: PurePosixPath
    repository: str
    index: int
    rows: Any = field(repr=False, compare=False)

    @property
    def parts(self) -> tuple[str, ...]:
        return self.path.parts

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def stem(self) -> str:
        return self.path.stem

    def read_bytes(self) -> bytes:
        """The encoded image, read from disk by this call."""
        return self.rows[self.index]["image"]["bytes"]

    def __str__(self) -> str:
        return f"{self.path} ({self.repository}, row {self.index})"


@dataclass(frozen=True)
class Item:
    """One question about one image.

    Attributes:
        id: unique within the benchmark; answers are matched by it, never by order.
        image: the image; None for a question without one. Loading items opens no image.
        question: as published; a protocol words the user's turn (``repro.protocols``).
        reference: what the scorer compares the answer with.
        stratum: group within which metrics are formed before averaging, e.g. a POPE category.
        kind: finer description for reports, e.g. the kind of a ScienceQA question.
        hint, choices: of a multiple-choice question.
    """

    id: str
    image: Path | HubImage | None
    question: str
    reference: Any
    stratum: str = ""
    kind: str = ""
    hint: str = ""
    choices: tuple[str, ...] = ()


#: Parts by metric name that an answer adds for an item.
Score = Callable[[Item, str], dict[str, Part]]


@dataclass(frozen=True)
class Metric:
    """A figure of a benchmark, in [0, 1].

    Attributes:
        name: as printed in Table 1.
        share: whether it counts answers that are right or wrong; the others are means, of soft scores say.
    """

    name: str
    higher_is_better: bool = True
    share: bool = False


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, and how answers to it are scored.

    Attributes:
        name: what ``--benchmark`` takes; ``title`` is for people.
        metrics: first the one that decides the cliff layer.
        load: items of a data directory laid out as published; raises ``DataError``.
        score: parts by metric name that one answer text adds for an item, by the official evaluator; a protocol
            may bring its own (``repro.protocols``).
        details: names of further metrics that ``score`` gives parts of, shown for each stratum by itself.
        mode: which of several ways to score the same answers this is, for CHAIR "approx" or "exact".
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    load: Callable[[Path], list[Item]]
    score: Score
    details: tuple[str, ...] = ()
    mode: str = ""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of all that ``score`` gives parts of."""
        return (*(metric.name for metric in self.metrics), *self.details)

    def higher_is_better(self, metric: str) -> bool:
        """Direction of a metric; of a detail, for which none is stated, True."""
        return all(own.higher_is_better for own in self.metrics if own.name == metric)


def image_names(items: Sequence[Item]) -> list[str]:
    """Image of each item, by folder and name: questions about one image succeed or fail together.

    The rest of its path is left out: names decide halves and resamples, wherever the data lie. A question
    without an image stands for itself.
    """
    return ["/".join(item.image.parts[-2:]) if item.image else f"question {item.id}" for item in items]
