"""When and where something was measured."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


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

    return {
        "repro": version("repro"),
        "commit": commit(),
        **{name: version(name) for name in ("torch", "transformers", "numpy", "tokenizers")},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
    }
