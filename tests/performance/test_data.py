"""Rows as many as POPE and ScienceQA have are loaded, asked under every protocol and scored in seconds.

The rows are made up in the published layouts, with questions as long as published ones; no image is there.
"""

import json
import time
from pathlib import Path

import pytest

from repro.benchmarks import BENCHMARKS, pope, scienceqa
from repro.models import find_card
from repro.protocols import PROTOCOLS

pytestmark = pytest.mark.performance

#: Seconds of one core.
AT_MOST = 20
#: Mean lengths, in characters, in LLaVA's file of the test split: question 118, hint 54, a choice 28.
PROBLEM = {"question": "q" * 118, "hint": "h" * 54, "skill": "Compare magnitudes of magnetic forces"}


@pytest.fixture
def data(tmp_path):
    """9000 rows of POPE on 500 images, and 4241 problems of which 2017 have an image."""
    (tmp_path / "pope").mkdir()
    for category in pope.CATEGORIES:
        lines = [
            {
                "question_id": i,
                "image": f"COCO_val2014_{i // 6:012}.jpg",
                "text": f"Is there a thing {i} in the image?",
                "label": ("yes", "no")[i % 2],
            }
            for i in range(3000)
        ]
        path = tmp_path / "pope" / f"coco_pope_{category}.json"
        path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    problems = {
        str(i): PROBLEM
        | {"choices": ["c" * 28] * (2 + i % 3), "answer": i % 2, "image": "image.png" if i < 2017 else None}
        for i in range(4241)
    }
    (tmp_path / "scienceqa").mkdir()
    for name, value in {"problems": problems, "pid_splits": {"test": list(problems)}}.items():
        (tmp_path / "scienceqa" / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return tmp_path


def test_all_rows_are_loaded_asked_and_scored_in_time(data: Path, figure):
    start = time.process_time()
    items = {"pope": pope.load(data), "scienceqa": scienceqa.load_all(data)}
    said = {name: BENCHMARKS[name].describe(rows) for name, rows in items.items()}
    asked = 0
    for tasks in PROTOCOLS.values():
        for task in tasks():
            template = task.template or find_card(task.model).template
            for item in items.get(task.benchmark.name, ()):
                assert item.question in template.format(question=task.ask(item))
                task.score(item, task.read(f"{item.reference}"))
                asked += 1
    seconds = time.process_time() - start
    assert [len(rows) for rows in items.values()] == [9000, 4241]
    assert all(text.endswith("(no published version)") for text in said.values())
    figure(f"seconds for 13,241 rows loaded and {asked:,} times asked and scored", seconds, AT_MOST)
