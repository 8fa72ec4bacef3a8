"""A gate in the terminal, as one self-contained page, as JSON, and as Markdown for a pull request."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from repro.evaluation.environment import now
from repro.gate.verdict import VERDICTS
from repro.report.figures import house_style, png
from repro.report.pages import check_writable, data_uri, render, write
from repro.text import columns, percent, points, points_interval, visible

PAGE, DATA, SUMMARY = "gate.html", "gate.json", "gate.md"
#: First line of the Markdown, by which a comment on a pull request is found and updated.
MARK = "<!-- repro gate -->"
#: One comparison, as ``repro.report.outcomes.write_outcome`` wrote it.
Outcome = dict[str, Any]
_COLOURS = {"before": "#888888", "after": "#332288"}


def load_outcomes(paths: Sequence[Path]) -> list[Outcome]:
    """Outcomes, the worst verdict first."""
    outcomes = [json.loads(path.read_text()) for path in paths]
    return sorted(outcomes, key=lambda one: (-VERDICTS.index(one["verdict"]), one["name"]))


def gate_lines(outcomes: Sequence[Outcome], failed: Mapping[str, str] | None = None) -> list[str]:
    """One line per benchmark, a sentence on where a change began, and what could not be compared."""
    rows = [["model and benchmark", "verdict", "score before and after, %", "difference, points", "flips"]]
    rows += [_row(one) for one in outcomes]
    sentences = [f"{visible(one['name'], 80)}: {visible(one['sentence'], 400)}" for one in outcomes]
    return [*(columns(rows) if outcomes else []), *sentences, *map(_failure, (failed or {}).items())]


def _failure(failed: tuple[str, str]) -> str:
    return f"{visible(failed[0], 80)}: not compared: {visible(failed[1], 400)}"


def _headline(outcomes: Sequence[Outcome], failed: Mapping[str, str]) -> str:
    """The worst of all; what could not be compared is no better than any verdict."""
    return "not compared" if failed else str(outcomes[0]["verdict"])


def _row(one: Outcome) -> list[str]:
    score = one["scores"][0]
    return [
        visible(one["name"], 60),
        one["verdict"],
        f"{visible(score['metric'], 20)} {percent(score['before'])} → {percent(score['after'])}",
        f"{points(score['gain'])} {points_interval((score['low'], score['high']))}",
        f"{score['gained']} better, {score['lost']} worse, of {score['n']}",
    ]


def markdown(outcomes: Sequence[Outcome], failed: Mapping[str, str]) -> str:
    """For ``$GITHUB_STEP_SUMMARY`` and for one comment on a pull request, which ``MARK`` finds again."""

    def cell(text: str) -> str:
        for character in "\\`*_{}[]<>|~#":
            text = text.replace(character, f"\\{character}")
        return text

    header, *rows = [["model and benchmark", "verdict", "score, %", "difference, points", "flips"]] + [
        list(map(cell, _row(one))) for one in outcomes
    ]
    lines = [
        MARK,
        f"**Gate: {_headline(outcomes, failed)}**",
        "",
        f"| {' | '.join(header)} |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += [
        "",
        *(f"- {cell(visible(one['name'], 80))}: {cell(visible(one['sentence'], 400))}" for one in outcomes),
        *(f"- {cell(_failure(pair))}" for pair in failed.items()),
    ]
    return "\n".join(lines) + "\n"


def write_gate(
    outcomes: Sequence[Outcome],
    command: str,
    directory: Path,
    failed: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write ``gate.html``, whose path is returned, ``gate.json`` and ``gate.md``.

    Args:
        failed: by name, why a model and benchmark could not be compared, or recorded.

    Raises ReportError as ``check_writable`` does.
    """
    check_writable(directory)
    verdict = _headline(outcomes, failed)
    report = SimpleNamespace(title=f"Gate: {verdict}", command=command, created=now(), environment={})
    page = render(
        "gate.html.j2",
        report=report,
        parts=list(map(_part, outcomes)),
        failures=list(map(_failure, failed.items())),
    )
    data = json.dumps(
        {"verdict": verdict, "created": report.created, "failed": dict(failed), "outcomes": outcomes}
    )
    write(directory, {PAGE: page, DATA: data.encode() + b"\n", SUMMARY: markdown(outcomes, failed).encode()})
    return directory / PAGE


def _part(one: Outcome) -> SimpleNamespace:
    """What the page shows of one comparison."""
    before, after = one["before"], one["after"]
    versions = sorted({*before["environment"], *after["environment"]})
    environment = [
        (name, before["environment"].get(name, ""), after["environment"].get(name, "")) for name in versions
    ]
    environment.insert(0, ("recorded, measured", before["created"], after["created"]))
    environment.insert(1, ("weights", before["weights"][:12], after["weights"][:12]))
    flips = [
        SimpleNamespace(
            **flip | {"question": flip["question"].replace("\n", " ")},
            uri=_uri(flip.get("picture")),
            layers=_layers(flip),
        )
        for flip in one["flips"]
    ]
    return SimpleNamespace(
        one=one,
        anchor="".join(c if c.isalnum() else "-" for c in one["name"]),
        score=_row(one),
        others=[_row(one | {"scores": [score]})[2:] for score in one["scores"][1:]],
        strip=_strip(one["stages"]),
        environment=environment,
        flips=flips,
        cliffs=[_cliff(*pair) for pair in zip(one["cliffs"], one["values"], strict=True)],
        figure=data_uri(png(_figure(one))),
    )


def _strip(stages: Sequence[Mapping[str, Any]]) -> list[SimpleNamespace]:
    """Stages up to the first beyond noise and behind it, each with its largest distance."""
    strip = []
    for stage in stages:
        distance, allowed = stage["distance"], stage["tolerance"]
        beyond = distance is None or distance > allowed
        title = stage["stage"] if not stage["layer"] else f"{stage['stage'].rstrip('s')} {stage['layer']}"
        shown = "another" if distance is None else f"{distance:.1g} / {allowed:.1g}" if distance else "equal"
        strip.append(SimpleNamespace(title=title, beyond=beyond, shown=shown))
    return strip


def _cliff(cliff: Sequence[int] | None, values: Sequence[float | None]) -> str:
    """The cliff layer with its interval, and its share of the model's depth."""
    layers = len(values) - 1
    if cliff is None:
        return "none"
    return f"{cliff[0]} [{cliff[1]}, {cliff[2]}] of {layers} ({100 * cliff[0] / layers:.0f} % of the depth)"


def _layers(flip: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Both answers at every L; of models of different depth, at the same share of it."""
    before, after = flip["before"], flip["after"]
    found = []
    for layer, answer in enumerate(after):
        other = round(layer * (len(before) - 1) / (len(after) - 1))
        title = str(layer) if len(before) == len(after) else f"{other} → {layer}"
        found.append((title, before[other], answer))
    return found


def _uri(picture: str | None) -> Markup | None:
    """A picture that is base 64 and nothing else."""
    try:
        return data_uri(base64.b64decode(picture, validate=True)) if picture else None
    except (binascii.Error, ValueError):
        return None


@house_style()
def _figure(one: Outcome) -> Figure:
    """Score by truncation layer, image share of attention by layer, and heat of one item, before and after."""
    heat = one["heat"]
    figure = Figure(figsize=(9.2 if heat else 7.2, 2.6), layout="constrained")
    ratios = [3, 3, 1.2, 1.2] if heat else [3, 3]
    axes = figure.subplots(1, len(ratios), width_ratios=ratios)
    depths = {len(values) for values in one["values"]}
    for number, (side, colour) in enumerate(_COLOURS.items()):
        look: dict[str, Any] = {"color": colour, "label": side, "lw": 2.4 if side == "before" else 1.2}
        layers = len(one["values"][number]) - 1
        scale = 1 if len(depths) == 1 else 100 / layers
        values = [np.nan if value is None else 100 * value for value in one["values"][number]]
        axes[0].plot(scale * np.arange(layers + 1), values, **look)
        if shares := one["shares"][number]:
            axes[1].plot(scale * np.arange(1, len(shares) + 1), [100 * layer[1] for layer in shares], **look)
        if heat:
            panel = axes[2 + number]
            panel.imshow(heat[side], cmap="magma", vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[])
            panel.set_title(f"{side}, layer {heat['layer']}", fontsize=8)
    along = "" if len(depths) == 1 else ", % of the depth"
    axes[0].set(
        xlabel=f"L: layers that see the image{along}", ylabel=f"{visible(one['scores'][0]['metric'], 20)}, %"
    )
    axes[1].set(xlabel=f"layer{along}", ylabel="attention on the image, %")
    axes[0].legend()
    return figure
