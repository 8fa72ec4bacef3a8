"""Ways to spoil a checkpoint, and what is said of it then."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import save_file

from repro.models import load_model
from repro.models.loading import CheckpointError

NAME = "llava-1.5"


def store(checkpoint, tensors, name="model.safetensors"):
    save_file(tensors, checkpoint / name, metadata={"format": "pt"})


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(checkpoint) -> str:
    """The error of loading it."""
    with pytest.raises(CheckpointError) as found:
        load_model(NAME, checkpoint)
    return str(found.value)
