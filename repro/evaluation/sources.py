"""The sources of this package that decide an answer: all that the evaluating module imports, directly or not."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


@cache
def sources_of(module: str = "repro.evaluation.run", package: Path = PACKAGE) -> tuple[Path, ...]:
    """Files of a module and of all it imports from the package, at any place in them; nothing is executed."""
    files: dict[str, Path] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        path = package.parent.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        # Of "from repro.benchmarks import pope, BENCHMARKS" only the first is a module.
        if name not in files and path.is_file():
            files[name] = path
            pending += imported(path, package.name)
    return tuple(sorted(files.values()))


def imported(path: Path, package: str) -> Iterator[str]:
    """Names that a file imports from the package, and their parent packages, which are imported with them."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for parts in (name.split(".") for name in names):
            if parts[0] == package:
                # Not the package itself: its names are for users.
                yield from (".".join(parts[:end]) for end in range(2, len(parts) + 1))
