"""Recorded answers in the layouts they are published in, and the figures they must get.

Set ``REPRO_DATA`` to a directory with the published files to have their published figures checked:
``llava-1.5-13b/`` of LLaVA's eval.zip (llava_pope_test.jsonl, pope_answers.jsonl, llava_test_CQM-A.json,
scienceqa_answers.jsonl), ``pope/`` with POPE's own files, ``chair/captions/MODEL.greedy.jsonl`` of OPERA and
``chair/ground_truth_objects.json``. Without it, made-up files in the same formats take their place.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from sklearn.metrics import f1_score

from repro.benchmarks.benchmark import DataError
from repro.evaluation.answers import Replay, replay
from repro.protocols.official import LETTER_ANSWER, SHORT_ANSWER
from repro.report.replay import HEADER, rows

#: LLaVA's ids of a category begin behind these.
OFFSETS = {"adversarial": 0, "popular": 20_000_000, "random": 10_000_000}
#: What the official scripts give on the published files; CHAIR_s and CHAIR_i in exact mode.
PUBLISHED = {
    "pope": {"adversarial": 84.46, "popular": 86.25, "random": 87.14, "mean of 3": 85.95},
    "scienceqa": {"with an image": 71.64, "all": 74.39},
    "chair": {"llava-1.5": (45.0, 12.7), "instructblip": (58.8, 23.7), "shikra": (55.8, 15.4)},
}


def write_rows(path: Path, values: str | list[dict]) -> None:
    """Write a text, or rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = values if isinstance(values, str) else "".join(json.dumps(value) + "\n" for value in values)
    path.write_text(lines, encoding="utf-8")


def made_pope(directory, draw):
    """POPE's files, LLaVA's question file and answers to it in another order; F1 by category."""
    asked, answers, expected = [], [], {}
    for category, offset in OFFSETS.items():
        published, labels, said = [], [], []
        for number in range(1, 41):
            image = f"COCO_val2014_{number // 4:012}.jpg"
            text = f"Is there a {category} thing {number} in the imange?"
            label, answer = draw.choice(["yes", "no"]), draw.choice(["Yes", "No", "No, sir.", "Yes."])
            published.append({"question_id": number, "image": image, "text": text, "label": label})
            row = {"question_id": offset + number, "image": image, "text": text + SHORT_ANSWER}
            asked.append(row | {"category": category})
            answers.append({"question_id": offset + number, "prompt": text + SHORT_ANSWER, "text": answer})
            labels.append(label == "yes")
            said.append(answer.startswith("Yes"))
        # Another version: other rows under the same ids.
        others = [row | {"text": row["text"].replace("imange", "image")} for row in reversed(published)]
        write_rows(directory / "pope" / "version-a" / f"coco_pope_{category}.json", others)
        write_rows(directory / "pope" / "version-b" / f"coco_pope_{category}.json", published)
        expected[category] = 100 * f1_score(labels, said)
    draw.shuffle(answers)
    expected["mean of 3"] = sum(expected.values()) / 3
    write_rows(directory / "llava-1.5-13b" / "llava_pope_test.jsonl", asked)
    write_rows(directory / "llava-1.5-13b" / "pope_answers.jsonl", answers)
    return expected


def made_scienceqa(directory, draw):
    """LLaVA's question file, every second question with an image, and answers; accuracies in percent."""
    asked, answers, right = [], [], []
    for number in range(1, 31):
        text = f"Which is {number}?\nA. {number}\nB. other"
        gold, answer = (
            draw.choice("AB"),
            draw.choice(["A", "B", "A. one", "The answer is B.", "neither", "a"]),
        )
        with_image = number % 2 == 0
        value, prompt = ("<image>\n" + text, "<image>\n" + text) if with_image else (text, text)
        turns = [{"from": "human", "value": value}, {"from": "gpt", "value": gold}]
        row = {"id": str(number), "conversations": turns}
        asked.append(row | {"image": f"{number}/image.png"} if with_image else row)
        answers.append({"question_id": str(number), "prompt": prompt + LETTER_ANSWER, "text": answer})
        letter = {"A. one": "A", "The answer is B.": "B"}.get(answer, answer)
        right.append((with_image, letter == gold))
    draw.shuffle(answers)
    write_rows(directory / "llava-1.5-13b" / "llava_test_CQM-A.json", json.dumps(asked))
    write_rows(directory / "llava-1.5-13b" / "scienceqa_answers.jsonl", answers)
    pictured = [correct for with_image, correct in right if with_image]
    return {
        "with an image": 100 * sum(pictured) / len(pictured),
        "all": 100 * sum(correct for _, correct in right) / len(right),
    }


def made_captions(directory, draw):
    """OPERA's logs of three models over some of the images objects are known of; CHAIR_s and CHAIR_i."""
    truth = {str(number): draw.sample(["cat", "dog", "bus", "car"], 2) for number in range(100, 140)}
    write_rows(directory / "chair" / "ground_truth_objects.json", json.dumps(truth))
    expected = {}
    for model in PUBLISHED["chair"]:
        log, wrong, named = [], [], 0
        for number in draw.sample(sorted(truth), 20):
            objects = draw.choices(["cat", "dog", "bus", "car"], k=3)
            log.append(
                {"image_id": int(number), "caption": "".join(f"There is a {name}. " for name in objects)}
            )
            wrong.append(sum(name not in truth[number] for name in objects))
            named += len(objects)
        write_rows(directory / "chair" / "captions" / f"{model}.greedy.jsonl", log)
        expected[model] = 100 * sum(count > 0 for count in wrong) / len(log), 100 * sum(wrong) / named
    return expected


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A directory in the layout above, and the figures its answers must get."""
    given = os.environ.get("REPRO_DATA")
    if given:
        return Path(given), PUBLISHED
    directory, draw = tmp_path_factory.mktemp("published"), random.Random(0)
    figures = made_pope(directory, draw), made_scienceqa(directory, draw), made_captions(directory, draw)
    return directory, dict(zip(("pope", "scienceqa", "chair"), figures, strict=True))


@pytest.fixture(scope="session")
def write() -> Callable[[Path, str | list[dict]], None]:
    """Writes a text, or rows as JSON lines."""
    return write_rows


@pytest.fixture(scope="session")
def change() -> Callable[[Path, Callable[[list[dict]], list[dict]]], None]:
    """Lets a function change the list of rows of a file."""

    def run(path: Path, edit: Callable[[list[dict]], list[dict]]) -> None:
        write_rows(path, edit([json.loads(line) for line in path.read_text().splitlines()]))

    return run


@pytest.fixture(scope="session")
def shown() -> Callable[[Replay, str], dict[str, float]]:
    """Gives the figures of a metric as the table shows them, by the group they are of."""

    def run(scored: Replay, metric: str) -> dict[str, float]:
        table = [dict(zip(HEADER, row, strict=True)) for row in rows(scored)]
        return {row["of"]: float(row["score"]) for row in table if row["metric"].startswith(metric)}

    return run


@pytest.fixture(scope="session")
def refused() -> Callable[..., str]:
    """Fails unless replaying a file is refused with all that should be said, and gives the message."""

    def run(path: Path, data: Path, *said: str, **options: object) -> str:
        with pytest.raises(DataError) as error:
            replay(path, data, **options)
        for part in (str(path), *said):
            assert part in str(error.value)
        return str(error.value)

    return run


@pytest.fixture
def made(tmp_path):
    """Made-up files that a test may change."""
    draw = random.Random(1)
    made_pope(tmp_path, draw), made_scienceqa(tmp_path, draw), made_captions(tmp_path, draw)
    return tmp_path


@pytest.fixture
def problems(made):
    """ScienceQA's own files in place of LLaVA's question file: the content of problems.json."""
    problems = {}
    for number in range(1, 31):
        image = None if number % 2 else "image.png"
        problem = {
            "question": f"Which is {number}?",
            "choices": [str(number), "other"],
            "answer": 0,
            "hint": "",
        }
        problems[str(number)] = problem | {"image": image}
    (made / "llava-1.5-13b" / "llava_test_CQM-A.json").unlink()
    write_rows(made / "scienceqa" / "pid_splits.json", json.dumps({"test": list(problems)}))
    write_rows(made / "scienceqa" / "problems.json", json.dumps(problems))
    return problems
