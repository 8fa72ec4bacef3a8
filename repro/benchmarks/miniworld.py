"""Rendered scenes with known contents: the world the miniatures live in.

A scene is a 48x48 picture of a 3x3 grid. It holds 2 to 5 objects, each a shape with a colour, and
sometimes a two-digit number in handwriting. Shapes carry the names of COCO categories, so the
published vocabularies and scorers apply unchanged: a ring is a donut, a diamond a kite.

Everything is drawn from one ``numpy.random.Generator``; the same seed gives the same pixels.
Handwriting comes from ``sklearn.datasets.load_digits`` (the 1797 test digits of UCI *optdigits*,
stored in the order they were collected, writer by writer): the first half of the file is used for
training, the second for evaluation, so no writer of a scored number was seen in training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from repro.benchmarks.benchmark import Item
from repro.benchmarks.scienceqa import LETTERS

#: The miniature benchmarks, in the published layouts, with ``boxes.json``: where things are in each picture.
DIRECTORY = Path(__file__).resolve().parents[2] / "fixtures" / "miniworld"
SIZE = 48  # pixels per side of a scene
CELL = 16  # pixels per side of a grid cell
GRID = SIZE // CELL

#: Shape name (a COCO category) -> COCO category id.
CATEGORIES = {
    "donut": 60,
    "kite": 38,
    "pizza": 59,
    "banana": 52,
    "bowl": 51,
    "frisbee": 34,
    "book": 84,
    "scissors": 87,
    "umbrella": 28,
    "bottle": 44,
}
SHAPES = tuple(CATEGORIES)
#: How often a shape is drawn first: skewed, so that POPE's "popular" negatives are popular.
POPULARITY = np.array([8, 7, 6, 5, 4, 3, 3, 2, 2, 2], dtype=float)
POPULARITY /= POPULARITY.sum()
#: A shape's usual companion, so that POPE's "adversarial" negatives co-occur.
PARTNER = {
    "donut": "bowl",
    "bowl": "donut",
    "kite": "frisbee",
    "frisbee": "kite",
    "pizza": "bottle",
    "bottle": "pizza",
    "banana": "book",
    "book": "banana",
    "scissors": "umbrella",
    "umbrella": "scissors",
}
COLOURS = {
    "red": (222, 48, 40),
    "green": (48, 178, 64),
    "blue": (52, 88, 232),
    "yellow": (232, 206, 44),
    "purple": (172, 62, 196),
    "white": (236, 236, 236),
}
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
#: How the number of a scene is asked for, as TextVQA would.
NUMBER_QUESTIONS = ("What number is written in the image?", "What is the number?")
SCIENCE_KINDS = ("color", "object", "place", "count", "price")

Split = Literal["train", "evaluation"]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Thing:
    """One object of a scene. ``cell`` counts 0...8 in reading order; ``box`` is x, y, w, h in pixels."""

    name: str
    colour: str
    cell: int
    box: Box


@dataclass(frozen=True)
class Scene:
    """A picture (uint8, [48, 48, 3]) and what is in it, objects in reading order."""

    pixels: np.ndarray
    things: tuple[Thing, ...]
    number: str | None = None
    number_box: Box | None = None

    def named(self, name: str) -> Thing:
        """The object called ``name``; KeyError if the scene has none."""
        for thing in self.things:
            if thing.name == name:
                return thing
        raise KeyError(name)


@cache
def _stencil(name: str, scale: float) -> np.ndarray:
    """Coverage in [0, 1] of a shape on a 16x16 cell, 4x4 samples a pixel."""
    axis = (np.arange(CELL * 4) + 0.5) / (CELL * 2) - 1.0
    x, y = np.meshgrid(axis / scale, axis / scale)
    radius = np.hypot(x, y)
    inside = {
        "donut": (radius < 0.95) & (radius > 0.48),
        "kite": np.abs(x) * 1.25 + np.abs(y) < 1.0,
        "pizza": (y > -0.9) & (y < 0.85) & (np.abs(x) < (y + 0.9) * 0.53),
        "banana": (radius < 0.95) & (np.hypot(x - 0.45, y + 0.3) > 0.82),
        "bowl": (np.hypot(x, y + 0.35) < 0.98) & (y > -0.25),
        "frisbee": np.hypot(x, y * 1.25) < 0.95,
        "book": (np.abs(x) < 0.82) & (np.abs(y) < 0.82),
        "scissors": (np.minimum(np.abs(x - y), np.abs(x + y)) < 0.3) & (np.abs(x) < 0.9) & (np.abs(y) < 0.9),
        "umbrella": ((np.hypot(x, y - 0.05) < 0.95) & (y < -0.05))
        | ((np.abs(x) < 0.14) & (y > -0.1) & (y < 0.92)),
        "bottle": ((np.abs(x) < 0.36) & (y > -0.25) & (y < 0.95))
        | ((np.abs(x) < 0.15) & (y > -0.95) & (y < 0.0)),
    }[name]
    return inside.reshape(CELL, 4, CELL, 4).mean(axis=(1, 3)).astype(np.float32)


@cache
def _digits(split: Split) -> tuple[np.ndarray, ...]:
    """Handwritten digits 0...9, each an array [n, 8, 8] in [0, 1], of that half of the writers."""
    from sklearn.datasets import load_digits  # takes a second, and only who draws scenes needs it

    data = load_digits()
    half = len(data.target) // 2
    chosen = slice(0, half) if split == "train" else slice(half, None)
    images, targets = data.images[chosen] / 16.0, data.target[chosen]
    return tuple(images[targets == d].astype(np.float32) for d in range(10))


def _handwritten(rng: np.random.Generator, digit: int, split: Split) -> np.ndarray:
    """A 16x16 picture in [0, 1] of one handwritten digit, slightly turned, scaled and shifted."""
    pool = _digits(split)[digit]
    glyph = np.pad(pool[rng.integers(len(pool))], 1)
    angle, size = rng.uniform(-0.2, 0.2), rng.uniform(1.55, 1.9)
    axis = np.arange(CELL) - (CELL - 1) / 2
    dx, dy = rng.uniform(-1.0, 1.0, 2)
    x, y = np.meshgrid(axis - dx, axis - dy)
    if split == "train":  # more hands than the file has: slants and pens
        x = x + rng.uniform(-0.25, 0.25) * y
        glyph = glyph ** rng.uniform(0.6, 1.6)
    u = (np.cos(angle) * x + np.sin(angle) * y) / size + 4.5
    v = (np.cos(angle) * y - np.sin(angle) * x) / size + 4.5
    u, v = np.clip(u, 0, 8.999), np.clip(v, 0, 8.999)
    i, j = v.astype(int), u.astype(int)
    a, b = v - i, u - j
    top = glyph[i, j] * (1 - b) + glyph[i, np.minimum(j + 1, 9)] * b
    low = glyph[np.minimum(i + 1, 9), j] * (1 - b) + glyph[np.minimum(i + 1, 9), np.minimum(j + 1, 9)] * b
    return top * (1 - a) + low * a


def sample_scene(
    rng: np.random.Generator,
    split: Split = "evaluation",
    things: tuple[int, int] = (2, 5),
    number: float = 0.5,
) -> Scene:
    """Draw a scene.

    Args:
        rng: source of all randomness.
        split: which half of the writers the digits come from.
        things: least and most objects.
        number: probability of a two-digit number.
    """
    canvas = np.empty((SIZE, SIZE, 3), dtype=np.float32)
    canvas[:] = rng.uniform(24, 80) + rng.uniform(-8, 8, 3)

    text = box = None
    free = list(range(GRID * GRID))
    if rng.random() < number:
        row, column = rng.integers(GRID), rng.integers(GRID - 1)
        text = f"{rng.integers(10)}{rng.integers(10)}"
        ink = rng.uniform(190, 255)
        x0, y0 = int(column) * CELL, int(row) * CELL
        for offset, character in enumerate(text):
            cover = _handwritten(rng, int(character), split)[..., None]
            patch = canvas[y0 : y0 + CELL, x0 + offset * CELL : x0 + (offset + 1) * CELL]
            patch += (ink - patch) * cover
            free.remove(int(row) * GRID + int(column) + offset)
        box = (x0, y0, 2 * CELL, CELL)

    names: list[str] = []
    for _ in range(int(rng.integers(things[0], things[1] + 1))):
        left = [n for n in SHAPES if n not in names]
        partners = [PARTNER[n] for n in names if PARTNER[n] in left]
        if partners and rng.random() < 0.5:
            names.append(str(rng.choice(partners)))
        else:
            weight = np.array([POPULARITY[SHAPES.index(n)] for n in left])
            names.append(str(rng.choice(left, p=weight / weight.sum())))
    found = []
    for name, cell in zip(names, rng.permutation(free), strict=False):
        colour = str(rng.choice(list(COLOURS)))
        cover = _stencil(name, float(rng.choice([0.8, 0.9, 1.0])))
        cover = np.roll(cover, rng.integers(-1, 2, 2), axis=(0, 1))
        x0, y0 = int(cell) % GRID * CELL, int(cell) // GRID * CELL
        paint = np.array(COLOURS[colour]) + rng.uniform(-16, 16, 3)
        patch = canvas[y0 : y0 + CELL, x0 : x0 + CELL]
        patch += (paint - patch) * cover[..., None]
        ys, xs = np.nonzero(cover > 0.25)
        extent = (x0 + int(xs.min()), y0 + int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1)
        found.append(Thing(name, colour, int(cell), extent))
    found.sort(key=lambda thing: thing.cell)
    return Scene(np.clip(canvas, 0, 255).round().astype(np.uint8), tuple(found), text, box)


def caption(scene: Scene) -> str:
    """One sentence that names every object with its colour, in reading order."""
    phrases = [f"a {thing.colour} {thing.name}" for thing in scene.things]
    listed = ", ".join(phrases[:-1]) + " and " + phrases[-1] if len(phrases) > 1 else phrases[0]
    return f"The image shows {listed}."


@dataclass(frozen=True)
class ScienceQuestion:
    """A multiple-choice question about a scene; ``subject`` names the object it is about, if one."""

    kind: str
    hint: str
    question: str
    choices: tuple[str, ...]
    answer: int
    subject: str | None


def science_question(rng: np.random.Generator, scene: Scene, kind: str) -> ScienceQuestion | None:
    """A question of one of ``SCIENCE_KINDS`` about the scene; None where the scene allows none.

    - color: the colour of a named object (1 hop; 4 choices, colours of the scene first);
    - object: which of the objects present has a colour (needs binding; 2-4 choices);
    - place: the row or the column of a named object (3 choices);
    - count: how many objects there are (4 choices);
    - price: the hint prices colours, the question asks what a named object costs (2 hops; 3 choices).
    """
    thing = scene.things[rng.integers(len(scene.things))]
    hint = ""
    if kind == "color":
        seen = [t.colour for t in scene.things if t.colour != thing.colour]
        others = [c for c in COLOURS if c != thing.colour and c not in seen]
        distractors = [*rng.permutation(sorted(set(seen))), *rng.permutation(others)][:3]
        question, right = f"What color is the {thing.name}?", thing.colour
    elif kind == "object":
        distractors = [t.name for t in scene.things if t.colour != thing.colour]
        if not distractors:
            return None
        distractors = list(rng.permutation(distractors))[:3]
        question, right = f"Which object is {thing.colour}?", thing.name
    elif kind == "place":
        line = int(rng.integers(2))
        words = (ROWS, COLUMNS)[line]
        right = words[thing.cell // GRID if line == 0 else thing.cell % GRID]
        distractors = [w for w in words if w != right]
        question = f"Where is the {thing.name}?"
    elif kind == "count":
        right = str(len(scene.things))
        distractors = [str(n) for n in range(2, 6) if str(n) != right]
        question = "How many objects are in the image?"
    elif kind == "price":
        others = list(rng.permutation([c for c in COLOURS if c != thing.colour]))[:2]
        priced = [str(c) for c in rng.permutation([thing.colour, *others])]
        prices = [str(n) for n in rng.permutation(np.arange(1, 10))[:3]]
        hint = " ".join(f"Every {c} object costs {p} dollars." for c, p in zip(priced, prices, strict=True))
        right = prices[priced.index(thing.colour)]
        distractors = [p for p in prices if p != right]
        question = f"How many dollars does the {thing.name} cost?"
    else:
        raise ValueError(f"kind must be one of {', '.join(SCIENCE_KINDS)}, not {kind!r}")
    choices = [str(c) for c in rng.permutation([right, *distractors])]
    subject = None if kind == "count" else thing.name
    return ScienceQuestion(kind, hint, question, tuple(choices), choices.index(right), subject)


def asked_boxes(item: Item, directory: Path) -> list[Box]:
    """Boxes of what an item of the miniature data sets asks about: ground truth for heat maps.

    The number for TextVQA; every object for a caption; otherwise the objects named in the question, or in
    the right choice where the question names none. Empty where nothing asked about is in the picture.

    Args:
        item: from a miniature data set.
        directory: that holds it, with ``boxes.json``.
    """
    boxes = _boxes_of(item, directory)
    asked = item.question
    if "number" in asked:
        names = ["number"]
    elif asked.startswith("Please describe"):
        names = objects_of(item, directory)
    else:
        names = [name for name in SHAPES if name in asked]
        if not names and item.choices:
            right = item.choices[LETTERS.index(item.reference)]
            names = [name for name in SHAPES if name in right]
    return [boxes[name] for name in names if name in boxes]


def objects_of(item: Item, directory: Path) -> list[str]:
    """The objects in the picture of an item of the miniature data sets; a number is none. See ``asked_boxes``."""
    return [name for name in _boxes_of(item, directory) if name != "number"]


def _boxes_of(item: Item, directory: Path) -> dict[str, Box]:
    if not isinstance(item.image, Path):
        return {}
    return _boxes(directory)[item.image.relative_to(directory).as_posix()]


@cache
def _boxes(directory: Path) -> dict[str, dict[str, Box]]:
    return json.loads((directory / "boxes.json").read_text(encoding="utf-8"))
