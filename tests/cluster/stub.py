"""A stand-in for a model on an actor, in a module that actors can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

#: Seconds that a shard takes.
SHARD = 1.0


class Stub:
    """Stands for a model on an actor: notes its process and its GPU for each shard, and takes a known time."""

    def __init__(self, folder: Path, deaths: int = 0):
        self.folder, self.deaths = folder, deaths

    def measure(self, shard):
        tries = len(list(self.folder.glob(f"{shard.number}-try-*")))
        (self.folder / f"{shard.number}-try-{tries}").touch()
        time.sleep(SHARD)
        if shard.number == 2 and tries < self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        file = self.folder / f"{shard.number}-of-{shard.count}"
        file.write_text(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}")
        return file
