"""Do models, inputs and instruments keep to one device, which is not the CPU? On a machine that has no other.

Every instrument runs on ``tests.devices.pretend``'s device and must give what it gives on the CPU; under
``-m devices`` every test body of the invariants runs there. Three faults, put into a copy of the package on
purpose, must be noticed. Each runs in a process of its own: torch knows such a device from then on.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repro.models.card import MINIATURES, REGISTRY

#: Modules of tests whose bodies run on the device.
BODIES = ("attention", "cam", "curves", "half_precision", "model", "sweep", "truncation", "withdrawal")
#: Every instrument on miniatures, on the device and on the CPU.
INSTRUMENTS = """
import sys
from tests.devices import pretend
from tests.gpu.first_light import instruments

for name in sys.argv[1:]:
    print(name, instruments(name, pretend.register()))
"""
#: The same on a model whose later layers are on another device than all else.
SPREAD = """
import sys
import torch
from repro.curves import deletion_curve
from repro.models import load_model
from repro.models.placing import spread
from repro.sweep import sweep
from repro.truncation import truncated
from tests.devices import pretend
from tests.gpu import first_light

def spread_over(lvlm, devices):
    spread(lvlm.model, devices)
    where = [next(layer.parameters()).device.type for layer in lvlm.layers]
    assert where == sorted(where, key=[device.type for device in devices].index) and len(set(where)) == 2, where
    assert lvlm.device.type == devices[0].type and len(lvlm.devices) == 2
    return lvlm

def load(name, device=None):
    lvlm = load_model(name)
    return spread_over(lvlm, device) if device else lvlm

first_light.load_model, private = load, pretend.register()
for name in sys.argv[1:]:
    for devices in ([torch.device("cpu"), private], [private, torch.device("cpu")]):
        print(name, first_light.instruments(name, devices))
        answers = []
        for lvlm in (load(name, devices), load(name)):
            prompt, half = lvlm.prompt(first_light.scene(), first_light.QUESTION), lvlm.n_layers // 2
            for after in (half, lvlm.n_layers - 1):
                with truncated(lvlm, after, keep=2):
                    answers.append(lvlm.answer(prompt, 4))
            answers += sweep(lvlm, [prompt], 4, keep=2)[0].answers
            order = range(len(prompt.segments.image))
            answers.append(deletion_curve(lvlm, prompt, answers[0].ids, order).round(3).tolist())
        assert answers[: len(answers) // 2] == answers[len(answers) // 2 :], answers
"""

#: Of the miniatures, the first is tried on every run.
NAMES = [*MINIATURES]
ROOT = Path(__file__).resolve().parents[2]
#: File, text and fault: a tensor made on the CPU, a generator of the CPU for the device, numpy of its tensor.
FAULTS = {
    "tensor": (
        "repro/attention.py",
        "rows = torch.arange(len(prompt.segments) - 1, len(labels), device=lvlm.device)",
        "rows = torch.arange(len(prompt.segments) - 1, len(labels))",
        "Expected all tensors to be on the same device",
    ),
    "generator": (
        "repro/cam.py",
        "lvlm.pixel_name(prompt)].shape, generator=draw)",
        "lvlm.pixel_name(prompt)].shape, generator=draw, device=lvlm.device)",
        "device type for generator",
    ),
    "numpy": ("repro/sweep.py", "first.float().cpu().numpy()", "first.float().numpy()", "numpy() is not"),
}


def instruments_on_the_device(
    root: Path, *names: str, script: str = INSTRUMENTS
) -> subprocess.CompletedProcess[str]:
    """Every instrument of a copy of this checkout on miniatures."""
    command = [sys.executable, "-c", script, *names]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of this checkout to put faults into; data by reference."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("repro", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("fixtures", "golden", "docs", "conftest.py", "pyproject.toml", "README.md"):
        (root / name).symlink_to(ROOT / name)
    return root


@pytest.mark.conformance
@pytest.mark.parametrize("names", [NAMES[:1], pytest.param(NAMES[1:], marks=pytest.mark.devices)])
def test_every_instrument_keeps_to_its_device(names):
    result = instruments_on_the_device(ROOT, *names)
    assert result.returncode == 0, result.stdout + result.stderr[-4000:]
    assert [line.split()[0] for line in result.stdout.splitlines()] == names


@pytest.mark.conformance
@pytest.mark.parametrize("names", [NAMES[:1], pytest.param(NAMES[1:], marks=pytest.mark.devices)])
def test_every_instrument_works_on_a_model_on_two_devices(names):
    result = instruments_on_the_device(ROOT, *names, script=SPREAD)
    assert result.returncode == 0, result.stdout + result.stderr[-4000:]
    assert [line.split()[0] for line in result.stdout.splitlines()] == [n for n in names for _ in range(2)]


@pytest.mark.devices
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_devices_turns_that_test_red(copied, fault):
    file, text, wrong, message = FAULTS[fault]
    source = (copied / file).read_text()
    assert source.count(text) == 1, f"{file} no longer holds {text!r}"
    (copied / file).write_text(source.replace(text, wrong))
    try:
        result = instruments_on_the_device(copied, "llava-1.5")
    finally:
        (copied / file).write_text(source)
    assert result.returncode == 1 and message in result.stderr, result.stdout + result.stderr[-4000:]


@pytest.mark.devices
def test_every_test_body_keeps_to_its_device():
    bodies = [f"tests/invariants/test_{name}.py" for name in BODIES]
    options = ["-p", "tests.devices.plugin", "-p", "no:cacheprovider", "-q", "--model", "llava-1.5"]
    command = [sys.executable, "-m", "pytest", *options, *bodies]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]


@pytest.mark.conformance
def test_every_test_for_cuda_runs_to_its_check():
    """Without a GPU they are stopped by that, all of them and by nothing else."""
    given = ["-m", "gpu", "--model", f"llava-1.5={REGISTRY['llava-1.5'].miniature}", "-q", "--tb=line"]
    command = [sys.executable, "-m", "pytest", *given, "-p", "no:cacheprovider", "tests"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "COLUMNS": "300"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    told = re.search(
        r"^-m gpu: torch sees no CUDA device on this machine; (\d+) tests are stopped by this .*-cuda\]\]$",
        result.stdout,
        re.MULTILINE,
    )
    assert told and int(told[1]) > 100, result.stdout[-3000:]
    assert re.search(r"^\d+ deselected, 1 error in ", result.stdout, re.MULTILINE), result.stdout[-3000:]
