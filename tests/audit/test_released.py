"""What the ledger takes from published captions, fixed positions and token counts, tried in other ways."""

from __future__ import annotations

import os
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from repro.audit import needs
from repro.audit.paper import TEXT
from repro.audit.released import CAPTIONS, Span
from repro.audit.replayed import FIELDS, MODELS, longest, replayed, stored
from repro.audit.structure import covered, reached
from repro.benchmarks import chair
from repro.evaluation.answers import replay
from repro.models.card import FIXTURES

pytestmark = pytest.mark.audit


@pytest.mark.parametrize("model", MODELS)
def test_published_captions_hold_the_mentions_that_are_stored(model, data):
    """Mode ``approx``, which needs no data of NLTK, gives a little less."""
    directory = Path(os.environ.get("REPRO_DATA", data))
    path = directory / "chair" / "captions" / f"{model}.greedy.jsonl"
    if "REPRO_DATA" not in os.environ and not path.parent.is_dir():
        pytest.skip(f"no {path.parent}: set REPRO_DATA or --data to a directory with OPERA's greedy captions")
    if chair.best() == "exact":
        mentions = runpy.run_path(str(FIXTURES / "record_chair.py"))["mentions"]
        found = mentions(path, directory)
        assert {name: array.tolist() for name, array in found.items()} == {
            name: array.tolist() for name, array in stored(model).items()
        }
    scored = replay(path, directory, chair_mode="approx")
    assert len(scored.items) == CAPTIONS
    counted = [scored.parts[name][:, 0].sum(axis=0) for name in ("CHAIR_s", "CHAIR_i")]
    approx = [100 * float(above / below) for above, below in counted]
    below = [exact - found for exact, found in zip(replayed(model), approx, strict=True)]
    assert 0 <= below[0] <= 1.85 and -0.05 <= below[1] <= 0.85


@pytest.mark.parametrize("model", MODELS)
def test_captions_cut_short_name_fewer_objects(model):
    caption, word, wrong = (stored(model)[name] for name in FIELDS)
    assert caption.max() < CAPTIONS and replayed(model, 10**6) == replayed(model)
    assert replayed(model, 0) == (0, 0)
    # Counted caption by caption.
    seen = [i for i in range(CAPTIONS) if (wrong & (caption == i) & (word < 40)).any()]
    assert replayed(model, 40).sentences == pytest.approx(100 * len(seen) / CAPTIONS)
    words = longest(model, 20.0)
    assert replayed(model, words).sentences <= 20 < replayed(model, words + 1).sentences


@pytest.mark.parametrize(
    ("image", "masked", "visible", "text"),
    [((3, 4), (3, 4), 0, 0), ((3, 4), (4, 4), 1, 1), ((0, 2), (5, 3), 2, 3), ((2, 3), (0, 9), 0, 6)],
)
def test_covered_counts_positions(image, masked, visible, text):
    assert covered(Span(*image), Span(*masked)) == (visible, text)


@pytest.mark.parametrize("row", [0, 3, 7])
def test_gradients_reach_what_stands_at_or_before_the_rows(row):
    """Positions 2 to 6 are the image; the last layer's norm is followed by nothing that mixes tokens."""
    patches, rows = reached(row, answer=2, prompt=6, image=Span(2, 5))
    image = range(2, 7)
    assert patches[0] == sum(position <= row + 1 for position in image)
    assert patches[-1] == rows == len({row, row + 1} & set(image))


def test_token_layers_are_those_of_the_sweep():
    """Counted layer by layer: the whole prompt, and past each truncation the text behind the image."""
    model, name = "llava-1.5", "pope"
    user, answer = needs.USER[name], needs.ANSWER[name]
    count = 0
    for layer in range(1, 33):
        count += needs.SYSTEM + 576 + user + sum(user for after in range(32) if after < layer)
        count += sum(answer for after in range(33))
    assert needs.token_layers(32, model, name) == count


def test_need_names_what_has_to_be_there():
    pope = replace(TEXT, benchmarks=("pope",))
    one, both = needs.need(pope, ["llava-1.5"]), needs.need(TEXT, ["llava-1.5", "qwen-vl"])
    assert "--model llava-1.5=DIR --data DATA" in one.text and "POPE (8910 items);" in one.text
    assert "Qwen/Qwen-VL" in both.text and "CHAIR (500 items);" in both.text
    assert one.token_layers == 8910 * needs.token_layers(32, "llava-1.5", "pope")
    assert one.memory_gb > 14 and both.memory_gb > 19
    # 0.405 GFLOP for each token and layer at 124.8 TFLOP/s, and two reads of 14 GB at 1.5 TB/s.
    each = one.token_layers / 8910 * 0.405e9 / 124.8e12 + 2 * 14 / 1500
    assert one.a100_hours == pytest.approx(8910 * each / 3600, rel=0.01)


@pytest.mark.parametrize(
    ("models", "layers", "memory", "hours"),
    [(("llava-1.5",), 775_698_528, 21.665, 0.950), (TEXT.table_models, 3_256_106_464, 33.665, 4.530)],
)
def test_what_measuring_takes_is_as_stated(models, layers, memory, hours):
    found = needs.need(TEXT, models)
    assert found.token_layers == layers
    assert (found.memory_gb, found.a100_hours) == pytest.approx((memory, hours), abs=0.0006)
