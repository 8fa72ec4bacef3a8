"""Are prompts and pictures prepared as LLaVA's own code and the other protocols do, and bad ones refused?"""

from __future__ import annotations

import resource

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.utils.constants import OPENAI_CLIP_MEAN

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Item
from repro.models import load_model
from repro.models.images import pad_to_square, read_image
from repro.models.llava import CLIPImageProcessor
from repro.protocols import find_task

pytestmark = pytest.mark.conformance

#: CLIP's mean colour as LLaVA fills with it: int(255 * mean), rounded towards zero.
MEAN_COLOUR = (122, 116, 104)


@pytest.fixture(scope="module")
def llava():
    return load_model("llava-1.5")


@pytest.fixture(scope="module")
def picture():
    """48 x 48 pixels of noise."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8))


def test_the_prompt_is_the_official_vicuna_v1_conversation(llava, picture):
    prompt = llava.prompt(picture, "What is the number?\nAnswer the question using a single word or phrase.")

    assert prompt.text == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
        "helpful, detailed, and polite answers to the user's questions. USER: <image>\nWhat is the number?\n"
        "Answer the question using a single word or phrase. ASSISTANT:"
    )


def test_the_papers_prompt_moves_the_image(llava, picture, tmp_path):
    """No blank before USER, no newline behind the image: its span is found, and starts earlier."""
    picture.save(tmp_path / "picture.png")
    item = Item("1", tmp_path / "picture.png", "Is there a kite?", True)

    official, opera, lmms_eval = (
        find_task(protocol, "llava-1.5", BENCHMARKS["pope"]).prompt(llava, item)
        for protocol in ("official", "opera", "lmms-eval")
    )

    assert opera.text.endswith("the user's questions.USER: <image> Is there a kite? ASSISTANT:")
    assert official.text == lmms_eval.text
    assert len(opera.segments.image) == len(official.segments.image)
    ids = opera.input_ids[0].tolist()
    assert opera.segments.image.tolist() == [i for i, t in enumerate(ids) if t == llava.image_token_id]
    assert opera.segments.image[0] == len(llava.tokenizer(opera.text.partition("<image>")[0]).input_ids)


@pytest.mark.parametrize("size", [(48, 48), (97, 40), (40, 97), (61, 60)])
@pytest.mark.parametrize("protocol", ["opera", "lmms-eval"])
def test_other_protocols_crop_as_clips_processor_does(llava, tmp_path, size, protocol):
    pixels = np.random.default_rng(2).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    item = Item("1", tmp_path / "picture.png", "Is there a kite?", True)
    expected = CLIPImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})(
        images=Image.fromarray(pixels), return_tensors="pt"
    )["pixel_values"]

    found = find_task(protocol, "llava-1.5", BENCHMARKS["pope"]).prompt(llava, item)

    torch.testing.assert_close(found.image_inputs["pixel_values"], expected)
    padded = (
        find_task("official", "llava-1.5", BENCHMARKS["pope"])
        .prompt(llava, item)
        .image_inputs["pixel_values"]
    )
    assert torch.equal(padded, found.image_inputs["pixel_values"]) == (size == (48, 48))


@pytest.mark.parametrize(
    ("size", "resized", "box"),
    [
        ((600, 300), (168, 84), (42, 0, 126, 84)),
        ((30, 101), (84, 282), (0, 99, 84, 183)),
        ((61, 60), (85, 84), (0, 0, 84, 84)),
    ],
)
def test_of_science_questions_intern_vl_sees_the_middle(intern, tmp_path, size, resized, box):
    """The shorter side to 84 pixels, nothing padded, as in its model_vqa_science.py. Elsewhere it sees all."""
    lvlm = load_model("intern-vl", intern[0])
    pixels = np.random.default_rng(3).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "picture.png")
    item = Item("1", tmp_path / "picture.png", "Which?", "A", choices=("red", "blue"))
    middle = np.asarray(image.resize(resized, Image.Resampling.BICUBIC).crop(box)) / 255
    expected = ((middle - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)

    science, pope = (
        find_task("official", "intern-vl", BENCHMARKS[name]).prompt(lvlm, item)
        for name in ("scienceqa", "pope")
    )

    np.testing.assert_allclose(science.image_inputs["pixel_values"][0], expected, rtol=0, atol=1e-5)
    whole = lvlm.prompt(image, "Is it?").image_inputs["pixel_values"]
    assert torch.equal(pope.image_inputs["pixel_values"], whole)
    assert not torch.allclose(whole, science.image_inputs["pixel_values"], atol=0.1)


@pytest.mark.parametrize("protocol", ["official", "lmms-eval"])
def test_a_question_without_an_image_gets_no_image_tokens(llava, protocol):
    item = Item("7", None, "Which?", "A", choices=("x", "y"))
    with pytest.raises(ValueError, match="item 7: has no image, hence no image tokens"):
        find_task(protocol, "llava-1.5", BENCHMARKS["scienceqa"]).prompt(llava, item)


def test_braces_in_a_question_are_text(llava, picture):
    question = "What is {0} in {question}?"

    assert llava.prompt(picture, question).text.endswith(f"USER: <image>\n{question} ASSISTANT:")


@pytest.mark.parametrize("question", ["<image>\nWhat is it?", "What is <image> and <image>?"])
def test_a_placeholder_in_the_question_is_refused(llava, picture, question):
    message = "image placeholders '<image>' for 1 image.*the question must hold none"
    with pytest.raises(ValueError, match=message):
        llava.prompt(picture, question)


@pytest.mark.parametrize("token", ["</s>", "<unk>"])
def test_a_token_of_the_model_in_the_question_is_refused(llava, picture, token):
    with pytest.raises(ValueError, match=f"the question holds '{token}'.*'What {token} is it'"):
        llava.prompt(picture, f"What {token} is it")


@pytest.mark.parametrize("size", [(6, 3), (3, 6), (7, 4), (4, 7), (5, 1), (5, 5)])
def test_pictures_are_padded_to_a_square_of_the_mean_colour(size):
    width, height = size
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    side = max(size)
    expected = np.empty((side, side, 3), dtype=np.uint8)
    expected[:] = MEAN_COLOUR
    left, top = (side - width) // 2, (side - height) // 2
    expected[top : top + height, left : left + width] = pixels

    found = pad_to_square(Image.fromarray(pixels), OPENAI_CLIP_MEAN, side, Image.Resampling.BICUBIC)

    np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("size", [(700, 3), (3, 700), (611, 480), (480, 611), (700, 699)])
@pytest.mark.parametrize("filter", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
def test_a_square_shrunk_in_bands_has_the_same_pixels(size, filter, monkeypatch):
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    at_once = pad_to_square(Image.fromarray(pixels), OPENAI_CLIP_MEAN, 336, filter)
    monkeypatch.setattr("repro.models.images.BAND", 700 * 13)
    in_bands = pad_to_square(Image.fromarray(pixels), OPENAI_CLIP_MEAN, 336, filter)
    assert in_bands.tobytes() == at_once.tobytes()


def test_a_very_long_picture_takes_little_memory(llava):
    """The square of its longer side would have 1.2 GB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    llava.prompt(Image.new("RGB", (20000, 3), "red"), "What is it?")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB


def test_a_picture_too_large_to_prepare_is_refused(llava):
    with pytest.raises(ValueError, match="1 x 90000000 pixels, expected at most 89478485: make it smaller"):
        read_image(Image.new("L", (1, 90_000_000)))


@pytest.mark.parametrize("size", [(48, 24), (24, 48)])
def test_the_model_sees_the_padded_picture(llava, picture, size):
    cropped = picture.crop((0, 0, *size))
    square = Image.new("RGB", (48, 48), MEAN_COLOUR)
    square.paste(cropped, ((48 - size[0]) // 2, (48 - size[1]) // 2))

    found, expected = llava.prompt(cropped, "What is it?"), llava.prompt(square, "What is it?")

    assert torch.equal(found.image_inputs["pixel_values"], expected.image_inputs["pixel_values"])
    assert found.image.tobytes() == expected.image.tobytes()


def test_pixels_are_normalised_by_clips_mean_and_deviation(llava, picture):
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    expected = (np.asarray(picture) / 255 - mean) / std

    found = llava.prompt(picture, "What is it?").image_inputs["pixel_values"][0]

    # float32 of values up to 3.
    np.testing.assert_allclose(found.permute(1, 2, 0), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_pictures_of_every_kind_are_read_as_rgb(llava, picture, tmp_path, mode):
    other = picture.convert(mode)
    if mode == "RGBA":
        other.putalpha(Image.linear_gradient("L").resize(picture.size))
    path = tmp_path / f"picture.{'tiff' if mode == 'CMYK' else 'png'}"
    other.save(path)
    expected = llava.prompt(other.convert("RGB"), "What is it?").image_inputs["pixel_values"]

    for source in (other, path, str(path)):
        assert torch.equal(llava.prompt(source, "What is it?").image_inputs["pixel_values"], expected)


def test_a_missing_picture_is_named(llava, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no image at {tmp_path / 'gone.png'}"):
        llava.prompt(tmp_path / "gone.png", "What is it?")


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "directory"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_that_cannot_be_read_is_named(llava, picture, tmp_path, kind, suffix):
    path = tmp_path / f"picture.{suffix}"
    picture.save(path)
    whole = path.read_bytes()
    path.unlink()
    if kind == "directory":
        path.mkdir()
    else:
        path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"no picture", "empty": b""}[kind])

    with pytest.raises(ValueError, match=f"cannot read the image {path}"):
        llava.prompt(path, "What is it?")


def test_a_pointer_in_a_pictures_place_is_named(tmp_path):
    path = tmp_path / "picture.png"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n")
    with pytest.raises(ValueError, match=f"cannot read the image {path}: .*Git LFS.*git lfs pull"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_grey_of_16_bits_is_scaled_to_8(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(4, axis=0)
    Image.fromarray(ramp).save(tmp_path / f"grey.{suffix}")
    found = np.asarray(read_image(tmp_path / f"grey.{suffix}"))
    assert (found == np.arange(256, dtype=np.uint8)[None, :, None]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_modes_of_8_bits_keep_what_pillow_makes_of_them(mode):
    image = Image.new("RGB", (4, 4), (200, 30, 60)).convert(mode)
    assert np.array_equal(np.asarray(read_image(image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_without_a_known_range_are_refused(mode):
    image = Image.fromarray(np.full((4, 4), -7, dtype=np.float32 if mode == "F" else np.int32))
    with pytest.raises(ValueError, match="convert it to 8 bits"):
        read_image(image)
