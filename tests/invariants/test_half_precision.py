"""Does a model in half precision compute what it does in float32, as closely as its numbers allow?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repro.attention import attention_shares
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.miniworld import DIRECTORY
from repro.cliff import held_out
from repro.evaluation.breakdown import tables
from repro.evaluation.run import evaluate, limited
from repro.evaluation.ties import near_ties, tied
from repro.models import load_model
from repro.protocols import find_task
from repro.pytest_plugin.options import models_of
from repro.sweep import sweep
from repro.truncation import truncated
from tests.golden.test_earliest_stages import scene

pytestmark = pytest.mark.invariant
DTYPES = (torch.bfloat16, torch.float16)


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def half(model_name, lvlm, request):
    path = models_of(request.config)[model_name]
    return load_model(model_name, path, dtype=request.param, device=lvlm.device)


def ask(lvlm):
    return lvlm.prompt(scene((48, 48)), "What color is the kite?")


def eps(lvlm):
    return torch.finfo(lvlm.computes_in).eps


def test_logits_are_those_of_float32(half, lvlm):
    """Relative to their norm 0.4 to 2.7 last digits apart on the six miniatures, here times 3."""
    single, found = (model.logits(ask(model)).float() for model in (lvlm, half))
    assert float((found - single).norm() / single.norm()) < 8 * eps(half)


def test_shares_are_those_of_float32(half, lvlm):
    """At most 3 last digits of 1 apart, here times 3."""
    single, found = (attention_shares(model, ask(model)).raw for model in (lvlm, half))
    assert abs(found - single).max() < 9 * eps(half)
    assert abs(found.sum(axis=-1) - 1).max() < 1e-5


def test_norms_square_in_float32(half):
    """Squares of 1000 overflow float16, and are a hundredth off in bfloat16; a result is two roundings off."""
    norms = [module for module in half.layers.modules() if type(module).__name__.endswith("RMSNorm")]
    for norm in norms:
        width = norm.weight.shape[-1]
        states = 1000 * torch.randn(8, width, generator=torch.Generator().manual_seed(0))
        states = states.to(half.device, half.computes_in)
        exact = states.double() * states.double().pow(2).mean(-1, keepdim=True).rsqrt() * norm.weight.double()
        with torch.inference_mode():
            found = norm(states).double()
        assert float(((found - exact).abs() / exact.abs().clamp_min(1e-3)).max()) < 1.6 * eps(half)


def test_a_sweep_is_truncated_runs(half):
    """Relative to the norm at most 1.2 last digits apart, here times 3."""
    prompt = ask(half)
    [swept] = sweep(half, [prompt], 1)
    for after in (0, half.n_layers // 2, half.n_layers):
        with truncated(half, after):
            expected = half.logits(prompt)[-1].float().cpu()
        difference = torch.from_numpy(swept.logits[after]) - expected
        assert float(difference.norm() / expected.norm()) < 4 * eps(half), after


def test_answers_that_hang_on_rounding_are_counted(half, lvlm):
    """On the miniatures 0 to 2 of about 40 answers differ, by a token within the noise of its rival."""
    task = find_task("official", half.card.name, BENCHMARKS["textvqa"])
    items = limited(task.benchmark.load(DIRECTORY), 8)
    evaluation = evaluate(half, task, items, progress=False)
    [(title, header, [row])] = near_ties(half, evaluation)
    counted = dict(zip(header, row, strict=True))
    assert title.endswith(f"rounding in {half.computes_in}".replace("torch.", ""))
    assert counted["items"] == 4 and counted["answers"] == 4 * (half.n_layers + 1)
    assert float(counted["noise of logits"]) < 60 * eps(half) and counted["answers that differ"] <= 4
    assert not near_ties(lvlm, evaluation)
    assert any(
        table == (title, header, [row])
        for table in tables(half, evaluation, held_out(evaluation.scores(), 0.03))
    )


def test_a_rival_within_the_noise_is_a_near_tie():
    logits = np.array([[3.0, 2.9, 0.0], [3.0, 2.7, 2.7], [-1.0, -9.0, -1.1]])
    assert tied(logits, 0.06).tolist() == [True, False, True]
    assert tied(logits, 0.04).tolist() == [False, False, False]
