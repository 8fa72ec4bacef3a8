"""Runs the official evaluators on the inputs of ``vectors/*.json`` again, and compares or records their outputs.

    python tests/conformance/record_vectors.py --check --llava DIR --qwen-vl DIR ...
    python tests/conformance/record_vectors.py --write --llava DIR --qwen-vl DIR ...

``DIR`` is a git checkout of the repository at the commit that the JSON file names; ``--help`` lists both.
Evaluators without a checkout are listed, and their outputs left alone. ``--check`` prints one line per difference
and then exits with 1. CHAIR needs NLTK data; ``environment`` in chair.json says which were used.

The evaluators' own source is executed (see ``official_evaluators.py``), and none of it is kept here. Rules, notes
and ``known_real_result``, which is about published answers, are written by hand.
"""

import argparse
import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from official_evaluators import EVALUATORS

from repro.benchmarks.benchmark import DataError

VECTORS = Path(__file__).with_name("vectors")
#: Checkouts that an evaluator needs besides its own.
ALSO = {"original_pattern": {"clips/pattern": "d25511f9ca7ed9356b801d8663b8b5168464e68f"}}


def needed(vectors: dict[str, Any], name: str) -> dict[str, str]:
    """The repositories of an evaluator, each with its commit."""
    evaluator = vectors["evaluators"][name]
    return {evaluator["repo"]: evaluator["commit"], **ALSO.get(name, {})}


def check_commit(directory: Path, commit: str) -> None:
    """Exits unless ``directory`` is a git checkout of ``commit``."""
    command = ["git", "-C", str(directory), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    if head != commit:
        sys.exit(f"{directory} is at {head or 'no commit of git'}, expected {commit}: git checkout {commit}")


def record(vectors: dict[str, Any], name: str, checkouts: list[Path]) -> None:
    """Puts the outputs of one evaluator into ``vectors``."""
    for section, evaluate in EVALUATORS[name].items():
        cases = vectors[section]
        if section == "images":
            cases = cases.values()
        elif section == "averaging_case":
            cases = [cases]
        for case in cases:
            case.get("expected", case).update(evaluate(case, *checkouts))


def differences(recorded: Any, actual: Any, place: str) -> Iterator[str]:
    """One line per value that differs, in type or in value."""
    if isinstance(recorded, dict) and isinstance(actual, dict):
        for key in recorded | actual:
            yield from differences(recorded.get(key), actual.get(key), f"{place} {key}")
    elif isinstance(recorded, list) and isinstance(actual, list) and len(recorded) == len(actual):
        for i, pair in enumerate(zip(recorded, actual, strict=True)):
            yield from differences(*pair, f"{place} {i}")
    elif json.dumps(recorded) != json.dumps(actual):
        yield f"{place}: recorded {recorded!r}, now {actual!r}"


def main() -> None:
    files = {file: json.loads(file.read_text()) for file in sorted(VECTORS.glob("*.json"))}
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true", help="compare with what is recorded")
    mode.add_argument("--write", action="store_true", help="record")
    commits: dict[str, str] = {}
    for vectors in files.values():
        for name in vectors["evaluators"]:
            commits |= needed(vectors, name)
    for repo, commit in commits.items():
        option = "--" + repo.split("/")[1].lower()
        parser.add_argument(option, dest=repo, type=Path, metavar="DIR", help=f"{repo} at {commit}")
    options = vars(parser.parse_args())
    for repo, commit in commits.items():
        if options[repo]:
            check_commit(options[repo], commit)
    lines: list[str] = []
    for file, vectors in files.items():
        actual = copy.deepcopy(vectors)
        for name in vectors["evaluators"]:
            repos = needed(vectors, name)
            if missing := [repo for repo in repos if not options[repo]]:
                print(f"not checked: {file.name} {name}: no checkout of {' and '.join(missing)}")
                continue
            try:
                record(actual, name, [options[repo] for repo in repos])
            except DataError as error:
                sys.exit(f"{file.name} {name}: {error}")
            print(f"run: {file.name} {name}")
        lines += differences(vectors, actual, file.name)
        if options["write"]:
            file.write_text(json.dumps(actual, indent=1, ensure_ascii=False))
    print(*lines, f"{len(lines)} differences", sep="\n")
    sys.exit(bool(lines) and options["check"])


if __name__ == "__main__":
    main()
