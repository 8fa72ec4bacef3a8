"""A result names which published version of its data it is on."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from repro.benchmarks import BENCHMARKS, chair, pope, scienceqa
from repro.benchmarks.benchmark import HubImage, Item
from repro.scores import aggregate

pytestmark = pytest.mark.conformance


def asked(stratum, i, typo=False):
    """A question of POPE: three right and three wrong objects of each image."""
    question = f"Is there a thing {i} in the {'imange' if typo else 'image'}?"
    return Item(f"{stratum}-{i}", Path("val2014", f"{i // 6}.jpg"), question, i % 2 == 0, stratum)


def pope_rows(random=3000):
    counts = {"adversarial": 3000, "popular": 3000, "random": random}
    return [asked(stratum, i) for stratum in pope.CATEGORIES for i in range(counts[stratum])]


def lettered(counts):
    """Questions of ScienceQA with this many right answers A, B, ..."""
    return [Item("", None, "", letter) for letter, n in zip("ABCDE", counts, strict=True) for _ in range(n)]


def captioned(ids):
    return [Item(str(i), Path(f"{i}.jpg"), "", None) for i in ids]


@pytest.fixture
def known(monkeypatch):
    """Takes the made-up POPE of 9000 and 8910 questions and a list of images for published ones."""

    def add(module, items, title):
        monkeypatch.setitem(module.PUBLISHED, module.content(items), title)

    add(pope, pope_rows(), "made whole")
    add(pope, pope_rows(2910), "made smaller")
    add(chair, captioned(range(500)), "made list")


def describe(name, items):
    return BENCHMARKS[name].describe(items)


def test_the_two_versions_of_pope_are_told_apart(known):
    assert describe("pope", pope_rows()) == "9000 questions (made whole)"
    assert describe("pope", pope_rows(2910)) == "8910 questions (made smaller)"


def test_misspelt_questions_of_pope_are_counted_and_belong_to_the_version(known):
    items = pope_rows(2910)
    items[5:251] = [asked(item.stratum, i, typo=True) for i, item in enumerate(items[5:251], 5)]
    assert describe("pope", items) == "8910 questions (made smaller), 246 of them with 'imange'"


def test_order_and_ids_of_pope_do_not_matter(known):
    items = [replace(item, id=str(i)) for i, item in enumerate(reversed(pope_rows()))]
    assert describe("pope", items) == "9000 questions (made whole)"


def test_the_90_further_negatives_change_the_random_category_and_nothing_is_made_up_for_them():
    """Always yes is right for 1500 of 2910 questions, or of 3000."""

    def always_yes(items):
        parts = np.array([pope.score(item, "yes")["accuracy"] for item in items])
        return aggregate(parts, np.array([item.stratum for item in items]))

    smaller = [item for item in pope_rows() if item.stratum != "random" or item.reference]
    smaller += [item for item in pope_rows() if item.stratum == "random" and not item.reference][:1410]
    assert always_yes(pope_rows()) == pytest.approx(0.5)
    assert always_yes(smaller) == pytest.approx((0.5 + 0.5 + 1500 / 2910) / 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda item: replace(item, reference=not item.reference),
        lambda item: replace(item, question="Is there a cat in the image?"),
        lambda item: replace(item, image=Path("val2014", "x.jpg")),
        lambda item: replace(item, stratum="popular"),
    ],
)
def test_a_changed_row_of_pope_is_no_published_version(known, change):
    first, *others = pope_rows()
    assert describe("pope", [change(first), *others]) == "9000 questions (no published version)"


def test_a_part_of_a_data_set_is_no_published_version(known):
    assert describe("pope", pope_rows()[:48]) == "48 questions (no published version)"


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (
            (713, 726, 375, 195, 8),
            "2017 questions (letters right as often as in ScienceQA's test split, with an image)",
        ),
        (
            (1700, 1689, 583, 261, 8),
            "4241 questions (letters right as often as in all of ScienceQA's test split)",
        ),
        ((714, 725, 375, 195, 8), "2017 questions (no published version)"),
    ],
)
def test_the_image_questions_of_scienceqa_are_told_from_all(counts, said):
    assert describe("scienceqa", lettered(counts)) == said


@pytest.mark.parametrize(
    ("n", "images", "version"),
    [
        (5000, 3166, "as many questions and images as TextVQA 0.5.1, validation"),
        (5000, 3165, "no published version"),
        (4999, 3166, "no published version"),
    ],
)
def test_textvqa_is_5000_questions_on_3166_images(n, images, version):
    items = [Item(str(i), Path(f"{i % images}.jpg"), "", ()) for i in range(n)]
    assert describe("textvqa", items) == f"{n} questions ({version})"


def test_a_sample_of_images_is_known_by_its_ids_in_whatever_order(known):
    said = describe("chair", captioned(range(500)))
    assert said.startswith("500 images (made list; list ")
    assert describe("chair", captioned(reversed(range(500)))) == said
    other = describe("chair", captioned(range(1, 501)))
    assert other.startswith("500 images (no published version; list ") and other[-9:] != said[-9:]


def test_data_of_the_hub_name_their_commit():
    image = HubImage(Path("val2014/1.jpg"), "lmms-lab/POPE at 4db1276", 0, None)
    said = describe("pope", [replace(asked("random", 0), image=image)])
    assert said == "1 questions (no published version), lmms-lab/POPE at 4db1276"


@pytest.mark.skipif(
    "REPRO_DATA" not in os.environ, reason="REPRO_DATA: no directory with the published files"
)
def test_the_published_files_are_known():
    data = Path(os.environ["REPRO_DATA"])
    published = [*pope.questions(data, data), *scienceqa.questions(data, data)]
    said = [questions.benchmark.describe(list(questions.items.values())) for questions in published]
    assert set(said) == {
        "9000 questions (all of POPE, 3000 random)",
        "8910 questions (POPE with 2910 random), 246 of them with 'imange'",
        # The rows of LLaVA's file that are spelt as in the newer one.
        "8664 questions (no published version)",
        "4241 questions (letters right as often as in all of ScienceQA's test split)",
    }
    (stock,) = BENCHMARKS["chair"].questions(data, data)
    assert describe("chair", list(stock.items.values())).startswith("994 images (no published version; list ")
