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
    metrics=(Metric("accuracy"), Metric("F1")),
    load=load,
    score=score,
    details=("precision", "recall", "yes ratio"),
)
