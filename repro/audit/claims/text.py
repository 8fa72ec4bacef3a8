"""Wording that the entries share."""

from __future__ import annotations

from collections.abc import Iterable


def listed(parts: Iterable[object]) -> str:
    """ "a, b and c"; empty for nothing."""
    words = [str(part) for part in parts]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
