"""Is every model asked and read as its authors' scripts do it?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repro.benchmarks.benchmark import Item
from repro.benchmarks.scienceqa import LETTERS, chosen_letter
from repro.models.card import REGISTRY
from repro.protocols import OFFICIAL

pytestmark = pytest.mark.conformance

RENDERED = json.loads((Path(__file__).parent / "vectors" / "scienceqa.json").read_text())["prompt_cases"]


def item(question: str, hint: str = "", choices: tuple[str, ...] = ()) -> Item:
    return Item("1", Path(), question, None, hint=hint, choices=choices)


CAPTION = item("Please describe this image in detail.")
CHOICE = item("Which?", "A hint.", ("red", "blue"))


def test_every_card_names_a_style():
    assert {card.style for card in REGISTRY.values()} <= set(OFFICIAL)


@pytest.mark.parametrize("case", RENDERED, ids=lambda case: case["question"])
def test_llava_is_asked_science_questions_as_recorded(case):
    asked = OFFICIAL["llava"].ask("scienceqa", item(case["question"], case["hint"], tuple(case["choices"])))
    assert asked == case["expected_default"]


@pytest.mark.parametrize(
    ("style", "name", "asked", "expected"),
    [
        (
            "llava",
            "pope",
            item("Is there a cat in the imange?"),
            "Is there a cat in the imange?\nAnswer the question using a single word or phrase.",
        ),
        (
            "llava",
            "textvqa",
            item("what does USPS mean?"),
            "What does USPS mean?\nAnswer the question using a single word or phrase.",
        ),
        ("llava", "chair", CAPTION, "Please describe this image in detail."),
        (
            "internvl",
            "pope",
            item("Is there a cat?"),
            "Is there a cat?\nAnswer the question using a single word or phrase. ",
        ),
        (
            "internvl",
            "textvqa",
            item("what does USPS mean?"),
            "what does USPS mean? Answer the question using a single word or phrase.",
        ),
        (
            "internvl",
            "scienceqa",
            CHOICE,
            "A hint.\nWhich?\nA. red\nB. blue\nAnswer with the option's letter from the given choices directly.",
        ),
        ("internvl", "chair", CAPTION, "Please describe this image in detail."),
        ("qwen_vl", "pope", item("Is there a cat?"), "Is there a cat? Answer:"),
        ("qwen_vl", "textvqa", item("what does USPS mean?"), "what does USPS mean? Answer:"),
        (
            "qwen_vl",
            "scienceqa",
            CHOICE,
            "Context: A hint.\nQuestion: Which?\nOptions: A. red\nB. blue\nAnswer:",
        ),
        (
            "qwen_vl",
            "scienceqa",
            item("Which?", "", ("x", "y")),
            "Context: N/A\nQuestion: Which?\nOptions: A. x\nB. y\nAnswer:",
        ),
        ("qwen2_vl", "pope", item("Is there a cat?"), "Is there a cat? Please answer yes or no."),
        (
            "qwen2_vl",
            "textvqa",
            item("what does USPS mean?"),
            "what does USPS mean?\nPlease try to answer the question with short words or phrases if possible.",
        ),
        (
            "qwen2_vl",
            "scienceqa",
            CHOICE,
            "Hint: A hint.\nQuestion: Which?\nOptions:\nA. red\nB. blue\n"
            "Please select the correct answer from the options above.",
        ),
        ("instructblip", "pope", item("Is there a cat?"), "Question: Is there a cat? Short answer:"),
        (
            "instructblip",
            "scienceqa",
            CHOICE,
            "Context: A hint. Question: Which? Options: (a) red (b) blue. Answer:",
        ),
        (
            "shikra",
            "pope",
            item("Is there a cat?"),
            "For this image <image>, I want a simple and direct answer to my question: Is there a cat?",
        ),
        (
            "shikra",
            "scienceqa",
            CHOICE,
            "For this image <image>, I want a simple and direct answer to my question: Context: A hint.\nWhich?\n"
            "A. red\nB. blue",
        ),
        ("shikra", "chair", CAPTION, "Please describe this image in detail."),
    ],
)
def test_questions_are_worded_as_the_authors_word_them(style, name, asked, expected):
    assert OFFICIAL[style].ask(name, asked) == expected


def test_braces_in_a_question_are_text():
    for style in OFFICIAL.values():
        for benchmark in ("pope", "scienceqa", "textvqa", "chair"):
            assert "{0} {question}" in style.ask(benchmark, item("{0} {question}", "", ("x", "y")))


@pytest.mark.parametrize(
    ("style", "name", "text", "expected"),
    [
        ("instructblip", "scienceqa", "(b)", "B"),
        ("instructblip", "scienceqa", " (a) red", "A"),
        ("instructblip", "scienceqa", "blue", "blue"),
        ("instructblip", "textvqa", "(b)", "(b)"),
        ("shikra", "pope", "The answer is no .", "no"),
        ("shikra", "textvqa", "The answer is 4.2.", "4.2"),
        ("shikra", "textvqa", "I see. So the answer is a cat .", "a cat"),
        ("shikra", "pope", "Nothing", "Nothing"),
        ("shikra", "chair", "The answer is a cat.", "The answer is a cat."),
        ("llava", "scienceqa", "(b)", "(b)"),
    ],
)
def test_answers_are_read_as_the_authors_read_them(style, name, text, expected):
    assert OFFICIAL[style].read(name, text) == expected


@pytest.mark.parametrize("style", OFFICIAL)
def test_what_a_family_says_is_read_as_what_was_meant(style):
    for letter in LETTERS:
        said = OFFICIAL[style].say("scienceqa", letter)
        assert chosen_letter(OFFICIAL[style].read("scienceqa", said)) == letter
    for benchmark, answer in (("pope", "No"), ("textvqa", "42"), ("chair", "A cat.")):
        assert OFFICIAL[style].read(benchmark, OFFICIAL[style].say(benchmark, answer)) == answer
