"""Scored answers, measured or recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from repro.benchmarks.benchmark import Benchmark, Item, image_names
from repro.protocols.task import Task
from repro.scores import Scores


@dataclass(frozen=True, eq=False)
class Scored:
    """Answers to n items, scored at one layer or at L = 0...N.

    Attributes:
        task: how the items were asked and the answers scored.
        items: the n items.
        parts: by name of a metric or detail, float64 [n, layers, 2]: numerators and denominators.
    """

    task: Task
    items: Sequence[Item]
    parts: Mapping[str, np.ndarray]

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark of the items."""
        return self.task.benchmark

    @property
    def data(self) -> str:
        """The version of the benchmark; see ``Benchmark.describe``."""
        return self.benchmark.describe(self.items)

    @property
    def images(self) -> list[str]:
        """The image of each item; see ``image_names``."""
        return image_names(self.items)

    def scores(self, metric: str = "") -> Scores:
        """The scores by a metric, by default the one that decides the cliff layer."""
        return self.task.scores(self.items, self.parts, metric)
