"""What a benchmark is: items to ask about, a score for each answer, and which published data it recognises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

#: Numerator and denominator that an answer adds to a metric, see ``repro.scores``.
Part = tuple[float, float]

#: The version of items that match no published one.
UNKNOWN = "no published version"


class DataError(ValueError):
    """A data file that cannot be used; the message names the file, the place, and what was expected."""


@dataclass(frozen=True)
class HubImage:
    """An image in a data set of the hub, with the part of ``Path`` that image files are used by.

    Attributes:
        path: where the published image folders have it; there is no such file.
        repository: id and commit of the data set.
        index: row number.
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
        image: None for a question without one. Loading items opens no image.
        question: as published; a protocol words the user's turn (``repro.protocols``).
        reference: what the scorer compares the answer with.
        stratum: group within which metrics are computed before averaging, e.g. a POPE category.
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
    """A score of a benchmark, in [0, 1].

    Attributes:
        name: as printed in Table 1.
        share: whether it is the share of right or wrong answers; other metrics are means, e.g. of soft scores.
    """

    name: str
    higher_is_better: bool = True
    share: bool = False


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, and how answers to it are scored.

    Attributes:
        name: what ``--benchmark`` takes; ``title`` is for people.
        metrics: the first decides the cliff layer.
        load: items of a data directory laid out as published, or of ``HUB``; raises ``DataError``.
        score: parts by metric name that an answer adds for an item, by the official evaluator; a protocol may
            bring its own (``repro.protocols``).
        version: the number of items and their published version, recognised by content: POPE, ScienceQA and
            CHAIR's sample differ between publications under one name, and so do the scores.
        questions: that recorded answers may belong to, from a data directory and from the folder of the answers;
            raises ``DataError``.
        details: names of further metrics that ``score`` gives parts of, shown for each stratum.
        mode: one of several ways to score the same answers, for CHAIR "approx" or "exact".
        captions: whether answers are captions, which are recorded in OPERA's format, not in LLaVA's.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    load: Callable[[Path], list[Item]]
    score: Score
    version: Callable[[Sequence[Item]], str]
    questions: Callable[[Path, Path], Iterator[Questions]]
    details: tuple[str, ...] = ()
    mode: str = ""
    captions: bool = False

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of all that ``score`` gives parts of."""
        return (*(metric.name for metric in self.metrics), *self.details)

    def higher_is_better(self, metric: str) -> bool:
        """Direction of a metric; True for a detail, which states none."""
        return all(other.higher_is_better for other in self.metrics if other.name == metric)

    def describe(self, items: Sequence[Item]) -> str:
        """``version``, and the repository if the items are from the hub.

        For example "8910 questions (POPE with 2910 random), 246 of them with 'imange'".
        """
        repositories = {item.image.repository for item in items if isinstance(item.image, HubImage)}
        return ", ".join([self.version(items), *sorted(repositories)])

    def own_questions(self, items: Sequence[Item], source: Path) -> Questions:
        """Questions whose answers are recorded under the items' own ids."""
        return Questions(self, f"{self.title} {len(items)}", source, {item.id: item for item in items})


@dataclass(frozen=True)
class Questions:
    """Published questions that recorded answers may belong to.

    Attributes:
        benchmark: scores the answers.
        title: for people; with the number of questions, which identifies the version, if ``complete``.
        source: the file or folder they come from.
        items: by the id under which an answer is recorded.
        complete: whether every question was asked; False for a stock from which some were chosen.
        respelled: a question that was asked but is not among the items, and the item's question that differs
            in spelling only; None if there is none.
        key: the id in ``items`` of an answer, from the id and the prompt recorded with it.
        part: the stratum that all items are of, if answers are recorded stratum by stratum.
    """

    benchmark: Benchmark
    title: str
    source: Path
    items: dict[str, Item]
    complete: bool = True
    respelled: tuple[str, str] | None = None
    key: Callable[[str, str], str] = lambda id, prompt: id
    part: str = ""

    @property
    def name(self) -> str:
        """The benchmark's name, and the part's: "pope:popular"."""
        return f"{self.benchmark.name}:{self.part}" if self.part else self.benchmark.name


def image_names(items: Sequence[Item]) -> list[str]:
    """Image of each item, by folder and name: questions about one image succeed or fail together.

    The rest of its path is left out: names decide halves and resamples, wherever the data lie. A question
    without an image stands for itself.
    """
    return ["/".join(item.image.parts[-2:]) if item.image else f"question {item.id}" for item in items]
