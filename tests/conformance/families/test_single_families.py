"""Do the tokens of each family lie where its pictures were cut, and is what it has of its own kept to?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repro.attention import attention_shares
from repro.cam import llava_cam
from repro.sweep import sweep
from repro.truncation import truncated

pytestmark = pytest.mark.conformance

QUESTION = "What is it?"
SIZES = [(40, 20), (20, 40), (32, 32), (64, 64), (16, 16), (100, 20), (20, 100), (31, 17), (90, 60), (70, 10)]

#: Of each model the whole prompt of a question, and where it is stated.
WORDED = {
    # haotian-liu/LLaVA, llava/conversation.py, conv_vicuna_v1.
    "llava_next": (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: <image>\nIs there a kite? ASSISTANT:"
    ),
    # salesforce/LAVIS, blip2_vicuna_instruct.py, which adds nothing.
    "instructblip": "Is there a kite?",
    # LLaVA-VL/LLaVA-NeXT at 19ddd2e, llava/conversation.py, conv_qwen; <image> and a newline as its scripts do.
    "llava_onevision": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\n"
        "Is there a kite?<|im_end|>\n<|im_start|>assistant\n"
    ),
    # OpenGVLab/InternVL at 2410d1d, internvl/conversation.py, internvl2_5; the image as modeling_internvl_chat.py.
    "internvl3": (
        "<|im_start|>system\n"
        "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
        "<|im_end|>\n<|im_start|>user\n<img><IMG_CONTEXT></img>\nIs there a kite?<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    # chat_template.json of Qwen/Qwen2.5-VL-7B-Instruct, for a picture and then a text, no system message given.
    "qwen2_5_vl": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|image_pad|><|vision_end|>Is there a kite?<|im_end|>\n<|im_start|>assistant\n"
    ),
}


@pytest.mark.parametrize(("family", "expected"), WORDED.items(), indirect=["family"], ids=WORDED)
def test_the_whole_prompt_is_worded_as_the_authors_word_it(family, expected, picture):
    assert family.prompt(picture(16, 16), "Is there a kite?").text == expected


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"], indirect=True)
@pytest.mark.parametrize("size", SIZES)
def test_tokens_of_any_resolution_lie_where_they_were_cut(family, picture, size):
    """Each token's cell of the base grid is the one in which its part of the picture has its centre."""
    prompt = family.prompt(picture(*size), QUESTION)
    rows, columns = prompt.grid
    base, tiles = prompt.cells[: rows * columns], prompt.cells[rows * columns :]
    assert base.tolist() == list(range(rows * columns))
    width = int(np.flatnonzero(tiles == -1)[0]) + 1
    finer = tiles.reshape(-1, width)
    assert (finer[:, -1] == -1).all() and (finer[:, :-1] >= 0).all()
    for line, cells in enumerate(finer[:, :-1]):
        assert set(cells // columns) == {int((line + 0.5) / len(finer) * rows)}
    for column, cells in enumerate(finer[:, :-1].T):
        assert set(cells % columns) == {int((column + 0.5) / (width - 1) * columns)}


@pytest.mark.parametrize(
    ("size", "tiles"),
    [((40, 20), (1, 2)), ((20, 40), (2, 1)), ((64, 64), (2, 2)), ((100, 20), (1, 5)), ((96, 64), (2, 3))],
)
def test_tokens_of_tiles_lie_where_they_were_cut(internvl3, picture, size, tiles):
    """Rows and columns of tiles as InternVL cuts such pictures; the whole picture comes last."""
    prompt = internvl3.prompt(picture(*size), QUESTION)
    assert prompt.grid == (4, 4)
    expected = []
    for tile_row in range(tiles[0]):
        for tile_column in range(tiles[1]):
            rows = (tile_row + (np.arange(4) + 0.5) / 4) * 4 // tiles[0]
            columns = (tile_column + (np.arange(4) + 0.5) / 4) * 4 // tiles[1]
            expected += (rows[:, None] * 4 + columns).astype(int).flatten().tolist()
    assert prompt.cells.tolist() == expected + list(range(16))


def test_one_tile_is_the_whole_picture(internvl3, picture):
    assert internvl3.prompt(picture(16, 16), QUESTION).cells.tolist() == list(range(16))


@pytest.mark.parametrize(("size", "grid"), [((40, 24), (3, 5)), ((16, 32), (4, 2))])
def test_positions_of_qwen2_5_vl_are_time_row_and_column(qwen2_5_vl, picture, decoder_inputs, size, grid):
    """An image token's are where the image begins plus its row and column; text goes on from the largest."""
    prompt = qwen2_5_vl.prompt(picture(*size), QUESTION)
    assert prompt.grid == grid and prompt.image.size == (grid[1] * 8, grid[0] * 8)
    given = decoder_inputs(qwen2_5_vl, lambda: qwen2_5_vl.logits(prompt, [7, 8]))
    time, row, column = given["position_ids"][-3:, 0].tolist()
    start, end = prompt.segments.image[0], prompt.segments.image[-1] + 1
    assert time[:start] == row[:start] == column[:start] == list(range(start))
    assert time[start:end] == [start] * (end - start)
    assert row[start:end] == [start + i // grid[1] for i in range(end - start)]
    assert column[start:end] == [start + i % grid[1] for i in range(end - start)]
    after = list(range(start + max(grid), start + max(grid) + len(time) - end))
    assert time[end:] == row[end:] == column[end:] == after


def test_instruments_run_at_the_positions_of_qwen2_5_vl(qwen2_5_vl, picture, decoder_inputs):
    prompt = qwen2_5_vl.prompt(picture(40, 24), QUESTION)

    def places(run):
        return decoder_inputs(qwen2_5_vl, run)["position_ids"]

    def own(answer):
        ids = qwen2_5_vl.sequence(prompt, answer)
        pad = torch.nn.functional.pad
        types = {name: pad(values, (0, len(answer))) for name, values in prompt.sequence_inputs.items()}
        return places(lambda: qwen2_5_vl.model(input_ids=ids, **types, **prompt.image_inputs))

    assert len(qwen2_5_vl.roles) == qwen2_5_vl.n_layers  # learnt by a pass of its own
    assert torch.equal(places(lambda: attention_shares(qwen2_5_vl, prompt, [7, 8])), own([7, 8]))
    assert torch.equal(places(lambda: llava_cam(qwen2_5_vl, prompt, [7, 8])), own([7]))


def test_pictures_of_one_number_of_tokens_and_other_shapes_are_swept_together(qwen2_5_vl, picture, close):
    prompts = [qwen2_5_vl.prompt(picture(*size), QUESTION) for size in ((16, 24), (24, 16))]
    assert prompts[0].grid == (3, 2) and prompts[1].grid == (2, 3)
    for prompt, one in zip(prompts, sweep(qwen2_5_vl, prompts, 3), strict=True):
        for after in range(qwen2_5_vl.n_layers + 1):
            with truncated(qwen2_5_vl, after):
                close(one.logits[after], qwen2_5_vl.logits(prompt)[-1].numpy())
                assert one.answers[after] == qwen2_5_vl.answer(prompt, 3)


def test_a_token_of_the_q_former_in_a_question_is_refused(instructblip, picture):
    with pytest.raises(ValueError, match=r"the question holds '\[SEP\]'"):
        instructblip.prompt(picture(16, 16), "Is [SEP] it?")


def test_of_a_long_question_the_q_former_reads_the_end_and_the_decoder_all(instructblip, picture):
    question = "".join(f"{i} " for i in range(100))
    prompt = instructblip.prompt(picture(16, 16), question)
    read = instructblip.processor.qformer_tokenizer(question).input_ids
    assert prompt.image_inputs["qformer_input_ids"].tolist() == [[read[0], *read[-127:]]]
    assert prompt.input_ids.shape[1] == 6 + len(instructblip.tokenizer(question).input_ids)
    assert instructblip.logits(prompt).isfinite().all()


def test_the_image_of_instructblip_stands_before_everything(instructblip, picture):
    prompt = instructblip.prompt(picture(16, 16), "What?")
    assert len(prompt.segments.system) == 0
    assert prompt.segments.image.tolist() == list(range(6))
    assert not prompt.spatial
