"""Protocol ``lmms-eval``: tasks ``pope``, ``scienceqa_img``, ``textvqa_val`` and ``coco_cap_chair`` at 75571cf.

Models as ``llava_hf``, ``instructblip`` and ``qwen_vl`` load them. The first has Vicuna's conversation for
tokenizers without a template, and CLIP's processor as published with LLaVA-1.5, which crops. Only the last
cuts answers at the task's stop strings. Text-only items, for which ``llava_hf`` repeats the inputs of the previous
item, are left out; so is InternVL-Chat 1.0, which the ``internvl`` class cannot load.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from repro.benchmarks import chair, pope, scienceqa, textvqa
from repro.benchmarks.benchmark import Benchmark, Item, Score
from repro.protocols.official import LETTER_ANSWER, QWEN_VL, SHORT_ANSWER, asking, bare
from repro.protocols.task import Task


def ask_short(item: Item) -> str:
    """POPE's turn."""
    return item.question.strip() + SHORT_ANSWER


def ask_capitalised(item: Item) -> str:
    """TextVQA's turn; all but the first letter is lower-cased: "What does usps mean?"."""
    return item.question.capitalize() + SHORT_ANSWER


ask_choices = asking("{hint}{question}\n{choices}" + LETTER_ANSWER, "Context: {}\n")


def before_blank_line(text: str) -> str:
    """An answer cut at the stop string of POPE and ScienceQA."""
    return text.split("\n\n")[0]


#: Benchmark, turn, longest answer and score.
TASKS: tuple[tuple[Benchmark, Callable[[Item], str], int, Score], ...] = (
    (pope.POPE, ask_short, 128, pope.score_lmms_eval),
    (scienceqa.SCIENCEQA, ask_choices, 16, scienceqa.score_lmms_eval),
    (textvqa.TEXTVQA, ask_capitalised, 1024, textvqa.score),
    (chair.CHAIR, bare, 2048, chair.score),
)


def for_qwen_vl(task: Task) -> Task:
    """The same task as the class ``qwen_vl`` asks it and cuts the answers."""
    task = replace(task, model="qwen-vl", template="Picture 1: <image>\n{question}")
    if task.benchmark is pope.POPE:
        return replace(task, read=before_blank_line)
    if task.benchmark is scienceqa.SCIENCEQA:
        return replace(task, ask=QWEN_VL["scienceqa"].ask, read=before_blank_line)
    if task.benchmark is textvqa.TEXTVQA:
        task = replace(task, ask=lambda item: f"{item.question.capitalize()} Answer:")
        return replace(task, read=lambda text: text.split("ASSISTANT:")[0])
    return task


def tasks() -> Iterator[Task]:
    """All benchmarks for four models."""
    for benchmark, ask, longest, score in TASKS:
        task = Task("lmms-eval", "llava-1.6", benchmark, ask, longest, score, pooled=True)
        yield replace(task, model="llava-1.5", crop=True)
        yield task
        yield replace(task, model="instructblip")
        yield for_qwen_vl(task)
