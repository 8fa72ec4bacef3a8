"""POPE: is an object in the image? Yes or no, over random, popular and adversarial negatives.

Data directory, as published (AoiDragon/POPE, ``output/coco/``)::

    DIR/pope/coco_pope_{random,popular,adversarial}.json   JSON lines: question_id, image, text, label
    DIR/coco/val2014/                                      the images named by the rows

The published files differ by commit: 8910 questions (2910 random ones, as LLaVA uses) or 9000; the hub has 9000.
Every row is an item, "imange" typos included.

Recorded answers may also belong to::

    DIR/pope/*/coco_pope_{random,popular,adversarial}.json   several published versions side by side
    DIR/*/llava_pope_test.jsonl                              LLaVA's ids for one of them; or beside the answers
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from repro.benchmarks.benchmark import UNKNOWN, Benchmark, DataError, HubImage, Item, Metric, Part, Questions
from repro.benchmarks.files import checked, digest, field, inside, question_files, read_json_lines, unique
from repro.benchmarks.hub import HUB, Repository, read_hub

#: The order of LLaVA's question file.
CATEGORIES = ("adversarial", "popular", "random")
LLAVA_POPE = "llava_pope_test.jsonl"
#: Configuration "default": id, question_id, question, answer, image_source, category, image.
REPOSITORY = Repository(
    ids=("lmms-lab-encoder/POPE", "lmms-lab/POPE"),
    revision="4db1276663dfa5eb8ad16a52d24c31a09e470896",
    files="data/test",
)
#: By ``content``: AoiDragon/POPE ``output/coco/`` at 08d957b and e3e3926.
PUBLISHED = {
    "9000-7cd2f7d05577ea4e": "all of POPE, 3000 random",
    "8910-59e4b99f7eda4101": "POPE with 2910 random",
}
#: Words this similar (difflib's ratio) are one word in two spellings.
SIMILAR = 0.9
#: A denominator of a ratio that is 0 where there is nothing to divide; added to 1 or more it changes no float64.
NOTHING = 1e-30
#: Category, image name, text.
Question = tuple[str, str, str]


def load(directory: Path) -> list[Item]:
    """Questions of all three categories; a reference is True for yes, the stratum is the category.

    Raises:
        DataError: a file is missing or malformed, a label is neither yes nor no, an id comes twice.
    """
    if directory == HUB:
        return _read_hub()
    return read(directory / "pope", directory / "coco" / "val2014")


def read(folder: Path, images: Path) -> list[Item]:
    """``load`` for three files in any folder, and the folder of the images they name."""
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
    where, rows = read_hub(REPOSITORY)
    items = []
    for row in rows:
        category = field(row.values, "category", str, row.where)
        if category not in CATEGORIES:
            raise DataError(
                f"{row.where}: category is {category!r}; expected {', '.join(CATEGORIES)}: download it again"
            )
        image = row.image("val2014", field(row.values, "image_source", str, row.where) + ".jpg")
        items.append(_item(row.values, category, image, "question", "answer", row.where))
    return checked(items, where)


def _item(row: Any, category: str, image: Path | HubImage, question: str, label: str, where: str) -> Item:
    """The item of a row that has its question and its label under these names."""
    answer = field(row, label, str, where)
    if answer not in ("yes", "no"):
        raise DataError(f"{where}: {label} is {answer!r}; expected 'yes' or 'no': correct the row")
    id = f"{category}-{field(row, 'question_id', (int, str), where)}"
    return Item(id, image, field(row, question, str, where), answer == "yes", stratum=category)


def content(items: Sequence[Item]) -> str:
    """Identifies a published version, whatever the order and the ids of its questions.

    Older files misspell "image" in some rows; the pairs of question and label are the same.
    """
    lines = (
        f"{item.stratum} {item.image.name if item.image else ''} "
        f"{item.question.replace('imange', 'image')} {item.reference}"
        for item in items
    )
    return f"{len(items)}-{digest(lines)}"


def version(items: Sequence[Item]) -> str:
    """Number of questions, their published version, and how many are misspelt."""
    text = f"{len(items)} questions ({PUBLISHED.get(content(items), UNKNOWN)})"
    misspelt = sum("imange" in item.question for item in items)
    return f"{text}, {misspelt} of them with 'imange'" if misspelt else text


def questions(data: Path, answers: Path) -> Iterator[Questions]:
    """Each version of the questions under its own ids, and under LLaVA's if its question file is there.

    Each of these also category by category, because published files number each category from 1, and answers are
    often recorded in three files. LLaVA numbers the questions anew; category, image and text lead to the row that
    has the label.
    """
    files = [(path, read_json_lines(path)) for path in question_files(LLAVA_POPE, data, answers)]
    for folder in (data / "pope", *sorted((data / "pope").glob("*/"))):
        if not any((folder / f"coco_pope_{category}.json").is_file() for category in CATEGORIES):
            continue
        items = read(folder, data / "coco" / "val2014")
        own = POPE.own_questions(items, folder)
        yield own
        yield from _parts(own, Counter(item.stratum for item in items))
        labelled = {(item.stratum, item.image.name, item.question): item for item in items if item.image}
        for path, rows in files:
            unique((field(row, "question_id", (int, str), where) for where, row in rows), str(path))
            by_id = {}
            for where, row in rows:
                category, image, text = (field(row, key, str, where) for key in ("category", "image", "text"))
                by_id[str(row["question_id"])] = category, image, text.partition("\n")[0]
            matches = {id: labelled[question] for id, question in by_id.items() if question in labelled}
            pair = _respelled(set(by_id.values()) - set(labelled), set(labelled) - set(by_id.values()))
            by_llava = Questions(POPE, f"POPE {len(rows)}", folder, matches, respelled=pair)
            yield by_llava
            yield from _parts(by_llava, Counter(category for category, _, _ in by_id.values()))


def _parts(questions: Questions, asked: Mapping[str, int]) -> Iterator[Questions]:
    """The questions of each category, of which so many were asked, under their ids or their numbers in it."""
    for category in CATEGORIES:
        items = {id: item for id, item in questions.items.items() if item.stratum == category}

        def key(id: str, prompt: str, items: dict[str, Item] = items, category: str = category) -> str:
            return id if id in items else f"{category}-{id}"

        title = f"POPE {category} {asked.get(category, 0)}"
        yield replace(questions, title=title, items=items, key=key, part=category)


def _respelled(asked: Set[Question], known: Set[Question]) -> tuple[str, str] | None:
    """A question asked and a known one about the same image with similar words, e.g. "imange" and "image"."""
    texts = defaultdict(list)
    for category, image, text in known:
        texts[category, image].append(text)
    for category, image, text in sorted(asked):
        for other in texts[category, image]:
            if _similar(text.split(), other.split()):
                return text, other
    return None


def _similar(words: Sequence[str], others: Sequence[str]) -> bool:
    """Word by word: entire sentences about a car and a cat are similar too, but are two questions."""
    return len(words) == len(others) and all(
        SequenceMatcher(None, a, b).ratio() >= SIMILAR for a, b in zip(words, others, strict=True)
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


def confusion(yes: bool | None, true: bool) -> dict[str, Part]:
    """Parts of accuracy and, with yes as the positive class, of F1, precision and recall.

    Without a true positive F1 is 0 and without a positive answer precision is undefined, where the official
    scripts stop with ZeroDivisionError and lmms-eval gives 0. An answer that is neither (None) is wrong for the
    accuracy and left out of the others, as in lmms-eval.
    """
    positive, hit = float(yes is True), float(yes is True and true)
    wanted = float(true and yes is not None)
    return {
        "accuracy": (float(yes == true), 1.0),
        "F1": (2 * hit, positive + wanted),
        "precision": (hit, positive),
        "recall": (hit, wanted),
    }


def score(item: Item, answer: str) -> dict[str, Part]:
    """Parts by the official reading, with the share of answers that say yes."""
    return confusion(yes := says_yes(answer), item.reference) | {"yes ratio": (float(yes), 1.0)}


def score_opera(item: Item, answer: str) -> dict[str, Part]:
    """Parts by OPERA's reading."""
    return confusion(yes := says_yes_opera(answer), item.reference) | {"yes ratio": (float(yes), 1.0)}


def score_lmms_eval(item: Item, answer: str) -> dict[str, Part]:
    """Parts by lmms-eval's reading; its yes ratio is that of the right answers, whatever was answered.

    Where nothing can be divided its ratios are 0: every denominator is at least ``NOTHING``.
    """
    parts = confusion(says_yes_lmms_eval(answer), item.reference)
    parts = {name: (numerator, max(NOTHING, denominator)) for name, (numerator, denominator) in parts.items()}
    return parts | {"yes ratio": (float(item.reference), 1.0)}


POPE = Benchmark(
    name="pope",
    title="POPE",
    metrics=(Metric("accuracy", share=True), Metric("F1")),
    load=load,
    score=score,
    version=version,
    questions=questions,
    details=("precision", "recall", "yes ratio"),
)
