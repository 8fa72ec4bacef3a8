"""Goldens: arrays recorded under ``golden/<test module>/``, compared with stated tolerances (syrupy).

A golden is one ``.npz`` per test and parameters, written by ``pytest --snapshot-update`` and only if
the computed arrays are outside the tolerance of the recorded ones. Integers, booleans and strings are
compared exactly, floats by ``|actual - expected| <= atol + rtol |expected|``. Tiers with their own tolerance
are subclasses at module level: syrupy creates them without arguments and, under pytest-xdist, imports them
again by name.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension
from syrupy.location import PyTestLocation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Arrays = dict[str, np.ndarray]

HOW_TO_RECORD = "if this is the wanted result, record it with: pytest -m golden --snapshot-update"
_UNREADABLE = "the golden is not a readable .npz: restore it from version control, or record it anew"
#: Most heat maps in one figure; those that differ most are drawn.
_MOST_ROWS = 16
#: Most characters of a value quoted in a message.
_MOST_CHARACTERS = 80


def pack(arrays: Mapping[str, Any]) -> bytes:
    """The bytes of an ``.npz``: equal arrays give equal bytes, on every machine and day.

    Raises:
        TypeError: an array that is not of numbers, booleans or unicode strings; the message names it.
    """
    buffer = io.BytesIO()
    # Stored, not deflated: zlib's output for the same bytes depends on its version.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            array = np.asarray(arrays[name])
            if array.dtype.kind not in "biufU":
                raise TypeError(f"a golden holds numbers and strings; {name!r} is of dtype {array.dtype}")
            content = io.BytesIO()
            np.save(content, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), content.getvalue())
    return buffer.getvalue()


def unpack(content: bytes) -> Arrays | None:
    """The arrays of ``pack``; None if the bytes are not such a file."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile):
        return None


class Golden(SingleFileSnapshotExtension):
    """Arrays as an ``.npz``, compared by ``atol`` and ``rtol``.

    Attributes:
        figure: where to draw a mismatch; None draws nothing.
    """

    file_extension = "npz"
    atol = 1e-5
    rtol = 1e-5
    figure: Path | None = None

    def settle(self, expected: Arrays, actual: Arrays) -> tuple[Arrays, Arrays]:
        """Both sides as they are compared element by element; they agree in names, shapes and dtypes."""
        return expected, actual

    def serialize(self, data: Any, **kwargs: Any) -> bytes:
        return pack(data)

    @classmethod
    def dirname(cls, *, test_location: PyTestLocation) -> str:
        return str(test_location.item.config.rootpath / "golden" / test_location.basename)

    @classmethod
    def discovery_dirname(cls, *, test_location: PyTestLocation) -> str:
        # Not all of golden/, which holds other records that must not be cleaned up as unused.
        return cls.dirname(test_location=test_location)

    def compare(self, recorded: bytes, computed: bytes) -> tuple[list[str], Arrays, Arrays]:
        """One line per difference, and the arrays of equal structure that differ: expected and actual."""
        expected, actual = unpack(recorded), unpack(computed)
        if expected is None or actual is None:
            return [_UNREADABLE], {}, {}
        if lines := list(structure_differences(expected, actual)):
            return lines, {}, {}
        expected, actual = self.settle(expected, actual)
        changed = [name for name in expected if self.wrong(expected[name], actual[name]).any()]
        lines = [self.describe(name, expected[name], actual[name]) for name in changed]
        return lines, {name: expected[name] for name in changed}, {name: actual[name] for name in changed}

    def matches(self, *, serialized_data: Any, snapshot_data: Any) -> bool:
        return not self.compare(snapshot_data, serialized_data)[0]

    def diff_lines(self, serialized_data: Any, snapshot_data: Any) -> Iterator[str]:
        """What differs, one line per array, and where the figure of it is."""
        if not snapshot_data:
            yield f"nothing is recorded for this test yet; {HOW_TO_RECORD}"
            return
        lines, expected, actual = self.compare(snapshot_data, serialized_data)
        yield from lines
        drawn = [name for name, array in expected.items() if array.dtype.kind in "biuf" and array.ndim]
        if self.figure is not None and drawn:
            draw({name: (expected[name], actual[name]) for name in drawn}, self.figure)
            yield f"figure of expected, actual and difference: {self.figure}"
        yield HOW_TO_RECORD

    def wrong(self, expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """True where two arrays of one shape differ beyond the tolerance."""
        if expected.dtype.kind != "f":
            return np.asarray(expected != actual)
        with np.errstate(invalid="ignore", over="ignore"):
            return ~np.isclose(actual, expected, rtol=self.rtol, atol=self.atol, equal_nan=True)

    def describe(self, name: str, expected: np.ndarray, actual: np.ndarray) -> str:
        """One line about an array that differs."""
        wrong = self.wrong(expected, actual)
        line = f"{name} {_kind(expected)} {list(expected.shape)}: {wrong.sum()} of {wrong.size} differ"
        if expected.dtype.kind == "U":
            at = _index(wrong)
            values = f"expected {_short(expected[at])}, actual {_short(actual[at])}"
            return f"{line}; first at {list(at)}: {values}"
        distance = distances(expected, actual)
        # The largest of those out of tolerance, which with rtol need not be the largest of all.
        at = _index(np.where(wrong, distance, -1.0))
        tolerance = f" beyond {self.atol:g} + {self.rtol:g} |expected|" if expected.dtype.kind == "f" else ""
        return (
            f"{line}{tolerance}; absolute difference at most {distance[at]:.3g}, at {list(at)} "
            f"(expected {expected[at]:.6g}, actual {actual[at]:.6g}), {distance.mean():.3g} on average"
        )


def structure_differences(expected: Arrays, actual: Arrays) -> Iterator[str]:
    """One line per array that only one side has, or whose shape or dtype differs."""
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            yield f"{name}: recorded, but not computed any more"
        elif name not in expected:
            yield f"{name}: computed, but not recorded"
        elif expected[name].shape != actual[name].shape:
            yield f"{name}: expected shape {list(expected[name].shape)}, actual {list(actual[name].shape)}"
        elif _kind(expected[name]) != _kind(actual[name]):
            yield f"{name}: expected dtype {_kind(expected[name])}, actual {_kind(actual[name])}"


def _kind(array: np.ndarray) -> str:
    """The dtype, without the width of strings, which follows from the longest."""
    return "str" if array.dtype.kind == "U" else array.dtype.name


def distances(expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Absolute differences, float64: 0 between equal infinities or NaNs, infinite if only one side is NaN."""
    first, second = expected.astype(np.float64), actual.astype(np.float64)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, np.nan_to_num(np.abs(first - second), nan=np.inf, posinf=np.inf))


def _index(values: np.ndarray) -> tuple[int, ...]:
    """Index of the (first) largest value."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(values)), values.shape))


def _short(value: Any) -> str:
    text = repr(str(value))
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


def draw(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """A figure of arrays that differ: heat maps of their last two axes, or lines if they have one axis.

    Args:
        pairs: expected and actual, by name.
    """
    from matplotlib.figure import Figure

    rows = []
    for name, pair in pairs.items():
        shape = pair[0].shape
        expected, actual = (array.astype(np.float64).reshape(-1, *shape[-2:]) for array in pair)
        worst = distances(expected, actual).reshape(len(expected), -1).max(axis=1)
        for i in sorted((-worst).argsort(kind="stable")[:_MOST_ROWS]):
            index = list(np.ndindex(shape[:-2]))[i]
            rows.append((f"{name}{list(index) if index else ''}", expected[i], actual[i]))
    rows = rows[:_MOST_ROWS]
    figure = Figure(figsize=(9, 2.2 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for line, (title, expected, actual) in zip(axes, rows, strict=True):
        with np.errstate(invalid="ignore"):
            difference = actual - expected
        finite = np.concatenate([expected[np.isfinite(expected)], actual[np.isfinite(actual)], [0.0]])
        span = float(np.abs(difference[np.isfinite(difference)]).max(initial=0.0)) or 1.0
        limits = (float(finite.min()), float(finite.max()))
        _panel(line[0], f"{title} expected", expected, limits, "viridis")
        _panel(line[1], f"{title} actual", actual, limits, "viridis")
        _panel(line[2], f"{title} difference", difference, (-span, span), "coolwarm")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _panel(ax: Axes, title: str, values: np.ndarray, limits: tuple[float, float], colours: str) -> None:
    ax.set_title(title, fontsize=8)
    if values.ndim == 1:
        ax.plot(values, marker=".")
        return
    low, high = limits
    image = ax.imshow(values, vmin=low, vmax=high, cmap=colours, aspect="auto", interpolation="nearest")
    ax.figure.colorbar(image, ax=ax)


@pytest.fixture
def golden(
    snapshot: SnapshotAssertion, pytestconfig: pytest.Config
) -> Callable[[Mapping[str, Any], type[Golden]], None]:
    """Compare arrays with the golden of this test, once per test; AssertionError that says what differs.

    Figures of mismatches go to ``golden/`` in the directory of ``--report``.
    """

    def check(arrays: Mapping[str, Any], tier: type[Golden] = Golden) -> None:
        assertion = snapshot.use_extension(tier)
        extension = assertion.extension
        assert isinstance(extension, Golden)
        name = tier.get_snapshot_name(test_location=assertion.test_location)
        report = Path(pytestconfig.getoption("--report")).absolute()
        extension.figure = report / "golden" / f"{name}.png"
        if assertion == arrays:
            return
        result = assertion.executions[assertion.num_executions - 1]
        if result.exception is not None:
            raise result.exception
        # Not pytest's own report of a failed ==, which truncates long explanations.
        message = extension.diff_lines(result.asserted_data, result.recalled_data or b"")
        raise AssertionError("\n  ".join([f"{result.snapshot_location}:", *message]))

    return check
