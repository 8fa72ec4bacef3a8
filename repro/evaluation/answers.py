"""Recorded answers: read them, find the questions they belong to, score them.

Three formats:

- JSON lines of LLaVA's evaluation scripts (c121f04): ``question_id``, ``text``, and mostly ``prompt``;
- JSON lines of OPERA's caption logs (61426ef): ``image_id``, ``caption``;
- the suite's own results file, run by run (``repro.evaluation.results``).

Answers find their question by id, never by their place in the file, and where the prompt was recorded it must
ask that question. LLaVA's ``eval_pope.py`` goes by order instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from repro.benchmarks import BENCHMARKS, find_benchmark
from repro.benchmarks.benchmark import DataError, Item
from repro.benchmarks.chair import Mode
from repro.benchmarks.files import field, read_json_lines
from repro.benchmarks.questions import Questions, by_own_ids, captioning, llava_textvqa_id, question_answering
from repro.evaluation.results import NAME as RESULTS
from repro.evaluation.results import Recorded, Results, ResultsError
from repro.evaluation.run import question_digest
from repro.evaluation.scored import Scored
from repro.models import find_card
from repro.models.card import ModelCard
from repro.protocols import ProtocolError, find_task
from repro.protocols.task import Task

Format = Literal["llava", "opera"]
#: No model writes an answer as long as this (2048 tokens have about 10,000 characters), and taggers would take
#: hours over it.
MAX_CHARACTERS = 100_000
#: How many of a list of ids an error names.
SHOWN = 20


@dataclass(frozen=True)
class Row:
    """One recorded answer; ``prompt`` is empty where none was recorded, ``layer`` 0 where there is one answer."""

    where: str
    id: str
    text: str
    prompt: str = ""
    layer: int = 0


@dataclass(frozen=True, eq=False)
class Replay(Scored):
    """Recorded answers, scored; ``parts`` has one layer, or L = 0...N.

    Attributes:
        answers: the file's name, and the run's.
        title: of the questions, with their number.
        notes: what was left out.
    """

    answers: str
    title: str
    notes: list[str]


@dataclass(frozen=True)
class _Fit:
    """How well recorded answers fit questions.

    Attributes:
        questions: that may have been asked.
        answers: by question and layer, as far as nothing is wrong with them.
        unknown: ids no question has; ``missing``: questions without an answer at every layer.
        twice: places of answers to what has one already; ``others``: of prompts that ask something else.
    """

    questions: Questions
    answers: dict[str, dict[int, Row]]
    unknown: list[str]
    missing: list[str]
    twice: list[str]
    others: list[str]

    @property
    def problems(self) -> int:
        return len(self.unknown) + len(self.missing) + len(self.twice) + len(self.others)


def read_answers(path: Path) -> tuple[Format, list[Row]]:
    """The format and the rows of a file of JSON lines.

    Raises:
        DataError: it cannot be read, is cut short, is in no known format, or changes format.
    """
    found = read_json_lines(path)
    if not found:
        raise DataError(f"{path}: no rows; expected recorded answers, one JSON object a line: check the file")
    keys = found[0][1].keys()
    for name, (reader, needed) in _READERS.items():
        if needed <= keys:
            kind, rows = name, [reader(row, where) for where, row in found]
            break
    else:
        raise DataError(
            f"{found[0][0]}: {', '.join(map(repr, sorted(keys)))} are no recorded answer; expected "
            + ", or ".join(" and ".join(map(repr, sorted(needed))) for _, needed in _READERS.values())
        )
    return kind, rows


def _llava(row: dict[str, Any], where: str) -> Row:
    if "image" in row and "prompt" not in row:
        raise DataError(
            f"{where}: is a row of LLaVA's question file; expected an answer: name the answers' file"
        )
    prompt = field(row, "prompt", str, where) if "prompt" in row else ""
    number = str(field(row, "question_id", (int, str), where))
    return Row(where, number, field(row, "text", str, where), prompt)


def _opera(row: dict[str, Any], where: str) -> Row:
    number = str(field(row, "image_id", (int, str), where))
    return Row(where, number, field(row, "caption", str, where))


_READERS: dict[Format, tuple[Callable[[dict[str, Any], str], Row], set[str]]] = {
    "llava": (_llava, {"question_id", "text"}),
    "opera": (_opera, {"image_id", "caption"}),
}


@dataclass(frozen=True)
class Source:
    """Answers that belong together: a file of JSON lines, or one run of the results file ``path``."""

    path: Path
    run: Recorded | None = None

    def __str__(self) -> str:
        return f"{self.path.name}, run {self.run.number}, {self.run.model}" if self.run else self.path.name


def sources(path: Path) -> list[Source]:
    """What a file holds: each run of a results file, or all of any other file; DataError for a damaged one."""
    if path.suffix != Path(RESULTS).suffix:
        return [Source(path)]
    try:
        return [Source(path, run) for run in Results(path).runs()]
    except ResultsError as error:
        raise DataError(str(error)) from None


def replay(
    source: Path | Source,
    data: Path,
    names: Sequence[str] = tuple(BENCHMARKS),
    allow_missing: bool = False,
    protocol: str = "official",
    chair_mode: Mode | None = None,
) -> Replay:
    """Score recorded answers.

    LLaVA's and OPERA's files do not say what was asked: of the questions found in ``data`` (and beside the
    answers) those are taken that they fit best. Nor do they say who answered: they are read and scored as answers
    of LLaVA-1.5, which every protocol defines. The suite's own results say all this.

    Args:
        source: a file of JSON lines, or what ``sources`` found.
        names: benchmarks that come into question for answers that do not say.
        allow_missing: score what can be matched although ids are unknown or missing; those are left out.
        protocol: how to read and score LLaVA's and OPERA's files; the suite's own results keep theirs.
        chair_mode: how to score OPERA's captions; None: exact where NLTK's data is found.

    Raises:
        ProtocolError: the protocol does not define what was asked.
        DataError: a file that cannot be used; no questions the answers belong to; ids that are unknown, missing
            or come twice; prompts that ask something else.
    """
    source = source if isinstance(source, Source) else Source(source)
    path, model = source.path, "llava-1.5"
    asks: Callable[[str, Item], bool] = _asks
    if source.run:
        model, protocol = source.run.model, source.run.protocol
        task = _own_task(source.run, path)
        rows = _own_rows(source.run, path)
        candidates = [by_own_ids(task.benchmark, task.benchmark.load(data), data)]
        asks = partial(_asks_own, find_card(model), task)
    else:
        kind, rows = read_answers(path)
        if kind == "opera":
            candidates = list(captioning(names, data, chair_mode))
        else:
            candidates = list(question_answering(names, data, path.parent))
    layers = _layers_of(rows, path)
    fit = _best([_fit(questions, rows, layers, asks) for questions in candidates], path, data)
    notes = _complaints(fit)
    if fit.twice or fit.others or (notes and not allow_missing):
        advice = "" if fit.twice or fit.others else "; --allow-missing scores the others"
        raise DataError(
            f"{path} does not fit {fit.questions.title} ({fit.questions.source}): {'; '.join(notes)}. Expected "
            f"one answer to each question{advice}{_spelling(fit.questions)}"
        )
    return _scored(fit, find_task(protocol, model, fit.questions.benchmark), layers, source, notes)


def _layers_of(rows: Sequence[Row], path: Path) -> int:
    """How many layers were answered at; DataError for a gap among them, or for endless answers."""
    for row in rows:
        if len(row.text) > MAX_CHARACTERS:
            raise DataError(
                f"{row.where}: the answer to {row.id!r:.60} has {len(row.text)} characters; expected at most "
                f"{MAX_CHARACTERS}: no model wrote that, remove the row"
            )
    layers = len({row.layer for row in rows})
    if max(row.layer for row in rows) >= layers:
        raise DataError(
            f"{path}: answers at {layers} layers, but not at 0 to {layers - 1}; expected L = 0 to N"
        )
    return layers


def _scored(fit: _Fit, task: Task, layers: int, source: Source, notes: list[str]) -> Replay:
    """The answers to questions that have one at every layer, scored."""
    questions = fit.questions
    answered = [key for key in questions.items if len(fit.answers.get(key, ())) == layers]
    if not answered:
        raise DataError(
            f"{source.path}: no question has an answer at every one of {layers} layers; check the file"
        )
    parts = {name: np.zeros((len(answered), layers, 2)) for name in task.benchmark.metric_names}
    for i, key in enumerate(answered):
        for layer, row in fit.answers[key].items():
            for name, part in task.score(questions.items[key], task.read(row.text)).items():
                parts[name][i, layer] = part
    items = [questions.items[key] for key in answered]
    return Replay(task, items, parts, str(source), questions.title, notes)


def _own_task(run: Recorded, path: Path) -> Task:
    """What a run was asked, and how."""
    try:
        benchmark = find_benchmark(run.dataset, str(run.settings.get("mode", "")))
        return find_task(run.protocol, run.model, benchmark)
    except (KeyError, ProtocolError) as error:
        raise DataError(
            f"{path}, run {run.number}: this version does not know what was asked: {error}"
        ) from None


def _asks_own(card: ModelCard, task: Task, digest: str, item: Item) -> bool:
    return digest == question_digest(card, task, item)


def _own_rows(run: Recorded, path: Path) -> list[Row]:
    """The rows of a run; their prompt is the digest of the question."""
    try:
        rows = [
            Row(f"{path}, run {run.number}, L = {row.layer}", row.item, row.answer, row.question, row.layer)
            for row in Results(path).rows(run.number)
            if row.keep == 0
        ]
    except ResultsError as error:
        raise DataError(str(error)) from None
    if not rows:
        raise DataError(
            f"{path}, run {run.number}: holds no answers yet; expected a run that was not killed at once"
        )
    return rows


def _fit(questions: Questions, rows: Sequence[Row], layers: int, asks: Callable[[str, Item], bool]) -> _Fit:
    fit = _Fit(questions, {}, [], [], [], [])
    met = set()
    for row in rows:
        key = row.id if row.id in questions.items else llava_textvqa_id(row.id, row.prompt)
        if key not in questions.items:
            fit.unknown.append(row.id)
            continue
        met.add((key, row.layer))
        answers = fit.answers.setdefault(key, {})
        if row.prompt and not asks(row.prompt, questions.items[key]):
            fit.others.append(row.where)
        elif row.layer in answers:
            fit.twice.append(f"{row.id!r:.60} ({row.where})")
        else:
            answers[row.layer] = row
    for key in questions.items if questions.complete else fit.answers:
        fit.missing.extend(key for layer in range(layers) if (key, layer) not in met)
    return fit


def _asks(prompt: str, item: Item) -> bool:
    """Whether a prompt holds the question and then its choices; case and kinds of blanks do not count."""
    text, position = " ".join(prompt.lower().split()), 0
    for part in (item.question, *item.choices):
        part = " ".join(part.lower().split())
        if (start := text.find(part, position)) < 0:
            return False
        position = start + len(part)
    return True


def _best(fits: Sequence[_Fit], path: Path, data: Path) -> _Fit:
    """The questions that answers fit with the fewest problems."""
    if not fits:
        raise DataError(
            f"{path}: no questions found under {data}; expected the published files of the benchmark that was "
            "asked: name their directory by --data"
        )
    best = min(fits, key=lambda fit: fit.problems)
    if not any(best.answers.values()):
        tried = ", ".join(f"{fit.questions.title} ({fit.questions.source})" for fit in fits)
        raise DataError(
            f"{path}: no answer belongs to any questions found: {tried}; expected the questions that were asked: "
            f"name their directory by --data{_spelling(best.questions)}"
        )
    for fit in fits:
        if fit.problems == best.problems and fit.questions.benchmark is not best.questions.benchmark:
            raise DataError(
                f"{path}: fits {best.questions.title} and {fit.questions.title} alike; expected a prompt with the "
                "answers: name one by --benchmark"
            )
    return best


def _spelling(questions: Questions) -> str:
    """What to add to an error where questions were asked in another spelling."""
    if questions.respelled is None:
        return ""
    asked, known = questions.respelled
    return (
        f". Questions are spelled otherwise, such as {asked!r:.100} for {known!r:.100}: the answers are to "
        "another version of the file, get that one"
    )


def _complaints(fit: _Fit) -> list[str]:
    """What keeps answers from being scored, with the ids."""
    said = []
    for ids, what in (
        (fit.others, "answers whose prompt asks something else"),
        (fit.twice, "answers to what has one already"),
        ([f"{one!r:.60}" for one in dict.fromkeys(fit.unknown)], "unknown ids"),
        ([f"{one!r:.60}" for one in dict.fromkeys(fit.missing)], "questions without an answer"),
    ):
        if ids:
            more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
            said.append(f"{len(ids)} {what}: {', '.join(ids[:SHOWN])}{more}")
    return said
