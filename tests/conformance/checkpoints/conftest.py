"""A checkpoint to spoil."""

from __future__ import annotations

import shutil

import pytest
from safetensors.torch import load_file

from repro.models import find_card
from tests.conformance.checkpoints.spoiling import NAME


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of the miniature to spoil."""
    return shutil.copytree(find_card(NAME).miniature, tmp_path / "checkpoint")


@pytest.fixture
def tensors(checkpoint):
    return load_file(checkpoint / "model.safetensors")
