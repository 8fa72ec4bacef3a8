"""Do the families of transformers give what its own processors and ``generate`` give, on any checkpoint?

Small checkpoints with random weights, in the published layouts.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
)

from repro.attention import attention_shares
from repro.cam import llava_cam
from repro.models import load_model
from repro.sweep import sweep
from repro.truncation import truncated

pytestmark = pytest.mark.conformance

IMAGE = "<image>"
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
#: How the published tokenizers of both families name their special tokens.
TOKENS = {
    "special": ("<unk>", "<s>", "</s>", "<pad>", IMAGE),
    "pad_token": "<pad>",
    "image_token": IMAGE,
    "extra_special_tokens": {"image_token": IMAGE},
}


def decoder(vocabulary) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=vocabulary["<s>"],
        eos_token_id=vocabulary["</s>"],
        pad_token_id=vocabulary["<pad>"],
    )


def write_json(path, **content):
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def llava_next(tmp_path_factory, store_tokenizer):
    directory = tmp_path_factory.mktemp("llava-1.6")
    vocabulary = store_tokenizer(directory, **TOKENS)
    torch.manual_seed(0)
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=16,
            patch_size=4,
            projection_dim=32,
            initializer_range=0.3,
        ),
        text_config=decoder(vocabulary),
        image_token_index=vocabulary[IMAGE],
        image_grid_pinpoints=[[16, 32], [32, 16], [32, 32], [16, 48], [48, 16]],
        vision_feature_layer=-2,
        tie_word_embeddings=False,
    )
    model = LlavaNextForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.image_newline)
    model.save_pretrained(directory)
    write_json(
        directory / "preprocessor_config.json",
        image_processor_type="LlavaNextImageProcessor",
        size={"shortest_edge": 16},
        crop_size={"height": 16, "width": 16},
        image_grid_pinpoints=config.image_grid_pinpoints,
        image_mean=MEAN,
        image_std=STD,
        do_resize=True,
        do_center_crop=True,
        do_rescale=True,
        do_normalize=True,
        do_convert_rgb=True,
        do_pad=True,
        resample=3,
        rescale_factor=1 / 255,
    )
    write_json(
        directory / "processor_config.json",
        patch_size=4,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
    )
    return load_model("llava-1.6", directory)


@pytest.fixture(scope="module")
def instructblip(tmp_path_factory, store_tokenizer):
    directory = tmp_path_factory.mktemp("instructblip")
    vocabulary = store_tokenizer(directory, **TOKENS)
    questions = store_tokenizer(
        directory / "qformer_tokenizer", **TOKENS | {"special": (*TOKENS["special"], "[SEP]")}
    )
    torch.manual_seed(1)
    config = InstructBlipConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 16,
            "patch_size": 4,
            "initializer_range": 0.3,
        },
        qformer_config={
            "vocab_size": len(questions),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": 128,
            "encoder_hidden_size": 32,
            "pad_token_id": questions["<pad>"],
        },
        text_config=decoder(vocabulary).to_dict(),
        num_query_tokens=6,
        image_token_index=vocabulary[IMAGE],
    )
    model = InstructBlipForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens)
    model.save_pretrained(directory)
    # What the published checkpoint ships; greedy answers must not depend on it.
    write_json(directory / "generation_config.json", repetition_penalty=1.5, num_beams=5)
    write_json(
        directory / "preprocessor_config.json",
        image_processor_type="BlipImageProcessor",
        size={"height": 16, "width": 16},
        image_mean=MEAN,
        image_std=STD,
        do_resize=True,
        do_rescale=True,
        do_normalize=True,
        do_convert_rgb=True,
        resample=3,
        rescale_factor=1 / 255,
    )
    return load_model("instructblip", directory)


@pytest.fixture(params=["llava_next", "instructblip"])
def family(request):
    return request.getfixturevalue(request.param)


def picture(width, height, seed=0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def close(actual, expected):
    actual, expected = torch.as_tensor(actual), torch.as_tensor(expected)
    torch.testing.assert_close(actual, expected, rtol=0, atol=3e-5 * float(expected.abs().max()))


def test_prompts_are_those_of_the_processor(family):
    image = picture(40, 20)
    prompt = family.prompt(image, "What is it?")
    processor = family.processor
    if family.card.name == "llava-1.6":
        processor = LlavaNextProcessor(
            processor.image_processor,
            processor.tokenizer,
            patch_size=4,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        )
    expected = processor(images=image, text=prompt.text, return_tensors="pt")
    assert torch.equal(prompt.input_ids, expected["input_ids"])
    for key, value in prompt.image_inputs.items():
        torch.testing.assert_close(value, expected[key])


@torch.inference_mode()
def test_logits_from_embeddings_are_those_of_the_model(family):
    prompt = family.prompt(picture(40, 20), "What is it?")
    hidden = family.hidden_states(family.embed(prompt.input_ids, prompt.image_inputs))
    close(family.head(hidden)[0], family.model(input_ids=prompt.input_ids, **prompt.image_inputs).logits[0])


def test_answers_are_greedy_whatever_the_checkpoint_says(family):
    prompt = family.prompt(picture(40, 20), "What is it?")
    answer = family.answer(prompt, 5)
    ids = list(answer.ids)
    for i in range(len(ids)):
        assert int(family.logits(prompt, ids[:i])[-1].argmax()) == ids[i]


@pytest.mark.parametrize("keep", [0, 3])
def test_a_batch_of_other_pictures_and_questions_is_swept_as_each_is_truncated(family, keep):
    prompts = [
        family.prompt(picture(40, 20, 1), "What is it?"),
        family.prompt(picture(40, 20, 2), "How many objects are in this image?"),
    ]
    swept = sweep(family, prompts, 3, keep=keep)
    for prompt, one in zip(prompts, swept, strict=True):
        for after in range(family.n_layers + 1):
            for mode in ("drop", "mask"):
                with truncated(family, after, keep=keep, mode=mode):
                    close(one.logits[after], family.logits(prompt)[-1].numpy())
                    assert one.answers[after] == family.answer(prompt, 3)


def test_shares_and_maps(family):
    prompt = family.prompt(picture(40, 20), "What is it?")
    shares = attention_shares(family, prompt, [7, 8])
    np.testing.assert_allclose(shares.raw.sum(-1), 1, atol=1e-5)
    heat = llava_cam(family, prompt, [7, 8], samples=2)
    assert heat.shape == (family.n_layers, *prompt.grid)
    assert heat.min() >= 0 and not heat[-1].any()
    assert set(heat.max(axis=(1, 2)).tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (32, 32), (16, 16), (100, 20), (20, 100), (31, 17)])
def test_tiles_of_llava_next_lie_where_they_were_cut(llava_next, size):
    """Each token's cell of the base grid is the one its part of the picture lies in."""
    prompt = llava_next.prompt(picture(*size), "What?")
    rows, columns = prompt.grid
    base, tiles = prompt.cells[: rows * columns], prompt.cells[rows * columns :]
    assert base.tolist() == list(range(rows * columns))
    width = int(np.flatnonzero(tiles == -1)[0]) + 1
    finer = tiles.reshape(-1, width)
    assert (finer[:, -1] == -1).all() and (finer[:, :-1] >= 0).all()
    for line, cells in enumerate(finer[:, :-1]):
        centre = (line + 0.5) / len(finer)
        assert (np.abs((cells // columns + 0.5) / rows - centre) <= 0.5 / rows).all()
    for column, cells in enumerate(finer[:, :-1].T):
        centre = (column + 0.5) / (width - 1)
        assert (np.abs((cells % columns + 0.5) / columns - centre) <= 0.5 / columns).all()


def test_a_token_of_the_model_in_a_question_is_refused(family):
    with pytest.raises(ValueError, match=r"the question holds '</s>'.*'Is </s> it\?'"):
        family.prompt(picture(16, 16), "Is </s> it?")


def test_a_token_of_the_q_former_in_a_question_is_refused(instructblip):
    with pytest.raises(ValueError, match=r"the question holds '\[SEP\]'"):
        instructblip.prompt(picture(16, 16), "Is [SEP] it?")


def test_an_answer_that_holds_the_image_token_is_no_image(family):
    prompt = family.prompt(picture(40, 20), "What is it?")
    forced = family.logits(prompt, [family.image_token_id, 7])
    close(forced[: len(prompt.segments)], family.logits(prompt))
    with torch.inference_mode():
        embedded = family.embed(family.sequence(prompt, [family.image_token_id]), prompt.image_inputs)
    assert torch.equal(embedded[0, -1], family.embeddings.weight[family.image_token_id])


def test_of_a_long_question_the_q_former_reads_the_end_and_the_decoder_all(instructblip):
    question = "".join(f"{i} " for i in range(100))
    prompt = instructblip.prompt(picture(16, 16), question)
    read = instructblip.processor.qformer_tokenizer(question).input_ids
    assert prompt.image_inputs["qformer_input_ids"].tolist() == [[read[0], *read[-127:]]]
    assert prompt.input_ids.shape[1] == 6 + len(instructblip.tokenizer(question).input_ids)
    assert instructblip.logits(prompt).isfinite().all()


def test_the_image_of_instructblip_stands_before_everything(instructblip):
    prompt = instructblip.prompt(picture(16, 16), "What?")
    assert len(prompt.segments.system) == 0
    assert prompt.segments.image.tolist() == list(range(6))
    assert not prompt.spatial
