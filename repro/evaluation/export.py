"""A results file as Parquet: ``python -m repro.evaluation.export RESULTS OUT.parquet``."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from repro.evaluation.digests import digest_of
from repro.evaluation.results import Asked, Recorded, Results, ResultsError, Row
from repro.text import printable

_TEXTS = ("model", "revision", "dataset", "protocol", "settings", "versions", "started", "finished")
#: The item in words, beside the digests: user turn, name of the picture, right answer, category, kind.
_WORDS = tuple(field.name for field in fields(Asked))
_PART = pa.struct([("numerator", pa.float64()), ("denominator", pa.float64())])
#: One row per model, revision, benchmark, protocol, item, L and k. ``finished`` is null for an interrupted run.
SCHEMA = pa.schema(
    {
        "run": pa.int64(),
        **dict.fromkeys((*_TEXTS, "item", "question", "image", *_WORDS), pa.string()),
        "layer": pa.int32(),
        "keep": pa.int32(),
        "answer": pa.string(),
        "ids": pa.list_(pa.int32()),
        "ids_digest": pa.string(),
        "score": pa.map_(pa.string(), _PART),
        "probability": pa.float64(),
    }
)
#: Rows in memory at a time.
GROUP = 20_000


def export(results: Results, out: Path) -> int:
    """Write all rows of all runs; the file appears when it is complete. Returns the number of rows.

    Raises OSError if it cannot be written, FileExistsError if it exists, and ResultsError, also for a number that
    its column cannot hold.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already: name another file, or remove it")
    rows = _rows(results)
    partial, count = out.with_name(f"{out.name}.partial"), 0
    try:
        with parquet.ParquetWriter(partial, SCHEMA) as writer:
            while group := list(islice(rows, GROUP)):
                try:
                    table = pa.Table.from_pylist(group, SCHEMA)
                except (pa.ArrowException, OverflowError) as error:
                    raise ResultsError(f"{results.path}: is damaged ({error}); move it away") from None
                writer.write_table(table)
                count += len(group)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _rows(results: Results) -> Iterator[dict[str, object]]:
    for run in results.runs():
        asked = results.asked(run.number)
        for row in results.rows(run.number):
            yield _plain(run, row, asked[row.item])


def _plain(run: Recorded, row: Row, asked: Asked) -> dict[str, object]:
    return {
        **vars(run),
        **vars(row),
        **vars(asked),
        "run": run.number,
        "settings": json.dumps(run.settings),
        "versions": json.dumps(run.versions),
        "ids_digest": digest_of(row.ids),
        "score": [(name, {"numerator": part[0], "denominator": part[1]}) for name, part in row.score.items()],
    }


def main() -> int:
    """The command line; 1 and a line on stderr if a file cannot be read or written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="a results.sqlite")
    parser.add_argument("out", type=Path, help="the Parquet file to write")
    arguments = parser.parse_args()
    try:
        print(printable(f"{export(Results(arguments.results), arguments.out)} rows in {arguments.out}"))
    except (ResultsError, OSError) as error:
        print(printable(str(error)), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("broken off: nothing is written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
