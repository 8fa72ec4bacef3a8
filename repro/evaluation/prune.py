"""Runs of a results file, and their removal: ``python -m repro.evaluation.prune RESULTS [RUN ...]``.

Runs of other versions of the libraries, of other items or settings stay until they are removed here. Without the
number of a run, the runs are listed.
"""

import argparse
import sys
from pathlib import Path

from repro.evaluation.digests import versions
from repro.evaluation.results import Results, ResultsError, size_line
from repro.text import columns, printable

HEADER = ["run", "model", "benchmark", "protocol", "n", "started", "finished", "versions"]


def listed(results: Results) -> list[str]:
    """A line per run, columns aligned, and the file's size."""
    rows = [
        [
            *(str(run.number), run.model, run.dataset, run.protocol, str(run.settings.get("n", ""))),
            *(run.started, run.finished or "no", "as installed" if run.versions == versions() else "others"),
        ]
        for run in results.runs()
    ]
    return [*columns([HEADER, *rows]), size_line(results)]


def main() -> int:
    """The command line; 1 and a line on stderr if the file cannot be used or lacks a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="a results.sqlite")
    parser.add_argument("runs", type=int, nargs="*", metavar="RUN", help="runs to remove, by number")
    arguments = parser.parse_args()
    try:
        results = Results(arguments.results)
        if arguments.runs:
            results.remove(arguments.runs)
        print("\n".join(map(printable, listed(results))))
    except ResultsError as error:
        print(printable(str(error)), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
