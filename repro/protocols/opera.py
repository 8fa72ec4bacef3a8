"""Protocol ``opera``: ``pope_eval.py`` and ``chair_eval.py`` of the paper's repository at b8cd5e7.

They are OPERA's of 61426ef. The question stands alone, behind a system message without the blank before USER.
Answers to POPE may have 512 tokens, where OPERA allows 10. LLaVA and Shikra see what CLIP's processor cuts out.
InstructBLIP's penalty is a default of its ``generate``, and so in force without being named.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from repro.benchmarks import chair, pope
from repro.benchmarks.benchmark import Item
from repro.models.card import VICUNA
from repro.protocols.task import Task

TEMPLATE = VICUNA.replace(" USER:", "USER:").replace("<image>\n", "<image> ")


def bare(item: Item) -> str:
    """The question as published."""
    return item.question


def tasks() -> Iterator[Task]:
    """POPE and CHAIR for three models."""
    for benchmark, score in ((pope.POPE, pope.score_opera), (chair.CHAIR, chair.score)):
        task = partial(Task, protocol="opera", benchmark=benchmark, ask=bare, max_new_tokens=512, score=score)
        yield task(
            model="llava-1.5",
            template=TEMPLATE,
            crop=True,
            read=lambda text: text.split("###")[0].strip(),
        )
        yield task(model="instructblip", repetition_penalty=1.5)
        yield task(
            model="shikra",
            template=TEMPLATE.replace("<image> ", ""),  # which goes before a question that has none
            crop=True,
            read=lambda text: text.split("ASSISTANT:")[-1].strip(),
        )
