"""Numbers and untrusted strings as people should see them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

MISSING = "n/a"

#: Control, format (bidirectional and zero-width), surrogate, private, unassigned, line and paragraph
#: separators: characters that are invisible, reorder their neighbours, or cannot be encoded.
_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def _shown(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures, in the order of ASCII
    if unicodedata.category(character) in _UNSAFE:
        return f"⟨U+{code:04X}⟩"
    return character


def visible(text: object, limit: int) -> str:
    """``text`` with every invisible or reordering character spelled out, at most ``limit`` characters.

    What is cut off is replaced by an ellipsis, which counts. A spelled-out character is never halved.
    The result still needs escaping for the place it goes to.
    """
    source = str(text)
    pieces = [_shown(character) for character in source[: limit + 1]]
    length = sum(map(len, pieces))
    if length <= limit:
        return "".join(pieces)
    while length > limit - 1:
        length -= len(pieces.pop())
    return "".join(pieces) + "…"


def _signed(value: float | None, spec: str) -> str:
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    printed = format(100 * value, spec)
    if float(printed) == 0:
        return format(0.0, spec.lstrip("+"))
    return printed.replace("-", "−")


def percent(value: float | None, decimals: int = 1) -> str:
    """A fraction as percent, without the sign; ``n/a`` where undefined."""
    return _signed(value, f".{decimals}f")


def points(value: float | None) -> str:
    """A difference of fractions in percentage points, always with its sign unless it prints as zero."""
    return _signed(value, "+.1f")


def percent_interval(interval: tuple[float, float] | None, decimals: int = 1) -> str:
    """``[low, high]`` in percent."""
    return f"[{', '.join(percent(end, decimals) for end in interval)}]" if interval else f"[{MISSING}]"


def points_interval(interval: tuple[float, float] | None) -> str:
    """``[low, high]`` in percentage points."""
    return f"[{points(interval[0])}, {points(interval[1])}]" if interval else f"[{MISSING}]"


def margin_points(margin: float) -> str:
    """A margin, in units of the score, as "3 points"."""
    return f"{100 * margin:g} points"


def arrow(higher_is_better: bool) -> str:
    """The direction in which a metric gets better."""
    return "↑" if higher_is_better else "↓"


def layer(value: int | None) -> str:
    """A layer number; ``n/a`` where there is none."""
    return MISSING if value is None else f"{int(value)}"


def layer_interval(interval: tuple[int, int] | None) -> str:
    """``[low, high]`` of layers."""
    return f"[{layer(interval[0])}, {layer(interval[1])}]" if interval else f"[{MISSING}]"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, columns aligned; a row may lack its last cells."""
    widths = [max(len(row[i]) for row in rows if len(row) > i) for i in range(max(map(len, rows)))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
