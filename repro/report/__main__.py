"""One report of what several sessions measured: ``python -m repro.report DIR ... --out DIR``.

Of the same model, benchmark and protocol, the last directory named counts. Pages of items are not made again:
those of each session stay where they are.
"""

import argparse
import sys
from pathlib import Path

from repro.evaluation.measured import load
from repro.report.index import build, write_report
from repro.report.pages import ReportError
from repro.report.table import table_lines
from repro.text import printable


def main() -> int:
    """The command line; 1 and a line on stderr if there is nothing to merge or it cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m repro.report", description=__doc__)
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="a report's directory")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="of the merged report")
    arguments = parser.parse_args()
    try:
        measured: dict[str, Path] = {}
        for directory in arguments.directories:
            files = sorted((directory / "measured").glob("*.npz"))
            if not files:
                raise ReportError(
                    f"{directory}: no measured/*.npz, which a session of -m table1 leaves there"
                )
            measured |= {path.name: path for path in files}
        parts = [load(path) for _, path in sorted(measured.items())]
        page = write_report(build(parts, f"python -m repro.report {' '.join(sys.argv[1:])}"), arguments.out)
    except (OSError, ReportError, ValueError) as error:
        print(printable(str(error)), file=sys.stderr)
        return 1
    for line in [*table_lines(parts), f"report: {page}"]:
        print(printable(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
