"""How good are the tests? Puts small faults into a copy of this checkout, one at a time, and runs tests beside it.

    python tests/mutation/run.py LOG                   faults sampled over repro/, a line of JSON each
    python tests/mutation/run.py LOG --transformers    those of transformers_faults.py, in a copy of transformers
    python tests/mutation/run.py LOG --only TEXT       those whose id holds TEXT, again; an id's last line counts

A run that was killed goes on where its log ends. A fault is caught if a test fails, or takes far longer than any
should. Which faults are tried depends on the seed and each file's text alone. Every fault runs in a fork of this
process, which has imported what is slow to import, but none of what is changed.
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from mutants import mutants
from rooms import GOLDENS, OPTIONS, tests_of
from transformers_faults import FAULTS

CHECKOUT = Path(__file__).resolve().parents[2]
#: Seconds of a core: some ten times what a room's tests take.
LIMIT = 200
CARRIED = (
    *("repro", "tests", "golden", "fixtures", "docs", ".ci", "conftest.py", "pyproject.toml", "tox.ini"),
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "constraints.txt", "constraints-lowest.txt"),
)
LIBRARIES = (
    *("torch", "numpy", "scipy.stats", "sklearn.metrics", "matplotlib.figure", "PIL.Image", "hypothesis"),
    *("jinja2", "syrupy", "sqlite3", "safetensors.torch", "tokenizers", "pyarrow"),
)
#: What is not imported where transformers is changed.
OWN = "transformers.models.llava.modeling_llava"


@dataclass(frozen=True)
class Fault:
    """A file's new content, by its path below the copy; ``tests`` are pytest's arguments, most specific first."""

    id: str
    file: str
    content: bytes
    tests: tuple[str, ...]


def sampled(count: int, seed: int) -> list[Fault]:
    """Some ``count``, by a file's share of all lines, but two of a module at the top and one of any other."""
    sources = {path: path.read_bytes() for path in sorted(CHECKOUT.glob("repro/**/*.py"))}
    total = sum(source.count(b"\n") for source in sources.values())
    out = []
    for path, source in sources.items():
        file = path.relative_to(CHECKOUT).as_posix()
        places = mutants(source)
        random.Random(f"{seed} {file}").shuffle(places)
        share = round(count * source.count(b"\n") / total)
        for place in places[: max(share, 2 if path.parent.name == "repro" else 1)]:
            name = f"{file}:{place.line}@{place.start} {place.what}"
            out.append(Fault(name, file, place.applied(source), tests_of(file)))
    random.Random(seed).shuffle(out)
    return sorted(out, key=lambda fault: OPTIONS[0] in fault.tests)  # the slowest tests last


def of_transformers() -> list[Fault]:
    """What stands in transformers_faults.py; an old text that is not there exactly once is an error."""
    library = Path(importlib.util.find_spec("transformers").origin).parent.parent
    out = []
    for name, file, old, new in FAULTS:
        source = (library / file).read_text()
        if source.count(old) != 1:
            raise ValueError(f"{name}: {file} has the text {source.count(old)} times, expected once: {old!r}")
        out.append(Fault(name, file, source.replace(old, new).encode(), GOLDENS))
    return out


def copied(library: bool) -> Path:
    """A private copy of the checkout, and of transformers if that is what is changed."""
    tree = Path(tempfile.mkdtemp(prefix="mutation-"))
    for name in CARRIED:
        copy = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy2
        copy(CHECKOUT / name, tree / name)
    if library:
        own = Path(importlib.util.find_spec("transformers").origin).parent
        shutil.copytree(own, tree / "transformers")
    compileall.compile_dir(tree, quiet=1)
    return tree


def tried(tree: Path, tests: tuple[str, ...], output: Path) -> tuple[int | str, float]:
    """Exit code of pytest in a fork, or "timeout"; and the seconds it took of a core."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 5))
        sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
        os.chdir(tree)
        os.environ |= {"PYTHONPATH": str(tree), "REPRO_CACHE": str(tree / "cache" / str(os.getpid()))}
        sys.path[:] = [str(tree), *(p for p in sys.path if not Path(p).resolve().is_relative_to(CHECKOUT))]
        stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(stream, 1), os.dup2(stream, 2)
        code = pytest.main(["-x", "-q", "-rfE", "--tb=line", "-p", "no:cacheprovider", *tests])
        sys.stdout.flush()
        os._exit(int(code))
    # A limit of processor time ends what computes; the clock, far beyond it, only what waits for ever.
    end, done = time.monotonic() + 10 * LIMIT, 0
    while not done and time.monotonic() < end:
        time.sleep(0.1)
        done, status, usage = os.wait4(pid, os.WNOHANG)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if not done:
        _, status, usage = os.wait4(pid, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else "timeout", usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", type=Path)
    parser.add_argument("--transformers", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--tests", nargs="+", help="these tests in place of the room's")
    parser.add_argument("--count", type=int, default=180)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    faults = of_transformers() if options.transformers else sampled(options.count, options.seed)
    if options.tests:
        faults = [replace(fault, tests=tuple(options.tests)) for fault in faults]
    lines = options.log.read_text().splitlines() if options.log.exists() and not options.only else []
    done = {json.loads(line)["id"] for line in lines}
    for name in LIBRARIES if options.transformers else (*LIBRARIES, OWN):
        importlib.import_module(name)
    tree = copied(options.transformers)
    output = tree.with_suffix(".txt")
    for fault in faults:
        if fault.id in done or options.only not in fault.id:
            continue
        own = (tree / fault.file).read_bytes()
        (tree / fault.file).write_bytes(fault.content)
        code, seconds = tried(tree, fault.tests, output)
        (tree / fault.file).write_bytes(own)
        first = re.search(
            r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", output.read_text(errors="replace"), re.MULTILINE
        )
        row = {
            "id": fault.id,
            "outcome": "survived" if code == 0 else "caught",
            "code": code,
            "seconds": round(seconds, 1),
            "by": first and first[1],
        }
        with options.log.open("a") as log:
            log.write(json.dumps(row) + "\n")
    shutil.rmtree(tree)


if __name__ == "__main__":
    main()
