"""How a benchmark's items are put to a model, and its answers read and scored: one ``Task`` in ``PROTOCOLS``.

- ``official``: as each model's authors do it. A card names the style its model was tuned on.
- ``opera``: as the scripts the paper released do it. They are OPERA's: POPE and CHAIR, for three models.
- ``lmms-eval``: as the tasks and model classes of lmms-eval do it.

Decoding is greedy under all of them. OPERA's commands say ``--beam 5``, and LAVIS uses five beams; the paper says
greedy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from repro.benchmarks import BENCHMARKS, chair, pope, scienceqa, textvqa
from repro.benchmarks.benchmark import Item, Score
from repro.benchmarks.scienceqa import LETTERS
from repro.models.card import REGISTRY, VICUNA

#: LLaVA's request for a short answer, after a question of POPE or TextVQA.
SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
#: LLaVA's request for the letter alone.
LETTER_ANSWER = "\nAnswer with the option's letter from the given choices directly."


#: Longest answers in tokens: LLaVA's scripts; captions, which have no script of the models' authors, as OPERA's.
LLAVA_TOKENS = {"pope": 128, "scienceqa": 1024, "textvqa": 128, "chair": 512}
#: The same where short answers are cut short: Qwen-VL's evaluate_vqa.py, LAVIS's VQA configurations.
SHORT_TOKENS = {"pope": 10, "scienceqa": 10, "textvqa": 10, "chair": 512}
#: InternVL's three scripts, see ``ask_internvl``.
INTERNVL_TOKENS = {"pope": 100, "scienceqa": 100, "textvqa": 10, "chair": 512}
#: VLMEvalKit's vlmeval/vlm/qwen2_vl/model.py at 002f7b7.
QWEN2_VL_TOKENS = {"pope": 2048, "scienceqa": 2048, "textvqa": 2048, "chair": 512}


@dataclass(frozen=True)
class Style:
    """How one family's authors ask and read.

    Attributes:
        ask: the user's turn for an item of the benchmark of that name.
        read: what that benchmark's scorer gets of an answer.
        say: how the family words the answer that ``read`` gives back.
        max_new_tokens: longest answer by benchmark.
        score: the authors' own scorer by benchmark, where it is not the benchmark's official one.
    """

    ask: Callable[[str, Item], str]
    read: Callable[[str, str], str] = lambda benchmark, text: text
    say: Callable[[str, str], str] = lambda benchmark, answer: answer
    max_new_tokens: Mapping[str, int] = field(default_factory=lambda: LLAVA_TOKENS)
    score: Mapping[str, Score] = field(default_factory=dict)


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
    "internvl": Style(
        ask_internvl, max_new_tokens=INTERNVL_TOKENS, score={"scienceqa": scienceqa.score_internvl}
    ),
    "qwen_vl": Style(ask_qwen_vl, max_new_tokens=SHORT_TOKENS, score={"textvqa": textvqa.score_vqa_eval}),
    "qwen2_vl": Style(ask_qwen2_vl, max_new_tokens=QWEN2_VL_TOKENS),
    "instructblip": Style(
        ask_instructblip,
        read_instructblip,
        lambda benchmark, answer: f"({answer.lower()})" if benchmark == "scienceqa" else answer,
        SHORT_TOKENS,
    ),
    "shikra": Style(ask_shikra, read_shikra, say_shikra),
}


#: Models and benchmarks whose pictures the authors crop: of internvl_chat_llava (OpenGVLab/InternVL at 2410d1d)
#: model_vqa_science.py gives them to the processor as they are, where model_vqa_loader.py pads them first.
CROPPED = {("intern-vl", "scienceqa")}


class ProtocolError(ValueError):
    """A benchmark that a protocol does not define for a model."""


@dataclass(frozen=True)
class Task:
    """What a protocol does with one benchmark and one model.

    Attributes:
        ask: the user's turn for an item.
        max_new_tokens: longest answer.
        score: parts that an answer adds, once ``read`` has taken from it what counts.
        pooled: metrics are formed over all items at once, not within strata and then averaged.
        template: the whole prompt, with ``{question}`` and the card's placeholder; None: the card's own.
        crop: of a picture that is no square the middle is seen, as CLIP's processor cuts it out, not all.
        repetition_penalty: divides the logits of tokens that the answer has already (negative ones it multiplies).
    """

    ask: Callable[[Item], str]
    max_new_tokens: int
    score: Score
    read: Callable[[str], str] = str
    pooled: bool = False
    template: str | None = None
    crop: bool = False
    repetition_penalty: float = 1.0

    def strata(self, items: Sequence[Item]) -> list[str]:
        """For each item, within what metrics are formed before they are averaged."""
        return ["" if self.pooled else item.stratum for item in items]


#: Tasks by the names of model and benchmark.
Tasks = dict[tuple[str, str], Task]


def _official() -> Tasks:
    tasks = {}
    for model, card in REGISTRY.items():
        style = OFFICIAL[card.style]
        for name, benchmark in BENCHMARKS.items():
            tasks[model, name] = Task(
                ask=partial(style.ask, name),
                max_new_tokens=style.max_new_tokens[name],
                score=style.score.get(name, benchmark.score),
                read=partial(style.read, name),
                crop=(model, name) in CROPPED,
            )
    return tasks


def _bare(item: Item) -> str:
    return item.question


def _opera() -> Tasks:
    """``pope_eval.py`` and ``chair_eval.py`` of the paper's repository at b8cd5e7, which are OPERA's of 61426ef.

    The question stands alone, behind a system message without the blank before USER. Answers to POPE may have 512
    tokens, where OPERA allows 10. LLaVA and Shikra see what CLIP's processor cuts out. InstructBLIP's penalty is a
    default of its ``generate``, and so in force without being named.
    """
    vicuna = VICUNA.replace(" USER:", "USER:").replace("<image>\n", "<image> ")
    asked = {
        "pope": Task(_bare, 512, pope.score_opera),
        "chair": Task(_bare, 512, chair.score),
    }
    tasks = {}
    for name, task in asked.items():
        tasks["llava-1.5", name] = replace(
            task, template=vicuna, crop=True, read=lambda text: text.split("###")[0].strip()
        )
        tasks["instructblip", name] = replace(task, repetition_penalty=1.5)
        tasks["shikra", name] = replace(
            task,
            template=vicuna.replace("<image> ", ""),  # which goes before a question that has none
            crop=True,
            read=lambda text: text.split("ASSISTANT:")[-1].strip(),
        )
    return tasks


def _lmms_eval() -> Tasks:
    """lmms-eval at 75571cf: ``pope``, ``scienceqa_img``, ``textvqa_val`` and ``coco_cap_chair``.

    Models as ``llava_hf``, ``instructblip`` and ``qwen_vl`` load them. The first has Vicuna's conversation for
    tokenizers without a template, and CLIP's processor as published with LLaVA-1.5, which crops. Only the last
    cuts answers at the task's stop strings. Text-only items, to which ``llava_hf`` gives the inputs of the item
    before, are not asked; nor is InternVL-Chat 1.0, which the ``internvl`` class cannot load.
    """

    def short(item: Item) -> str:
        return item.question.strip() + SHORT_ANSWER

    def capitalised(item: Item) -> str:
        # Lower-cases the rest: "What does usps mean?"
        return item.question.capitalize() + SHORT_ANSWER

    def choices(item: Item) -> str:
        context = f"Context: {item.hint}\n" if item.hint else ""
        return f"{context}{item.question}\n{lettered(item)}{LETTER_ANSWER}"

    asked = {
        "pope": Task(short, 128, pope.score_lmms_eval, pooled=True),
        "scienceqa": Task(choices, 16, scienceqa.score_lmms_eval, pooled=True),
        "textvqa": Task(capitalised, 1024, textvqa.score, pooled=True),
        "chair": Task(_bare, 2048, chair.score, pooled=True),
    }
    for_qwen: dict[str, dict[str, Any]] = {
        "pope": {"read": lambda text: text.split("\n\n")[0]},
        "scienceqa": {
            "ask": partial(ask_qwen_vl, "scienceqa"),
            "read": lambda text: text.split("\n\n")[0],
        },
        "textvqa": {
            "ask": lambda item: f"{item.question.capitalize()} Answer:",
            "read": lambda text: text.split("ASSISTANT:")[0],
        },
        "chair": {},
    }
    tasks = {}
    for name, task in asked.items():
        tasks["llava-1.5", name] = replace(task, crop=True)
        tasks["llava-1.6", name] = task
        tasks["instructblip", name] = task
        tasks["qwen-vl", name] = replace(task, template="Picture 1: <image>\n{question}", **for_qwen[name])
    return tasks


#: By name what gives the tasks: of ``official`` those of all models registered by then.
PROTOCOLS: dict[str, Callable[[], Tasks]] = {
    "official": _official,
    "opera": _opera,
    "lmms-eval": _lmms_eval,
}


def find_task(protocol: str, model: str, benchmark: str) -> Task:
    """What a protocol does with a benchmark and a model, by their names.

    A variant of a benchmark is asked as the benchmark itself: "chair-exact" as "chair".

    Raises:
        ProtocolError: there is no such protocol, or it does not define this; the message lists what it does.
    """
    if protocol not in PROTOCOLS:
        raise ProtocolError(f"no protocol {protocol!r}; the protocols are {', '.join(PROTOCOLS)}")
    tasks = PROTOCOLS[protocol]()
    if (task := tasks.get((model, benchmark.partition("-")[0]))) is None:
        models, benchmarks = (", ".join(dict.fromkeys(names)) for names in zip(*tasks, strict=True))
        raise ProtocolError(
            f"protocol {protocol} does not define {benchmark} for {model}; it defines {benchmarks} for {models}"
        )
    return task
