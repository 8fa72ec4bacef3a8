"""When and where something was measured."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version


def now() -> str:
    """Date and time, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> dict[str, str]:
    """What the numbers depend on, besides the code and the data."""
    # Takes a second, which starting a session should not cost.
    import torch

    return {
        **{name: version(name) for name in ("torch", "transformers", "numpy", "tokenizers")},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
    }
