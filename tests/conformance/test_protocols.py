"""Is every model asked and read as its authors' scripts do it, and as those of the other protocols do?"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from repro.benchmarks import BENCHMARKS, chair, pope, scienceqa, textvqa
from repro.benchmarks.benchmark import Item
from repro.benchmarks.scienceqa import LETTERS, chosen_letter
from repro.models.card import REGISTRY, VICUNA
from repro.protocols import PROTOCOLS, ProtocolError, find_task, tasks_of
from repro.protocols.official import STYLES

pytestmark = pytest.mark.conformance

RENDERED = json.loads((Path(__file__).parent / "vectors" / "scienceqa.json").read_text())["prompt_cases"]


def item(question: str, hint: str = "", choices: tuple[str, ...] = ()) -> Item:
    return Item("1", Path(), question, None, hint=hint, choices=choices)


CAPTION = item("Please describe this image in detail.")
CHOICE = item("Which?", "A hint.", ("red", "blue"))


def test_every_card_names_a_style():
    assert {card.style for card in REGISTRY.values()} <= set(STYLES)


@pytest.mark.parametrize("case", RENDERED, ids=lambda case: case["question"])
def test_llava_is_asked_science_questions_as_recorded(case):
    asked = STYLES["llava"]["scienceqa"].ask(item(case["question"], case["hint"], tuple(case["choices"])))
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
    assert STYLES[style][name].ask(asked) == expected


def test_braces_in_a_question_are_text():
    for style in STYLES.values():
        for benchmark in BENCHMARKS:
            assert "{0} {question}" in style[benchmark].ask(item("{0} {question}", "", ("x", "y")))


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
    assert STYLES[style][name].read(text) == expected


@pytest.mark.parametrize("style", STYLES)
def test_what_a_family_says_is_read_as_what_was_meant(style):
    wordings = STYLES[style]
    for letter in LETTERS:
        said = wordings["scienceqa"].say(letter)
        assert chosen_letter(wordings["scienceqa"].read(said)) == letter
    for name, answer in (("pope", "No"), ("textvqa", "42"), ("chair", "A cat.")):
        assert wordings[name].read(wordings[name].say(answer)) == answer


def test_the_official_protocol_defines_everything_and_follows_the_styles():
    assert set(tasks_of("official")) == {(model, name) for model in REGISTRY for name in BENCHMARKS}
    for (model, name), task in tasks_of("official").items():
        wording = STYLES[REGISTRY[model].style][name]
        asked = item("Is it?", "A hint.", ("red", "blue"))
        assert task.ask(asked) == wording.ask(asked)
        for said in ("(b)", "The answer is no ."):
            assert task.read(said) == wording.read(said)
        assert (task.template, task.pooled, task.repetition_penalty) == (None, False, 1)


@pytest.mark.parametrize(
    ("protocol", "models", "benchmarks"),
    [
        ("opera", {"llava-1.5", "instructblip", "shikra"}, {"pope", "chair"}),
        ("lmms-eval", {"llava-1.5", "llava-1.6", "instructblip", "qwen-vl"}, set(BENCHMARKS)),
    ],
)
def test_the_other_protocols_define_what_their_scripts_do(protocol, models, benchmarks):
    assert set(tasks_of(protocol)) == {(model, name) for model in models for name in benchmarks}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            ("opera", "llava-1.5", "textvqa"),
            "opera does not define textvqa for llava-1.5; it defines pope, chair for",
        ),
        (("opera", "qwen-vl", "pope"), "pope for qwen-vl; .* for llava-1.5, instructblip, shikra"),
        (("lmms-eval", "shikra", "pope"), "lmms-eval does not define pope for shikra"),
        (
            ("lmms", "llava-1.5", "pope"),
            "no protocol 'lmms'; the protocols are official, chat, opera, lmms-eval",
        ),
    ],
)
def test_what_a_protocol_does_not_define_has_no_fallback(asked, words):
    protocol, model, name = asked
    with pytest.raises(ProtocolError, match=words):
        find_task(protocol, model, BENCHMARKS[name])


def test_a_style_without_a_wording_defines_nothing(monkeypatch):
    monkeypatch.setitem(STYLES, "shikra", {"pope": STYLES["shikra"]["pope"]})
    with pytest.raises(ProtocolError, match="official does not define chair for shikra"):
        find_task("official", "shikra", BENCHMARKS["chair"])
    assert find_task("official", "shikra", BENCHMARKS["pope"]).model == "shikra"


def test_a_variant_of_a_benchmark_is_asked_as_the_benchmark():
    for protocol in PROTOCOLS:
        exact, plain = (find_task(protocol, "llava-1.5", chair.BY_MODE[mode]) for mode in ("exact", "approx"))
        assert (exact.benchmark.mode, plain.benchmark.mode) == ("exact", "approx")
        assert exact.ask(CAPTION) == plain.ask(CAPTION) and exact.score is plain.score
        assert exact.max_new_tokens == plain.max_new_tokens > 128


def test_a_model_added_later_has_official_tasks_and_no_others(monkeypatch):
    card = dataclasses.replace(REGISTRY["qwen2.5-vl"], name="added")
    monkeypatch.setitem(REGISTRY, "added", card)
    for name in BENCHMARKS:
        asked = find_task("official", "added", BENCHMARKS[name]).ask(CHOICE)
        assert asked == find_task("official", "qwen2.5-vl", BENCHMARKS[name]).ask(CHOICE)
    for protocol in ("opera", "lmms-eval"):
        with pytest.raises(ProtocolError, match=f"{protocol} does not define pope for added"):
            find_task(protocol, "added", BENCHMARKS["pope"])


@pytest.mark.parametrize(
    ("protocol", "model", "tokens"),
    [
        ("official", "llava-1.5", {"pope": 128, "scienceqa": 1024, "textvqa": 128, "chair": 512}),
        ("official", "intern-vl", {"pope": 128, "scienceqa": 1024, "textvqa": 128, "chair": 512}),
        ("official", "qwen-vl", {"pope": 10, "textvqa": 10, "chair": 512}),
        ("official", "instructblip", {"pope": 10, "textvqa": 10, "chair": 512}),
        ("official", "internvl3", {"pope": 100, "scienceqa": 100, "textvqa": 10, "chair": 512}),
        ("official", "qwen2.5-vl", {"pope": 2048, "scienceqa": 2048, "textvqa": 2048, "chair": 512}),
        ("opera", "shikra", {"pope": 512, "chair": 512}),
        ("lmms-eval", "llava-1.5", {"pope": 128, "scienceqa": 16, "textvqa": 1024, "chair": 2048}),
        ("lmms-eval", "qwen-vl", {"pope": 128, "scienceqa": 16, "textvqa": 1024, "chair": 2048}),
    ],
)
def test_answers_are_as_long_as_the_scripts_allow(protocol, model, tokens):
    for name, longest in tokens.items():
        assert find_task(protocol, model, BENCHMARKS[name]).max_new_tokens == longest


@pytest.mark.parametrize(
    ("protocol", "model", "name", "asked", "expected"),
    [
        (
            "opera",
            "llava-1.5",
            "pope",
            item("Is there a cat in the imange?"),
            "Is there a cat in the imange?",
        ),
        ("opera", "shikra", "chair", CAPTION, "Please describe this image in detail."),
        (
            "lmms-eval",
            "llava-1.5",
            "pope",
            item(" Is there a cat? "),
            "Is there a cat?\nAnswer the question using a single word or phrase.",
        ),
        (
            "lmms-eval",
            "qwen-vl",
            "pope",
            item("Is there a cat?"),
            "Is there a cat?\nAnswer the question using a single word or phrase.",
        ),
        (
            "lmms-eval",
            "llava-1.6",
            "textvqa",
            item("what does USPS mean?"),
            "What does usps mean?\nAnswer the question using a single word or phrase.",
        ),
        ("lmms-eval", "qwen-vl", "textvqa", item("what does USPS mean?"), "What does usps mean? Answer:"),
        (
            "lmms-eval",
            "instructblip",
            "scienceqa",
            CHOICE,
            "Context: A hint.\nWhich?\nA. red\nB. blue\n"
            "Answer with the option's letter from the given choices directly.",
        ),
        (
            "lmms-eval",
            "qwen-vl",
            "scienceqa",
            item("Which?", "", ("x", "y")),
            "Context: N/A\nQuestion: Which?\nOptions: A. x\nB. y\nAnswer:",
        ),
        ("lmms-eval", "qwen-vl", "chair", CAPTION, "Please describe this image in detail."),
    ],
)
def test_questions_are_worded_as_the_other_scripts_word_them(protocol, model, name, asked, expected):
    assert find_task(protocol, model, BENCHMARKS[name]).ask(asked) == expected


@pytest.mark.parametrize("case", RENDERED, ids=lambda case: case["question"])
def test_lmms_eval_asks_science_questions_as_recorded(case):
    asked = item(case["question"], case["hint"], tuple(case["choices"]))
    assert find_task("lmms-eval", "llava-1.5", BENCHMARKS["scienceqa"]).ask(asked) == case["expected_default"]
    for protocol in ("official", "lmms-eval"):
        assert find_task(protocol, "qwen-vl", BENCHMARKS["scienceqa"]).ask(asked) == case["expected_qwen_vl"]


def test_no_protocol_gives_ocr_tokens_to_the_model():
    """LLaVA's published figure of TextVQA has them, lmms-eval's default has not."""
    for task in (task for tasks in PROTOCOLS.values() for task in tasks()):
        assert task.benchmark is not textvqa.TEXTVQA or "OCR" not in task.ask(item("What does it say?"))


def test_prompts_of_the_papers_scripts_have_no_blank_before_user_and_no_newline():
    system = VICUNA.partition(" USER")[0]
    assert system.endswith("questions.")
    for name in ("pope", "chair"):
        assert (
            find_task("opera", "llava-1.5", BENCHMARKS[name]).template
            == f"{system}USER: <image> {{question}} ASSISTANT:"
        )
        # Shikra puts its image before a question that has none.
        assert (
            find_task("opera", "shikra", BENCHMARKS[name]).template
            == f"{system}USER: {{question}} ASSISTANT:"
        )
        assert find_task("opera", "instructblip", BENCHMARKS[name]).template is None
        assert REGISTRY["instructblip"].template == "{question}"
        assert (
            find_task("lmms-eval", "qwen-vl", BENCHMARKS[name]).template == "Picture 1: <image>\n{question}"
        )


def test_pictures_are_cropped_where_the_scripts_use_clips_processor():
    cropping = {(protocol, "llava-1.5", name) for protocol in ("opera", "lmms-eval") for name in BENCHMARKS}
    cropping |= {("opera", "shikra", name) for name in BENCHMARKS} | {("official", "intern-vl", "scienceqa")}
    for protocol in PROTOCOLS:
        for (model, name), task in tasks_of(protocol).items():
            assert task.crop == ((protocol, model, name) in cropping)


def test_only_operas_instructblip_is_penalised_for_repetitions():
    for protocol in PROTOCOLS:
        for (model, _), task in tasks_of(protocol).items():
            assert task.repetition_penalty == (1.5 if (protocol, model) == ("opera", "instructblip") else 1)


@pytest.mark.parametrize(
    ("protocol", "model", "name", "text", "expected"),
    [
        ("opera", "llava-1.5", "pope", "No ### Human: Yes", "No"),
        ("opera", "shikra", "pope", "Yes ASSISTANT: No", "No"),
        ("opera", "shikra", "pope", "The answer is no .", "The answer is no ."),
        ("opera", "instructblip", "chair", "A ### cat.", "A ### cat."),
        ("lmms-eval", "qwen-vl", "pope", "No\n\nYes", "No"),
        ("lmms-eval", "qwen-vl", "scienceqa", "A\n\nQuestion:", "A"),
        ("lmms-eval", "qwen-vl", "textvqa", "stop ASSISTANT: go", "stop "),
        ("lmms-eval", "qwen-vl", "chair", "A cat.\n\nA dog.", "A cat.\n\nA dog."),
        ("lmms-eval", "llava-1.5", "pope", "No\n\nYes", "No\n\nYes"),
        ("lmms-eval", "instructblip", "scienceqa", "(b)", "(b)"),
    ],
)
def test_answers_are_read_as_the_other_scripts_read_them(protocol, model, name, text, expected):
    assert find_task(protocol, model, BENCHMARKS[name]).read(text) == expected


@pytest.mark.parametrize(
    ("protocol", "model", "name", "score", "pooled"),
    [
        ("official", "llava-1.5", "pope", pope.score, False),
        ("official", "qwen-vl", "textvqa", textvqa.score_vqa_eval, False),
        ("official", "intern-vl", "textvqa", textvqa.score, False),
        ("official", "intern-vl", "scienceqa", scienceqa.score, False),
        ("official", "internvl3", "scienceqa", scienceqa.score_internvl, False),
        ("opera", "llava-1.5", "pope", pope.score_opera, False),
        ("lmms-eval", "llava-1.5", "pope", pope.score_lmms_eval, True),
        ("lmms-eval", "qwen-vl", "scienceqa", scienceqa.score_lmms_eval, True),
        ("lmms-eval", "qwen-vl", "textvqa", textvqa.score, True),
    ],
)
def test_scores_are_those_of_the_protocols_evaluator(protocol, model, name, score, pooled):
    task = find_task(protocol, model, BENCHMARKS[name])
    assert (task.score, task.pooled) == (score, pooled)
