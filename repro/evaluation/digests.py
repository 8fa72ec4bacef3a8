"""Digests of what decides an answer: files of a checkpoint, versions of libraries, sources of this package."""

import hashlib
import json
import platform
from contextlib import suppress
from dataclasses import is_dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from repro.evaluation.sources import PACKAGE, sources_of

#: Packages whose versions can change an answer or its score.
PACKAGES = ("torch", "transformers", "tokenizers", "sentencepiece", "numpy", "pillow", "nltk")
#: Packages that transformers uses if they are there, and then may give another answer.
OPTIONAL = ("accelerate", "bitsandbytes", "flash-attn", "kernels", "peft", "torchvision")


def digest_of(value: object) -> str:
    """A SHA-256, in hexadecimal, of plain values, tuples, sets, dataclasses and mappings of string keys."""

    def plain(value: Any) -> object:
        return vars(value) if is_dataclass(value) else sorted(value)

    text = json.dumps(value, sort_keys=True, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def revision_of(checkpoint: Path) -> str:
    """Digest of a checkpoint directory: names and contents of all its files except hidden ones."""
    files = sorted(
        path
        for path in checkpoint.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(checkpoint).parts)
    )
    return digest_of([(path.relative_to(checkpoint).as_posix(), _content(path)) for path in files])


@cache
def weights_of(checkpoint: Path) -> str:
    """Digest of a checkpoint's weights alone: names and contents of its safetensors files."""
    files = sorted(checkpoint.rglob("*.safetensors"))
    return digest_of([(path.relative_to(checkpoint).as_posix(), _content(path)) for path in files])


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def versions() -> dict[str, str]:
    """Versions of all that can change an answer, and the digest of the sources here that decide one."""
    sources = [(path.relative_to(PACKAGE).as_posix(), _content(path)) for path in sources_of()]
    packages = {name: version(name) for name in PACKAGES}
    for name in OPTIONAL:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {"python": platform.python_version(), **packages, "repro": digest_of(sorted(sources))}
