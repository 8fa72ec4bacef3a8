"""How a benchmark's items are put to a model and its answers read.

Protocol ``official``: as each model's authors do it. A card names the style its model was tuned on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from repro.benchmarks.benchmark import Item
from repro.benchmarks.scienceqa import LETTERS

#: LLaVA's request for a short answer, after a question of POPE or TextVQA.
SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
#: LLaVA's request for the letter alone.
LETTER_ANSWER = "\nAnswer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Style:
    """How one family is asked and read.

    Attributes:
        ask: the user's turn for an item of the benchmark of that name.
        read: what that benchmark's scorer gets of an answer.
        say: how the family words the answer that ``read`` gives back.
    """

    ask: Callable[[str, Item], str]
    read: Callable[[str, str], str] = lambda benchmark, text: text
    say: Callable[[str, str], str] = lambda benchmark, answer: answer


def lettered(item: Item, between: str = "\n") -> str:
    """The choices as "A. red", one behind the other."""
    return between.join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, item.choices, strict=False))


def ask_llava(benchmark: str, item: Item) -> str:
    """LLaVA's evaluation scripts at c121f04: model_vqa_loader.py, model_vqa_science.py and their question files.

    TextVQA without OCR tokens in the prompt; LLaVA's published figure (58.2 for 7B) has them, and without them it
    is about 12 points lower.
    """
    if benchmark == "pope":
        return item.question + SHORT_ANSWER
    if benchmark == "textvqa":
        # Not str.capitalize(), which lower-cases the rest.
        return item.question[:1].upper() + item.question[1:] + SHORT_ANSWER
    if benchmark == "scienceqa":
        context = f"Context: {item.hint}\n" if item.hint else ""
        return f"{context}{item.question}\n{lettered(item)}".strip() + LETTER_ANSWER
    return item.question


def ask_internvl(benchmark: str, item: Item) -> str:
    """InternVL's internvl_chat/eval: evaluate_pope.py at 0355722 (with LLaVA's question file, and a blank behind
    it), evaluate_vqa.py at 0b25955 (TextVQA without OCR tokens), evaluate_scienceqa.py at 0e7c78f.
    """
    if benchmark == "pope":
        return f"{item.question}{SHORT_ANSWER} "
    if benchmark == "textvqa":
        return f"{item.question} {SHORT_ANSWER.strip()}"
    if benchmark == "scienceqa":
        hint = f"{item.hint}\n" if item.hint else ""
        return f"{hint}{item.question}\n{lettered(item)}{LETTER_ANSWER}"
    return item.question


def ask_qwen_vl(benchmark: str, item: Item) -> str:
    """Qwen-VL's eval_mm at aa00ed0: evaluate_vqa.py and evaluate_multiple_choice.py.

    The script ranks the letters by their logits; here the first letter generated counts. POPE has no official
    prompt and is asked as a VQA data set.
    """
    if benchmark in ("pope", "textvqa"):
        return f"{item.question} Answer:"
    if benchmark == "scienceqa":
        hint = item.hint or "N/A"
        return f"Context: {hint}\nQuestion: {item.question}\nOptions: {lettered(item)}\nAnswer:"
    return item.question


def ask_qwen2_vl(benchmark: str, item: Item) -> str:
    """VLMEvalKit's vlmeval/vlm/qwen2_vl/prompt.py, with which Qwen's team evaluates from Qwen2-VL on.

    Its text of a choice ends with a full stop, the blank behind it is stripped.
    """
    if benchmark == "pope":
        return f"{item.question} Please answer yes or no."
    if benchmark == "textvqa":
        return f"{item.question}\nPlease try to answer the question with short words or phrases if possible."
    if benchmark == "scienceqa":
        hint = f"Hint: {item.hint}\n" if item.hint else ""
        asked = "Please select the correct answer from the options above."
        return f"{hint}Question: {item.question}\nOptions:\n{lettered(item)}\n{asked}"
    return item.question


def ask_instructblip(benchmark: str, item: Item) -> str:
    """LAVIS at 506965b for VQA; for ScienceQA as its maintainers say (salesforce/LAVIS#326)."""
    if benchmark in ("pope", "textvqa"):
        return f"Question: {item.question} Short answer:"
    if benchmark == "scienceqa":
        options = " ".join(
            f"({letter.lower()}) {choice}" for letter, choice in zip(LETTERS, item.choices, strict=False)
        )
        context = f"Context: {item.hint} " if item.hint else ""
        return f"{context}Question: {item.question} Options: {options}. Answer:"
    return item.question


def read_instructblip(benchmark: str, text: str) -> str:
    """Of ScienceQA "(b)" or "(b) blue" the letter, in capitals."""
    found = re.match(r"\s*\(([a-e])\)", text) if benchmark == "scienceqa" else None
    return found[1].upper() if found else text


def ask_shikra(benchmark: str, item: Item) -> str:
    """One of the 140 templates of Shikra's VQA.json at ff79a4c, where its authors draw one per question."""
    if benchmark == "chair":
        return item.question
    asked = f"{item.question}\n{lettered(item)}" if item.choices else item.question
    if item.hint:
        asked = f"Context: {item.hint}\n{asked}"
    return f"For this image <image>, I want a simple and direct answer to my question: {asked}"


def read_shikra(benchmark: str, text: str) -> str:
    """What stands behind "The answer is", without the closing full stop."""
    found = re.search(r"[Tt]he answer is (.+)", text) if benchmark != "chair" else None
    return found[1].rstrip(" .") if found else text


def say_shikra(benchmark: str, answer: str) -> str:
    """An answer as Shikra was tuned to give it."""
    return answer if benchmark == "chair" else f"The answer is {answer} ."


OFFICIAL = {
    "llava": Style(ask_llava),
    "internvl": Style(ask_internvl),
    "qwen_vl": Style(ask_qwen_vl),
    "qwen2_vl": Style(ask_qwen2_vl),
    "instructblip": Style(
        ask_instructblip,
        read_instructblip,
        lambda benchmark, answer: f"({answer.lower()})" if benchmark == "scienceqa" else answer,
    ),
    "shikra": Style(ask_shikra, read_shikra, say_shikra),
}
