"""The measurements of one model on one benchmark: plain values and arrays, to a file and back between processes.

Scores, shares and probabilities are fractions in [0, 1] (NaN if undefined) and become percent only when printed.
N is the number of decoder layers. Arrays over layers 1...N have length N; arrays over truncation layers 0...N,
where N is the baseline, have length N + 1. Intervals are (low, high).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from repro.reading import write_file

Interval = tuple[float, float]
#: Lower and upper end of an interval of layers, both included.
LayerInterval = tuple[int, int]
#: A table to print unchanged: title, header, rows of cells (anything ``str`` accepts).
RecordedTable = tuple[str, Sequence[str], Sequence[Sequence[object]]]


def _check(owner: str, part: object, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """ValueError naming the first array of another shape."""
    for name, shape in shapes.items():
        actual = np.shape(getattr(part, name))
        if actual != shape:
            raise ValueError(f"{owner}: {name} has shape {list(actual)}, expected {list(shape)}")


@dataclass(frozen=True)
class TableRow:
    """One row of Table 1.

    Attributes:
        model, benchmark, metric: names as printed.
        higher_is_better: direction of the metric, printed as an arrow.
        n: items that all scores of the row were measured on.
        baseline, baseline_interval: score with the image seen by every layer.
        cliff, cliff_interval: the cliff layer, 0...N; None if there is none.
        at_cliff, at_cliff_interval: score with the image truncated after the cliff layer.
        difference, difference_interval: paired difference, truncated at the cliff minus baseline.
        n_layers: N.
        chosen_on: other items, on which the cliff layer was chosen.
        margin: largest loss that counted as none, in units of the score.
        protocol: how the model was asked and its answers scored.
        data: the version of the benchmark.
        caveat: why the cliff layer says little, or empty; see ``repro.cliff.HeldOut``.
    """

    model: str
    benchmark: str
    metric: str
    higher_is_better: bool
    n: int
    baseline: float
    baseline_interval: Interval
    cliff: int | None
    cliff_interval: LayerInterval | None
    at_cliff: float
    at_cliff_interval: Interval
    difference: float
    difference_interval: Interval
    n_layers: int
    chosen_on: int
    margin: float
    protocol: str
    data: str
    caveat: str = ""


@dataclass(frozen=True, eq=False)
class Curve:
    """Score against truncation layer: one panel of Figure 5.

    Attributes:
        benchmark, metric: names as printed.
        score, low, high: [N + 1], mean and its interval.
        cliff, cliff_interval: the cliff layer, 0...N; None if there is none.
        non_inferior: bool [N + 1], whether the answers at L are non-inferior to the baseline.
        probability: [N + 1], mean probability of the first token of the baseline answer, or None.
        limit: the worst score the margin allows (baseline minus margin; plus, if lower is better).
        n: items behind the curve.
        caveat: why the cliff layer says little, or empty.

    Raises ValueError if the arrays differ in length.
    """

    benchmark: str
    metric: str
    score: np.ndarray
    low: np.ndarray
    high: np.ndarray
    cliff: int | None
    cliff_interval: LayerInterval | None
    non_inferior: np.ndarray
    probability: np.ndarray | None
    limit: float
    n: int
    caveat: str = ""

    def __post_init__(self) -> None:
        names = ["low", "high", "non_inferior"] + ["probability"] * (self.probability is not None)
        _check(f"curve of {self.benchmark!r}", self, dict.fromkeys(names, (len(self.score),)))


@dataclass(frozen=True, eq=False)
class MeanShares:
    """Attention of the answer on system, image and user tokens: one panel of Figure 2.

    Attributes:
        benchmark: name as printed.
        mean, low, high: [N, 3], shares of system, image, user after Eq. 7 (they sum to 1).
        raw: [N, 4], shares of system, image, user, answer before Eq. 7 (they sum to 1).
        n: items behind the means.

    Raises ValueError if a shape differs.
    """

    benchmark: str
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    raw: np.ndarray
    n: int

    def __post_init__(self) -> None:
        layers = len(self.mean)
        shapes = {name: (layers, 3) for name in ("mean", "low", "high")} | {"raw": (layers, 4)}
        _check(f"shares of {self.benchmark!r}", self, shapes)


@dataclass(frozen=True, eq=False)
class HeatRow:
    """LLaVA-CAM of one item at every layer: one task of Figures 3-4.

    Attributes:
        benchmark: name as printed.
        question, answer: texts as asked and answered; untrusted.
        image: uint8 [H, W, 3], covered by the token grid edge to edge.
        heat: [N, h, w] in [0, 1], each layer scaled by its own maximum; layer N is zero.
        boxes: x, y, w, h in pixels of ``image``: what the question is about, every object for a caption.

    Raises ValueError if a shape or the image's type differs.
    """

    benchmark: str
    question: str
    answer: str
    image: np.ndarray
    heat: np.ndarray
    boxes: Sequence[tuple[float, float, float, float]]

    def __post_init__(self) -> None:
        image, owner = np.asarray(self.image), f"heat of {self.benchmark!r}"
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"{owner}: image is {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3]")
        if np.ndim(self.heat) != 3 or not np.size(self.heat):
            raise ValueError(f"{owner}: heat has shape {list(np.shape(self.heat))}, expected [N, h, w]")


@dataclass(frozen=True, eq=False)
class Pointing:
    """How much of the CAM falls into the boxes of what the question is about, per layer.

    Attributes:
        benchmark: name as printed.
        energy, low, high: [N], share of the heat inside the boxes; NaN if a map is all zero.
        area_share: share of the image's area that the boxes take: the energy of an even map.
        n: items behind the means.

    Raises ValueError if the arrays differ in length.
    """

    benchmark: str
    energy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    area_share: float
    n: int

    def __post_init__(self) -> None:
        shapes = dict.fromkeys(("low", "high"), (len(self.energy),))
        _check(f"pointing of {self.benchmark!r}", self, shapes)


@dataclass(frozen=True, eq=False)
class ItemFlow:
    """What the instruments saw of one item, for its place in the list of items.

    Attributes:
        item: its id.
        shares: [N, 4], shares of system, image, user, answer before Eq. 7; empty if they are refused.
        heat: uint8 [N, h, w], LLaVA-CAM in 255ths of the layer's maximum; empty if there is none.
        picture: uint8, an encoded image, small, as the model sees it; empty without heat.
    """

    item: str
    shares: np.ndarray
    heat: np.ndarray
    picture: np.ndarray


@dataclass(frozen=True, eq=False)
class Measured:
    """All that one model on one benchmark adds to the report.

    Attributes:
        checkpoint: the directory of a checkpoint that the user named, empty for a shipped miniature.
        admission: why an instrument is refused, and for a model without a card what each proved of itself on it.
        flows: of some items.
    """

    checkpoint: str
    table: list[TableRow]
    curves: list[Curve]
    shares: list[MeanShares]
    heats: list[HeatRow]
    pointing: list[Pointing]
    recorded: list[RecordedTable]
    admission: Sequence[str] = ()
    flows: Sequence[ItemFlow] = ()


def save(measured: Measured, path: Path) -> None:
    """Write to an npz file: arrays as such, everything else as one JSON text; nothing is pickled."""
    arrays: dict[str, np.ndarray] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays[f"a{len(arrays)}"] = value
            return {"array": f"a{len(arrays) - 1}"}
        if isinstance(value, np.generic):
            return value.item()
        if is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    text = json.dumps(plain(measured))
    path.parent.mkdir(parents=True, exist_ok=True)
    content = BytesIO()
    np.savez(content, allow_pickle=False, text=np.array(text), **arrays)
    write_file(path, content.getvalue())


def load(path: Path) -> Measured:
    """Read what ``save`` wrote."""
    with np.load(path, allow_pickle=False) as arrays:

        def restored(value: Any) -> Any:
            if isinstance(value, dict) and list(value) == ["array"]:
                return arrays[value["array"]]
            if isinstance(value, dict):
                return {key: restored(v) for key, v in value.items()}
            return tuple(restored(v) for v in value) if isinstance(value, list) else value

        content = restored(json.loads(str(arrays["text"])))
    kinds = {"table": TableRow, "curves": Curve, "shares": MeanShares, "heats": HeatRow, "pointing": Pointing}
    parts = {name: [kind(**row) for row in content[name]] for name, kind in kinds.items()}
    recorded, admission = list(content["recorded"]), content["admission"]
    flows = [ItemFlow(**flow) for flow in content["flows"]]
    return Measured(content["checkpoint"], **parts, recorded=recorded, admission=admission, flows=flows)
