"""TextVQA: read the text in an image.

Data directory, as published::

    DIR/textvqa/TextVQA_0.5.1_val.json           {"data": [{image_id, question_id, question, answers, ...}]}
    DIR/textvqa/train_images/{image_id}.jpg      or .png
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from repro.benchmarks.benchmark import UNKNOWN, Benchmark, DataError, HubImage, Item, Metric, Part, Questions
from repro.benchmarks.files import checked, field, inside, read_json, strings
from repro.benchmarks.hub import HUB, Repository, read_hub

FILE = "TextVQA_0.5.1_val.json"
ANNOTATORS = 10
#: image_id, question_id, question, answers, image and more.
REPOSITORY = Repository(
    ids=("lmms-lab-encoder/textvqa", "lmms-lab/textvqa"),
    revision="9c0699cd19768ac5ab97568f6b3cbac4c0062884",
    files="data/validation",
)

_NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(digit) for digit, word in enumerate(_NUMERALS)}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
#: The official map of contractions, misspelt and restored; "Im", "Ive" and the like are left out because
#: they cannot occur after lower-casing, "let's" and "she's" because they map to themselves.
_PAIRS = """
aint ain't arent aren't cant can't couldve could've couldnt couldn't couldn'tve couldn't've
couldnt've couldn't've didnt didn't doesnt doesn't dont don't hadnt hadn't hadnt've hadn't've
hadn'tve hadn't've hasnt hasn't havent haven't hed he'd hed've he'd've he'dve he'd've hes he's howd how'd
howll how'll hows how's isnt isn't itd it'd itd've it'd've it'dve it'd've itll it'll maam ma'am
mightnt mightn't mightnt've mightn't've mightn'tve mightn't've mightve might've mustnt mustn't mustve must've
neednt needn't notve not've oclock o'clock oughtnt oughtn't ow's'at 'ow's'at 'ows'at 'ow's'at 'ow'sat 'ow's'at
shant shan't shed've she'd've she'dve she'd've shouldve should've shouldnt shouldn't shouldnt've shouldn't've
shouldn'tve shouldn't've somebody'd somebodyd somebodyd've somebody'd've somebody'dve somebody'd've
somebodyll somebody'll somebodys somebody's someoned someone'd someoned've someone'd've
someone'dve someone'd've someonell someone'll someones someone's somethingd something'd
somethingd've something'd've something'dve something'd've somethingll something'll thats that's thered there'd
thered've there'd've there'dve there'd've therere there're theres there's theyd they'd theyd've they'd've
they'dve they'd've theyll they'll theyre they're theyve they've twas 'twas wasnt wasn't wed've we'd've
we'dve we'd've weve we've werent weren't whatll what'll whatre what're whats what's whatve what've
whens when's whered where'd wheres where's whereve where've whod who'd whod've who'd've who'dve who'd've
wholl who'll whos who's whove who've whyll why'll whyre why're whys why's wont won't wouldve would've
wouldnt wouldn't wouldnt've wouldn't've wouldn'tve wouldn't've yall y'all yall'll y'all'll y'allll y'all'll
yall'd've y'all'd've y'alld've y'all'd've y'all'dve y'all'd've youd you'd youd've you'd've you'dve you'd've
youll you'll youre you're youve you've
"""
_CONTRACTIONS = dict(zip(_PAIRS.split()[::2], _PAIRS.split()[1::2], strict=True))


@cache
def normalise(answer: str) -> str:
    """An answer as the official scorer compares it, every quirk kept.

    As in mmf ``mmf/utils/m4c_evaluators.py`` at b0ffc7f, which LLaVA's ``llava/eval/m4c_evaluator.py`` at
    c121f04 repeats. The quirks: commas and question marks vanish without leaving a blank; any other mark that
    touches a blank somewhere is deleted everywhere, else becomes a blank; a full stop stays before a digit;
    and only the first 32 full stops go, because the official call passes a flag of that value as the count.
    """
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _worded(_unpunctuated(_one_line(text)))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _unpunctuated(text: str) -> str:
    """Every mark deleted or replaced by a blank, full stops without a digit behind them deleted."""
    # A comma between digits anywhere deletes all marks; the m4c scorer has no commas left by then.
    number = re.search(r"\d,\d", text) is not None
    stripped = text
    for mark in _PUNCTUATION:
        touches_blank = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if touches_blank or number else " ")
    return re.sub(r"\.(?!\d)", "", stripped, count=32)


def _worded(text: str) -> str:
    """Lower case, numerals as digits, no articles, contractions restored."""
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in ("a", "an", "the"))


def load(directory: Path) -> list[Item]:
    """Questions of the validation set; a reference is the tuple of the ten annotators' answers.

    Raises:
        DataError: the file is missing or malformed, a question has other than ten answers, an id comes twice.
    """
    if directory == HUB:
        return _read_hub()
    path = directory / "textvqa" / FILE
    items = []
    for index, row in enumerate(field(read_json(path), "data", list, str(path))):
        where = f"{path}, row {index} of 'data'"
        where += f" (question_id {field(row, 'question_id', (int, str), where)})"
        folder = directory / "textvqa" / "train_images"
        image = inside(folder, field(row, "image_id", str, where) + ".png", where)
        if not image.exists():
            image = image.with_name(image.name.removesuffix(".png") + ".jpg")
        items.append(_item(row, image, where))
    return checked(items, path)


def _read_hub() -> list[Item]:
    where, rows = read_hub(REPOSITORY)
    items = []
    for row in rows:
        image = row.image("train_images", field(row.values, "image_id", str, row.where) + ".jpg")
        items.append(_item(row.values, image, row.where))
    return checked(items, where)


def _item(row: Any, image: Path | HubImage, where: str) -> Item:
    id = str(field(row, "question_id", (int, str), where))
    answers = strings(row, "answers", where)
    if len(answers) != ANNOTATORS:
        raise DataError(f"{where}: {len(answers)} answers; expected exactly {ANNOTATORS}: correct the row")
    return Item(id, image, field(row, "question", str, where), answers)


def version(items: Sequence[Item]) -> str:
    """Number of questions, and whether they are as many as those of the validation set, and their images."""
    published = (len(items), len({item.image for item in items})) == (5000, 3166)
    known = "as many questions and images as TextVQA 0.5.1, validation" if published else UNKNOWN
    return f"{len(items)} questions ({known})"


def questions(data: Path, answers: Path) -> Iterator[Questions]:
    """The validation set under its own ids, and under LLaVA's."""
    if (data / "textvqa" / FILE).is_file():
        items = load(data)
        yield TEXTVQA.own_questions(items, data / "textvqa")
        yield _by_image(items, data / "textvqa")


def _by_image(items: Sequence[Item], source: Path) -> Questions:
    """The questions under LLaVA's ids: the image's, which the prompt's text tells apart.

    Whatever stands around the question in the prompt, of several questions about the image the first one in it is
    asked, and of those that begin there the longest. Case and kinds of blanks do not count, as in LLaVA's scorer.
    """
    by_image: dict[str, dict[str, Item]] = {}
    for item in items:
        if item.image:
            by_image.setdefault(Path(item.image.name).stem, {})[_plain(item.question)] = item

    def key(image: str, prompt: str) -> str:
        text, asked = _plain(prompt), by_image.get(image, {})
        places = [(text.find(question), -len(question), question) for question in asked if question in text]
        return f"{image}: {min(places)[2]}" if places else image

    named = {f"{image}: {text}": item for image, asked in by_image.items() for text, item in asked.items()}
    return Questions(TEXTVQA, f"TextVQA {len(named)}", source, named, key=key)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def score(item: Item, answer: str) -> dict[str, Part]:
    """Part of the soft accuracy: 0, .3, .6, .9 or 1 for 0, 1, 2, 3, or more annotators who agree.

    The official mean over annotators, each left out in turn, of min(1, agreeing others / 3).
    """
    return _soft(list(map(normalise, item.reference)).count(normalise(answer)))


def score_vqa_eval(item: Item, answer: str) -> dict[str, Part]:
    """Part of the soft accuracy by Qwen-VL's ``eval_mm/vqa_eval.py`` at aa00ed0.

    The annotators' answers lose only their punctuation, and that only if they are not all the same: capitals,
    articles and numerals in them match no answer. Each annotator counts, as with the distinct answer_id that
    Qwen-VL's files have; without these the script drops equal answers together.
    """
    references = item.reference
    if len(set(references)) > 1:
        references = [_unpunctuated(reference) for reference in references]
    return _soft(references.count(_worded(_unpunctuated(_one_line(answer)))))


def _soft(agree: int) -> dict[str, Part]:
    return {"accuracy": (min(3 * agree, ANNOTATORS) / ANNOTATORS, 1.0)}


TEXTVQA = Benchmark(
    name="textvqa",
    title="TextVQA",
    metrics=(Metric("accuracy"),),
    load=load,
    score=score,
    version=version,
    questions=questions,
)
