"""Do system, image and user tokens partition the prompt, and stand where the ids say?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.segments import ANSWER, IMAGE, SYSTEM, USER, Segments

pytestmark = pytest.mark.invariant

image_masks = st.lists(st.booleans(), min_size=1, max_size=60).filter(any)


@given(image_masks)
def test_segments_partition_the_prompt(is_image):
    segments = Segments.from_image_mask(np.array(is_image))
    parts = segments.system.tolist(), segments.image.tolist(), segments.user.tolist()
    first = is_image.index(True)

    assert sorted(sum(parts, [])) == list(range(len(is_image))) == list(range(len(segments)))
    assert parts[0] == list(range(first))
    assert parts[1] == [i for i, image in enumerate(is_image) if image]
    assert parts[2] == [i for i, image in enumerate(is_image) if i > first and not image]


@given(image_masks, st.integers(0, 9))
def test_the_answer_follows_the_prompt(is_image, length):
    segments = Segments.from_image_mask(np.array(is_image))
    labels = segments.with_answer(length)

    assert (labels[: len(is_image)] == segments.labels).all()
    assert labels[len(is_image) :].tolist() == [ANSWER] * length


def test_text_between_image_spans_is_the_users():
    segments = Segments.from_image_mask(np.array([0, 1, 1, 0, 1, 0], dtype=bool))

    assert segments.labels.tolist() == [SYSTEM, IMAGE, IMAGE, USER, IMAGE, USER]


def test_a_prompt_may_open_with_the_image():
    segments = Segments.from_image_mask(np.array([1, 1, 0], dtype=bool))

    assert segments.system.size == 0 and segments.user.tolist() == [2]


@pytest.mark.parametrize("length", [0, 5])
def test_a_prompt_without_image_tokens_is_refused(length):
    with pytest.raises(ValueError, match="no image token"):
        Segments.from_image_mask(np.zeros(length, dtype=bool))


def test_the_image_stands_where_the_ids_say(lvlm, prompts):
    for prompt in prompts:
        is_image = (prompt.input_ids[0] == lvlm.image_token_id).cpu().numpy()

        assert len(prompt.segments) == prompt.input_ids.shape[1]
        assert prompt.segments.image.tolist() == np.flatnonzero(is_image).tolist()
        rows, columns = prompt.grid
        cells = np.arange(len(prompt.segments.image)) if prompt.cells is None else prompt.cells
        assert len(cells) == len(prompt.segments.image)
        assert set(cells) - {-1} == set(range(rows * columns)), "every cell of the grid has its tokens"
        assert prompt.segments.user[-1] == len(prompt.segments) - 1
