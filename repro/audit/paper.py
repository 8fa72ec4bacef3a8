"""What arXiv 2406.06579 prints: Table 1, cliff layers, shares, spans, and the words it uses for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_origin, get_type_hints

from repro.audit.ledger import Cell, Paper, StatedLayer
from repro.audit.readings import Tables
from repro.benchmarks.benchmark import DataError
from repro.models.card import FIXTURES


class WithoutImage(NamedTuple):
    """Section A.2: percent right with no image token, the layer as printed, and of what: it names neither."""

    accuracy: float
    layer: int
    model: str | None = None
    benchmark: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Text(Paper):
    """What it says of models, tokens, set-up, shares, cliffs and heat.

    Attributes:
        figure_5_models, figure_5_tokens: its panels, and how many image tokens its caption says were truncated.
        image_tokens: how many Section 3.3 says there are.
        image_ids: Section 3.1, the ids of LLaVA-1.5's image tokens, first and last as printed.
        projectors_named, projectors_compared, projectors: Section 4.3, the types that map images to tokens, how
            many it says were compared, and what each model has.
        replicated, decoding, gpu, scienceqa_questions: Section 4.1, the model replicated, as printed, and more.
        gpu_memory: not of the paper, GB of the two kinds of that GPU there are.
        k_values: Section A.2, the "different values" of K, as printed.
        share_after, share_limit, weights: Section 1, after this layer image tokens have less than this share,
            "with their weights ranging" from... to.
        figure_2_drops, figure_2_level, figure_2_rises: its caption, first and last layer of a fast drop and of a
            level stretch, and the layer of a fast rise.
        symbols, defined: of Eqs. 1-3, and those of them that an equation or the text defines.
        noise_power: Eq. 4, the noise's level is the Gaussian's variance; the text under it calls it the standard
            deviation.
        equation_8: indices left of the equals sign, indices right of it, and the one that is summed over.
        cliff_words, flow_words: what a cliff layer is, and what the flow does in deeper layers, by where.
    """

    figure_5_models: tuple[str, ...]
    figure_5_tokens: int
    image_tokens: Mapping[str, int]
    image_ids: tuple[int, int]
    projectors_named: tuple[str, ...]
    projectors_compared: int
    projectors: Mapping[str, str]
    replicated: str
    decoding: str
    gpu: str
    gpu_memory: tuple[int, ...]
    scienceqa_questions: int
    k_values: tuple[int, ...]
    share_after: int
    share_limit: float
    weights: tuple[float, float]
    figure_2_drops: tuple[int, int]
    figure_2_level: tuple[int, int]
    figure_2_rises: int
    symbols: tuple[str, ...]
    defined: tuple[str, ...]
    noise_power: Mapping[str, float]
    equation_8: tuple[tuple[str, ...], tuple[str, ...], str]
    cliff_words: Mapping[str, str]
    flow_words: Mapping[str, str]
    without_image: WithoutImage


#: What it prints, and its claims (see ``repro.audit.claims``).
FILE = FIXTURES / "paper" / "2406.06579.toml"


def read_text(path: Path) -> Text:
    """The paper but for its claims; DataError, which names the key, for a file without one or of another type."""
    data = Tables(path)
    data.pop("claims", None)
    try:
        data["table"] = tuple(Cell(*row) for row in data["table"])
        data["cliffs"] = tuple(StatedLayer(*row) for row in data["cliffs"])
        data["without_image"] = WithoutImage(**data["without_image"])
        text = Text(**data)
    except TypeError as error:
        raise DataError(f"{path}: expected the keys of repro.audit.paper.Text: {error}") from error
    for key, kind in get_type_hints(Text).items():
        if not isinstance(value := getattr(text, key), get_origin(kind) or kind):
            raise DataError(f"{path}: {key} = {value!r}; expected {kind}")
    return text


TEXT = read_text(FILE)
