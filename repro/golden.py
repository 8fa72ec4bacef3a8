"""Goldens: arrays recorded under ``golden/<test module>/``, compared with stated tolerances (syrupy).

A golden is one ``.npz`` per test and parameters, written by ``pytest --snapshot-update`` and only when
what is computed lies outside the tolerance of what is recorded. Integers, booleans and strings are
compared exactly, floats by ``|actual - expected| <= atol + rtol |expected|``. Tiers with a tolerance of
their own are subclasses at module level: syrupy makes them without arguments and, under pytest-xdist,
imports them again by name.
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
#: Most heat maps of one picture; those that differ most are drawn.
_MOST_ROWS = 16
#: Most characters of a value quoted in a message.
_MOST_CHARACTERS = 80


def pack(arrays: Mapping[str, Any]) -> bytes:
    """The bytes of an ``.npz``: equal arrays give equal bytes, on every machine and day.

    Raises:
        TypeError: an array that is not of numbers, booleans or unicode strings; the message names it.
    """
    buffer = io.BytesIO()
    # Stored, not deflated: what zlib makes of the same bytes depends on its version.
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
        picture: where to draw a mismatch; None draws nothing.
    """

    file_extension = "npz"
    atol = 1e-5
    rtol = 1e-5
    picture: Path | None = None

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
        # Not the whole of golden/, where other records lie that must not be cleaned up as unused.
        return cls.dirname(test_location=test_location)

    def matches(self, *, serialized_data: Any, snapshot_data: Any) -> bool:
        expected, actual = unpack(snapshot_data), unpack(serialized_data)
        if expected is None or actual is None or any(structure_differences(expected, actual)):
            return False
        expected, actual = self.settle(expected, actual)
        return not any(self.wrong(expected[name], actual[name]).any() for name in expected)

    def diff_lines(self, serialized_data: Any, snapshot_data: Any) -> Iterator[str]:
        """What differs, one line per array, and where the picture of it is."""
        if not snapshot_data:
            yield f"nothing is recorded for this test yet; {HOW_TO_RECORD}"
            return
        expected, actual = unpack(snapshot_data), unpack(serialized_data)
        if expected is None or actual is None:
            yield "the golden is not a readable .npz: restore it from version control, or record it anew with"
            yield "pytest -m golden --snapshot-update"
            return
        lines = list(structure_differences(expected, actual))
        if not lines:
            expected, actual = self.settle(expected, actual)
            changed = [name for name in expected if self.wrong(expected[name], actual[name]).any()]
            lines = [self.describe(name, expected[name], actual[name]) for name in changed]
            drawn = [name for name in changed if expected[name].dtype.kind in "biuf" and expected[name].ndim]
            if self.picture is not None and drawn:
                draw({n: expected[n] for n in drawn}, {n: actual[n] for n in drawn}, self.picture)
                lines.append(f"picture of expected, actual and difference: {self.picture}")
        yield from lines
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
            return (
                f"{line}; first at {list(at)}: expected {_short(expected[at])}, actual {_short(actual[at])}"
            )
        distance = distances(expected, actual)
        # The largest among those out of tolerance: with rtol it need not be the largest of all.
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
    """Absolute differences, float64: 0 between equal infinities or NaNs, infinite if one side alone is NaN."""
    first, second = expected.astype(np.float64), actual.astype(np.float64)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, np.nan_to_num(np.abs(first - second), nan=np.inf, posinf=np.inf))


def _index(values: np.ndarray) -> tuple[int, ...]:
    """Where the (first) largest value is."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(values)), values.shape))


def _short(value: Any) -> str:
    text = repr(str(value))
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


def draw(expected: Arrays, actual: Arrays, path: Path) -> None:
    """A picture of arrays that differ: heat maps of their last two axes, or lines if they have one axis."""
    from matplotlib.figure import Figure

    rows = []
    for name, array in expected.items():
        parts = array.reshape(-1, *array.shape[-2:])
        others = actual[name].reshape(parts.shape)
        indices = list(np.ndindex(array.shape[:-2]))
        worst = np.argsort(
            [-distances(a, b).max() for a, b in zip(parts, others, strict=True)], kind="stable"
        )
        for i in sorted(worst[:_MOST_ROWS]):
            rows.append((f"{name}{list(indices[i]) if indices[i] else ''}", parts[i], others[i]))
    rows = rows[:_MOST_ROWS]
    figure = Figure(figsize=(9, 2.2 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for line, (title, first, second) in zip(axes, rows, strict=True):
        first, second = first.astype(np.float64), second.astype(np.float64)
        with np.errstate(invalid="ignore"):
            difference = second - first
        finite = np.concatenate([first[np.isfinite(first)], second[np.isfinite(second)], [0.0]])
        span = float(np.abs(difference[np.isfinite(difference)]).max(initial=0.0)) or 1.0
        limits = (float(finite.min()), float(finite.max()))
        for ax, what, values in zip(
            line, ("expected", "actual", "difference"), (first, second, difference), strict=True
        ):
            ends = (-span, span) if what == "difference" else limits
            _panel(ax, values, ends, "coolwarm" if what == "difference" else "viridis")
            ax.set_title(f"{title} {what}", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _panel(ax: Axes, values: np.ndarray, ends: tuple[float, float], colours: str) -> None:
    if values.ndim == 1:
        ax.plot(values, marker=".")
        return
    shown = ax.imshow(
        values, vmin=ends[0], vmax=ends[1], cmap=colours, aspect="auto", interpolation="nearest"
    )
    ax.figure.colorbar(shown, ax=ax)


@pytest.fixture
def golden(
    snapshot: SnapshotAssertion, pytestconfig: pytest.Config
) -> Callable[[Mapping[str, Any], type[Golden]], None]:
    """Compare arrays with the golden of this test, once per test; AssertionError that says what differs.

    Pictures of mismatches go to ``golden/`` in the directory of ``--report``.
    """

    def check(arrays: Mapping[str, Any], tier: type[Golden] = Golden) -> None:
        assertion = snapshot.use_extension(tier)
        extension = assertion.extension
        assert isinstance(extension, Golden)
        name = tier.get_snapshot_name(test_location=assertion.test_location)
        report = Path(pytestconfig.getoption("--report")).absolute()
        extension.picture = report / "golden" / f"{name}.png"
        if assertion == arrays:
            return
        result = assertion.executions[assertion.num_executions - 1]
        if result.exception is not None:
            raise result.exception
        # Not pytest's own report of a failed ==, which cuts long explanations off.
        message = extension.diff_lines(result.asserted_data, result.recalled_data or b"")
        raise AssertionError("\n  ".join([f"{result.snapshot_location}:", *message]))

    return check
