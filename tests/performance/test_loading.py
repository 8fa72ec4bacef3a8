"""How much memory a sharded checkpoint takes to load, and Shikra's delta and base to merge.

The checkpoints are the published layouts with a wide decoder, all weights 0: as many tensors as a small model has,
in as many bytes as asked for. Each is loaded in a process of its own, after a small one of the same layout that
has everything imported and allocated once. Linux only: figures are from /proc/self.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from repro.models.card import FIXTURES

pytestmark = pytest.mark.performance

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "tests" / "conformance" / "published_code"
MIB = 2**20
#: Weights of a checkpoint, in bytes, and the shards they lie in.
SIZE, SHARDS = 512 * MIB, 6
#: What two loads of the same small checkpoint differ by, generously: heap that the allocator keeps.
ALLOWANCE = 8 * MIB

#: Prints by how many bytes the peak of resident memory rises while a checkpoint is loaded and every weight read.
#: Weights may stay views of the files, so mapped pages count too; writing 5 to clear_refs resets the peak.
LOAD = """
import re, sys
from pathlib import Path
import torch
from repro.models import load_model

def resident(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def load(path):
    lvlm = load_model(sys.argv[1], Path(path), dtype=torch.float16)
    for weight in lvlm.model.parameters():
        weight.view(torch.uint8).max()

load(sys.argv[2])
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
load(sys.argv[3])
print(resident("VmHWM") - before)
"""

#: The same of a merge, but of the process's own pages: delta and base are read through mappings, whose pages the
#: system takes back at will. It keeps no peak of the others, so they are looked at all the time.
MERGE = """
import re, sys, threading, time
from pathlib import Path
from repro.models.shikra import merge

def private():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def look():
    while not done.wait(0.002):
        seen.append(private())

small, big = map(Path, sys.argv[1:])
merge(small / "delta", small / "base", small / "tower", small / "out")
seen, done = [private()], threading.Event()
looking = threading.Thread(target=look)
looking.start()
merge(big / "delta", big / "base", small / "tower", big / "out")
done.set()
looking.join()
print(max(seen) - seen[0])
"""


def measured(script: str, *arguments: object) -> int:
    """What a script prints, run by itself."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def widened(shapes: dict[str, list[int]], config: dict, size: int) -> tuple[dict[str, list[int]], dict]:
    """Shapes and decoder configuration with an MLP so wide that it holds about ``size`` bytes in float16."""
    mlp = [name for name in shapes if re.search(r"layers\.\d+\.mlp\.(gate|up|down)_proj\.weight", name)]
    inner = config["intermediate_size"]
    wide = size // (2 * config["hidden_size"] * len(mlp))
    wider = {name: [wide if side == inner else side for side in shapes[name]] for name in mlp}
    return shapes | wider, config | {"intermediate_size": wide}


def store(directory: Path, shapes: dict[str, list[int]], shards: int) -> tuple[int, int]:
    """Write zeros, in the order of the shapes; returns the bytes of all and of the largest shard."""
    directory.mkdir(parents=True, exist_ok=True)
    total, filled = 2 * sum(map(prod, shapes.values())), 0
    parts: dict[str, list[str]] = {}
    for name, shape in shapes.items():
        parts.setdefault(f"model-{filled * shards // total + 1:05}.safetensors", []).append(name)
        filled += 2 * prod(shape)
    for file, names in parts.items():
        zeros = {name: torch.zeros(shapes[name], dtype=torch.float16) for name in names}
        save_file(zeros, directory / file, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": total},
        "weight_map": {name: file for file, names in parts.items() for name in names},
    }
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return total, max((directory / file).stat().st_size for file in parts)


def llava(directory: Path, size: int, shards: int) -> tuple[int, int]:
    """LLaVA-1.5, as transformers loads it."""
    miniature = FIXTURES / "llava-1.5"
    shutil.copytree(miniature, directory, ignore=shutil.ignore_patterns("*.safetensors", "*.jsonl"))
    with safe_open(miniature / "model.safetensors", framework="pt") as opened:
        shapes = {name: list(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    config = json.loads((directory / "config.json").read_text())
    shapes, config["text_config"] = widened(shapes, config["text_config"], size)
    (directory / "config.json").write_text(json.dumps(config))
    return store(directory, shapes, shards)


def intern_vl(directory: Path, size: int, shards: int) -> tuple[int, int]:
    """InternVL-Chat 1.0, whose tensors are renamed and split on the way."""
    described = json.loads((PUBLISHED / "intern-vl.json").read_text())
    shapes, config = widened(described["shapes"], described["config"], size)
    (directory / "vision_tower").mkdir(parents=True)
    (directory / "vision_tower" / "config.json").write_text(json.dumps(described["vision_config"]))
    (directory / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(FIXTURES / "llava-1.5" / file, directory / file)
    return store(directory, shapes, shards)


@pytest.mark.parametrize(("name", "write"), [("llava-1.5", llava), ("intern-vl", intern_vl)])
def test_loading_peaks_at_the_weights_and_one_shard(name, write, tmp_path, figure):
    write(tmp_path / "small", MIB, 1)
    size, shard = write(tmp_path / "big", SIZE, SHARDS)
    peak = measured(LOAD, name, tmp_path / "small", tmp_path / "big")
    shutil.rmtree(tmp_path)
    title = f"loading {name}, {size / MIB:.0f} MiB in {SHARDS} shards: peak memory"
    figure(f"{title} / weights", peak / size)
    figure(f"{title} / (weights + one shard)", (peak - ALLOWANCE) / (size + shard), 1.0)


def test_merging_shikra_peaks_at_one_shard(tmp_path, figure):
    described = json.loads((PUBLISHED / "shikra.json").read_text())
    for where, size, shards in (("small", MIB, 1), ("big", SIZE, SHARDS)):
        for part in ("base", "delta"):
            shapes, config = widened(described[f"{part}_shapes"], described["config"], size)
            shard = store(tmp_path / where / part, shapes, shards)[1]
            (tmp_path / where / part / "config.json").write_text(json.dumps(config))
    store(tmp_path / "small" / "tower", described["vision_shapes"], 1)
    (tmp_path / "small" / "tower" / "config.json").write_text("{}")
    peak = measured(MERGE, tmp_path / "small", tmp_path / "big")
    shutil.rmtree(tmp_path)
    title = f"merging Shikra, {SIZE / MIB:.0f} MiB in {SHARDS} shards: peak memory of its own"
    figure(f"{title} / one shard", (peak - ALLOWANCE) / shard, 1.0)
