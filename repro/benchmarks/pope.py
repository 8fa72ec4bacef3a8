"""POPE: is an object in the image? Yes or no, over random, popular and adversarial negatives.

Data directory, as published (AoiDragon/POPE, ``output/coco/``)::

    DIR/pope/coco_pope_{random,popular,adversarial}.json   JSON lines: question_id, image, text, label
    DIR/coco/val2014/                                      the images the rows name

The published files differ by commit: 8910 questions (2910 random ones, as LLaVA uses) or 9000. Every row of
the files found is asked, "imange" typos included.
"""

from __future__ import annotations

from pathlib import Path

from repro.benchmarks.benchmark import Benchmark, DataError, Item, Metric, Part
from repro.benchmarks.files import checked, field, inside, read_json_lines

#: The order of LLaVA's question file.
CATEGORIES = ("adversarial", "popular", "random")


def load(directory: Path) -> list[Item]:
    """Questions of all three categories; a reference is True for yes, the stratum is the category.

    Raises:
        DataError: a file is missing or malformed, a label is neither yes nor no, an id comes twice.
    """
    return read(directory / "pope", directory / "coco" / "val2014")


def read(folder: Path, images: Path) -> list[Item]:
    """``load`` for the three files of any folder, and the folder of the images they name."""
    items = []
    for category in CATEGORIES:
        path = folder / f"coco_pope_{category}.json"
        rows = []
        for where, row in read_json_lines(path):
            label = field(row, "label", str, where)
            if label not in ("yes", "no"):
                raise DataError(f"{where}: label is {label!r}; expected 'yes' or 'no': correct the row")
            number = field(row, "question_id", (int, str), where)
            image = inside(images, field(row, "image", str, where), where)
            question = field(row, "text", str, where)
            rows.append(Item(f"{category}-{number}", image, question, label == "yes", stratum=category))
        items += checked(rows, path)
    return items


def says_yes(answer: str) -> bool:
    """How an answer is read: no if its first sentence has the word No, no or not, yes otherwise.

    Words are what stands between single blanks once commas are deleted, so "NO", "isn't" and an empty answer
    read as yes. As in LLaVA ``llava/eval/eval_pope.py`` at c121f04 and POPE ``evaluate.py`` at 08d957b.
    """
    sentence = answer.partition(".")[0]
    return not {"No", "no", "not"} & set(sentence.replace(",", "").split(" "))


def score(item: Item, answer: str) -> dict[str, Part]:
    """Parts of accuracy and of F1 with yes as the positive class.

    Averaged over categories as LLaVA reports it. Without a true positive F1 is 0, where the official script
    stops with ZeroDivisionError.
    """
    said, true = says_yes(answer), bool(item.reference)
    return {
        "accuracy": (float(said == true), 1.0),
        "F1": (2.0 * (said and true), float(said) + float(true)),
    }


POPE = Benchmark(
    name="pope",
    title="POPE",
    metrics=(Metric("accuracy"), Metric("F1")),
    max_new_tokens=128,
    load=load,
    score=score,
)
