"""POPE: is an object in the image? Yes or no, over random, popular and adversarial negatives.

Data directory, as published (AoiDragon/POPE, ``output/coco/``)::

    DIR/pope/coco_pope_{random,popular,adversarial}.json   JSON lines: question_id, image, text, label
    DIR/coco/val2014/                                      the images the rows name

The published files differ by commit: 8910 questions (2910 random ones, as LLaVA uses) or 9000; the hub has 9000.
Every row found is asked, "imange" typos included (``repro.benchmarks.versions`` says which version it was).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro.benchmarks.benchmark import Benchmark, DataError, HubImage, Item, Metric, Part
from repro.benchmarks.files import checked, field, inside, read_json_lines
from repro.benchmarks.hub import HUB, Repository, read_hub

#: The order of LLaVA's question file.
CATEGORIES = ("adversarial", "popular", "random")
#: Configuration "default": id, question_id, question, answer, image_source, category, image.
REPOSITORY = Repository(
    ids=("lmms-lab-encoder/POPE", "lmms-lab/POPE"),
    revision="4db1276663dfa5eb8ad16a52d24c31a09e470896",
    files="data/test",
)


def load(directory: Path) -> list[Item]:
    """Questions of all three categories; a reference is True for yes, the stratum is the category.

    Args:
        directory: the data directory, or ``HUB``.

    Raises:
        DataError: a file is missing or malformed, a label is neither yes nor no, an id comes twice.
    """
    if directory == HUB:
        return _read_hub()
    return read(directory / "pope", directory / "coco" / "val2014")


def read(folder: Path, images: Path) -> list[Item]:
    """``load`` for the three files of any folder, and the folder of the images they name."""
    items = []
    for category in CATEGORIES:
        path = folder / f"coco_pope_{category}.json"
        rows = []
        for where, row in read_json_lines(path):
            image = inside(images, field(row, "image", str, where), where)
            rows.append(_item(row, category, image, "text", "label", where))
        items += checked(rows, path)
    return items


def _read_hub() -> list[Item]:
    table = read_hub(REPOSITORY)
    items = []
    for row in table.rows:
        category = field(row.values, "category", str, row.where)
        if category not in CATEGORIES:
            raise DataError(
                f"{row.where}: category is {category!r}; expected {', '.join(CATEGORIES)}: download it again"
            )
        image = row.image("val2014", field(row.values, "image_source", str, row.where) + ".jpg")
        items.append(_item(row.values, category, image, "question", "answer", row.where))
    return checked(items, table.where)


def _item(row: Any, category: str, image: Path | HubImage, question: str, label: str, where: str) -> Item:
    """The item of a row that has its question and its label under these names."""
    said = field(row, label, str, where)
    if said not in ("yes", "no"):
        raise DataError(f"{where}: {label} is {said!r}; expected 'yes' or 'no': correct the row")
    number = field(row, "question_id", (int, str), where)
    return Item(
        f"{category}-{number}", image, field(row, question, str, where), said == "yes", stratum=category
    )


def says_yes(answer: str) -> bool:
    """How an answer is read: no if its first sentence has the word No, no or not, yes otherwise.

    Words are what stands between single blanks once commas are deleted, so "NO", "isn't" and an empty answer
    read as yes. As in LLaVA ``llava/eval/eval_pope.py`` at c121f04 and POPE ``evaluate.py`` at 08d957b.
    """
    sentence = answer.partition(".")[0]
    return not {"No", "no", "not"} & set(sentence.replace(",", "").split(" "))


def says_yes_opera(answer: str) -> bool:
    """No if the word No, not, no, NO or one that ends in n't is anywhere in the answer, yes otherwise.

    Full stops and commas are deleted first, so "e.g. not" reads as no. As in ``pope_eval.py`` of OPERA at 61426ef
    and of the paper's repository at b8cd5e7.
    """
    words = answer.replace(".", "").replace(",", "").split(" ")
    return not any(word in ("No", "not", "no", "NO") or word.endswith("n't") for word in words)


def says_yes_lmms_eval(answer: str) -> bool | None:
    """Yes or no if the answer is that word alone, in any case; None for everything else, "Yes." included.

    As in lmms-eval ``tasks/pope/utils.py`` at 75571cf.
    """
    return {"yes": True, "no": False}.get(answer.lower().strip())


def confusion(said: bool | None, true: bool) -> dict[str, Part]:
    """Parts of accuracy, and with yes as the positive class of F1, precision and recall.

    Without a true positive F1 is 0 and without a positive answer precision is undefined, where the official
    scripts stop with ZeroDivisionError and lmms-eval says 0. An answer that is neither (None) is wrong for the
    accuracy and left out of the others, as in lmms-eval.
    """
    positive, hit = float(said is True), float(said is True and true)
    wanted = float(true and said is not None)
    return {
        "accuracy": (float(said == true), 1.0),
        "F1": (2 * hit, positive + wanted),
        "precision": (hit, positive),
        "recall": (hit, wanted),
    }


def score(item: Item, answer: str) -> dict[str, Part]:
    """Parts by the official reading, with the share of answers that say yes."""
    said = says_yes(answer)
    return confusion(said, item.reference) | {"yes ratio": (float(said), 1.0)}


def score_opera(item: Item, answer: str) -> dict[str, Part]:
    """Parts by OPERA's reading."""
    said = says_yes_opera(answer)
    return confusion(said, item.reference) | {"yes ratio": (float(said), 1.0)}


def score_lmms_eval(item: Item, answer: str) -> dict[str, Part]:
    """Parts by lmms-eval's reading; its yes ratio is that of the right answers, whatever was said."""
    said = says_yes_lmms_eval(answer)
    return confusion(said, item.reference) | {"yes ratio": (float(item.reference), 1.0)}


POPE = Benchmark(
    name="pope",
    title="POPE",
    metrics=(Metric("accuracy", share=True), Metric("F1")),
    load=load,
    score=score,
    details=("precision", "recall", "yes ratio"),
)
