"""Parts of a run that are measured apart, on as many machines as share a directory, and merged.

A shard ``3/16`` has every 16th batch of the complete run from the third on, so that its answers are those of one
process. It is a results file of its own, ``shards/...-3-of-16.sqlite.partial`` while answers come and without
``.partial`` once it is complete, under the complete run's configuration and with its digest in the name.
"""

import argparse
import fcntl
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from repro.benchmarks.benchmark import Item
from repro.evaluation.digests import digest_of
from repro.evaluation.results import NAME, Asked, Configuration, Recorded, Results, ResultsError, Row
from repro.evaluation.run import Progress, answer_items, begin, configuration_of
from repro.models.lvlm import Lvlm
from repro.protocols.task import Task
from repro.text import printable


class ClusterError(Exception):
    """A cluster that cannot do the work; the message says what it lacks."""


#: The directory of a report's shards.
FOLDER = "shards"


@dataclass(frozen=True)
class Shard:
    """One of ``count`` shards; ``number`` is from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @staticmethod
    def read(text: str) -> "Shard":
        """The shard of a text such as "3/16"; ValueError for another."""
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ValueError(f"{text!r} is no shard; expected K/N with K from 1 to N, such as 3/16")
        return Shard(int(number), int(count))


def stem_of(configuration: Configuration) -> str:
    """What the files of a run's shards begin with."""
    c = configuration
    return f"{c.model}-{c.dataset}-{c.protocol}-{digest_of(asdict(c))[:12]}-"


def measure_shard(
    lvlm: Lvlm,
    task: Task,
    items: Sequence[Item],
    shard: Shard,
    report: Path,
    progress: bool | Progress = True,
) -> Path:
    """Answer a shard of all the items, going on where an earlier process stopped; its file.

    Another process on the same shard is waited for.

    Raises ValueError and ResultsError as ``repro.evaluation.run.evaluate``.
    """
    name = f"{stem_of(configuration_of(lvlm, task, items))}{shard.number}-of-{shard.count}.sqlite"
    path = report / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with _locked(path.with_name(f"{path.name}.lock")):
        if path.exists():
            return path
        with closing(Results(partial, new=True)) as results:
            run = begin(results, lvlm, task, items)
            answer_items(lvlm, task, items, run, progress=progress, part=(shard.number - 1, shard.count))
            results.finish([run.number])
        partial.replace(path)
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Within the context no other process is; the system ends it with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def merge(report: Path, stem: str = "") -> Iterator[str]:
    """Add the rows of all shards of a report to its ``results.sqlite``; a line for each run.

    The runs stay unfinished: the command without ``--shard`` goes on with them.

    Args:
        stem: only files that begin with it.

    Raises ResultsError, before anything is written, for shards of different configurations or numbers, for missing
    ones, and for items that are in two.
    """
    groups: dict[tuple[str, str, str], dict[Path, tuple[Recorded, list[Row]]]] = defaultdict(dict)
    words: dict[tuple[str, str, str], dict[str, Asked]] = defaultdict(dict)
    for path in sorted((report / FOLDER).glob(f"{stem}*.sqlite")):
        with closing(Results(path)) as results:
            runs = results.runs()
            if len(runs) != 1:
                raise ResultsError(f"{path}: holds {len(runs)} runs; expected the one of a shard: remove it")
            key = (runs[0].model, runs[0].dataset, runs[0].protocol)
            groups[key][path] = (runs[0], list(results.rows(runs[0].number)))
            words[key] |= results.asked(runs[0].number)
    if not groups:
        raise ResultsError(f"{report / FOLDER}: holds no complete shard; measure them with --shard K/N first")
    for group in groups.values():
        _check(group)
    with closing(Results(report / NAME, new=True)) as results:
        for key, group in groups.items():
            recorded = next(iter(group.values()))[0]
            names = Configuration.__dataclass_fields__
            target = results.begin(Configuration(**{name: getattr(recorded, name) for name in names}))
            rows = [row for _, part in group.values() for row in part]
            target.write(rows, words[key])
            yield f"{' '.join(key)}: {len(rows)} rows of {len(group)} shards in {results.path}"


def _check(group: dict[Path, tuple[Recorded, list[Row]]]) -> None:
    """ResultsError unless the shards of one run are all there, agree, and share no item."""
    (first, (expected, _)), *others = group.items()
    for path, (run, _) in others:
        for name in ("revision", "settings", "versions"):
            if getattr(run, name) != getattr(expected, name):
                raise ResultsError(
                    f"{path} and {first} are of different configurations: their {name} are {getattr(run, name)} "
                    f"and {getattr(expected, name)}; remove those that are not wanted"
                )
    numbers = [path.stem.rpartition("-of-") for path in group]
    counts = {count for _, _, count in numbers}
    if len(counts) > 1:
        raise ResultsError(
            f"{first.parent}: holds shards of {' and of '.join(sorted(counts))} of one run, which overlap: remove "
            "those of one number"
        )
    there = {int(start.rpartition("-")[2]) for start, _, _ in numbers}
    absent = sorted(set(range(1, int(counts.pop()) + 1)) - there)
    if absent:
        raise ResultsError(
            f"{first.parent}: shards {', '.join(map(str, absent))} are missing: measure them first"
        )
    owner: dict[str, Path] = {}
    for path, (_, rows) in group.items():
        for row in rows:
            if owner.setdefault(row.item, path) != path:
                raise ResultsError(
                    f"{path} and {owner[row.item]} both have item {row.item}: remove one of them"
                )


def main() -> int:
    """The command line; 1 and a line on stderr if the shards cannot be merged."""
    parser = argparse.ArgumentParser(description="Merge the shards of a report into its results.sqlite.")
    parser.add_argument("report", type=Path, help="the directory that was given to --report")
    try:
        for line in merge(parser.parse_args().report):
            print(printable(line))
    except (ResultsError, OSError) as error:
        print(printable(str(error)), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
