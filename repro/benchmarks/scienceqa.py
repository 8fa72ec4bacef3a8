"""ScienceQA: multiple-choice questions, about an image (the IMG subset that papers report as "SQA") or all.

Data directory, as published (lupantech/ScienceQA)::

    DIR/scienceqa/problems.json      {id: {question, choices, answer, hint, image, skill, ...}}
    DIR/scienceqa/pid_splits.json    {"test": [id, ...], ...}
    DIR/scienceqa/images/test/{id}/image.png

Of the 4241 test questions 2017 have an image. Models are asked those; recorded answers may be to all, from these
files or from LLaVA's ``llava_test_CQM-A.json`` in a folder of DIR or beside the answers.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from repro.benchmarks.benchmark import UNKNOWN, Benchmark, DataError, HubImage, Item, Metric, Part, Questions
from repro.benchmarks.files import checked, field, inside, question_files, read_json, strings, unique
from repro.benchmarks.hub import HUB, Repository, read_hub

LETTERS = "ABCDE"
LLAVA_SCIENCEQA = "llava_test_CQM-A.json"
#: By how often A to E is right in LLaVA's file.
PUBLISHED: dict[tuple[int, ...], str] = {
    (713, 726, 375, 195, 8): "letters right as often as in ScienceQA's test split, with an image",
    (1700, 1689, 583, 261, 8): "letters right as often as in all of ScienceQA's test split",
}
_LMMS_LAB = ("lmms-lab-encoder/ScienceQA", "lmms-lab/ScienceQA"), "69dd4d6b67373d38f96a5badd5d24d0eb5bcdc50"
#: question, choices, answer (the index), hint, skill, image (null without) and more; the first one cached counts.
REPOSITORIES = (
    Repository(("derek-thomas/ScienceQA",), "f18b0a70359ebfb41f658fd564208d0355b013f4", "data/test"),
    Repository(*_LMMS_LAB, "ScienceQA-FULL/test"),
    Repository(*_LMMS_LAB, "ScienceQA-IMG/test"),
)


def _item(id: str, problem: Any, image: Path | HubImage | None, where: str) -> Item:
    """The item of a problem."""
    choices = strings(problem, "choices", where)
    if not 2 <= len(choices) <= len(LETTERS):
        raise DataError(f"{where}: {len(choices)} choices; expected 2 to {len(LETTERS)}: correct the row")
    answer = field(problem, "answer", int, where)
    if not 0 <= answer < len(choices):
        raise DataError(
            f"{where}: answer is {answer}; expected 0 to {len(choices) - 1}, its choices: correct the row"
        )
    hint, question = field(problem, "hint", str, where), field(problem, "question", str, where)
    kind = field(problem, "skill", str, where) if "skill" in problem else ""
    return Item(id, image, question, LETTERS[answer], kind=kind, hint=hint, choices=choices)


def load_all(directory: Path) -> list[Item]:
    """Questions of the test split; a reference is the letter of the right choice, the kind its skill.

    The hub has no ids: items are named by folder and row there, and answers recorded elsewhere cannot be matched.

    Raises:
        DataError: a file or a problem is missing or malformed, an answer is not the index of a choice.
    """
    if directory == HUB:
        return _read_hub()
    folder = directory / "scienceqa"
    splits, problems = folder / "pid_splits.json", folder / "problems.json"
    table, items = read_json(problems), []
    for id in strings(read_json(splits), "test", str(splits)):
        if id not in table:
            raise DataError(
                f"{problems}: no problem {id}, which {splits.name} lists under 'test'; expected files of "
                "one release: download both again"
            )
        problem, where = table[id], f"{problems}, problem {id}"
        image = field(problem, "image", (str, type(None)), where)
        path = None if image is None else inside(folder / "images" / "test", f"{id}/{image}", where)
        items.append(_item(id, problem, path, where))
    return checked(items, problems)


def _read_hub() -> list[Item]:
    where, rows = read_hub(*REPOSITORIES)
    items = []
    for row in rows:
        image = row.image(row.id, "image.png") if row.encoded else None
        items.append(_item(row.id, row.values, image, row.where))
    return checked(items, where)


def load(directory: Path) -> list[Item]:
    """The questions of ``load_all`` that have an image."""
    path = HUB if directory == HUB else directory / "scienceqa" / "problems.json"
    return checked([item for item in load_all(directory) if item.image is not None], path)


def version(items: Sequence[Item]) -> str:
    """Number of questions, and the published version with as many right answers A, B, ..."""
    counts = Counter(item.reference for item in items)
    known = PUBLISHED.get(tuple(counts[letter] for letter in LETTERS), UNKNOWN)
    return f"{len(items)} questions ({known})"


def questions(data: Path, answers: Path) -> Iterator[Questions]:
    """The questions with an image, all if there are others, and those of LLaVA's files."""
    folder = data / "scienceqa"
    if (folder / "problems.json").is_file():
        items = load_all(data)
        with_image = [item for item in items if item.image is not None]
        yield SCIENCEQA.own_questions(with_image, folder)
        if len(items) > len(with_image):
            yield _all({item.id: item for item in items}, folder)
    for path in question_files(LLAVA_SCIENCEQA, data, answers):
        yield _all(_llava_items(path), path)


def _all(items: dict[str, Item], source: Path) -> Questions:
    return Questions(SCIENCEQA, f"ScienceQA {len(items)}", source, items)


def _llava_items(path: Path) -> dict[str, Item]:
    """LLaVA's rows [{id, image (of some), conversations: [{value: question}, {value: right letter}]}]."""
    rows = [(f"{path}, row {i}", row) for i, row in enumerate(read_json(path, list))]
    unique((field(row, "id", str, where) for where, row in rows), str(path))
    items = {}
    for where, row in rows:
        turns = field(row, "conversations", list, where)
        if len(turns) != 2:
            raise DataError(
                f"{where}: {len(turns)} turns; expected a question and its right letter: check it"
            )
        question, letter = (field(turn, "value", str, where) for turn in turns)
        if letter not in tuple(LETTERS):
            raise DataError(f"{where}: the answer is {letter!r}; expected a letter A to E: correct the row")
        name = field(row, "image", str, where) if "image" in row else None
        image = None if name is None else inside(path.parent / "images" / "test", name, where)
        items[row["id"]] = Item(row["id"], image, question.replace("<image>", "").strip(), letter)
    return items


def chosen_letter(answer: str) -> str | None:
    """The letter an answer chooses, None where the official script records FAILED.

    A bare letter A...E, a leading "X. ", or one single "The answer is X" followed by any character: the
    script's full stop is a regular-expression dot, so "The answer is Carp." reads as C. As in LLaVA
    ``llava/eval/eval_science_qa.py`` at c121f04.
    """
    if answer in tuple(LETTERS):
        return answer
    if answer[:1] in tuple(LETTERS) and answer[1:3] == ". ":
        return answer[0]
    matches = re.findall(r"The answer is ([A-Z]).", answer)
    return matches[0] if len(matches) == 1 else None


def score(item: Item, answer: str) -> dict[str, Part]:
    """Part of the accuracy; no letter, or one beyond the choices, is wrong."""
    return {"accuracy": (float(chosen_letter(answer) == item.reference), 1.0)}


def score_lmms_eval(item: Item, answer: str) -> dict[str, Part]:
    """Part of lmms-eval's exact match: the letter alone in any case, or a capital and a full stop in front.

    As in lmms-eval ``tasks/scienceqa/utils.py`` at 75571cf: "A." is read, "The answer is A." is not.
    """
    text = answer.strip()
    leads = text[:1].isupper() and text[1:2] == "."
    chosen = text[0] if leads else text.upper() if len(text) == 1 else None
    return {"accuracy": (float(chosen == item.reference), 1.0)}


def score_internvl(item: Item, answer: str) -> dict[str, Part]:
    """Part of the accuracy by InternVL's reading: the first letter, else the first choice named, else "(X)".

    As in InternVL ``internvl_chat/eval/scienceqa/evaluate_scienceqa.py`` at 2410d1d: "A falcon" reads as A, and so
    does "AB".
    """
    text = answer.strip()
    letters = LETTERS[: len(item.choices)]
    chosen = text[:1]
    if len(text) > 1 and chosen not in letters:
        named = [letter for letter, choice in zip(letters, item.choices, strict=True) if choice in text]
        bracketed = re.match(r"\((.)\)", text)
        chosen = named[0] if named else bracketed[1] if bracketed else ""
    return {"accuracy": (float(chosen == item.reference), 1.0)}


SCIENCEQA = Benchmark(
    name="scienceqa",
    title="ScienceQA (IMG)",
    metrics=(Metric("accuracy", share=True),),
    load=load,
    score=score,
    version=version,
    questions=questions,
)
