"""Protocol ``official``: every model as its authors ask it. A card names the style its model was tuned on.

A style has a ``Wording`` for each benchmark; the protocol does not define a benchmark without one.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

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
    """How one family's authors ask a benchmark and read the answers.

    Attributes:
        ask: the user's turn for an item.
        max_new_tokens: longest answer.
        read: the part of an answer that the scorer gets.
        say: the inverse of ``read``: how the family words an answer.
        score: the authors' own scorer, if it is not the benchmark's official one.
    """

    ask: Callable[[Item], str]
    max_new_tokens: int
    read: Callable[[str], str] = str
    say: Callable[[str], str] = str
    score: Score | None = None


#: Wordings of one family's authors by the name of the benchmark.
Style = Mapping[str, Wording]


def lettered(item: Item) -> str:
    """The choices as "A. red", a line each."""
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, item.choices, strict=False))


def asking(text: str, hint: str = "", no_hint: str = "") -> Callable[[Item], str]:
    """The user's turn by a text with ``{question}`` and, for ScienceQA, ``{choices}`` and ``{hint}``.

    Args:
        hint: how a hint is worded, with ``{}``; ``no_hint`` takes its place for items without one.
    """

    def ask(item: Item) -> str:
        context = hint.format(item.hint) if item.hint else no_hint
        return text.format(question=item.question, choices=lettered(item), hint=context)

    return ask


bare = asking("{question}")
CAPTION = Wording(bare, CAPTION_TOKENS)


# LLaVA's evaluation scripts at c121f04: model_vqa_loader.py, model_vqa_science.py and their question files.


def _llava_textvqa(item: Item) -> str:
    """Without the OCR tokens behind LLaVA's published score (58.2 for 7B), which is about 12 points lower so."""
    # Not str.capitalize(), which lower-cases the rest.
    return item.question[:1].upper() + item.question[1:] + SHORT_ANSWER


def _llava_scienceqa(item: Item) -> str:
    return asking("{hint}{question}\n{choices}", "Context: {}\n")(item).strip() + LETTER_ANSWER


LLAVA: Style = {
    "pope": Wording(asking("{question}" + SHORT_ANSWER), 128),
    "scienceqa": Wording(_llava_scienceqa, 1024),
    "textvqa": Wording(_llava_textvqa, 128),
    "chair": CAPTION,
}

# InternVL's internvl_chat/eval: evaluate_pope.py at 0355722 (with LLaVA's question file, and a blank at the end),
# evaluate_vqa.py at 0b25955 (TextVQA without OCR tokens), evaluate_scienceqa.py at 0e7c78f.
_INTERNVL_CHOICES = asking("{hint}{question}\n{choices}" + LETTER_ANSWER, "{}\n")
INTERNVL: Style = {
    "pope": Wording(asking("{question}" + SHORT_ANSWER + " "), 100),
    "scienceqa": Wording(_INTERNVL_CHOICES, 100, score=scienceqa.score_internvl),
    "textvqa": Wording(asking("{question} " + SHORT_ANSWER.strip()), 10),
    "chair": CAPTION,
}

# Qwen-VL's eval_mm at aa00ed0: evaluate_vqa.py, which cuts answers short, and evaluate_multiple_choice.py, which
# ranks the letters by their logits; here the first letter generated counts. POPE has no official prompt and is
# asked as a VQA benchmark.
_QWEN_VL_VQA = asking("{question} Answer:")
_QWEN_VL_CHOICES = asking("Context: {hint}\nQuestion: {question}\nOptions: {choices}\nAnswer:", "{}", "N/A")
QWEN_VL: Style = {
    "pope": Wording(_QWEN_VL_VQA, 10),
    "scienceqa": Wording(_QWEN_VL_CHOICES, 10),
    "textvqa": Wording(_QWEN_VL_VQA, 10, score=textvqa.score_vqa_eval),
    "chair": CAPTION,
}

# VLMEvalKit's vlmeval/vlm/qwen2_vl at 002f7b7, prompt.py and model.py: Qwen's team uses it since Qwen2-VL. Its
# request for choices ends with a full stop; the blank after it is stripped.
_QWEN2_VL_SHORT = "\nPlease try to answer the question with short words or phrases if possible."
_QWEN2_VL_CHOICES = "\nPlease select the correct answer from the options above."
QWEN2_VL: Style = {
    "pope": Wording(asking("{question} Please answer yes or no."), 2048),
    "scienceqa": Wording(
        asking("{hint}Question: {question}\nOptions:\n{choices}" + _QWEN2_VL_CHOICES, "Hint: {}\n"), 2048
    ),
    "textvqa": Wording(asking("{question}" + _QWEN2_VL_SHORT), 2048),
    "chair": CAPTION,
}


# LAVIS at 506965b for VQA, with configurations that cut answers short; for ScienceQA as its maintainers say
# (salesforce/LAVIS#326).


def _instructblip_scienceqa(item: Item) -> str:
    context = f"Context: {item.hint} " if item.hint else ""
    options = " ".join(f"({letter}) {choice}" for letter, choice in zip("abcde", item.choices, strict=False))
    return f"{context}Question: {item.question} Options: {options}. Answer:"


def _instructblip_letter(text: str) -> str:
    """The capital letter of "(b)" or "(b) blue"."""
    match = re.match(r"\s*\(([a-e])\)", text)
    return match[1].upper() if match else text


def _instructblip_option(letter: str) -> str:
    return f"({letter.lower()})"


_INSTRUCTBLIP_VQA = asking("Question: {question} Short answer:")
INSTRUCTBLIP: Style = {
    "pope": Wording(_INSTRUCTBLIP_VQA, 10),
    "scienceqa": Wording(_instructblip_scienceqa, 10, _instructblip_letter, _instructblip_option),
    "textvqa": Wording(_INSTRUCTBLIP_VQA, 10),
    "chair": CAPTION,
}


# Shikra's VQA.json at ff79a4c; its authors draw one of 140 templates per question, here it is always this one.


def _shikra_question(item: Item) -> str:
    question = f"{item.question}\n{lettered(item)}" if item.choices else item.question
    if item.hint:
        question = f"Context: {item.hint}\n{question}"
    return f"For this image <image>, I want a simple and direct answer to my question: {question}"


def _shikra_answer(text: str) -> str:
    """What follows "The answer is", without the closing full stop."""
    match = re.search(r"[Tt]he answer is (.+)", text)
    return match[1].rstrip(" .") if match else text


_SHIKRA = Wording(_shikra_question, 128, _shikra_answer, "The answer is {} .".format)
SHIKRA: Style = {
    "pope": _SHIKRA,
    "scienceqa": replace(_SHIKRA, max_new_tokens=1024),
    "textvqa": _SHIKRA,
    "chair": CAPTION,
}

#: By the name in the cards.
STYLES: dict[str, Style] = {
    "llava": LLAVA,
    "internvl": INTERNVL,
    "qwen_vl": QWEN_VL,
    "qwen2_vl": QWEN2_VL,
    "instructblip": INSTRUCTBLIP,
    "shikra": SHIKRA,
}

#: Models and benchmarks whose images the authors crop: in internvl_chat_llava (OpenGVLab/InternVL at 2410d1d)
#: model_vqa_science.py passes them to the processor unpadded, while model_vqa_loader.py pads them first.
CROPPED = {("intern-vl", "scienceqa")}


def tasks() -> Iterator[Task]:
    """Every registered model on every benchmark for which its style has a wording."""
    for model, card in REGISTRY.items():
        for name, wording in STYLES.get(card.style, {}).items():
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
