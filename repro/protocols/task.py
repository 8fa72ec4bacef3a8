"""A benchmark and a model under a protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from repro.benchmarks.benchmark import Benchmark, Item, Score, image_names

if TYPE_CHECKING:
    import numpy as np

    from repro.models.lvlm import Lvlm
    from repro.models.prompts import Prompt
    from repro.scores import Scores


@dataclass(frozen=True)
class Task:
    """How a model is asked a benchmark, and its answers are read and scored.

    Attributes:
        protocol, model: their names.
        ask: the user's turn for an item.
        max_new_tokens: longest answer.
        score: parts that an answer adds, after ``read`` has extracted what counts.
        pooled: metrics are computed over all items at once, not within strata and then averaged.
        template: the entire prompt, with ``{question}`` and the card's placeholder; None: the card's own.
        crop: the model sees the middle square of an image, as CLIP's processor crops it, not all of it.
        repetition_penalty: divides the logits of tokens that the answer already has (multiplies negative ones).
    """

    protocol: str
    model: str
    benchmark: Benchmark
    ask: Callable[[Item], str]
    max_new_tokens: int
    score: Score
    read: Callable[[str], str] = str
    pooled: bool = False
    template: str | None = None
    crop: bool = False
    repetition_penalty: float = 1.0

    def prompt(self, lvlm: Lvlm, item: Item) -> Prompt:
        """The prompt of an item; ValueError or OSError that names the item, also if it has no image."""
        # Here, not above: listing protocols and their tasks needs neither an image library nor numpy.
        from repro.models.images import middle_square, read_image

        try:
            if item.image is None:
                raise ValueError("has no image, hence no image tokens to truncate")
            image = read_image(item.image)
            if self.crop:
                image = middle_square(image, lvlm.crop_side)
            prompt = lvlm.prompt(image, self.ask(item), self.template)
            lvlm.check_room(len(prompt.segments))
            return prompt
        except (OSError, ValueError) as error:
            raise type(error)(f"item {item.id}: {error}") from error

    def scores(self, items: Sequence[Item], parts: Mapping[str, np.ndarray], metric: str = "") -> Scores:
        """Scores of items by a metric, the one that decides the cliff layer by default.

        Args:
            parts: by metric name, float64 [items, layers, 2].
        """
        import numpy as np

        from repro.scores import Scores

        metric = metric or self.benchmark.metrics[0].name
        strata = np.array(["" if self.pooled else item.stratum for item in items])
        images = np.array(image_names(items))
        return Scores(parts[metric], strata, images, self.benchmark.higher_is_better(metric))
