"""What the instruments cost, as ratios to what they replace, measured in one run.

Cost does not depend on what the weights say, so the model is random: LLaVA-1.5's shape where it matters for
the ratios (32 layers; 35 system, 576 image and 30 user tokens) and small where it does not.

Time is CPU time of one thread: on an idle machine that is wall time, and on a busy one it leaves out what
other processes take. A and B run in turns, and a figure is the median of the turns' ratios, so that a
machine that slows down slows both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from repro.attention import attention_shares
from repro.cam import llava_cam
from repro.models import load_model
from repro.models.llava import Llava
from repro.models.prompts import Prompt
from repro.segments import Segments
from repro.sweep import memory_of, sweep
from repro.truncation import truncated

pytestmark = pytest.mark.performance

LAYERS, SYSTEM, SIDE, USER = 32, 35, 24, 30
TOTAL = SYSTEM + SIDE * SIDE + USER
ANSWER = tuple(range(10, 19))  # any words: with the prompt, 650 tokens
#: Token-layers of a sweep over those of one pass.
BOUND = (LAYERS * TOTAL + USER * LAYERS * (LAYERS + 1) / 2) / (LAYERS * TOTAL)

Run = Callable[[], Any]


def seconds(run: Run) -> float:
    """CPU time of one run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def median_ratio(a: Run, b: Run, turns: int = 5) -> float:
    """Time of ``a`` over time of ``b``, after one untimed run of each."""
    a(), b()
    return median(seconds(a) / seconds(b) for _ in range(turns))


def peak_bytes(run: Run) -> int:
    """Most bytes that tensors made during a run hold at one time; weights are not among them.

    From the allocations that torch's profiler records, in the order of time.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(held.max())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """CPU time of several threads would count the time they wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_lvlm(side: int, layers: int, width: int, heads: int, key_heads: int) -> Llava:
    """LLaVA with random weights in float32, and the miniature's words."""
    miniature = load_model("llava-1.5")
    miniature.processor.patch_size = 14
    preparation, pixels = miniature.processor.image_processor, 14 * side
    preparation.size, preparation.crop_size = {"shortest_edge": pixels}, {"height": pixels, "width": pixels}
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=pixels,
            patch_size=14,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
        ),
        text_config=LlamaConfig(
            vocab_size=miniature.model.config.text_config.vocab_size,
            hidden_size=width,
            intermediate_size=1376,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            max_position_embeddings=2048,
        ),
        image_token_index=miniature.image_token_id,
        image_seq_length=side * side,
    )
    return Llava(miniature.card, LlavaForConditionalGeneration(config), miniature.processor, miniature.path)


def random_prompt(lvlm: Llava, side: int) -> Prompt:
    """Random words around an image of noise."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 300, (1, SYSTEM + side * side + USER), generator=draw)
    ids[0, SYSTEM : SYSTEM + side * side] = lvlm.image_token_id
    pixels = 14 * side
    return Prompt(
        input_ids=ids,
        image_inputs={"pixel_values": torch.randn(1, 3, pixels, pixels, generator=draw)},
        segments=Segments.from_image_mask((ids[0] == lvlm.image_token_id).numpy()),
        grid=(side, side),
        image=Image.new("RGB", (pixels, pixels)),
        text="",
    )


@pytest.fixture(scope="module")
def lvlm() -> Llava:
    """100 M weights in LLaVA-1.5's shape."""
    return random_lvlm(SIDE, LAYERS, width=512, heads=8, key_heads=8)


@pytest.fixture(scope="module")
def prompt(lvlm: Llava) -> Prompt:
    return random_prompt(lvlm, SIDE)


def plain_pass(lvlm: Llava, prompt: Prompt, answer: tuple[int, ...] = ()) -> torch.Tensor:
    """One forward pass with SDPA attention; logits of the last row."""
    with torch.inference_mode():
        ids = lvlm.sequence(prompt, answer)
        return lvlm.model(input_ids=ids, **prompt.image_inputs, use_cache=False, logits_to_keep=1).logits


@contextmanager
def eager(lvlm: Llava) -> Iterator[None]:
    """Within the context, the decoder attends in eager mode, which can return its S x S maps."""
    config = lvlm.decoder.config
    before, config._attn_implementation = config._attn_implementation, "eager"
    try:
        yield
    finally:
        config._attn_implementation = before


def eager_shares(lvlm: Llava, prompt: Prompt, answer: tuple[int, ...]) -> np.ndarray:
    """Attention shares by ``output_attentions=True``."""
    labels = torch.from_numpy(prompt.segments.with_answer(len(answer)))
    segment = torch.nn.functional.one_hot(labels.to(torch.int64), 4).float()
    with torch.inference_mode(), eager(lvlm):
        ids = lvlm.sequence(prompt, answer)
        settings = {"use_cache": False, "logits_to_keep": 1, "output_attentions": True}
        maps = lvlm.model(input_ids=ids, **prompt.image_inputs, **settings).attentions
    return torch.stack([m[0, :, -len(answer) - 1 :].mean(dim=0) @ segment for m in maps]).numpy()


def one_backward(lvlm: Llava, prompt: Prompt, answer: tuple[int, ...], layer: int) -> None:
    """The gradient of LLaVA-CAM at one layer only."""
    found: list[torch.Tensor] = []

    def keep(module, inputs, output):
        found.append(output.requires_grad_())

    handle = lvlm.decoder.layers[layer].post_attention_layernorm.register_forward_hook(keep)
    try:
        # Nothing has a graph before that layer: the weights are frozen.
        ids = lvlm.sequence(prompt, answer[:-1])
        settings = {"use_cache": False, "logits_to_keep": len(answer)}
        logits = lvlm.model(input_ids=ids, **prompt.image_inputs, **settings).logits
        z = logits.gather(-1, torch.tensor(answer)[None, :, None]).sum()
        torch.autograd.grad(z, found)
    finally:
        handle.remove()


def test_attention_shares_cost_hardly_more_than_a_plain_pass(lvlm, prompt, figure):
    def probe():
        return attention_shares(lvlm, prompt, ANSWER).raw

    def plain():
        return plain_pass(lvlm, prompt, ANSWER)

    def alternative():
        return eager_shares(lvlm, prompt, ANSWER)

    np.testing.assert_allclose(probe(), alternative(), atol=1e-5)
    memory = peak_bytes(plain)
    figure("attention shares / plain pass, S = 650", median_ratio(probe, plain), 1.05)
    figure("attention shares / plain pass, peak memory without weights", peak_bytes(probe) / memory, 1.05)
    figure("(eager output_attentions / plain pass)", seconds(alternative) / seconds(plain))
    figure(
        "(eager output_attentions / plain pass, peak memory without weights)",
        peak_bytes(alternative) / memory,
    )


def test_cam_of_all_layers_costs_three_passes(lvlm, prompt, figure):
    def cam():
        return llava_cam(lvlm, prompt, ANSWER)

    def plain():
        return plain_pass(lvlm, prompt, ANSWER[:-1])

    # The cost of one layer's pass is linear in its depth, so evenly spaced layers have the mean of all.
    spaced = (0, LAYERS // 3, LAYERS - 1 - LAYERS // 3, LAYERS - 1)
    figure(f"LLaVA-CAM of {LAYERS} layers / plain pass", median_ratio(cam, plain, turns=3), 3.0)
    each = LAYERS * np.mean([seconds(lambda i=i: one_backward(lvlm, prompt, ANSWER, i)) for i in spaced])
    figure("(one backward pass per layer / plain pass; from 4 layers)", each / seconds(plain))


def test_sweep_stays_near_its_bound(lvlm, prompt, figure):
    measured = median_ratio(lambda: sweep(lvlm, [prompt], 1), lambda: plain_pass(lvlm, prompt), turns=3)
    figure(f"sweep of {LAYERS + 1} layers / plain pass (bound {BOUND:.2f})", measured, 1.15 * BOUND)


def test_sweep_costs_a_sixth_of_one_run_per_layer(lvlm, prompt, figure):
    # One round of 33 runs is long; sweeps before, amid and after it see the same machine.
    single, swept = 0.0, []
    for after in range(LAYERS + 1):
        if after % 16 == 0:
            swept.append(seconds(lambda: sweep(lvlm, [prompt], 1)))
        with truncated(lvlm, after=after):
            single += seconds(lambda: lvlm.answer(prompt, 1))
    figure(f"sweep / one truncated run per layer, {LAYERS + 1} layers", median(swept) / single, 1 / 6)


def test_a_sweep_of_grouped_heads_and_many_image_tokens(figure):
    """Qwen2.5-VL-7B's decoder: 28 layers, 28 query heads over 4; 1156 image tokens."""
    side, layers = 34, 28
    grouped = random_lvlm(side, layers, width=448, heads=28, key_heads=4)
    prompt = random_prompt(grouped, side)
    total = len(prompt.segments)
    bound = (layers * total + USER * layers * (layers + 1) / 2) / (layers * total)

    def swept():
        return sweep(grouped, [prompt], 1)

    def plain():
        return plain_pass(grouped, prompt)

    measured = median_ratio(swept, plain, turns=3)
    figure(
        f"sweep of 28 heads over 4, 1156 image tokens / plain pass (bound {bound:.2f})",
        measured,
        1.15 * bound,
    )
    kept = memory_of(grouped, prompt, 1) / (2 * layers * total * 4 * 16 * 4)
    figure("the same: keys and values / those of one pass", kept)
    figure("the same: peak memory / plain pass", peak_bytes(swept) / peak_bytes(plain))
