"""Are the versions that the oldest environment is made of those that pyproject.toml promises?"""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.conformance
def test_constraints_are_the_lower_bounds():
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bounds = dict(re.match(r"([\w.-]+)>=([\d.]+)", dependency).groups() for dependency in promised)
    pinned = dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints-lowest.txt").read_text(), flags=re.M)
    )
    # Older builds of torch are not to be had everywhere.
    assert pinned.pop("torch") == "2.13.0" and bounds.pop("torch") == "2.9"
    assert pinned == bounds
