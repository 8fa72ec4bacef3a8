"""Results that survive: every answer of a run, in one SQLite file, written as it comes.

A run is one configuration (``Configuration``) over the items of a benchmark. It is finished when the test session
that started it has ended; until then, the next session with the same configuration resumes it. A finished run is
measured anew when requested again, and replaced when the new one is finished.

Rows are committed in batches, with SQLite's rollback journal and ``synchronous=FULL``: if a process is killed or
the power fails at any moment, the file holds complete batches. Workers share the file by its locks.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from repro.benchmarks.benchmark import Part
from repro.evaluation.digests import digest_of
from repro.evaluation.environment import now

#: The file in a report's directory.
NAME = "results.sqlite"
#: Raised with every change of the tables.
SCHEMA = 2
#: SQLite's field for the program that a file belongs to: "repr".
APPLICATION = int.from_bytes(b"repr")
#: Seconds to wait for another process that writes. A batch of rows takes milliseconds.
PATIENCE = 60.0

_TABLES = f"""
BEGIN EXCLUSIVE;
CREATE TABLE IF NOT EXISTS runs (
    run INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,
    model TEXT NOT NULL, revision TEXT NOT NULL, dataset TEXT NOT NULL, protocol TEXT NOT NULL,
    settings TEXT NOT NULL, versions TEXT NOT NULL,
    started TEXT NOT NULL, finished TEXT
);
CREATE TABLE IF NOT EXISTS items (
    run INTEGER NOT NULL REFERENCES runs (run) ON DELETE CASCADE,
    item TEXT NOT NULL, question TEXT NOT NULL, image TEXT NOT NULL, asked TEXT NOT NULL,
    PRIMARY KEY (run, item)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    run INTEGER NOT NULL REFERENCES runs (run) ON DELETE CASCADE,
    item TEXT NOT NULL, layer INTEGER NOT NULL, keep INTEGER NOT NULL,
    answer TEXT NOT NULL, ids TEXT NOT NULL, score TEXT NOT NULL, probability REAL NOT NULL,
    PRIMARY KEY (run, item, layer, keep)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
COMMIT;
"""


class ResultsError(Exception):
    """A results file that cannot be used; the message names it, what is wrong, and what to do."""


@dataclass(frozen=True)
class Configuration:
    """Everything that decides an answer except the item: with another one, rows start anew.

    Attributes:
        model: its name; ``revision`` the digest of its files (``revision_of``).
        dataset: the benchmark's name.
        protocol: how the model was asked.
        settings: the other choices: which items of which data, number type, device, longest answer.
        versions: of the libraries, and the digest of those sources of this package that decide an answer.
    """

    model: str
    revision: str
    dataset: str
    protocol: str
    settings: Mapping[str, str | int]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Recorded(Configuration):
    """A run in the file; ``finished`` is None if it was interrupted."""

    number: int
    started: str
    finished: str | None


@dataclass(frozen=True)
class Row:
    """The answer to one item at one L and k.

    Attributes:
        item: its id; ``question`` the digest of the question and its reference, ``image`` the image's, both stored
            once per item and run.
        layer, keep: truncated after L, with k image tokens kept.
        answer, ids: the text and its token ids.
        score: by metric, the numerator and denominator it adds.
        probability: of the first token of the baseline answer.
    """

    item: str
    question: str
    image: str
    layer: int
    keep: int
    answer: str
    ids: tuple[int, ...]
    score: Mapping[str, Part]
    probability: float


@dataclass(frozen=True)
class Asked:
    """An item in words, for who reads answers; empty where a run was recorded without.

    Attributes:
        text: the user's turn.
        picture: folder and name of the image.
        right: the right answer.
        category, kind: of the item.
    """

    text: str = ""
    picture: str = ""
    right: str = ""
    category: str = ""
    kind: str = ""


def size_line(results: Results) -> str:
    """How large a results file is, and how many runs it holds."""
    size = results.path.stat().st_size
    return f"{results.path}: {size / 1e6:.1f} MB, {len(results.runs())} runs"


class Results:
    """An open results file; ``new`` creates it if it is missing.

    Raises:
        ResultsError: the file is missing, of another program or schema, damaged, locked, or cannot be written;
            any method may raise it.
    """

    def __init__(self, path: Path, new: bool = False):
        self.path = path
        with self._explained():
            if new:
                path.parent.mkdir(parents=True, exist_ok=True)
            # "rw" even to read: the unfinished transaction of a killed writer has to be rolled back first.
            uri = f"{path.resolve().as_uri()}?mode={'rwc' if new else 'rw'}"
            self._open = sqlite3.connect(uri, timeout=PATIENCE, uri=True, isolation_level=None)
            self._open.execute("PRAGMA synchronous = FULL")
            self._open.execute("PRAGMA foreign_keys = ON")
            if new and self._ask("PRAGMA schema_version") == 0:
                self._open.executescript(_TABLES)
            application, schema = self._ask("PRAGMA application_id"), self._ask("PRAGMA user_version")
        if application != APPLICATION:
            raise ResultsError(
                f"{path}: is no results file of this suite; expected one that it wrote: name another place"
            )
        if schema != SCHEMA:
            raise ResultsError(
                f"{path}: has schema {schema}, this version reads and writes {SCHEMA}: use another directory, or "
                "the version of repro that wrote it"
            )

    def close(self) -> None:
        """Close the file."""
        self._open.close()

    def begin(self, configuration: Configuration, resume: bool = True) -> Run:
        """The unfinished run of a configuration, or a new one, as with ``resume=False``."""
        c, digest = configuration, digest_of(asdict(configuration))
        with self._explained(), self._transaction():
            (run,) = self._open.execute(
                "SELECT max(run) FROM runs WHERE digest = ? AND finished IS NULL", (digest,)
            ).fetchone()
            if run is None or not resume:
                texts = json.dumps(c.settings), json.dumps(c.versions), now()
                run = self._open.execute(
                    "INSERT INTO runs (digest, model, revision, dataset, protocol, settings, versions, started) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (digest, c.model, c.revision, c.dataset, c.protocol, *texts),
                ).lastrowid
            return Run(self, run)

    def finish(self, runs: Sequence[int]) -> None:
        """Mark runs as complete, and delete earlier ones of the same configurations."""
        with self._explained(), self._transaction():
            for run in runs:
                self._open.execute("UPDATE runs SET finished = ? WHERE run = ?", (now(), run))
                self._open.execute(
                    "DELETE FROM runs WHERE run < ? AND digest = (SELECT digest FROM runs WHERE run = ?)",
                    (run, run),
                )

    def remove(self, runs: Sequence[int]) -> None:
        """Delete runs with their answers, and give their space back; ResultsError for one that is not there."""
        if missing := sorted(set(runs) - {run.number for run in self.runs()}):
            raise ResultsError(f"{self.path}: has no run {', '.join(map(str, missing))}; nothing is removed")
        with self._explained():
            with self._transaction():
                self._open.executemany("DELETE FROM runs WHERE run = ?", [(run,) for run in runs])
            self._open.execute("VACUUM")

    def runs(self) -> list[Recorded]:
        """All runs, in the order they began."""
        with self._explained():
            rows = self._open.execute(
                "SELECT model, revision, dataset, protocol, settings, versions, run, started, finished "
                "FROM runs ORDER BY run"
            ).fetchall()
        runs = []
        for model, revision, dataset, protocol, settings, versions, number, started, finished in rows:
            with self._whole(f"run {number}"):
                choices, libraries = _mapping(settings), _mapping(versions)
                _expect(str, model, revision, dataset, protocol, started, finished or "")
                runs.append(
                    Recorded(
                        model, revision, dataset, protocol, choices, libraries, number, started, finished
                    )
                )
        return runs

    def rows(self, run: int) -> Iterator[Row]:
        """The rows of a run, by item and layer."""
        with self._explained():
            for item, question, image, layer, keep, answer, ids, score, probability in self._open.execute(
                "SELECT item, question, image, layer, keep, answer, ids, score, probability "
                "FROM answers LEFT JOIN items USING (run, item) WHERE run = ? ORDER BY item, layer, keep",
                (run,),
            ):
                with self._whole(f"run {run}, item {item!r:.60}, L = {layer!r:.20}"):
                    parts = {name: (part[0], part[1]) for name, part in _mapping(score).items()}
                    tokens = tuple(json.loads(ids))
                    _expect(str, item, question, image, answer)
                    _expect(int, layer, keep, *tokens)
                    _expect((int, float), probability, *itertools.chain(*parts.values()))
                    if layer < 0 or keep < 0:
                        raise ValueError("a negative number")
                yield Row(item, question, image, layer, keep, answer, tokens, parts, probability)

    def counts(self) -> dict[int, int]:
        """How many items each run has answers to."""
        with self._explained():
            return dict(self._open.execute("SELECT run, count(*) FROM items GROUP BY run").fetchall())

    def asked(self, run: int) -> dict[str, Asked]:
        """The items of a run in words, by id."""
        with self._explained():
            rows = self._open.execute("SELECT item, asked FROM items WHERE run = ?", (run,)).fetchall()
        texts = {}
        for item, words in rows:
            with self._whole(f"run {run}, item {item!r:.60}"):
                texts[item] = Asked(**_mapping(words))
                _expect(str, item, *vars(texts[item]).values())
        return texts

    @contextmanager
    def _whole(self, place: str) -> Iterator[None]:
        """Turns what a damaged cell raises into a ``ResultsError``."""
        try:
            yield
        except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
            raise ResultsError(
                f"{self.path}, {place}: is damaged ({error}); expected what this suite writes: delete the row, or "
                "move the file away"
            ) from None

    def _ask(self, question: str) -> int:
        return self._open.execute(question).fetchone()[0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Everything is written, or nothing."""
        self._open.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._open.execute("COMMIT")  # fails if another process reads for too long
        except BaseException:
            if self._open.in_transaction:  # a full disk has ended it
                self._open.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns SQLite's errors into a ``ResultsError`` with a remedy."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            # The low byte; the others distinguish cases of it.
            code = getattr(error, "sqlite_errorcode", -1) & 0xFF
            reason = _REASONS.get(code, "cannot be used")
            raise ResultsError(f"{self.path}: {reason} ({error})") from error


_REASONS = {
    sqlite3.SQLITE_BUSY: f"another process has held it for {PATIENCE:.0f} s: wait for it, or end it",
    sqlite3.SQLITE_LOCKED: f"another process has held it for {PATIENCE:.0f} s: wait for it, or end it",
    sqlite3.SQLITE_FULL: "the disk is full; what was written is kept: make room, and the same command goes on",
    sqlite3.SQLITE_IOERR: "the disk fails; what was written is kept, and the same command goes on",
    sqlite3.SQLITE_READONLY: "may not be written: choose another directory, or change its permissions",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: expected a file in a directory that may be written",
    sqlite3.SQLITE_NOTADB: "is no SQLite file: name another place, or move it away",
    sqlite3.SQLITE_CORRUPT: "is damaged: move it away; what it holds may be saved by sqlite3's .recover",
}


class Run:
    """An open run: its answers so far, and the place for new ones."""

    def __init__(self, results: Results, number: int):
        self.results, self.number = results, number

    def known(self, digests: Mapping[str, tuple[str, str]], layers: int) -> dict[str, list[Row]]:
        """Rows of items that have one at each of L = 0...layers - 1, with the same question and image.

        Args:
            digests: of the current question and image, by item id.
        """
        by_item: dict[str, list[Row]] = {}
        for row in self.results.rows(self.number):
            if row.keep == 0 and digests.get(row.item) == (row.question, row.image):
                by_item.setdefault(row.item, []).append(row)
        complete = list(range(layers))
        return {item: rows for item, rows in by_item.items() if [row.layer for row in rows] == complete}

    def write(self, rows: Sequence[Row], asked: Mapping[str, Asked] = MappingProxyType({})) -> None:
        """Add rows, all of them or none; one of the same item, L and k is replaced.

        Args:
            asked: the items in words, by id.
        """
        digests = {row.item: (row.question, row.image) for row in rows}
        with self.results._explained(), self.results._transaction():
            self.results._open.executemany(
                "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?)",
                [
                    (self.number, item, *digest, json.dumps(asdict(asked.get(item, Asked()))))
                    for item, digest in digests.items()
                ],
            )
            self.results._open.executemany(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        *(self.number, row.item, row.layer, row.keep, row.answer),
                        *(json.dumps(row.ids), json.dumps(row.score), row.probability),
                    )
                    for row in rows
                ],
            )


def _mapping(text: str) -> dict[str, Any]:
    value = json.loads(text)
    _expect(dict, value)
    return value


def _expect(kind: type | tuple[type, ...], *values: object) -> None:
    """ValueError for a value of another kind."""
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"a {type(value).__name__}, {value!r:.40}")
