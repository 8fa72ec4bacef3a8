"""The figures draw what they were given, legibly."""

from __future__ import annotations

import base64
import io
import warnings
from collections import Counter
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from repro.report.cam_figure import figures3_4, overlay
from repro.report.figures import DPI, WIDTH, figure2, figure5, figure_pointing, png
from repro.report.heat import heat_of
from repro.report.panels import benchmark_colours

pytestmark = pytest.mark.invariant

PHONE = 358  # CSS pixels that a 390-pixel phone leaves for a figure


def texts(figure: Figure) -> list[str]:
    return [item.get_text() for axes in figure.axes for item in axes.findobj(matplotlib.text.Text)]


def test_curve_is_drawn_as_given(sample):
    given = sample.curve()
    figure = figure5([given])
    panel, second = figure.axes
    drawn = [line.get_xydata() for line in panel.lines]
    full = next(xy for xy in drawn if len(xy) == 11)
    np.testing.assert_allclose(full, np.stack([np.arange(11), 100 * given.score], axis=1))
    filled = [xy for xy, line in zip(drawn, panel.lines, strict=True)
              if line.get_marker() == "o" and line.get_markerfacecolor() != "white"]  # fmt: skip
    assert [list(xy[:, 0]) for xy in filled] == [[8, 9, 10]]
    heights = {round(float(xy[0, 1]), 6) for xy in drawn if len(xy) == 2 and xy[0, 1] == xy[1, 1]}
    assert heights == {84.71, 81.71}, "baseline and limit"
    assert any(len(xy) == 2 and xy[0, 0] == xy[1, 0] == 8 for xy in drawn), "the cliff layer"
    (span,) = [patch for patch in second.patches if isinstance(patch, Rectangle)]
    assert span.get_x() < 7 and span.get_x() + span.get_width() > 9
    np.testing.assert_allclose(second.lines[0].get_ydata(), 100 * given.probability)
    assert "cliff 8 [7, 9], n = 612" in texts(figure)
    [legend] = figure.legends
    named = [text.get_text() for text in legend.get_texts() if "probability" in text.get_text()]
    assert named == ["mean probability of the baseline answer's first token, % (right axis)"]


def test_a_cliff_that_says_little_is_marked(sample):
    assert "cliff 8 [7, 9] too few items, n = 612" in texts(figure5([sample.curve(caveat="too few items")]))


def test_small_differences_are_not_blown_up(sample):
    flat = np.full(11, 0.8)
    panel = figure5([sample.curve(score=flat, low=flat, high=flat, limit=np.nan, probability=None)]).axes[0]
    low, high = panel.get_ylim()
    assert low <= 75 and high >= 85


def test_a_panel_without_a_score_spans_all_percents(sample):
    none = np.full(11, np.nan)
    curve = sample.curve(score=none, low=none, high=none, limit=np.nan, probability=None)
    assert figure5([curve]).axes[0].get_ylim() == (0, 100)


@pytest.mark.parametrize("n_layers", [1, 2, 10, 32])
def test_layers_are_counted_from_one(n_layers, sample):
    for figure in (figure2([sample.shares(n_layers)]), figure_pointing([sample.pointing(n_layers)])):
        assert list(figure.axes[0].lines[0].get_xdata()) == list(range(1, n_layers + 1))
    labels = [name for name in texts(figures3_4([sample.heats(n_layers)])) if name.startswith("layer")]
    assert labels == [f"layer {i}" for i in range(1, n_layers + 1)]


def test_segments_and_benchmarks_keep_their_colours(sample):
    first, second = figure2([sample.shares(), sample.shares()]).axes
    colours = [line.get_color() for line in first.lines[:3]]
    assert colours == [line.get_color() for line in second.lines[:3]] and len(set(colours)) == 3
    names = benchmark_colours(["POPE", "SQA", "POPE"])
    assert list(names) == ["POPE", "SQA"] and not set(names.values()) & set(colours)
    panel = figure5([sample.curve(benchmark="SQA", probability=None)], names).axes[0]
    assert names["SQA"] in [line.get_color() for line in panel.lines]


def test_dollar_signs_and_missing_glyphs_are_drawn_as_text(sample):
    odd = "$\\frac{$ 日本 🎉"  # two dollar signs: a formula, and a broken one
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (
            figure5([sample.curve(benchmark=odd)]),
            figure2([replace(sample.shares(), benchmark=odd)]),
            figure_pointing([replace(sample.pointing(), benchmark=odd)]),
            figures3_4([sample.heats(benchmark=odd, question=odd, answer=odd)]),
        ):
            png(figure)
            shown = [part for part in texts(figure) if "$\\frac{$ □□ □" in part]
            assert shown, texts(figure)


def test_last_cam_is_labelled_zero_by_construction(sample):
    wrong = sample.heats().heat.copy()
    wrong[-1, 0, 0] = 0.1
    wrong[3] = 0
    labels = Counter(texts(figures3_4([sample.heats(), sample.heats(), sample.heats(heat=wrong)])))
    assert labels["zero by\nconstruction"] == 2
    assert labels["should be\nzero"] == 1 and labels["zero"] == 1


@pytest.mark.parametrize("size", [(48, 48), (480, 640), (640, 480), (30, 300)])
def test_cells_are_legible_on_a_phone_and_the_box_sits_on_the_object(size, sample):
    height, width = size
    box = (width / 4, height / 8, width / 2, height / 4)
    second = (0, 0, width / 8, height / 2)
    axes = figures3_4([sample.heats(10, size=size, boxes=[box, second])]).axes[0]
    cells = axes.images[1:11]
    frames = [patch for patch in axes.patches if patch.get_edgecolor()[:3] == (1.0, 1.0, 1.0)][2:22]
    assert len(cells) == 10 and len(frames) == 20
    for cell, frame in zip(cells, frames[1::2], strict=True):
        left, right, *_, top = cell.get_extent()
        assert (frame.get_x(), frame.get_y()) == (left, top)
        assert frame.get_width() == pytest.approx((right - left) / 8, rel=0.02)
    for cell, frame in zip(cells, frames[::2], strict=True):
        left, right, bottom, top = cell.get_extent()
        assert max(right - left, bottom - top) / WIDTH * PHONE >= 60
        assert (bottom - top) / (right - left) == pytest.approx(height / width, rel=0.02)
        assert frame.get_x() - left == pytest.approx((right - left) / 4, rel=0.02)
        assert frame.get_y() - top == pytest.approx((bottom - top) / 8, rel=0.05)
        assert frame.get_width() == pytest.approx((right - left) / 2, rel=0.02)


def test_overlay_is_grey_where_there_is_no_heat_and_bilinear_between():
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    cold = overlay(image, np.zeros((4, 4)))
    assert (cold == cold[..., :1]).all()
    ramp = overlay(np.full((1, 64, 3), 128, dtype=np.uint8), np.array([[0.0, 1.0]]))[0].astype(int)
    redness = ramp[:, 0] - ramp[:, 2]
    assert redness[0] == 0 and redness[-1] > 40
    assert len(np.unique(ramp, axis=0)) > 20, "a step, not a slope"


def test_the_same_figure_gives_the_same_picture(sample):
    first, second = (png(figure5([sample.curve()])) for _ in range(2))
    with Image.open(io.BytesIO(first)) as picture:
        assert picture.width == round(DPI * WIDTH) and picture.getpixel((0, 0)) == (255, 255, 255)
    assert first == second


def test_heat_on_a_page_goes_from_nothing_to_the_brightest_of_inferno():
    heat = np.zeros((2, 3, 4))
    heat[1] = 1
    picture = io.BytesIO()
    Image.new("RGB", (96, 72)).save(picture, "PNG")
    drawn = heat_of("k", "label", picture.getvalue(), heat)
    with Image.open(io.BytesIO(base64.b64decode(drawn.maps.partition(",")[2]))) as maps:
        cells = np.asarray(maps.convert("RGBA"))
    assert drawn.size == (48, 36) and cells.shape == (36, 96, 4)
    brightest = [*(int(255 * part) for part in matplotlib.colormaps["inferno"](1.0)[:3]), int(0.85 * 255)]
    assert (cells[:, :48, 3] == 0).all() and (cells[:, 48:] == brightest).all()
    assert drawn.notes == [": no heat", ""]


@pytest.mark.parametrize("draw", [figure5, figure2, figures3_4, figure_pointing])
def test_nothing_to_draw_is_an_error(draw):
    with pytest.raises(ValueError, match="to draw"):
        draw([])


@pytest.mark.parametrize(
    "build, named",
    [
        (lambda sample: sample.curve(low=np.zeros(10)), "low has shape [10], expected [11]"),
        (lambda sample: sample.curve(probability=np.zeros(3)), "probability has shape [3], expected [11]"),
        (
            lambda sample: replace(sample.shares(), raw=np.zeros((10, 3))),
            "raw has shape [10, 3], expected [10, 4]",
        ),
        (lambda sample: sample.heats(heat=np.zeros((6, 6))), "heat has shape [6, 6]"),
        (lambda sample: sample.heats(image=np.zeros((4, 4, 3))), "image is float64 [4, 4, 3]"),
        (lambda sample: replace(sample.pointing(), high=np.zeros(4)), "high has shape [4], expected [10]"),
    ],
)
def test_misshapen_arrays_are_named(build, named, sample):
    with pytest.raises(ValueError) as caught:
        build(sample)
    assert named in str(caught.value)
