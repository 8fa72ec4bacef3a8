"""CHAIR: which objects of a caption are not in the image.

Data directory::

    DIR/coco/annotations/{instances,captions}_val2014.json    as published; train2014 too, if present, for
                                                              ids that val2014 lacks
    DIR/coco/{val,train}2014/                                 images, named as the ``images`` entries say
    DIR/chair/image_ids.txt                                   the sample, one COCO image id per line

The sample is a file because the published one depends on the order of a directory listing. On the hub all images
of the data set are the sample. For recorded captions a list of objects goes before COCO's annotations::

    DIR/chair/ground_truth_objects.json                       {COCO image id: [class, ...]}

Rules as in OPERA ``chair.py`` at 61426ef, which the paper's repository repeats at b8cd5e7. Words become
lemmas in one of two ways; an item remembers which, so that an answer is read as its ground truth was:

- approx: sentences split by punctuation and a frozen table of plurals; needs NLTK's code only. On OPERA's
  published captions CHAIR_s / CHAIR_i are 44.8 / 12.7 (LLaVA-1.5) and 57.0 / 22.9 (InstructBLIP). Verbs name no
  object here ("tied", "seated"); on all twelve logs of OPERA CHAIR_s is 0 to 3.2 points below exact.
- exact: the tokenizer, tagger and lemmatiser of the official script, with NLTK's data: 45.0 / 12.7 and
  58.8 / 23.7, which are the official scores.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_args
from zipfile import BadZipFile

from repro.benchmarks.benchmark import UNKNOWN, Benchmark, DataError, Item, Metric, Part, Questions
from repro.benchmarks.chair_words import CLASS_OF, DOUBLE_WORDS, PLURALS
from repro.benchmarks.coco import Annotations
from repro.benchmarks.files import checked, digest, field, inside, read_json, read_text, strings
from repro.benchmarks.hub import HUB, Repository, read_hub

Mode = Literal["approx", "exact"]
#: The user's turn.
PROMPT = "Please describe this image in detail."
#: image, question_id (the image's COCO id), gt_object. No source names a commit of this data set.
REPOSITORY = Repository(("tsunghanwu/mscoco_chair",), None, "data/test")
#: By ``content``: OPERA's ``log/chair_eval_results`` at 61426ef, where InstructBLIP has a sample of its own.
PUBLISHED = {
    "a9539c13e25818da": "the images of OPERA's LLaVA-1.5 and Shikra captions",
    "11cb4865e269aee6": "the images of OPERA's InstructBLIP captions",
}
#: NLTK data that exact mode needs, and the folder in which NLTK looks for each.
_NLTK_DATA = {"punkt_tab": "tokenizers", "averaged_perceptron_tagger_eng": "taggers", "wordnet": "corpora"}


@dataclass(frozen=True)
class Mention:
    """A word of a caption that names a COCO class; ``index`` is its position according to the official script."""

    word: str
    object: str
    index: int


@dataclass(frozen=True)
class GroundTruth:
    """Objects of an image, from its instances and from its reference captions as read in ``mode``."""

    objects: frozenset[str]
    mode: Mode


def merged(lemmas: Sequence[str]) -> tuple[list[str], list[int]]:
    """Lemmas with double words joined, and where each begins."""
    words, starts, i = [], [], 0
    while i < len(lemmas):
        starts.append(i)
        pair = DOUBLE_WORDS.get(" ".join(lemmas[i : i + 2]))
        words.append(lemmas[i] if pair is None else pair)
        i += 1 if pair is None else 2
    return words, starts


def mentions(lemmas: Sequence[str]) -> list[Mention]:
    """Every mention of a COCO class among the lemmas of a caption, repetitions included."""
    words, starts = merged(lemmas)
    if "toilet" in words and "seat" in words:
        # "The seat of the toilet" is no chair. Positions are not removed with the words: the official script's
        # are off after this rule, and only those can be compared.
        words = [word for word in words if word != "seat"]
    return [Mention(word, CLASS_OF[word], starts[i]) for i, word in enumerate(words) if word in CLASS_OF]


def lemmas(caption: str, mode: Mode) -> list[str]:
    """The lemmas of a caption, punctuation included; ``DataError`` if exact mode lacks NLTK data."""
    # Takes a second, which only reading captions should cost.
    import nltk
    from nltk.stem import WordNetLemmatizer
    from nltk.tokenize import NLTKWordTokenizer

    caption = caption.lower()
    if mode == "approx":
        tokenizer = NLTKWordTokenizer()
        sentences = re.split(r"(?<=[.!?])\s+", caption)
        tokens = [token for sentence in sentences for token in tokenizer.tokenize(sentence)]
        return [PLURALS.get(token, token) for token in tokens]
    require_nltk_data()
    lemmatise = WordNetLemmatizer().lemmatize
    tagged = nltk.pos_tag(nltk.word_tokenize(caption))
    return [lemmatise(token, pos={"J": "a", "V": "v", "R": "r"}.get(tag[:1], "n")) for token, tag in tagged]


@cache
def require_nltk_data() -> None:
    """``DataError`` naming the data that exact mode needs and NLTK does not find, or cannot read."""
    import nltk
    from nltk.stem import WordNetLemmatizer

    uses = (nltk.word_tokenize, lambda text: nltk.pos_tag([text]), WordNetLemmatizer().lemmatize)
    missing = []
    for name, use in zip(_NLTK_DATA, uses, strict=True):
        try:
            use("word")
        except LookupError:
            missing.append(name)
        except (OSError, ValueError, EOFError, AttributeError, BadZipFile, zlib.error) as error:
            raise DataError(
                f"exact CHAIR: NLTK data {name} is damaged or incomplete ({type(error).__name__}: {error}); "
                f"expected it as published in {_NLTK_DATA[name]}/{name} of {', '.join(nltk.data.path)}: delete it "
                f"there and run `python -m nltk.downloader {name}`, or use approximate CHAIR"
            ) from None
    if missing:
        folders = ", ".join(f"{_NLTK_DATA[name]}/{name}" for name in missing)
        raise DataError(
            f"exact CHAIR: NLTK data {', '.join(missing)} not found in {', '.join(nltk.data.path)}; run "
            f"`python -m nltk.downloader {' '.join(missing)}`, or unpack the zip files of these names from the "
            f"packages of github.com/nltk/nltk_data to {folders} in a directory and set NLTK_DATA to it; or use "
            "approximate CHAIR"
        )


def sample(path: Path) -> list[int]:
    """The image ids of the sample."""
    ids = []
    for line, text in enumerate(read_text(path).splitlines(), 1):
        if text := text.strip():
            if not re.fullmatch(r"[0-9]+", text):
                raise DataError(f"{path}, line {line}: {text!r}; expected a COCO image id: correct the line")
            ids.append(int(text))
    return ids


def load(directory: Path, mode: Mode) -> list[Item]:
    """The images of the sample, in its order; a reference is a ``GroundTruth``.

    An image without any annotation has an empty ground truth: every object of its caption is hallucinated.

    Raises:
        DataError: a file is missing or malformed, an id of the sample is unknown or comes twice, or NLTK data
            that exact mode needs is missing.
    """
    if mode == "exact":
        require_nltk_data()
    if directory == HUB:
        return _read_hub(mode)
    listed = directory / "chair" / "image_ids.txt"
    ids = sample(listed)
    objects: dict[int, set[str]] = {id: set() for id in ids}
    images: dict[int, Path] = {}
    for split in ("val2014", "train2014"):
        names = ("instances", "captions")
        paths = [directory / "coco" / "annotations" / f"{name}_{split}.json" for name in names]
        # All annotations of an image are in one split; the files of train2014 take gigabytes to read.
        if split == "train2014" and (len(images) == len(objects) or not any(map(Path.exists, paths))):
            break
        instances, captions = map(Annotations, paths)
        for where, row in instances.rows("images", "image"):
            id = field(row, "id", int, where)
            if id in objects:
                images[id] = inside(directory / "coco" / split, field(row, "file_name", str, where), where)
        _add_objects(objects, instances, captions, mode)
    if missing := [id for id in ids if id not in images]:
        raise DataError(
            f"{listed}: no image {missing[0]} in the annotations; expected ids of val2014, or of train2014 with "
            "its annotation files present: correct the list"
        )
    truths = {id: GroundTruth(frozenset(names), mode) for id, names in objects.items()}
    return checked([Item(str(id), images[id], PROMPT, truths[id]) for id in ids], listed)


def _add_objects(
    objects: dict[int, set[str]], instances: Annotations, captions: Annotations, mode: Mode
) -> None:
    """Add to the objects of each image of the sample those its instances and captions name."""
    for _, row, name in instances.objects():
        if (id := row["image_id"]) in objects:
            objects[id].add(name)
    for where, row in captions.rows("annotations", "annotation"):
        id = field(row, "image_id", int, where)
        if id in objects:
            words = lemmas(field(row, "caption", str, where), mode)
            objects[id].update(mention.object for mention in mentions(words))


def _read_hub(mode: Mode) -> list[Item]:
    where, rows = read_hub(REPOSITORY)
    items = []
    for row in rows:
        id = field(row.values, "question_id", (int, str), row.where)
        if not re.fullmatch("[0-9]+", str(id)):
            raise DataError(f"{row.where}: question_id is {id!r}; expected a COCO image id: check the file")
        image = row.image("val2014", f"COCO_val2014_{int(id):012}.jpg")
        truth = _listed_truth(row.values, "gt_object", mode, row.where)
        items.append(Item(str(int(id)), image, PROMPT, truth))
    return checked(items, where)


def _listed_truth(row: Any, key: str, mode: Mode, where: str) -> GroundTruth:
    """The ground truth of a row that lists the classes of an image."""
    objects = strings(row, key, where)
    for name in objects:
        if name not in CLASS_OF:
            raise DataError(f"{where}: {name!r} is none of the 80 COCO classes: check it")
    return GroundTruth(frozenset(CLASS_OF[name] for name in objects), mode)


def content(items: Sequence[Item]) -> str:
    """Identifies a sample of images in any order."""
    return digest(item.id for item in items)


def version(items: Sequence[Item]) -> str:
    """Number of images, and which published sample they are."""
    identity = content(items)
    return f"{len(items)} images ({PUBLISHED.get(identity, UNKNOWN)}; list {identity[:8]})"


def questions(data: Path, answers: Path, mode: Mode) -> Iterator[Questions]:
    """The sample, or without ``image_ids.txt`` the images of ``ground_truth_objects.json`` as a stock."""
    benchmark = BY_MODE[mode]
    path, listed = data / "chair" / "ground_truth_objects.json", data / "chair" / "image_ids.txt"
    if path.is_file():
        table = read_json(path)
        items = {}
        for id in map(str, sample(listed)) if listed.is_file() else table:
            truth = _listed_truth(table, id, mode, f"{path}, image {id}")
            items[id] = Item(id, Path("coco", id), PROMPT, truth)
        if listed.is_file():
            yield benchmark.own_questions(list(items.values()), path)
        else:
            yield Questions(benchmark, benchmark.title, path, items, complete=False)
    elif listed.is_file():
        yield benchmark.own_questions(benchmark.load(data), listed)


def score(item: Item, answer: str) -> dict[str, Part]:
    """Parts of CHAIR_s (captions), CHAIR_i (mentions, not distinct objects) and recall (distinct objects)."""
    truth: GroundTruth = item.reference
    mentioned = mentions(lemmas(answer, truth.mode))
    correct = [mention.object for mention in mentioned if mention.object in truth.objects]
    hallucinated = len(mentioned) - len(correct)
    return {
        "CHAIR_s": (float(hallucinated > 0), 1.0),
        "CHAIR_i": (float(hallucinated), float(len(mentioned))),
        "recall": (float(len(set(correct))), float(len(truth.objects))),
    }


_METRICS = (
    Metric("CHAIR_s", higher_is_better=False),
    Metric("CHAIR_i", higher_is_better=False),
    Metric("recall"),
)
#: Both ways to score captions; ``--benchmark chair`` means the first.
BY_MODE: dict[Mode, Benchmark] = {
    mode: Benchmark(
        name="chair",
        title=f"CHAIR ({mode})",
        metrics=_METRICS,
        load=partial(load, mode=mode),
        score=score,
        version=version,
        questions=partial(questions, mode=mode),
        mode=mode,
        captions=True,
    )
    for mode in get_args(Mode)
}
CHAIR = BY_MODE["approx"]


def best() -> Mode:
    """Exact where NLTK finds its data, approx elsewhere."""
    try:
        require_nltk_data()
    except DataError:
        return "approx"
    return "exact"
