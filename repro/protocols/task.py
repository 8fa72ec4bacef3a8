"""What a protocol does with one benchmark and one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from repro.benchmarks.benchmark import Benchmark, Item, Score, image_names

if TYPE_CHECKING:
    import numpy as np

    from repro.models.lvlm import Lvlm, Prompt
    from repro.scores import Scores


@dataclass(frozen=True)
class Task:
    """A benchmark put to a model under a protocol.

    Attributes:
        protocol, model: their names.
        benchmark: what is asked.
        ask: the user's turn for an item.
        max_new_tokens: longest answer.
        score: parts that an answer adds, once ``read`` has taken from it what counts.
        pooled: metrics are formed over all items at once, not within strata and then averaged.
        template: the whole prompt, with ``{question}`` and the card's placeholder; None: the card's own.
        crop: of a picture that is no square the middle is seen, as CLIP's processor cuts it out, not all.
        repetition_penalty: divides the logits of tokens that the answer has already (negative ones it multiplies).
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
        """The prompt of an item; ValueError or OSError that names it, for one without an image too."""
        # Here, not above: listing protocols and their tasks needs neither an image library nor numpy.
        from repro.models.images import middle_square, read_image

        try:
            if item.image is None:
                raise ValueError("has no image, hence no image tokens to truncate")
            picture = read_image(item.image)
            if self.crop:
                picture = middle_square(picture, lvlm.crop_side)
            prompt = lvlm.prompt(picture, self.ask(item), self.template)
            if lvlm.room(prompt) < 1:
                raise ValueError(
                    f"a prompt of {len(prompt.segments)} tokens leaves no room for an answer within {lvlm.context}"
                )
            return prompt
        except (OSError, ValueError) as error:
            raise type(error)(f"item {item.id}: {error}") from error

    def strata(self, items: Sequence[Item]) -> list[str]:
        """For each item, within what metrics are formed before they are averaged."""
        return ["" if self.pooled else item.stratum for item in items]

    def scores(self, items: Sequence[Item], parts: Mapping[str, np.ndarray], metric: str = "") -> Scores:
        """Scores of items by a metric, the one that decides the cliff layer by default.

        Args:
            parts: by metric name, float64 [items, layers, 2].
        """
        import numpy as np

        from repro.scores import Scores

        metric = metric or self.benchmark.metrics[0].name
        strata, images = np.array(self.strata(items)), np.array(image_names(items))
        return Scores(parts[metric], strata, images, self.benchmark.higher_is_better(metric))
