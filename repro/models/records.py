"""Outcomes of admission, recorded in the user's cache so that a checkpoint is proved once.

A record is for one state of a checkpoint's files, this code, these versions of libraries, and one device, number
type and attention implementation. Whatever cannot be read or written is as if it were absent.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from repro.reading import write_file

#: Packages whose versions can change how a model computes or a prompt is made.
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pillow", "torchvision")
#: Files of a checkpoint up to this size count by their content, larger ones by size and time of change.
SMALL = 2**20
#: Instrument, whether it is admitted, and what was shown or why not.
Outcome = tuple[str, bool, str]


def directory() -> Path:
    """Where records are: below REPRO_CACHE, else XDG_CACHE_HOME, else ~/.cache."""
    if own := os.environ.get("REPRO_CACHE"):
        return Path(own) / "admission"
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "repro" / "admission"


def record_file(lvlm: Any) -> Path | None:
    """The file of a loaded model's record; None if its checkpoint's files cannot be looked at."""
    config, card = lvlm.model.config, lvlm.card
    device = lvlm.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    attention = [getattr(part, "_attn_implementation", None) for part in (config, config.get_text_config())]
    try:
        state = _state(lvlm.path)
    except OSError:
        return None
    about = [state, _code(), _versions(), name, str(lvlm.computes_in), str(lvlm.model.dtype), attention]
    about += [len(lvlm.devices)]
    about += [type(lvlm).__name__, card.template, card.placeholder, sorted(dict(card.image_settings).items())]
    return directory() / f"{_digest(about)}.json"


def read_record(file: Path | None, types: Mapping[str, Any]) -> tuple[list[Outcome], dict[str, Any]] | None:
    """Outcomes and what was settled with them; None if there is no sound record.

    Args:
        types: of everything that may be settled.
    """
    if file is None:
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        outcomes = [(str(name), admitted, str(note)) for name, admitted, note in content["outcomes"]]
        settled = dict(content["settled"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    sound = all(type(admitted) is bool for _, admitted, _ in outcomes)
    sound = sound and all(name in types and isinstance(value, types[name]) for name, value in settled.items())
    return (outcomes, settled) if sound else None


def write_record(file: Path, outcomes: Sequence[Outcome], settled: Mapping[str, Any]) -> None:
    """Write a record, complete or not at all."""
    text = json.dumps({"versions": _versions(), "outcomes": outcomes, "settled": settled}, indent=1)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, text.encode())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _state(checkpoint: Path) -> list[tuple[Any, ...]]:
    """Names, sizes and times of all files of a checkpoint; of small ones the digest of their content."""
    state: list[tuple[Any, ...]] = []
    for path in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        status, name = path.stat(), path.relative_to(checkpoint).as_posix()
        if "/." in f"/{name}":  # hidden
            continue
        if status.st_size <= SMALL:
            state.append((name, hashlib.sha256(path.read_bytes()).hexdigest()))
        else:
            state.append((name, status.st_size, status.st_mtime_ns))
    return state


@cache
def _code() -> str:
    """Digest of the models' and the instruments' sources."""
    package = Path(__file__).parents[1]
    files = sorted([*package.glob("*.py"), *package.glob("models/*.py")])
    return _digest([(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files])


@cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
