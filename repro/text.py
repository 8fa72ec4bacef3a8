"""Numbers and untrusted strings, formatted for people."""

import math
import unicodedata
from collections.abc import Sequence

MISSING = "n/a"

#: Control, format (bidirectional and zero-width), surrogate, private, unassigned, line and paragraph separators:
#: characters that are invisible, reorder their neighbours, or cannot be encoded.
_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def _shown(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's control pictures, in the order of ASCII
    if unicodedata.category(character) in _UNSAFE:
        return f"⟨U+{code:04X}⟩"
    return character


def visible(text: object, limit: int) -> str:
    """``text`` with every invisible or reordering character spelled out, at most ``limit`` characters.

    An ellipsis, which counts, replaces what does not fit. A spelled-out character is never split. The result still
    needs escaping for its destination.
    """
    source = str(text)
    if len(source) <= limit and source.isprintable():  # most are, and nothing of them is unsafe
        return source
    pieces = [_shown(character) for character in source[: limit + 1]]
    length = sum(map(len, pieces))
    if length <= limit:
        return "".join(pieces)
    while length > limit - 1:
        length -= len(pieces.pop())
    return "".join(pieces) + "…"


def printable(message: str) -> str:
    """A message for a terminal: ``visible``, but of any length, and lines stay lines."""
    return "".join(character if character == "\n" else _shown(character) for character in message)


def percent(value: float | None, decimals: int = 1, sign: str = "") -> str:
    """A fraction as percent; ``n/a`` if undefined. With ``sign="+"`` positive numbers get their sign too."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    printed = f"{100 * value:{sign}.{decimals}f}"
    return f"{0:.{decimals}f}" if float(printed) == 0 else printed.replace("-", "−")


def points(value: float) -> str:
    """A difference of fractions in percentage points, with its sign unless it is printed as zero."""
    return percent(value, sign="+")


def percent_interval(interval: tuple[float, float] | None, decimals: int = 1) -> str:
    """``[low, high]`` in percent."""
    return f"[{', '.join(percent(end, decimals) for end in interval) if interval else MISSING}]"


def points_interval(interval: tuple[float, float]) -> str:
    """``[low, high]`` in percentage points."""
    return f"[{', '.join(map(points, interval))}]"


def margin_points(margin: float) -> str:
    """A margin, in units of the score, as "3 points"."""
    return f"{100 * margin:g} points"


def arrow(higher_is_better: bool) -> str:
    """The direction in which a metric improves."""
    return "↑" if higher_is_better else "↓"


def layer(value: int | None) -> str:
    """A layer number; ``n/a`` if there is none."""
    return MISSING if value is None else f"{int(value)}"


def layer_interval(interval: tuple[int, int] | None) -> str:
    """``[low, high]`` of layers."""
    return f"[{layer(interval[0])}, {layer(interval[1])}]" if interval else f"[{MISSING}]"


def cliff_interval(interval: tuple[int, int] | None, caveat: str) -> str:
    """The interval of a cliff layer, and why it says little."""
    return f"{layer_interval(interval)} {caveat}".rstrip()


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with aligned columns; a row may lack its last cells."""
    widths = [max(len(row[i]) for row in rows if len(row) > i) for i in range(max(map(len, rows)))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
