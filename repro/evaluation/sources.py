"""Which of this package's sources decide an answer: those that the module which evaluates imports, in the end."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


@cache
def sources_of(module: str = "repro.evaluation.run", package: Path = PACKAGE) -> tuple[Path, ...]:
    """Files of a module of the package and of all it imports, wherever the import stands; nothing is executed."""
    known: dict[str, Path] = {}
    left = [module]
    while left:
        name = left.pop()
        path = package.parent.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        # Of "from repro.benchmarks import pope, BENCHMARKS" only the first is a module.
        if name not in known and path.is_file():
            known[name] = path
            left += imported(path, package.name)
    return tuple(sorted(known.values()))


def imported(path: Path, package: str) -> Iterator[str]:
    """Names within the package that a file imports, and the packages they are in, which are imported with them."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for parts in (name.split(".") for name in names):
            if parts[0] == package:
                # Not the package itself, whose names are for others.
                yield from (".".join(parts[:end]) for end in range(2, len(parts) + 1))
