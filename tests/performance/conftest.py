"""A random model of LLaVA's shape to time the instruments on, and the table of what was measured.

Cost does not depend on what the weights say, so they are random. The shape is LLaVA-1.5's where it
matters for the ratios (32 layers, 576 image tokens of a 641 token prompt) and small where it does not.

All times are CPU time of one thread: on an idle machine that is wall time, and on a busy one it leaves
out what other processes take. A and B run in turns, and the figure is the median of the ratios of the
turns, so that a machine that slows down or speeds up slows or speeds both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from repro.models import find_card, load_model
from repro.models.llava import Llava
from repro.models.lvlm import Prompt
from repro.segments import Segments

SYSTEM, GRID, USER = 35, 24, 30  # tokens before, per side of, and behind the image: S = 641
LAYERS = 32

Run = Callable[[], Any]


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """CPU time of several threads would count the time they wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def big() -> Llava:
    """LLaVA with random weights, 100 M parameters, float32."""
    card = find_card("llava-1.5")
    miniature = load_model(card.name)
    vocabulary = miniature.model.config.text_config.vocab_size
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=14 * GRID,
            patch_size=14,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
        ),
        text_config=LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=512,
            intermediate_size=1376,
            num_hidden_layers=LAYERS,
            num_attention_heads=8,
            max_position_embeddings=1024,
        ),
        image_token_index=miniature.image_token_id,
        image_seq_length=GRID * GRID,
    )
    model = LlavaForConditionalGeneration(config)
    model.set_attn_implementation("sdpa")
    return Llava(card, model, miniature.processor, card.miniature)


@pytest.fixture(scope="package")
def prompt(big: Llava) -> Prompt:
    """Random words around a picture of noise: 35 system, 576 image, 30 user tokens."""
    total = SYSTEM + GRID * GRID + USER
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 300, (1, total), generator=draw)
    ids[0, SYSTEM : SYSTEM + GRID * GRID] = big.image_token_id
    side = 14 * GRID
    return Prompt(
        input_ids=ids,
        image_inputs={"pixel_values": torch.randn(1, 3, side, side, generator=draw)},
        segments=Segments.from_image_mask(np.asarray(ids[0] == big.image_token_id)),
        grid=(GRID, GRID),
        image=Image.new("RGB", (side, side)),
        text="",
    )


def seconds(run: Run) -> float:
    """CPU time of one run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def ratio(a: Run, b: Run, turns: int) -> float:
    """Time of ``a`` over time of ``b``: median over turns, after one untimed run of each."""
    a(), b()
    return median(seconds(a) / seconds(b) for _ in range(turns))


def peak_bytes(run: Run) -> int:
    """Most bytes that tensors made during a run hold at one time (weights are not among them).

    From the allocation records of torch's profiler, in their order.
    """
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(held.max())
