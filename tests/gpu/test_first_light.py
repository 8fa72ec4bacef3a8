"""Does the script for a GPU's first minutes run on sizes that a CPU bears, and on a device that is not the CPU?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--layers", "4", "--width", "256", "--models", "llava-1.5", "--limit", "8")
ON_PRETEND = """
import sys
from tests.devices import pretend
from tests.gpu import first_light
pretend.register()
sys.exit(first_light.main())
"""


def light(*arguments: object, start: tuple[str, ...] = ("tests/gpu/first_light.py",)):
    command = [sys.executable, *start, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.devices
@pytest.mark.parametrize("device", ["cpu", "pretend"])
def test_every_check_passes_or_says_what_is_missing(tmp_path, device):
    start = ("-c", ON_PRETEND) if device == "pretend" else ("tests/gpu/first_light.py",)
    result = light("--device", device, "--out", tmp_path, *SMALL, start=start)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    checks = {check["check"]: check for check in json.loads((tmp_path / "first-light.json").read_text())}
    others = {name for name, check in checks.items() if check["outcome"] != "passed"}
    assert others == {"times, flash_attention_2", "sweep is truncated runs, flash_attention_2"}
    assert "flash_attn" in checks["environment"]["shown"]["missing"]
    assert checks["Table 1, llava-1.5 pope"]["shown"]["scored otherwise"] == 0
    page = (tmp_path / "first-light.html").read_text()
    assert all(name in page for name in checks)


def test_checks_without_time_are_named(tmp_path):
    result = light("--device", "cpu", "--out", tmp_path, "--minutes", "0.01", *SMALL)
    assert result.returncode == 0
    checks = json.loads((tmp_path / "first-light.json").read_text())
    assert {check["outcome"] for check in checks[1:]} == {"no time"}


def test_without_cuda_it_says_so(tmp_path):
    result = light("--out", tmp_path / "out")
    assert result.returncode == 2 and "torch sees no CUDA device" in result.stderr
    assert not (tmp_path / "out").exists()
