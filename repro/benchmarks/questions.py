"""The questions that answers recorded elsewhere may belong to, as others publish them.

Besides the layout of each benchmark's own module, under a data directory DIR::

    DIR/pope/*/coco_pope_{random,popular,adversarial}.json   several published versions side by side
    DIR/*/llava_pope_test.jsonl                              LLaVA's ids for one of them
    DIR/*/llava_test_CQM-A.json                              LLaVA's ScienceQA questions with the right letters
    DIR/chair/ground_truth_objects.json                      {COCO image id: [class, ...]}

LLaVA's two files may also lie beside the answers, as in its ``eval.zip``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from repro.benchmarks import chair, pope, scienceqa, textvqa
from repro.benchmarks.benchmark import Benchmark, DataError, Item
from repro.benchmarks.files import field, inside, read_json, read_json_lines, unique

LLAVA_POPE = "llava_pope_test.jsonl"
LLAVA_SCIENCEQA = "llava_test_CQM-A.json"
#: Words this alike (difflib's ratio) are one word in two spellings.
ALIKE = 0.9
#: Category, name of the picture, text.
Asked = tuple[str, str, str]


@dataclass(frozen=True)
class Questions:
    """Questions that were asked together.

    Attributes:
        benchmark: scores the answers.
        title: for people; with the number of questions, which tells versions apart, unless it is a stock.
        source: the file or folder they come from.
        items: by the id an answer to them is recorded under.
        complete: whether all were asked; False for a stock to choose from.
        respelled: a question that was asked and is not among the items, and the one of them that has its words in
            another spelling; None where there is none.
    """

    benchmark: Benchmark
    title: str
    source: Path
    items: dict[str, Item]
    complete: bool = True
    respelled: tuple[str, str] | None = None


def by_own_ids(benchmark: Benchmark, items: Sequence[Item], source: Path) -> Questions:
    """Questions whose answers are recorded under the items' own ids."""
    return Questions(benchmark, f"{benchmark.title} {len(items)}", source, {item.id: item for item in items})


def question_answering(names: Sequence[str], data: Path, beside: Path) -> Iterator[Questions]:
    """What is there of the named benchmarks: POPE, ScienceQA, TextVQA.

    Args:
        data: the data directory.
        beside: where LLaVA's question files are looked for, too.

    Raises:
        DataError: a file that is there cannot be used.
    """
    if "pope" in names:
        yield from _pope(data, beside)
    if "scienceqa" in names:
        if (data / "scienceqa" / "problems.json").is_file():
            items = scienceqa.load_all(data)
            with_image = [item for item in items if item.image is not None]
            yield by_own_ids(scienceqa.SCIENCEQA, with_image, data / "scienceqa")
            if len(items) > len(with_image):
                yield _all_scienceqa({item.id: item for item in items}, data / "scienceqa")
        for path in _found(LLAVA_SCIENCEQA, data, beside):
            yield _all_scienceqa(_llava_scienceqa(path), path)
    if "textvqa" in names and (data / "textvqa" / "TextVQA_0.5.1_val.json").is_file():
        items = textvqa.load(data)
        yield by_own_ids(textvqa.TEXTVQA, items, data / "textvqa")
        # LLaVA records the image's id; its scorer tells the questions of an image apart by their text.
        named = {llava_textvqa_id(item.image.stem, item.question): item for item in items if item.image}
        yield Questions(textvqa.TEXTVQA, f"TextVQA {len(named)}", data / "textvqa", named)


def llava_textvqa_id(image: str, prompt: str) -> str:
    """What identifies a TextVQA question in LLaVA's answers: image and, in any case, the prompt's first line."""
    return f"{image}: {prompt.partition(chr(10))[0].lower()}"


def captioning(names: Sequence[str], data: Path, mode: chair.Mode | None = None) -> Iterator[Questions]:
    """What is there of CHAIR; the title says in which mode, by default exact where NLTK's data is found.

    ``ground_truth_objects.json`` goes before COCO's annotations. Without ``image_ids.txt`` it is a stock.

    Raises:
        DataError: a file that is there cannot be used.
    """
    path, listed = data / "chair" / "ground_truth_objects.json", data / "chair" / "image_ids.txt"
    if "chair" not in names or not (path.is_file() or listed.is_file()):
        return
    mode = mode or chair.best()
    benchmark = chair.BY_MODE[mode]
    if not path.is_file():
        yield by_own_ids(benchmark, benchmark.load(data), listed)
        return
    table = read_json(path)
    items = {}
    for number in map(str, chair.sample(listed)) if listed.is_file() else table:
        truth = chair.listed_truth(table, number, mode, f"{path}, image {number}")
        items[number] = Item(number, Path("coco", number), chair.PROMPT, truth)
    if listed.is_file():
        yield by_own_ids(benchmark, list(items.values()), path)
    else:
        yield Questions(benchmark, benchmark.title, path, items, complete=False)


def _found(name: str, data: Path, beside: Path) -> list[Path]:
    """The files of a name beside the answers and in the folders of the data directory, each once."""
    paths = [beside / name, *sorted(data.glob(f"*/{name}"))]
    return list({path.resolve(): path for path in paths if path.is_file()}.values())


def _pope(data: Path, beside: Path) -> Iterator[Questions]:
    files = [(path, read_json_lines(path)) for path in _found(LLAVA_POPE, data, beside)]
    for folder in (data / "pope", *sorted((data / "pope").glob("*/"))):
        if not any((folder / f"coco_pope_{category}.json").is_file() for category in pope.CATEGORIES):
            continue
        items = pope.read(folder, data / "coco" / "val2014")
        yield by_own_ids(pope.POPE, items, folder)
        # LLaVA's ids are its own; picture, category and text lead to the row that has the label.
        labelled = {(item.stratum, item.image.name, item.question): item for item in items if item.image}
        for path, rows in files:
            found, asked = {}, []
            unique((field(row, "question_id", (int, str), where) for where, row in rows), str(path))
            for where, row in rows:
                category, image = field(row, "category", str, where), field(row, "image", str, where)
                asked.append((category, image, field(row, "text", str, where).partition("\n")[0]))
                if asked[-1] in labelled:
                    found[str(row["question_id"])] = labelled[asked[-1]]
            pair = _respelled(set(asked) - set(labelled), set(labelled) - set(asked))
            yield Questions(pope.POPE, f"POPE {len(rows)}", folder, found, respelled=pair)


def _respelled(asked: Set[Asked], known: Set[Asked]) -> tuple[str, str] | None:
    """A question asked and a known one about the same picture whose words are alike, as "imange" and "image"."""
    texts: dict[tuple[str, str], list[str]] = {}
    for category, image, text in known:
        texts.setdefault((category, image), []).append(text)
    for category, image, text in sorted(asked):
        for other in texts.get((category, image), ()):
            if _alike(text.split(), other.split()):
                return text, other
    return None


def _alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Word by word: whole sentences about a car and a cat are alike too, and are two questions."""
    return len(one) == len(other) and all(
        SequenceMatcher(None, a, b).ratio() >= ALIKE for a, b in zip(one, other, strict=True)
    )


def _all_scienceqa(items: dict[str, Item], source: Path) -> Questions:
    return Questions(scienceqa.SCIENCEQA, f"ScienceQA {len(items)}", source, items)


def _llava_scienceqa(path: Path) -> dict[str, Item]:
    """LLaVA's rows [{id, image (of some), conversations: [{value: question}, {value: right letter}]}]."""
    rows = read_json(path, list)
    unique((field(row, "id", str, f"{path}, row {i}") for i, row in enumerate(rows)), str(path))
    items = {}
    for i, row in enumerate(rows):
        where = f"{path}, row {i}"
        turns = field(row, "conversations", list, where)
        if len(turns) != 2:
            raise DataError(
                f"{where}: {len(turns)} turns; expected the question and the right letter: check it"
            )
        question, letter = (field(turn, "value", str, where) for turn in turns)
        if letter not in tuple(scienceqa.LETTERS):
            raise DataError(f"{where}: the answer is {letter!r}; expected a letter A to E: correct the row")
        image = field(row, "image", str, where) if "image" in row else None
        picture = inside(path.parent / "images" / "test", image, where) if image is not None else None
        items[row["id"]] = Item(row["id"], picture, question.replace("<image>", "").strip(), letter)
    return items
