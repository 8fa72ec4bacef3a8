"""Protocol ``chat``: any chat model, by its own chat template, with the wordings of lmms-eval.

Questions, longest answers and scores are those of lmms-eval's tasks (see ``repro.protocols.lmms_eval``) but for
captions, which are as long as OPERA's. Cards have their own template.
"""

from collections.abc import Iterator

from repro.models.card import REGISTRY
from repro.protocols.lmms_eval import TASKS
from repro.protocols.official import CAPTION_TOKENS
from repro.protocols.task import Task


def tasks() -> Iterator[Task]:
    """Every registered model on every benchmark."""
    for name in REGISTRY:
        for benchmark, ask, longest, score in TASKS:
            yield Task("chat", name, benchmark, ask, min(longest, CAPTION_TOKENS), score, pooled=True)
