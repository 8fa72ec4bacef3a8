"""When and where something was measured."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repro.models.lvlm import Lvlm


def now() -> str:
    """Date and time, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit() -> str:
    """The commit of this checkout, and whether files differ from it; "no git checkout" if there is none."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "no git checkout"
    return head.stdout.strip() + (", with changes" if changes.stdout else "")


def environment() -> dict[str, str]:
    """What the numbers depend on, besides the code and the data."""
    # Takes a second, which starting a session should not cost.
    import torch

    driver = Path("/proc/driver/nvidia/version")
    return {
        **({"driver": driver.read_text().partition("\n")[0]} if driver.is_file() else {}),
        "repro": version("repro"),
        "commit": commit(),
        **{name: version(name) for name in ("torch", "transformers", "numpy", "tokenizers")},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
    }


def circumstances(lvlm: Lvlm) -> dict[str, str]:
    """What an answer may depend on besides ``Configuration``; under others, a measurement starts anew."""
    import torch

    modules = {sys.modules[type(module).__module__] for module in lvlm.model.modules()}
    files = sorted(filter(None, (getattr(module, "__file__", None) for module in modules)))
    code = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]
    return {
        "code": hashlib.sha256("".join(code).encode()).hexdigest(),
        "kernel": str(getattr(lvlm.decoder.config, "_attn_implementation", "")),
        "threads": str(torch.get_num_threads()),
        **{name: value for name, value in environment().items() if name != "commit"},
    }
