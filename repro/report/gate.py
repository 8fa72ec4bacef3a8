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

from repro.evaluation.environment import now
from repro.gate import VERDICTS
from repro.report.heat import maps, size_of_map
from repro.report.pages import check_writable, data_uri, render, write
from repro.report.panels import Axes, Panel
from repro.text import columns, percent, points, points_interval, visible

PAGE, DATA, SUMMARY = "gate.html", "gate.json", "gate.md"
#: First line of the Markdown, by which a comment on a pull request is found and updated.
MARK = "<!-- repro gate -->"
#: One comparison, as ``repro.report.outcomes.write_outcome`` wrote it.
Outcome = dict[str, Any]


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
        panels=_panels(one),
        heat=_heat(one["heat"]),
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


def _panel(title: str, first: int, sides: Sequence[Sequence[float | None]]) -> Panel:
    """Fractions by layer from ``first`` on, before and after; of models of different depth, by share of it."""
    depths = [len(values) - 1 + first for values in sides]
    alike = depths[0] == depths[1]
    axes = Axes(first, depths[0]) if alike else Axes(0, 100)
    along = "layer" if alike else "% of the depth"
    panel = axes.panel(title, "grey before, dark after", f"{title}, before and after, by {along}", along)
    for look, values, depth in zip(("before", "after"), sides, depths, strict=True):
        positions = np.arange(first, depth + 1) * (1 if alike else 100 / depth)
        panel.lines.append(axes.line(look, np.array(values, dtype=float), positions=positions))
    return panel


def _panels(one: Outcome) -> list[Panel]:
    """Score by truncation layer, and image share of attention by layer."""
    panels = [
        _panel(f"{visible(one['scores'][0]['metric'], 20)} with images seen by L layers", 0, one["values"])
    ]
    shares = [[layer[1] for layer in side] for side in one["shares"]]
    return panels + ([_panel("Attention on the image", 1, shares)] if all(shares) else [])


def _heat(heat: Mapping[str, Any]) -> SimpleNamespace | None:
    """Both maps of one item side by side, and the layer."""
    if not heat:
        return None
    sides = np.array([heat["before"], heat["after"]], dtype=np.float32)
    high, wide = sides.shape[1:]
    return SimpleNamespace(layer=heat["layer"], maps=maps(sides, size_of_map(wide, high)))
