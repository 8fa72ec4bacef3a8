"""Outcomes of a gate as files, from the process that compared to the one that reports."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from repro.gate.compare import Outcome
from repro.models.images import read_image, thumbnail

#: Flips whose image is shown, and its longer side in pixels.
PICTURES, SIDE = 24, 160
#: Folder of a report for the outcomes of a gate.
FOLDER = "gate"


def write_outcome(outcome: Outcome, report: Path) -> Path:
    """An outcome as JSON, the images of its flips as PNG in base 64; numbers that are not finite become null."""
    content = asdict(outcome)
    for number, flip in enumerate(content["flips"]):
        picture = thumbnail(read_image(flip["picture"]), SIDE) if number < PICTURES else b""
        flip["picture"] = base64.b64encode(picture).decode()
    path = report / FOLDER / f"{outcome.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain(content), allow_nan=False) + "\n")
    return path


def plain(value: Any) -> Any:
    """Values as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value
