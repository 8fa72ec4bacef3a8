"""Recorded answers: read them, find the questions they belong to, score them.

They are in one of the formats of ``repro.evaluation.formats``, or in the suite's own results file, run by run
(``repro.evaluation.results``).

Answers find their question by id, and a recorded prompt must ask that question. LLaVA's ``eval_pope.py`` goes by
order instead; here only formats without ids do, which record the question. Of several sets of questions those are
taken to which the most answers belong, however many of the questions are left without one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repro.benchmarks import BENCHMARKS, chair, find_benchmark
from repro.benchmarks.benchmark import DataError, Item, Questions
from repro.evaluation.formats import Row, read_answers
from repro.evaluation.results import NAME as RESULTS
from repro.evaluation.results import Recorded, Results, ResultsError
from repro.evaluation.run import question_digest
from repro.evaluation.scored import Scored
from repro.models import find_card
from repro.protocols import ProtocolError, find_task
from repro.protocols.task import Task

#: No model writes a longer answer (2048 tokens have about 10,000 characters), and taggers would take hours.
MAX_CHARACTERS = 100_000
#: How many of a list of ids an error names.
SHOWN = 20
#: Problems.
_MISMATCH, _DUPLICATE = "answers whose prompt asks something else", "answers to what has one already"
_UNKNOWN, _MISSING = "unknown ids", "questions without an answer"


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
        answers: by question and layer, those without a problem.
        problems: by kind, the places or ids of answers and questions that have it.
    """

    questions: Questions
    answers: dict[str, dict[int, Row]]
    problems: dict[str, list[str]]

    def __str__(self) -> str:
        return f"{self.questions.title} ({self.questions.source})"

    @property
    def count(self) -> int:
        """How many problems there are."""
        return sum(map(len, self.problems.values()))

    @property
    def strangers(self) -> int:
        """How many answers belong to none of the questions: their id is unknown, or their prompt another."""
        return len(self.problems[_UNKNOWN]) + len(self.problems[_MISMATCH])

    def scores_like(self, other: "_Fit") -> bool:
        """Whether the other questions score every answer as these do."""
        return self.questions.benchmark is other.questions.benchmark and self._asked() == other._asked()

    def _asked(self) -> dict[str, tuple[object, ...]]:
        """What decides an answer's score, by the answer's place."""
        return {
            row.where: (item.stratum, item.reference, item.image and item.image.name)
            for id, layers in self.answers.items()
            for item in [self.questions.items[id]]
            for row in layers.values()
        }

    @property
    def notes(self) -> list[str]:
        """What keeps answers from being scored, with the ids."""
        notes = []
        for problem, places in self.problems.items():
            if problem in (_UNKNOWN, _MISSING):
                places = [f"{id!r:.60}" for id in dict.fromkeys(places)]
            if places:
                more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
                notes.append(f"{len(places)} {problem}: {', '.join(places[:SHOWN])}{more}")
        return notes

    @property
    def spelling(self) -> str:
        """What to add to an error if questions were asked in another spelling."""
        if self.questions.respelled is None:
            return ""
        asked, known = self.questions.respelled
        return (
            f". Questions are spelled otherwise, such as {asked!r:.100} for {known!r:.100}: the answers are to "
            "another version of the file, get that one"
        )


@dataclass(frozen=True)
class Source:
    """Answers that belong together: a file of answers, or one run of the results file ``path``."""

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
    chair_mode: chair.Mode | None = None,
) -> Replay:
    """Score recorded answers.

    Files of answers do not say what was asked: of the questions in ``data`` (and beside the answers)
    those are taken to which the most answers belong, by id and prompt. Nor do they name the model: they are read
    and scored as answers of LLaVA-1.5, which every protocol defines. The suite's own results say all this.

    Args:
        source: a file of answers, or one of ``sources``.
        names: benchmarks to consider for answers that do not name theirs, or parts of them ("pope:popular").
        allow_missing: score what can be matched although ids are unknown or missing; those are left out.
        protocol: how to read and score files of answers; the suite's own results keep theirs.
        chair_mode: how to score OPERA's captions; None: exact if NLTK finds its data.

    Raises:
        ProtocolError: the protocol does not define what was asked.
        DataError: a file that cannot be used; no questions the answers belong to; ids that are unknown, missing
            or come twice; prompts that ask something else.
    """
    source = source if isinstance(source, Source) else Source(source)
    path, model = source.path, "llava-1.5"
    asks = _asks
    if run := source.run:
        model, protocol = run.model, run.protocol
        task, rows = _own_task(run, path), _own_rows(run, path)
        candidates = [task.benchmark.own_questions(task.benchmark.load(data), data)]

        def asks(prompt: str, item: Item) -> bool:
            return prompt == question_digest(find_card(model), task, item)
    else:
        captions, rows = read_answers(path)
        candidates = list(_candidates(captions, names, data, path.parent, chair_mode))
    layers = _layers_of(rows, path)
    fit = _best([_fit(questions, rows, layers, asks) for questions in candidates], len(rows), path, data)
    refused = fit.problems[_MISMATCH] or fit.problems[_DUPLICATE]
    if refused or (fit.count and not allow_missing):
        advice = "" if refused else "; --allow-missing scores the others"
        raise DataError(
            f"{path} does not fit {fit}: {'; '.join(fit.notes)}. Expected one answer to each question"
            f"{advice}{fit.spelling}"
        )
    return _scored(fit, find_task(protocol, model, fit.questions.benchmark), layers, source)


def _candidates(
    captions: bool, names: Sequence[str], data: Path, answers: Path, chair_mode: chair.Mode | None
) -> Iterator[Questions]:
    """The questions that answers, or captions, may belong to."""
    for name, benchmark in BENCHMARKS.items():
        parts = {part for named, _, part in (given.partition(":") for given in names) if named == name}
        if parts and benchmark.captions == captions:
            if benchmark.captions:
                benchmark = find_benchmark(name, chair_mode or chair.best())
            for questions in benchmark.questions(data, answers):
                if "" in parts or questions.part in parts:
                    yield questions


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


def _scored(fit: _Fit, task: Task, layers: int, source: Source) -> Replay:
    """The answers to questions that have one at every layer, scored."""
    questions = fit.questions
    answered = [id for id in questions.items if len(fit.answers.get(id, ())) == layers]
    if not answered:
        raise DataError(f"{source.path}: no question has an answer at all {layers} layers; check the file")
    parts = {name: np.zeros((len(answered), layers, 2)) for name in task.benchmark.metric_names}
    for i, id in enumerate(answered):
        for layer, row in fit.answers[id].items():
            for name, part in task.score(questions.items[id], task.read(row.text)).items():
                parts[name][i, layer] = part
    items = [questions.items[id] for id in answered]
    return Replay(task, items, parts, str(source), questions.title, fit.notes)


def _own_task(run: Recorded, path: Path) -> Task:
    """The task of a run."""
    try:
        benchmark = find_benchmark(run.dataset, str(run.settings.get("mode", "")))
        return find_task(run.protocol, run.model, benchmark)
    except (KeyError, ProtocolError) as error:
        raise DataError(f"{path}, run {run.number}: this version does not know its task: {error}") from None


def _own_rows(run: Recorded, path: Path) -> list[Row]:
    """The rows of a run; their prompt is the digest of the question."""
    place = f"{path}, run {run.number}"
    try:
        rows = [row for row in Results(path).rows(run.number) if row.keep == 0]
    except ResultsError as error:
        raise DataError(str(error)) from None
    if not rows:
        raise DataError(f"{place}: holds no answers yet; expected a run that was not killed at once")
    return [Row(f"{place}, L = {row.layer}", row.item, row.answer, row.question, row.layer) for row in rows]


def _fit(questions: Questions, rows: Sequence[Row], layers: int, asks: Callable[[str, Item], bool]) -> _Fit:
    fit = _Fit(questions, {}, {kind: [] for kind in (_MISMATCH, _DUPLICATE, _UNKNOWN, _MISSING)})
    answered, ids = set(), list(questions.items)
    for row in rows:
        if row.place is None:
            id = questions.key(row.id, row.prompt)
        else:
            id = ids[row.place] if 0 <= row.place < len(ids) else ""
        if id not in questions.items:
            fit.problems[_UNKNOWN].append(row.id)
            continue
        answered.add((id, row.layer))
        answers = fit.answers.setdefault(id, {})
        if row.prompt and not asks(row.prompt, questions.items[id]):
            fit.problems[_MISMATCH].append(row.where)
        elif row.layer in answers:
            fit.problems[_DUPLICATE].append(f"{row.id!r:.60} ({row.where})")
        else:
            answers[row.layer] = row
    for id in questions.items if questions.complete else fit.answers:
        fit.problems[_MISSING] += [id for layer in range(layers) if (id, layer) not in answered]
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


def _best(fits: Sequence[_Fit], count: int, path: Path, data: Path) -> _Fit:
    """The questions to which the most of ``count`` answers belong.

    Among those that score all answers alike, the ones with the fewest problems: all that was asked, and no more.
    """
    if not fits:
        raise DataError(
            f"{path}: no questions found under {data}; expected the published files of the benchmark that was "
            "asked: name their directory by --data"
        )
    fewest = min(fit.strangers for fit in fits)
    first = [fit for fit in fits if fit.strangers == fewest]
    # A name decides between what fits alike, never against what was asked.
    named = [fit for fit in first if fit.questions.part and fit.questions.part in path.stem.lower()]
    first = named if len({fit.questions.part for fit in named}) == 1 else first
    best = min(first, key=lambda fit: fit.count)
    if fewest == count:
        tried = ", ".join(str(fit) for fit in fits if not fit.questions.part)
        spelling = next((fit.spelling for fit in fits if fit.spelling), "")
        raise DataError(
            f"{path}: no answer belongs to any questions found: {tried}; expected the questions that were asked: "
            f"name their directory by --data{spelling}"
        )
    alike = [fit for fit in first if not fit.scores_like(best)]
    if alike:
        fitting = ", ".join(map(str, [best, *alike]))
        options = {f"--benchmark {fit.questions.name}": None for fit in (best, *alike)}
        choose = " or ".join(options) if len(options) > 1 else "--data"
        raise DataError(
            f"{path}: {count - fewest} of {count} answers fit these questions alike: {fitting}; expected a prompt "
            f"with the answers: name the questions by {choose}"
        )
    if 2 * fewest > count:
        raise DataError(
            f"{path}: only {count - fewest} of {count} answers belong to {best}, which has the most: "
            f"{'; '.join(best.notes)}. Expected the questions that were asked: name their directory by --data"
            f"{best.spelling}"
        )
    return best
