"""Does everything run at the published sizes, on the CPU and in the checkpoint's own numbers, as ``--plan`` says?

``-m fullsize`` writes a random checkpoint of the published size, with FULLSIZE_LAYERS=4 of so many decoder layers
of the full width. The same test runs on small sizes otherwise.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from repro.admission import admission
from repro.attention import attention_shares
from repro.cam import llava_cam
from repro.models import find_card, load_model
from repro.models.card import FIXTURES, REGISTRY
from repro.plan import IMAGE, cost_of, shape_of
from repro.sweep import sweep
from repro.truncation import truncated
from tests.fullsize.shapes import LAYOUTS, configuration, size_of, write

GIB = 2**30
#: Most that the files of a checkpoint may take, in bytes.
DISK = 20e9
#: Memory that a run takes beside the weights, in bytes: libraries, and the activations of a backward pass.
BESIDE = 5 * GIB
QUESTION = "Is there a kite in the image?\nAnswer the question using a single word or phrase."
SMALL = {
    "llava-1.5": {"num_hidden_layers": 4, "hidden_size": 512, "intermediate_size": 1376},
    "qwen2.5-vl": {"num_hidden_layers": 4, "hidden_size": 896, "intermediate_size": 2368},
    "qwen-vl": {"num_hidden_layers": 4, "hidden_size": 512, "intermediate_size": 2752},
}
#: Of which 9.6 G weights in bfloat16 are 19.3 GB.
QWEN_VL = FIXTURES / "published" / "qwen-vl"
#: Decoders of these sizes have as many heads of 128 as fit.
HEADS = {"llava-1.5": (4, 4), "qwen2.5-vl": (7, 1), "qwen-vl": (4, 4)}


def attention_operations(query: torch.Size, key: torch.Size, *_: object, **__: object) -> int:
    """Of scores and their product with the values: torch knows the attention of GPUs alone."""
    return 4 * prod(query) * key[-2]


ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_operations}


class TooSmall(Exception):
    """A machine that a checkpoint does not fit."""


def check_room(needed: int, directory: Path, memory: int | None = None) -> None:
    """TooSmall, before anything is written, where disk or memory is too small for so many bytes of weights."""
    free = shutil.disk_usage(directory).free
    if needed > min(free, DISK):
        raise TooSmall(
            f"{directory}: the weights take {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB are free, and at most "
            f"{DISK / 1e9:.0f} are used: make room, or name another place by --basetemp"
        )
    memory = available() if memory is None else memory
    if needed + BESIDE > memory:
        raise TooSmall(
            f"weights and run take about {(needed + BESIDE) / GIB:.1f} GiB of memory; {memory / GIB:.1f} are "
            "available"
        )


def available() -> int:
    """Bytes of memory that can be had without swapping."""
    return 1024 * int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1])


@contextmanager
def step(
    name: str, rows: list[tuple[str, float, float, str]], note: Callable[[], str] = str
) -> Iterator[None]:
    """Note the seconds and the peak of resident memory of what runs within, and print both."""
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps of earlier steps is not this one's
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    yield
    peak = 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    rows.append((name, time.perf_counter() - start, peak / GIB, note()))
    print(rows[-1])


@pytest.mark.conformance
@pytest.mark.parametrize(
    "shape",
    [name if name == "llava-1.5" else pytest.param(name, marks=pytest.mark.fullsize) for name in LAYOUTS],
)
def test_small_sizes_run_as_planned(shape, tmp_path, record_property):
    heads = dict(zip(("num_attention_heads", "num_key_value_heads"), HEADS[shape], strict=True))
    settings = configuration(shape, **SMALL[shape] | heads)
    if shape == "qwen-vl":
        settings["visual"] |= {
            "layers": 2,
            "width": 128,
            "heads": 1,
            "output_dim": SMALL[shape]["hidden_size"],
        }
    elif shape == "qwen2.5-vl":
        settings["vision_config"] |= {"depth": 1, "out_hidden_size": SMALL[shape]["hidden_size"]}
    else:
        settings["vision_config"] |= {"num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 256}
    record_property("fullsize", [f"{shape} (small)", run(shape, settings, tmp_path, (320, 240))])


@pytest.mark.fullsize
@pytest.mark.without(*(name for name in REGISTRY if name not in LAYOUTS))
def test_published_sizes_run_as_planned(model_name, tmp_path, record_property):
    layers = int(os.environ.get("FULLSIZE_LAYERS", 0))
    settings = configuration(model_name, **{"num_hidden_layers": layers} if layers else {})
    directory = tmp_path / model_name
    try:
        check_room(size_of(model_name, settings, directory), directory)
    except TooSmall as error:
        pytest.fail(str(error), pytrace=False)
    try:
        rows = run(model_name, settings, directory, IMAGE)
    finally:
        shutil.rmtree(directory)
    record_property("fullsize", [model_name, rows])


def run(
    shape: str, settings: dict, directory: Path, size: tuple[int, int]
) -> list[tuple[str, float, float, str]]:
    """Every step on a checkpoint of that configuration; asserts what the plan says of it."""
    rows: list[tuple[str, float, float, str]] = []
    with step("writing", rows):
        weights = write(shape, settings, directory)
    with step("loading", rows, lambda: f"{weights / GIB:.2f} GiB of weights"):
        lvlm = load_model(shape, directory, "own")
    assert lvlm.computes_in == torch.bfloat16
    with step("proofs of the instruments", rows):
        refused = [str(one) for one in admission(lvlm) if not one.admitted]
        assert not refused
    image = Image.effect_noise(size, 80).convert("RGB")
    with step("prompt", rows, lambda: f"{len(prompt.segments)} tokens"):
        prompt = lvlm.prompt(image, QUESTION)
    with step("answer of 2 tokens", rows):
        answer = lvlm.answer(prompt, 2)
    with step("shares", rows):
        shares = attention_shares(lvlm, prompt, answer.ids)
    assert abs(shares.raw.sum(axis=-1) - 1).max() < 1e-4
    with step("CAM of all layers", rows):
        heat = llava_cam(lvlm, prompt, answer.ids[:1])
    assert heat.max() == 1 and not heat[-1].any()
    after = min(16, lvlm.n_layers // 2)
    with step(f"truncated at L = {after}, 2 tokens", rows), truncated(lvlm, after):
        lvlm.answer(prompt, 2)

    card, system = find_card(shape), len(prompt.segments.system)
    planned_shape = shape_of(card, directory, torch.bfloat16, size)
    planned = cost_of(planned_shape, system, len(prompt.segments.user), 2)
    counted, passed = FlopCounterMode(display=False, custom_mapping=ATTENTION), count_rows(lvlm)
    sweep_rows: list[tuple[str, float, float, str]] = []
    with step("at rest", rows):
        pass
    at_rest = rows[-1][2]
    with step("sweep, 2 tokens", sweep_rows), passed as seen, counted:
        sweep(lvlm, [prompt], 2)
    _, seconds, peak, _ = sweep_rows[0]
    operations = counted.get_total_flops()
    first = seen[0] - lvlm.n_layers * (lvlm.n_layers + 1)  # without the second token of every branch
    note = f"{first:,} token-layers, {operations / 1e12:.2f} TFLOP, {operations / seconds / 1e12:.2f} TFLOP/s"
    rows.append(("sweep, 2 tokens", seconds, peak, note))
    rows.append(
        (
            "(the plan of it)",
            0.0,
            (weights + planned.held + planned.passing) / GIB,
            f"{planned.token_layers:,} token-layers, {(planned.prefill + planned.decoding) / 1e12:.2f} TFLOP",
        )
    )
    assert 2 * planned_shape.weights == weights
    assert planned_shape.tokens == len(prompt.segments.image)
    assert planned.token_layers == first
    assert operations == pytest.approx(planned.prefill + planned.decoding, rel=0.1)
    if weights > 4 * GIB:  # where what the sweep adds is large beside what the allocator rounds it to
        assert weights + (peak - at_rest) * GIB == pytest.approx(
            weights + planned.held + planned.passing, rel=0.1
        )
    return rows


@contextmanager
def count_rows(lvlm) -> Iterator[list[int]]:
    """Counts the rows that pass through the decoder layers."""
    seen = [0]

    def count(module, args, output):
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        seen[0] += hidden.shape[0] * hidden.shape[1]

    handles = [layer.register_forward_hook(count) for layer in lvlm.layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.conformance
def test_too_small_a_machine_is_told_before_anything_is_written(tmp_path, monkeypatch):
    with pytest.raises(TooSmall, match=r"take about 18.2 GiB of memory; 16.0 are available"):
        check_room(int(13.2 * GIB), tmp_path, 16 * GIB)
    with pytest.raises(TooSmall, match="at most 20 are used"):
        check_room(int(21e9), tmp_path, 64 * GIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**11, 0, 10**11))
    with pytest.raises(TooSmall, match=r"take about 23.0 GiB of memory; 22.0 are available"):
        check_room(2 * shape_of(find_card("qwen-vl"), QWEN_VL, torch.bfloat16).weights, tmp_path, 22 * GIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**10, 0, 10**9))
    with pytest.raises(TooSmall, match=r"1.0 GB are free"):
        check_room(2 * 10**9, tmp_path, 64 * GIB)
    assert not list(tmp_path.iterdir())
