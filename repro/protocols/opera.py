"""Protocol ``opera``: ``pope_eval.py`` and ``chair_eval.py`` of the paper's repository at b8cd5e7.

They are OPERA's of 61426ef. The question stands alone, after a system message without the blank before USER.
Answers to POPE may have 512 tokens; OPERA allows 10. LLaVA and Shikra see the image as CLIP's processor crops it.
InstructBLIP's penalty is a default of its ``generate``, so it applies without being set.
"""

from collections.abc import Iterator
from functools import partial

from repro.benchmarks import chair, pope
from repro.models.card import VICUNA
from repro.protocols.official import bare
from repro.protocols.task import Task

TEMPLATE = VICUNA.replace(" USER:", "USER:").replace("<image>\n", "<image> ")


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
            template=TEMPLATE.replace("<image> ", ""),  # Shikra puts it before a question without it
            crop=True,
            read=lambda text: text.split("ASSISTANT:")[-1].strip(),
        )
