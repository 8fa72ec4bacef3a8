"""ScienceQA: multiple-choice questions, about an image (the IMG subset that papers report as "SQA") or all.

Data directory, as published (lupantech/ScienceQA)::

    DIR/scienceqa/problems.json      {id: {question, choices, answer, hint, image, skill, ...}}
    DIR/scienceqa/pid_splits.json    {"test": [id, ...], ...}
    DIR/scienceqa/images/test/{id}/image.png

Of the 4241 test questions 2017 have an image. Models are asked those; recorded answers may be to all.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from repro.benchmarks.benchmark import Benchmark, DataError, HubImage, Item, Metric, Part
from repro.benchmarks.files import checked, field, inside, read_json, strings
from repro.benchmarks.hub import HUB, Repository, read_hub

LETTERS = "ABCDE"
_LMMS_LAB = ("lmms-lab-encoder/ScienceQA", "lmms-lab/ScienceQA"), "69dd4d6b67373d38f96a5badd5d24d0eb5bcdc50"
#: question, choices, answer (the index), hint, skill, image (null without) and more; the first that is there.
REPOSITORIES = (
    Repository(("derek-thomas/ScienceQA",), "f18b0a70359ebfb41f658fd564208d0355b013f4", "data/test"),
    Repository(*_LMMS_LAB, "ScienceQA-FULL/test"),
    Repository(*_LMMS_LAB, "ScienceQA-IMG/test"),
)


def _item(number: str, problem: Any, image: Path | HubImage | None, where: str) -> Item:
    """The item of a problem."""
    choices = strings(problem, "choices", where)
    if not 2 <= len(choices) <= len(LETTERS):
        raise DataError(f"{where}: {len(choices)} choices; expected 2 to {len(LETTERS)}: correct the row")
    answer = field(problem, "answer", int, where)
    if not 0 <= answer < len(choices):
        raise DataError(
            f"{where}: answer is {answer}; expected 0 to {len(choices) - 1}, the index of one of its "
            f"{len(choices)} choices: correct the row"
        )
    hint, question = field(problem, "hint", str, where), field(problem, "question", str, where)
    kind = field(problem, "skill", str, where) if "skill" in problem else ""
    return Item(number, image, question, LETTERS[answer], kind=kind, hint=hint, choices=choices)


def load_all(directory: Path) -> list[Item]:
    """Questions of the test split; a reference is the letter of the right choice, the kind its skill.

    Args:
        directory: the data directory, or ``HUB``. The hub has no ids: an item is called by folder and row there,
            and answers recorded elsewhere cannot be matched.

    Raises:
        DataError: a file or a problem is missing or malformed, an answer is not the index of a choice.
    """
    if directory == HUB:
        return _read_hub()
    folder = directory / "scienceqa"
    splits, problems = folder / "pid_splits.json", folder / "problems.json"
    numbers, table = strings(read_json(splits), "test", str(splits)), read_json(problems)
    items = []
    for number in numbers:
        if number not in table:
            raise DataError(
                f"{problems}: no problem {number}, which {splits.name} lists under 'test'; expected files of "
                "one release: download both again"
            )
        problem, where = table[number], f"{problems}, problem {number}"
        image = field(problem, "image", (str, type(None)), where)
        path = inside(folder / "images" / "test", f"{number}/{image}", where) if image is not None else None
        items.append(_item(number, problem, path, where))
    return checked(items, problems)


def _read_hub() -> list[Item]:
    table = read_hub(*REPOSITORIES)
    items = []
    for index, row in enumerate(table.rows):
        number = f"{table.repository.files}-{index}"
        image = row.image(number, "image.png") if row.pictured else None
        items.append(_item(number, row.values, image, row.where))
    return checked(items, table.where)


def load(directory: Path) -> list[Item]:
    """Those questions of ``load_all`` that have an image."""
    problems = HUB if directory == HUB else directory / "scienceqa" / "problems.json"
    return checked([item for item in load_all(directory) if item.image is not None], problems)


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
    found = re.findall(r"The answer is ([A-Z]).", answer)
    return found[0] if len(found) == 1 else None


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
    """Part of the accuracy by InternVL's reading: a first letter, else the first choice named, else "(X)".

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
)
