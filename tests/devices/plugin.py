"""``-p tests.devices.plugin``: every model that a test loads is on the device of ``tests.devices.pretend``."""

from __future__ import annotations

import pytest

import repro.models
from repro.pytest_plugin import suite
from tests.devices import pretend


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    repro.models.load_model = suite.load_model = pretend.loading(repro.models.load_model)
