"""What a GPU shows in its first minutes: python tests/gpu/first_light.py [--out DIR]

Needs torch, transformers, pytest, this package and no network. Writes DIR/first-light.json and one page,
DIR/first-light.html. Each check stands alone: one that fails, or for which a package is missing or no time is
left, is named with its reason, and the others go on. Exits with 1 if one failed.
"""

from __future__ import annotations

import argparse
import gc
import html
import importlib.util
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from repro.attention import attention_shares  # noqa: E402
from repro.cam import llava_cam  # noqa: E402
from repro.models import load_model  # noqa: E402
from repro.models.card import FIXTURES, MINIATURES, REGISTRY  # noqa: E402
from repro.models.prompts import Prompt  # noqa: E402
from repro.segments import Segments  # noqa: E402
from repro.sweep import memory_of, sweep  # noqa: E402
from repro.truncation import truncated  # noqa: E402

#: Packages that some checks need, or that change what runs.
PACKAGES = (
    "scipy",
    "sklearn",
    "nltk",
    "hypothesis",
    "syrupy",
    "xdist",
    "accelerate",
    "flash_attn",
    "kernels",
)
SYSTEM, USER = 35, 30
QUESTION = "Is there a kite in the image?\nAnswer the question using a single word or phrase."
#: Of logits in float32, relative to the largest: another device sums in another order.
LOGITS = 1e-3
#: In last digits of the number type, twice what the CPU shows (tests/invariants/test_half_precision.py).
HALF = {"logits": 16, "shares": 18, "sweep": 8}
GIB = 2**30


class Report:
    """Outcomes by check, and the seconds that are left."""

    def __init__(self, minutes: float):
        self.start, self.limit = time.monotonic(), 60 * minutes
        self.checks: list[dict[str, Any]] = []

    def left(self) -> float:
        return self.limit - (time.monotonic() - self.start)

    def run(self, name: str, check: Callable[..., dict[str, Any]], *arguments: Any, needs: float = 5) -> None:
        """Run a check that takes about ``needs`` seconds; what it returns is shown."""
        began, outcome = time.monotonic(), "passed"
        try:
            if self.left() < needs:
                outcome, shown = (
                    "no time",
                    {"reason": f"{self.left():.0f} s are left; it takes about {needs:.0f} s"},
                )
            else:
                shown = check(*arguments)
        except ImportError as error:
            outcome, shown = "not installed", {"reason": str(error)}
        except AssertionError as error:
            outcome, shown = "FAILED", {"reason": str(error) or traceback.format_exc(limit=-1)}
        except Exception as error:  # whatever a device stumbles over is what this looks for
            outcome, shown = "FAILED", {"reason": f"{type(error).__name__}: {error}"}
        seconds = round(time.monotonic() - began, 2)
        self.checks.append({"check": name, "outcome": outcome, "seconds": seconds, "shown": shown})
        print(f"{outcome:13} {seconds:7.1f} s  {name}  {json.dumps(shown)[:300]}", flush=True)
        gc.collect()


def environment(device: torch.device) -> dict[str, Any]:
    """What ran, and what is missing by name."""
    shown = {"python": platform.python_version(), "torch": torch.__version__, "device": str(device)}
    shown["transformers"] = version("transformers")
    shown["missing"] = (
        ", ".join(name for name in PACKAGES if importlib.util.find_spec(name) is None) or "none"
    )
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        shown |= {
            "card": card.name,
            "memory": f"{card.total_memory / GIB:.1f} GiB",
            "cuda": torch.version.cuda or "",
        }
        shown["capability"] = f"{card.major}.{card.minor}"
    return shown


def scene() -> Path:
    return min((FIXTURES / "miniworld" / "coco" / "val2014").glob("*.png"))


def instruments(name: str, device: torch.device) -> dict[str, Any]:
    """Every instrument on a miniature in float32, against the same on the CPU."""
    here, there = load_model(name, device=device), load_model(name)
    prompt, expected = here.prompt(scene(), QUESTION), there.prompt(scene(), QUESTION)
    logits, cpu = here.logits(prompt).cpu(), there.logits(expected)
    apart = float((logits - cpu).abs().max() / cpu.abs().max())
    assert apart < LOGITS, f"logits differ by {apart:.2g} of the largest"
    ids = there.answer(expected, 4).ids
    shares = attention_shares(here, prompt, ids).raw - attention_shares(there, expected, ids).raw
    assert abs(shares).max() < 1e-4, f"shares differ by {abs(shares).max():.2g}"
    shown = {"logits": apart, "shares": float(abs(shares).max())}
    if prompt.spatial:
        heat = llava_cam(here, prompt, ids, samples=2) - llava_cam(there, expected, ids, samples=2)
        assert abs(heat).max() < 1e-2, f"heat differs by {abs(heat).max():.2g}"
        shown["heat"] = float(abs(heat).max())
    [swept], [other] = sweep(here, [prompt], 4), sweep(there, [expected], 4)
    for trait in ("packs", "batches", "watchable"):  # else a fault there would be gone round, not seen
        assert getattr(here, trait) == getattr(there, trait), f"{trait}: {here.admission}"
    shown["sweep"] = float(abs(swept.logits - other.logits).max() / abs(other.logits).max())
    assert shown["sweep"] < LOGITS, f"sweeps differ by {shown['sweep']:.2g} of the largest logit"
    shown["answers"] = sum(a.ids == b.ids for a, b in zip(swept.answers, other.answers, strict=True))
    return shown | {"of": len(swept.answers)}


def half(name: str, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """A miniature in half precision, against float32 on the same device, in last digits."""
    single, model = load_model(name, device=device), load_model(name, dtype=dtype, device=device)
    eps = torch.finfo(dtype).eps
    one, two = (m.logits(m.prompt(scene(), QUESTION)).float() for m in (single, model))
    found = {"logits": float((one - two).norm() / one.norm()) / eps}
    prompts = [m.prompt(scene(), QUESTION) for m in (single, model)]
    raw = [attention_shares(m, prompt).raw for m, prompt in zip((single, model), prompts, strict=True)]
    found["shares"] = float(abs(raw[0] - raw[1]).max()) / eps
    [swept], worst = sweep(model, [prompts[1]], 1), 0.0
    for after in range(model.n_layers + 1):
        with truncated(model, after):
            expected = model.logits(prompts[1])[-1].float().cpu()
        difference = torch.from_numpy(swept.logits[after]) - expected
        worst = max(worst, float(difference.norm() / expected.norm()))
    found["sweep"] = worst / eps
    for quantity, most in HALF.items():
        assert found[quantity] < most, (
            f"{quantity}: {found[quantity]:.1f} last digits; at most {most} expected"
        )
    return found


def table(name: str, device: torch.device, benchmark: str, limit: int) -> dict[str, Any]:
    """A miniature's answers at every layer, against its record from a CPU."""
    from repro.benchmarks import BENCHMARKS
    from repro.benchmarks.miniworld import DIRECTORY
    from repro.evaluation.recorded import compare_with_record, recorded_parts
    from repro.evaluation.run import evaluate, limited
    from repro.protocols import find_task

    task = find_task("official", name, BENCHMARKS[benchmark])
    items = limited(task.benchmark.load(DIRECTORY), limit)
    lvlm, start = load_model(name, device=device), time.perf_counter()
    evaluation = evaluate(lvlm, task, items, progress=False)
    seconds = time.perf_counter() - start
    compare_with_record(evaluation)
    measured = evaluation.parts[task.benchmark.metrics[0].name]
    recorded = recorded_parts(name, task.benchmark, [item.id for item in evaluation.items])
    changed = int((abs(measured - recorded).max(axis=-1) > 1e-6).sum())
    return {"items": len(items), "items/s": len(items) / seconds, "scored otherwise": changed}


def published_shape(device: torch.device, layers: int, width: int, dtype: torch.dtype) -> tuple[Any, Prompt]:
    """LLaVA-1.5 with random weights in its published shape, or another one, and a prompt of random words."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    from repro.models.llava import Llava

    settings = json.loads((FIXTURES / "published" / "llava-1.5" / "config.json").read_text())
    if (layers, width) != (32, 4096):
        settings["text_config"] |= {"num_hidden_layers": layers, "hidden_size": width}
        settings["text_config"] |= {"intermediate_size": 2 * width}
        settings["text_config"] |= {"num_attention_heads": 4, "num_key_value_heads": 4}
        settings["vision_config"] |= {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128}
        settings["vision_config"] |= {"num_attention_heads": 2}
    settings["image_token_index"] = load_model("llava-1.5").image_token_id
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        # On a GPU from the start: weights of this size are drawn there in seconds.
        with device if device.type == "cuda" else nullcontext():
            model = LlavaForConditionalGeneration(LlavaConfig(**settings)).to(device)
    finally:
        torch.set_default_dtype(before)
    model.set_attn_implementation("sdpa")
    model.generation_config.eos_token_id = None
    # Ids and pixels are random; the layers are found by a prompt of the miniature's words and the shape's pixels.
    processor, size = load_model("llava-1.5").processor, settings["vision_config"]["image_size"]
    processor.patch_size = settings["vision_config"]["patch_size"]
    processor.image_processor.size = {"shortest_edge": size}
    processor.image_processor.crop_size = {"height": size, "width": size}
    lvlm = Llava(REGISTRY["llava-1.5"], model, processor, FIXTURES / "llava-1.5")
    side = size // processor.patch_size
    image, draw = side * side, torch.Generator().manual_seed(0)
    ids = torch.randint(3, 300, (1, SYSTEM + image + USER), generator=draw)
    ids[0, SYSTEM : SYSTEM + image] = lvlm.image_token_id
    pixels = torch.randn(1, 3, size, size, generator=draw)
    prompt = Prompt(
        input_ids=ids.to(device),
        image_inputs={"pixel_values": pixels.to(device, dtype)},
        segments=Segments.from_image_mask((ids[0] == lvlm.image_token_id).numpy()),
        grid=(side, side),
        image=Image.new("RGB", (8, 8)),
        text="",
    )
    return lvlm, prompt


def seconds(device: torch.device, run: Callable[[], Any], turns: int = 3) -> tuple[float, int]:
    """Median seconds after one untimed run, and the peak of allocated memory in bytes."""
    cuda = device.type == "cuda"
    run()
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    taken = []
    for _ in range(turns):
        if cuda:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        run()
        if cuda:
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken)), torch.cuda.max_memory_allocated(device) if cuda else 0


@contextmanager
def kernel(lvlm: Any, name: str) -> Iterator[None]:
    """Attention by "sdpa", "eager", or "flash_attention_2" of flash-attn."""
    if name == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise ImportError("flash-attn is not installed")
    with lvlm.kernel(name):
        yield


def timings(lvlm: Any, prompt: Prompt, device: torch.device, name: str) -> dict[str, Any]:
    """Every instrument's time in passes, a sweep's against its bound, and items per second."""
    answer, layers, length = (10, 11, 12), lvlm.n_layers, len(prompt.segments)
    bound = (layers * length + USER * layers * (layers + 1) / 2) / (layers * length)

    def plain() -> Any:
        with torch.inference_mode():
            return lvlm.forward([prompt], last=1)

    with kernel(lvlm, name):
        one, _ = seconds(device, plain)
        shares, _ = seconds(device, lambda: attention_shares(lvlm, prompt, answer))
        cam, cam_peak = seconds(device, lambda: llava_cam(lvlm, prompt, answer))
        swept, sweep_peak = seconds(device, lambda: sweep(lvlm, [prompt], 1))
        with truncated(lvlm, layers // 2):
            cut, _ = seconds(device, lambda: lvlm.answer(prompt, 1))
        batch = 8 if device.type == "cuda" else 2
        many, peak = seconds(device, lambda: sweep(lvlm, [prompt] * batch, 3), turns=1)
    return {
        "pass": f"{1000 * one:.1f} ms",
        "shares / pass": shares / one,
        "CAM / pass": cam / one,
        "sweep / pass": swept / one,
        "its bound": bound,
        "truncated answer of 1 token / pass": cut / one,
        "items/s, 3 tokens": batch / many,
        "peak GiB: CAM, sweep, sweep of a batch": [round(p / GIB, 2) for p in (cam_peak, sweep_peak, peak)],
        "keys and values of the batch, GiB": batch * memory_of(lvlm, prompt, 3) / GIB,
    }


def agreement(lvlm: Any, prompt: Prompt, name: str) -> dict[str, Any]:
    """Sweep against truncated runs in the whole shape, and how many first tokens differ."""
    eps, worst, other = torch.finfo(lvlm.computes_in).eps, 0.0, 0
    with kernel(lvlm, name):
        [swept] = sweep(lvlm, [prompt], 1)
        for after in range(0, lvlm.n_layers + 1, max(1, lvlm.n_layers // 8)):
            with truncated(lvlm, after):
                expected = lvlm.logits(prompt)[-1].float().cpu()
            found = torch.from_numpy(swept.logits[after])
            worst = max(worst, float((found - expected).norm() / expected.norm()))
            other += int(found.argmax() != expected.argmax())
    assert worst < 16 * eps, f"a sweep is {worst / eps:.1f} last digits from truncated runs"
    return {"last digits": worst / eps, "other first tokens": other}


def page(checks: list[dict[str, Any]]) -> str:
    """The outcomes as one page."""

    def cell(value: Any) -> str:
        return html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))

    rows = "".join(
        f"<tr><td>{cell(c['check'])}<td>{cell(c['outcome'])}<td>{c['seconds']}<td>"
        + "; ".join(f"{cell(key)}: {cell(value)}" for key, value in c["shown"].items())
        for c in checks
    )
    style = "body{font-family:sans-serif}td,th{border:1px solid #bbb;padding:4px;text-align:left}"
    head = "<tr><th>check<th>outcome<th>seconds<th>shown"
    return (
        f"<!doctype html><meta charset=utf-8><title>First light</title><style>{style}</style>"
        f"<h1>First light</h1><table>{head}{rows}</table>\n"
    )


def checks_of(report: Report, arguments: argparse.Namespace) -> None:
    """All checks, the most telling first."""
    device = torch.device(arguments.device)
    report.run("environment", environment, device, needs=0)
    names = arguments.models or MINIATURES
    for name in names:
        report.run(f"instruments, {name}", instruments, name, device, needs=10)
    shape: list[Any] = []

    def build() -> dict[str, Any]:
        dtype = torch.bfloat16 if arguments.width == 4096 else torch.float32
        shape.extend(published_shape(device, arguments.layers, arguments.width, dtype))
        count = sum(p.numel() for p in shape[0].model.parameters())
        return {"weights": f"{count / 1e9:.2f} G", "type": str(dtype), "tokens": len(shape[1].segments)}

    report.run(f"{arguments.layers} layers of width {arguments.width}", build, needs=30)
    for name in ("sdpa", "eager", "flash_attention_2") if shape else ():
        report.run(f"times, {name}", timings, *shape, device, name, needs=30)
        report.run(f"sweep is truncated runs, {name}", agreement, *shape, name, needs=10)
    shape.clear()
    for name in names:
        for dtype in (torch.float16, torch.bfloat16):
            report.run(f"{str(dtype).removeprefix('torch.')}, {name}", half, name, device, dtype, needs=5)
    for name in names:
        for benchmark in ("pope", "scienceqa", "textvqa", "chair"):
            report.run(
                f"Table 1, {name} {benchmark}", table, name, device, benchmark, arguments.limit, needs=10
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("first-light"))
    parser.add_argument("--minutes", type=float, default=8, help="none begins that would end later")
    parser.add_argument("--limit", type=int, default=24, help="items of each category and kind of Table 1")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=4096, help="of the random model's decoder")
    parser.add_argument("--models", action="append", help="miniatures, default: all")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("first light: torch sees no CUDA device on this machine", file=sys.stderr)
        return 2
    report = Report(arguments.minutes)
    checks_of(report, arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "first-light.json").write_text(json.dumps(report.checks, indent=1))
    (arguments.out / "first-light.html").write_text(page(report.checks))
    print(
        f"{arguments.out / 'first-light.html'}: {sum(c['outcome'] == 'FAILED' for c in report.checks)} failed"
    )
    return int(any(check["outcome"] == "FAILED" for check in report.checks))


if __name__ == "__main__":
    sys.exit(main())
