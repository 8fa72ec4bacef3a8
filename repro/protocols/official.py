"""Protocol ``official``: every model as its authors ask it. A card names the style its model was tuned on.

A style has a ``Wording`` for each benchmark; for what it has none, the protocol does not define the benchmark.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from repro.benchmarks import BENCHMARKS, scienceqa, textvqa
from repro.benchmarks.benchmark import Item, Score
from repro.benchmarks.scienceqa import LETTERS
from repro.models.card import REGISTRY
from repro.protocols.task import Task

#: LLaVA's request for a short answer, after a question of POPE or TextVQA.
SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
#: LLaVA's request for the letter alone.
LETTER_ANSWER = "\nAnswer with the option's letter from the given choices directly."
#: Longest caption in tokens: captions have no script of the models' authors, so OPERA's.
CAPTION_TOKENS = 512


@dataclass(frozen=True)
class Wording:
    """How one family's authors put one benchmark, and what they read.

    Attributes:
        ask: the user's turn for an item.
        max_new_tokens: longest answer.
        read: what the benchmark's scorer gets of an answer.
        say: how the family words the answer that ``read`` gives back.
        score: the authors' own scorer, where it is not the benchmark's official one.
    """

    ask: Callable[[Item], str]
    max_new_tokens: int
    read: Callable[[str], str] = str
    say: Callable[[str], str] = str
    score: Score | None = None


#: Wordings of one family's authors by the name of the benchmark.
Style = Mapping[str, Wording]


def lettered(item: Item, between: str = "\n") -> str:
    """The choices as "A. red", one behind the other."""
    return between.join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, item.choices, strict=False))


def ask_caption(item: Item) -> str:
    """The request for a caption as the benchmark words it."""
    return item.question


CAPTION = Wording(ask_caption, CAPTION_TOKENS)


# LLaVA's evaluation scripts at c121f04: model_vqa_loader.py, model_vqa_science.py and their question files.


def _llava_textvqa(item: Item) -> str:
    """Without OCR tokens, which LLaVA's published figure (58.2 for 7B) has: it is about 12 points lower so."""
    # Not str.capitalize(), which lower-cases the rest.
    return item.question[:1].upper() + item.question[1:] + SHORT_ANSWER


def _llava_scienceqa(item: Item) -> str:
    context = f"Context: {item.hint}\n" if item.hint else ""
    return f"{context}{item.question}\n{lettered(item)}".strip() + LETTER_ANSWER


LLAVA: Style = {
    "pope": Wording(lambda item: item.question + SHORT_ANSWER, 128),
    "scienceqa": Wording(_llava_scienceqa, 1024),
    "textvqa": Wording(_llava_textvqa, 128),
    "chair": CAPTION,
}


# InternVL's internvl_chat/eval: evaluate_pope.py at 0355722 (with LLaVA's question file, and a blank behind it),
# evaluate_vqa.py at 0b25955 (TextVQA without OCR tokens), evaluate_scienceqa.py at 0e7c78f.


def _internvl_scienceqa(item: Item) -> str:
    hint = f"{item.hint}\n" if item.hint else ""
    return f"{hint}{item.question}\n{lettered(item)}{LETTER_ANSWER}"


INTERNVL: Style = {
    "pope": Wording(lambda item: f"{item.question}{SHORT_ANSWER} ", 100),
    "scienceqa": Wording(_internvl_scienceqa, 100, score=scienceqa.score_internvl),
    "textvqa": Wording(lambda item: f"{item.question} {SHORT_ANSWER.strip()}", 10),
    "chair": CAPTION,
}


# Qwen-VL's eval_mm at aa00ed0: evaluate_vqa.py, which cuts answers short, and evaluate_multiple_choice.py. POPE
# has no official prompt and is asked as a VQA benchmark.


def _qwen_vl_vqa(item: Item) -> str:
    return f"{item.question} Answer:"


def _qwen_vl_scienceqa(item: Item) -> str:
    """The script ranks the letters by their logits; here the first letter generated counts."""
    hint = item.hint or "N/A"
    return f"Context: {hint}\nQuestion: {item.question}\nOptions: {lettered(item)}\nAnswer:"


QWEN_VL: Style = {
    "pope": Wording(_qwen_vl_vqa, 10),
    "scienceqa": Wording(_qwen_vl_scienceqa, 10),
    "textvqa": Wording(_qwen_vl_vqa, 10, score=textvqa.score_vqa_eval),
    "chair": CAPTION,
}


# VLMEvalKit's vlmeval/vlm/qwen2_vl at 002f7b7, prompt.py and model.py: Qwen's team uses it since Qwen2-VL.


def _qwen2_vl_scienceqa(item: Item) -> str:
    """VLMEvalKit's text of a choice ends with a full stop, the blank behind it is stripped."""
    hint = f"Hint: {item.hint}\n" if item.hint else ""
    request = "Please select the correct answer from the options above."
    return f"{hint}Question: {item.question}\nOptions:\n{lettered(item)}\n{request}"


QWEN2_VL: Style = {
    "pope": Wording(lambda item: f"{item.question} Please answer yes or no.", 2048),
    "scienceqa": Wording(_qwen2_vl_scienceqa, 2048),
    "textvqa": Wording(
        lambda item: (
            f"{item.question}\nPlease try to answer the question with short words or phrases if possible."
        ),
        2048,
    ),
    "chair": CAPTION,
}


# LAVIS at 506965b for VQA, whose configurations cut answers short; for ScienceQA as its maintainers say
# (salesforce/LAVIS#326).


def _instructblip_vqa(item: Item) -> str:
    return f"Question: {item.question} Short answer:"


def _instructblip_scienceqa(item: Item) -> str:
    options = " ".join(
        f"({letter.lower()}) {choice}" for letter, choice in zip(LETTERS, item.choices, strict=False)
    )
    context = f"Context: {item.hint} " if item.hint else ""
    return f"{context}Question: {item.question} Options: {options}. Answer:"


def _instructblip_letter(text: str) -> str:
    """Of "(b)" or "(b) blue" the letter, in capitals."""
    match = re.match(r"\s*\(([a-e])\)", text)
    return match[1].upper() if match else text


INSTRUCTBLIP: Style = {
    "pope": Wording(_instructblip_vqa, 10),
    "scienceqa": Wording(
        _instructblip_scienceqa, 10, _instructblip_letter, lambda answer: f"({answer.lower()})"
    ),
    "textvqa": Wording(_instructblip_vqa, 10),
    "chair": CAPTION,
}


# Shikra's VQA.json at ff79a4c; its authors draw one of 140 templates per question, here it is always the same.


def _shikra_question(item: Item) -> str:
    question = f"{item.question}\n{lettered(item)}" if item.choices else item.question
    if item.hint:
        question = f"Context: {item.hint}\n{question}"
    return f"For this image <image>, I want a simple and direct answer to my question: {question}"


def _shikra_answer(text: str) -> str:
    """What stands behind "The answer is", without the closing full stop."""
    match = re.search(r"[Tt]he answer is (.+)", text)
    return match[1].rstrip(" .") if match else text


def _shikra(max_new_tokens: int) -> Wording:
    return Wording(
        _shikra_question, max_new_tokens, _shikra_answer, lambda answer: f"The answer is {answer} ."
    )


SHIKRA: Style = {
    "pope": _shikra(128),
    "scienceqa": _shikra(1024),
    "textvqa": _shikra(128),
    "chair": CAPTION,
}

#: By the name that a card gives.
STYLES: dict[str, Style] = {
    "llava": LLAVA,
    "internvl": INTERNVL,
    "qwen_vl": QWEN_VL,
    "qwen2_vl": QWEN2_VL,
    "instructblip": INSTRUCTBLIP,
    "shikra": SHIKRA,
}

#: Models and benchmarks whose pictures the authors crop: of internvl_chat_llava (OpenGVLab/InternVL at 2410d1d)
#: model_vqa_science.py gives them to the processor as they are, where model_vqa_loader.py pads them first.
CROPPED = {("intern-vl", "scienceqa")}


def tasks() -> Iterator[Task]:
    """Every registered model on every benchmark that its style has a wording for."""
    for model, card in REGISTRY.items():
        for name, wording in STYLES[card.style].items():
            benchmark = BENCHMARKS[name]
            yield Task(
                protocol="official",
                model=model,
                benchmark=benchmark,
                ask=wording.ask,
                max_new_tokens=wording.max_new_tokens,
                score=wording.score or benchmark.score,
                read=wording.read,
                crop=(model, name) in CROPPED,
            )
