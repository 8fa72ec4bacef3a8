"""What the tests of model types share."""

from __future__ import annotations

import pytest

from repro.models.card import REGISTRY


@pytest.fixture(autouse=True)
def registry():
    """Models that a test registers are gone after it."""
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Directory of records of a test's own: every test proves its models anew."""
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
