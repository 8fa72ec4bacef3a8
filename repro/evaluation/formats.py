"""Formats of recorded answers.

- JSON lines, or a list, of LLaVA's evaluation scripts (c121f04): ``question_id``, ``text``, and mostly ``prompt``;
- of OPERA's caption logs (61426ef): ``image_id``, ``caption``;
- of POPE's script (08d957b): ``question``, ``answer``, in the order of one category's questions;
- the samples of lmms-eval (``--log_samples``, 75571cf): ``doc_id``, ``filtered_resps``, ``input``;
- the tables of VLMEvalKit (e8e78f0), .xlsx or .tsv: ``question``, ``prediction``, in the order of the questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.benchmarks import files
from repro.benchmarks.benchmark import DataError
from repro.benchmarks.pope import LLAVA_POPE
from repro.benchmarks.scienceqa import LLAVA_SCIENCEQA
from repro.evaluation.tables import read_table

TABLES = (".tsv", ".xlsx")
#: Names of files that may hold answers end so.
SUFFIXES = (".jsonl", ".json", *TABLES, ".sqlite")
#: Keys that tell the formats apart: of the id or the question, and of the answer.
KEYS = {
    "llava": ("question_id", "text"),
    "opera": ("image_id", "caption"),
    "pope": ("question", "answer"),
    "lmms-eval": ("doc_id", "filtered_resps"),
    "VLMEvalKit": ("question", "prediction"),
}


@dataclass(frozen=True)
class Row:
    """A recorded answer.

    Attributes:
        where: its place, for messages.
        id: of the question, or its number if ``place`` is given.
        prompt: empty if none was recorded.
        layer: 0 if a question has one answer.
        place: of the question among all of them, from 0; None for a question known by its id.
    """

    where: str
    id: str
    text: str
    prompt: str = ""
    layer: int = 0
    place: int | None = None


def answer_files(directory: Path) -> list[Path]:
    """The files of a directory that may hold answers; LLaVA's question files hold none."""
    return sorted(
        path
        for path in directory.iterdir()
        if path.suffix in SUFFIXES and path.name not in (LLAVA_POPE, LLAVA_SCIENCEQA) and path.is_file()
    )


def read_answers(path: Path) -> tuple[bool, list[Row]]:
    """Whether a file holds captions, and its rows.

    Raises:
        DataError: it cannot be read, is cut short, is in no known format, or changes format.
    """
    rows = read_table(path) if path.suffix in TABLES else files.read_json_lines(path)
    if not rows:
        raise DataError(f"{path}: no rows; expected recorded answers, one JSON object a line: check the file")
    where, first = rows[0]
    kind = next((kind for kind, keys in KEYS.items() if first.keys() >= set(keys)), "")
    if not kind:
        raise DataError(
            f"{where}: {', '.join(map(repr, sorted(first)))} are no recorded answer; expected "
            + ", or ".join(" and ".join(map(repr, keys)) for keys in KEYS.values())
        )
    if kind == "lmms-eval":
        return _samples(rows)
    return kind == "opera", [_row(kind, row, where, i) for i, (where, row) in enumerate(rows)]


def _row(kind: str, row: dict[str, Any], where: str, place: int) -> Row:
    id, text = KEYS[kind]
    if kind in ("pope", "VLMEvalKit"):
        asked = files.field(row, id, str, where)
        # A table has choices in columns of their own.
        prompt = "\n".join([asked, *(str(row[letter]) for letter in "ABCDE" if letter in row)])
        answer = files.field(row, text, str, where) if kind == "pope" else row.get(text, "")
        return Row(where, str(place + 1), answer, prompt, place=place)
    prompt = ""
    if kind == "llava" and "prompt" in row:
        prompt = files.field(row, "prompt", str, where)
    elif kind == "llava" and "image" in row:
        raise DataError(f"{where}: is a row of LLaVA's question file; expected an answer: name another file")
    number, answer = files.field(row, id, (int, str), where), files.field(row, text, str, where)
    return Row(where, str(number), answer, prompt)


def _samples(rows: Sequence[tuple[str, dict[str, Any]]]) -> tuple[bool, list[Row]]:
    """lmms-eval's samples: their ids are in what the metrics get; without, or if they repeat, the place counts."""
    captions, samples, ids = False, [], []
    for where, row in rows:
        scored = [value for value in row.values() if isinstance(value, dict)]
        captions |= any("image_id" in value for value in scored)
        ids += [str(value[key]) for value in scored for key in ("question_id", "image_id") if key in value][
            :1
        ]
        answer, prompt = row.get("filtered_resps"), row.get("input", "")
        while isinstance(answer, list) and len(answer) == 1:
            answer = answer[0]
        if not isinstance(answer, str) or not isinstance(prompt, str):
            raise DataError(
                f"{where}: 'filtered_resps' is {answer!r:.60}; expected one text, from one question"
            )
        place = files.field(row, "doc_id", int, where)
        samples.append(Row(where, str(place), answer, prompt, place=place))
    if len(set(ids)) == len(samples):
        samples = [Row(s.where, id, s.text, s.prompt) for s, id in zip(samples, ids, strict=True)]
    return captions, samples
