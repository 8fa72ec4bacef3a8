"""What was measured, in sentences made of the figures: the first line of each section of the report."""

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from repro.cliff import BORDERLINE, TOO_FEW, unchanged_is_evidence
from repro.evaluation.measured import MeanShares, Pointing, TableRow
from repro.report.pages import NAME
from repro.text import (
    cliff_interval,
    layer,
    layer_interval,
    margin_points,
    percent,
    percent_interval,
    points,
    points_interval,
    visible,
)


def cliff_sentence(row: TableRow) -> str:
    """How long a benchmark needs the image, and what truncating it then costs, with intervals."""
    if row.cliff is None:
        return f"has no cliff layer by {row.metric}: the score at no layer can be compared."
    if row.cliff == 0:
        needs = f"does not need the image in any layer: cliff layer 0 {layer_interval(row.cliff_interval)}"
        after = "without it"
    elif row.cliff == row.n_layers:
        interval = layer_interval(row.cliff_interval)
        return (
            f"needs the image up to the last layer, {row.cliff} {interval}: truncated one layer before, a loss of "
            f"more than {margin_points(row.margin)} is not excluded; {row.metric} {percent(row.baseline)} % "
            f"{percent_interval(row.baseline_interval)} on the held-out half.{_caution(row)}"
        )
    else:
        needs = (
            f"needs the image until layer {row.cliff} of {row.n_layers} {layer_interval(row.cliff_interval)}"
        )
        after = "from there on"
    scores = (
        f"{row.metric} {percent(row.at_cliff)} % {percent_interval(row.at_cliff_interval)} against "
        f"{percent(row.baseline)} % {percent_interval(row.baseline_interval)}"
    )
    change = f"{points(row.difference)} points {points_interval(row.difference_interval)}"
    return f"{needs}; {after} {_loss(row)}: {change}, {scores}, on the held-out half.{_caution(row)}"


def _loss(row: TableRow) -> str:
    """What the interval of the difference says of a loss by more than the margin."""
    low, high = row.difference_interval
    if not row.higher_is_better:
        low, high = -high, -low
    margin = margin_points(row.margin)
    if low > -row.margin:
        return f"less than the margin of {margin} is lost"
    if high < -row.margin:
        return f"more than the margin of {margin} is lost"
    return f"a loss of more than {margin} is not excluded"


def _caution(row: TableRow) -> str:
    if row.caveat == TOO_FEW:
        enough = unchanged_is_evidence(row.margin)
        return (
            f" Too few items for the interval to mean anything: {row.chosen_on} chose it, it takes {enough}."
        )
    return " Borderline: other resamples could move the layer." if row.caveat == BORDERLINE else ""


def deepest(rows: Sequence[TableRow]) -> str:
    """Which benchmark of one model needs the image longest, and which other intervals reach as far."""
    first = [row for row in _first_metrics(rows) if row.cliff is not None and row.cliff_interval]
    if len(first) < 2:
        return ""
    row = max(first, key=lambda row: row.cliff or 0)
    others = [other for other in first if other is not row]
    start = row.cliff_interval[0] if row.cliff_interval else 0
    reaching = [
        visible(o.benchmark, NAME) for o in others if o.cliff_interval and o.cliff_interval[1] >= start
    ]
    sure = (
        f"the intervals of {', '.join(reaching)} overlap it" if reaching else "no other interval reaches it"
    )
    return (
        f"Deepest on {visible(row.benchmark, NAME)}: layer {layer(row.cliff)} of {row.n_layers} "
        f"{cliff_interval(row.cliff_interval, row.caveat)}; {sure}."
    )


def _first_metrics(rows: Sequence[TableRow]) -> list[TableRow]:
    """The row of each benchmark that decides its cliff layer: its first."""
    return list({(row.model, row.benchmark, row.protocol): row for row in reversed(rows)}.values())[::-1]


def summaries(rows: Sequence[TableRow]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Of each model: its name, where the image is needed longest, and a sentence per benchmark."""
    return [
        (
            model,
            deepest(own := [row for row in rows if row.model == model]),
            [(row.benchmark, cliff_sentence(row)) for row in _first_metrics(own)],
        )
        for model in dict.fromkeys(row.model for row in rows)
    ]


def spans(layers: Sequence[int]) -> str:
    """Numbers of layers, runs drawn together: "1-2, 5"."""
    runs = [
        [value for _, value in run] for _, run in groupby(enumerate(layers), lambda pair: pair[1] - pair[0])
    ]
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def pointing_sentence(part: Pointing) -> str:
    """At which layers more, or less, of the heat is in the boxes than their share of the area."""
    where: dict[str, list[int]] = {"yes": [], "no": [], "undecided": []}
    for i, (low, high) in enumerate(zip(part.low, part.high, strict=True)):
        if np.isfinite([low, high, part.area_share]).all():
            verdict = "yes" if low > part.area_share else "no" if high < part.area_share else "undecided"
            where[verdict].append(i)
    said = []
    for verdict, indices in where.items():
        if indices:
            heat = f"{percent(float(np.mean(part.energy[indices])))} %"
            of = f"of the heat on {percent(part.area_share)} % of the area"
            layers = spans([i + 1 for i in indices])
            said.append((indices[0], f"at layer{'s' * (len(indices) > 1)} {layers} {verdict} ({heat} {of})"))
    return "; ".join(text for _, text in sorted(said)) or "nothing to say: no layer has heat"


def shares_sentence(part: MeanShares) -> str:
    """Where the answer attends most and least to the image."""
    image = np.asarray(part.mean)[:, 1]
    if not np.isfinite(image).all():
        return "undefined"
    most, least = int(image.argmax()), int(image.argmin())
    own = [i + 1 for i, row in enumerate(np.asarray(part.mean)) if row.argmax() == 1]
    led = f"; more than on any other tokens at layer{'s' * (len(own) > 1)} {spans(own)}" if own else ""
    return (
        f"most at layer {most + 1} ({percent(float(image[most]))} % of the attention), least at layer {least + 1} "
        f"({percent(float(image[least]))} %){led}"
    )


def listed(
    parts: Sequence[MeanShares] | Sequence[Pointing], sentence: Callable[..., str]
) -> list[tuple[str, str]]:
    """Benchmark and sentence of each part."""
    return [(part.benchmark, sentence(part)) for part in parts]
