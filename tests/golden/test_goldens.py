"""What each miniature gives for six fixed questions: prompts, attention shares, LLaVA-CAM, sweeps.

Tolerances are some 20 to 40 times the noise of the miniature llava-1.5 over transformers 4.57.6 and 5.23.0,
one and two threads, and ATEN_CPU_CAPABILITY default, avx2 and avx512 with oneDNN and MKL held to the same:
the largest absolute difference over all items, layers and cells, early and late in training, and what is
allowed.

    shares                           1.2e-7, 6.6e-7    2e-5
    heat of LLaVA-CAM, unit norm     8.0e-6, 7.1e-6    2e-4   (1.4e-5, 7.6e-6 when the largest cell is 1)
    logits                           1.6e-6, 5.7e-6    2e-4 + 1e-5 |logit|
    margin of an answer              2.2e-6, 7.2e-6    as logits

No id, label or answer changed.
"""

from functools import cache

import numpy as np
import pytest
import torch

from repro.attention import attention_shares
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Item
from repro.cam import llava_cam
from repro.golden import Arrays, Golden, pack
from repro.models.card import FIXTURES
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.protocols import find_task
from repro.sweep import sweep
from repro.truncation import truncated

pytestmark = pytest.mark.golden

#: Benchmark, id, and the answer that is teacher forced where an instrument takes one: fixed, so that a
#: model's own near ties change neither shares nor heat.
ITEMS = (
    ("pope", "random-1", "Yes"),
    ("pope", "adversarial-2", "No"),
    ("scienceqa", "1", "A"),
    ("scienceqa", "5", "B"),
    ("textvqa", "34602", "61"),
    ("chair", "3033", "The image shows a donut."),
)
MAX_NEW_TOKENS = 24
COMPARED, RECORDED = 5, 10  # highest logits of the first answer token
#: An answer one of whose tokens won by less may come out otherwise elsewhere, and is not compared.
TIE = 1e-3


class SharesGolden(Golden):
    """Shares lie in [0, 1]: an absolute tolerance."""

    atol, rtol = 2e-5, 0.0


class CamGolden(Golden):
    """Heat maps, each divided by its Euclidean norm before they are compared.

    As returned they are divided by their largest cell, whose noise would scale the whole map; in the norm
    one cell of many has little say. A map that is zero everywhere stays so.
    """

    atol, rtol = 2e-4, 0.0

    def settle(self, expected: Arrays, actual: Arrays) -> tuple[Arrays, Arrays]:
        return {"heat": _unit(expected["heat"])}, {"heat": _unit(actual["heat"])}


class SweepGolden(Golden):
    """Logits and answers at every truncation layer.

    The recorded ids are looked up among the computed ones, so tokens with nearly equal logits may trade
    ranks; that no other token has risen above them shows in the highest logits by rank, which are compared
    too. An answer is compared where its narrowest choice was decided by more than ``TIE``.
    """

    atol, rtol = 2e-4, 1e-5

    def settle(self, expected: Arrays, actual: Arrays) -> tuple[Arrays, Arrays]:
        ids, recorded = expected["top_ids"][:, :COMPARED], expected["top_logits"][:, :COMPARED]
        found = ids[:, :, None] == actual["top_ids"][:, None]
        # What fell out of the ten highest has at most the tenth; it may still have what is recorded.
        absent = np.minimum(recorded, actual["top_logits"][:, -1:])
        logits = np.where(found, actual["top_logits"][:, None], -np.inf).max(axis=-1)
        logits = np.where(found.any(axis=-1), logits, absent)
        decided = expected["margins"] > TIE

        def compared(arrays: Arrays, of_recorded_ids: np.ndarray) -> Arrays:
            return {
                "logits of the recorded top ids": of_recorded_ids,
                "highest logits by rank": arrays["top_logits"][:, :COMPARED],
                "answers": np.where(decided, arrays["answers"], ""),
                "margins": np.where(decided, arrays["margins"], 0).astype(np.float32),
            }

        return compared(expected, recorded), compared(actual, logits)


def _unit(heat: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(heat, axis=(1, 2), keepdims=True)
    return heat / np.where(norm > 0, norm, 1)


@cache
def items_of(benchmark: str) -> dict[str, Item]:
    """Items by id."""
    return {item.id: item for item in BENCHMARKS[benchmark].load(FIXTURES / "miniworld")}


def ask(lvlm: Lvlm, benchmark: str, name: str, answer: str) -> tuple[Prompt, list[int]]:
    """Prompt of an item, and the ids of an answer to it."""
    item = items_of(benchmark)[name]
    ids = lvlm.tokenizer(answer, add_special_tokens=False)["input_ids"]
    return find_task("official", lvlm.card.name, BENCHMARKS[benchmark]).prompt(lvlm, item), ids


@pytest.fixture(scope="module", params=ITEMS, ids=lambda item: "-".join(item[:2]))
def asked(lvlm: Lvlm, request: pytest.FixtureRequest) -> tuple[Prompt, list[int]]:
    return ask(lvlm, *request.param)


def test_prompt(lvlm, asked, golden):
    golden(prompt_arrays(*asked))


def test_shares(lvlm, asked, golden):
    golden(share_arrays(lvlm, *asked), SharesGolden)


# The image tokens of InstructBLIP have no place in the picture: it has no heat maps.
@pytest.mark.without("instructblip")
def test_cam(lvlm, asked, golden):
    golden(cam_arrays(lvlm, *asked), CamGolden)


def test_sweep(lvlm, asked, golden):
    golden(sweep_arrays(lvlm, asked[0]), SweepGolden)


def prompt_arrays(prompt: Prompt, answer: list[int]) -> Arrays:
    """What the model reads besides the picture."""
    cells = {} if prompt.cells is None else {"cells": prompt.cells}
    return {
        "text": np.array(prompt.text),
        "input_ids": prompt.input_ids[0].numpy(),
        "labels": prompt.segments.labels,
        "grid": np.array(prompt.grid),
        "answer_ids": np.array(answer),
        **cells,
    }


def share_arrays(lvlm: Lvlm, prompt: Prompt, answer: list[int]) -> Arrays:
    """Raw shares [N, 1 + answer tokens, 4]."""
    return {"raw": attention_shares(lvlm, prompt, answer).raw}


def cam_arrays(lvlm: Lvlm, prompt: Prompt, answer: list[int]) -> Arrays:
    """Heat [N, rows, columns]."""
    return {"heat": llava_cam(lvlm, prompt, answer, samples=4, seed=0)}


def sweep_arrays(lvlm: Lvlm, prompt: Prompt) -> Arrays:
    """Highest logits [N + 1, 10] with their ids, answers [N + 1], and by how much each was decided [N + 1].

    The margin of an answer is the smallest distance, over its tokens, of the two highest logits.
    """
    swept = sweep(lvlm, [prompt], MAX_NEW_TOKENS)[0]
    margins = []
    for after, answer in enumerate(swept.answers):
        with truncated(lvlm, after=after):
            rows = lvlm.logits(prompt, answer.ids)[-len(answer.ids) - 1 : -1]
        first, second = rows.topk(2).values.T
        margins.append((first - second).min().item())
    return ranked(swept.logits, [answer.text for answer in swept.answers], margins)


def ranked(logits: np.ndarray, answers: list[str], margins: list[float]) -> Arrays:
    """The arrays of a ``SweepGolden`` from logits [N + 1, vocabulary]."""
    top = torch.from_numpy(logits).topk(RECORDED)
    return {
        "top_ids": top.indices.numpy(),
        "top_logits": top.values.numpy(),
        "answers": np.array(answers),
        "margins": np.array(margins, dtype=np.float32),
    }


@pytest.mark.parametrize(
    ("rank", "by", "same"),
    [
        (5, 3e-6, True),  # trades ranks with its near tie, the fifth of the recorded five
        (2, 0.01, False),
        (30, 1e-5, True),
        (30, 40.0, False),  # rises above all
        (1, -40.0, False),  # falls out of the ten
    ],
)
def test_near_ties_may_trade_ranks_and_nothing_else_may_move(rank, by, same):
    logits = np.linspace(10, -10, 40, dtype=np.float32)[None].repeat(2, axis=0)
    logits[:, 5] = logits[:, 4] - 1e-6
    moved = logits.copy()
    moved[1, rank] += by
    expected, actual = (pack(ranked(x, ["Yes", "No"], [0.5, 0.5])) for x in (logits, moved))
    assert SweepGolden().matches(serialized_data=actual, snapshot_data=expected) is same


def test_answers_are_compared_unless_they_were_nearly_another():
    logits = np.linspace(10, -10, 40, dtype=np.float32)[None].repeat(2, axis=0)
    expected = pack(ranked(logits, ["Yes", "No"], [0.5, TIE / 2]))
    for answers, same in ((["Yes", "Maybe"], True), (["Maybe", "No"], False)):
        actual = pack(ranked(logits, answers, [0.5, TIE / 2]))
        assert SweepGolden().matches(serialized_data=actual, snapshot_data=expected) is same
