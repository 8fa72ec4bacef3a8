"""Goldens are of the shipped miniatures on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from repro.golden import golden as golden
from repro.models import find_card, load_model
from repro.pytest_plugin.options import models_of

if TYPE_CHECKING:
    from repro.models.lvlm import Lvlm


@pytest.fixture(scope="session")
def lvlm(model_name: str, pytestconfig: pytest.Config) -> Lvlm:
    """The model's miniature in float32."""
    from repro.models.loading import CheckpointError

    card = find_card(model_name)
    path = models_of(pytestconfig)[model_name]
    if path is not None and (card.miniature is None or path.resolve() != card.miniature.resolve()):
        pytest.fail(
            f"--model {model_name}={path}: goldens are recorded from shipped miniatures only; leave the path "
            'away, or leave the goldens out with -m "not golden"',
            pytrace=False,
        )
    try:
        return load_model(model_name)
    except CheckpointError as error:
        pytest.fail(f"--model {model_name}: {error}", pytrace=False)
