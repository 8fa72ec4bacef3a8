"""Which published version of a benchmark's questions was loaded, told by its content.

POPE, ScienceQA and CHAIR's sample differ between publications under one name, and so do the figures.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from repro.benchmarks.benchmark import HubImage, Item
from repro.benchmarks.scienceqa import LETTERS

#: What was published, by benchmark and ``_content``. POPE: AoiDragon/POPE ``output/coco/`` at 08d957b and e3e3926.
#: ScienceQA: how often A to E is right in LLaVA's ``llava_test_CQM-A.json``. TextVQA: ``TextVQA_0.5.1_val.json``.
#: CHAIR: OPERA's ``log/chair_eval_results`` at 61426ef, where InstructBLIP has a sample of its own.
PUBLISHED = {
    ("pope", "9000-7cd2f7d05577ea4e"): "all of POPE, 3000 random",
    ("pope", "8910-59e4b99f7eda4101"): "POPE with 2910 random",
    ("scienceqa", "713-726-375-195-8"): "letters right as often as in ScienceQA's test split, with an image",
    ("scienceqa", "1700-1689-583-261-8"): "letters right as often as in all of ScienceQA's test split",
    ("textvqa", "5000 on 3166 images"): "as many questions and images as TextVQA 0.5.1, validation",
    ("chair", "a9539c13e25818da"): "the images of OPERA's LLaVA-1.5 and Shikra captions",
    ("chair", "11cb4865e269aee6"): "the images of OPERA's InstructBLIP captions",
}


def describe(name: str, items: Sequence[Item]) -> str:
    """How many items there are, of which published version, and where from if that is the hub.

    For example "8910 questions (POPE with 2910 random), 246 of them with 'imange'".

    Args:
        name: of the benchmark.
    """
    content = _content(name, items)
    version = PUBLISHED.get((name, content), "no published version")
    if name == "chair":
        text = f"{len(items)} images ({version}; list {content[:8]})"
    else:
        text = f"{len(items)} questions ({version})"
    if name == "pope" and (misspelt := sum("imange" in item.question for item in items)):
        text += f", {misspelt} of them with 'imange'"
    sources = {item.image.repository for item in items if isinstance(item.image, HubImage)}
    return ", ".join([text, *sorted(sources)])


def _content(name: str, items: Sequence[Item]) -> str:
    """What tells the versions of a benchmark apart, whatever the order and the ids."""
    if name == "pope":
        # Misspelt in some rows of older files; the pairs of question and label are the same ones.
        told = (
            f"{item.stratum} {item.image.name if item.image else ''} {item.question.replace('imange', 'image')} "
            f"{item.reference}"
            for item in items
        )
        return f"{len(items)}-{_digest(told)}"
    if name == "scienceqa":
        counts = Counter(item.reference for item in items)
        return "-".join(str(counts[letter]) for letter in LETTERS)
    if name == "textvqa":
        return f"{len(items)} on {len({item.image for item in items})} images"
    return _digest(item.id for item in items)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
