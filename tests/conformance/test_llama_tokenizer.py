"""Does LLaMA's tokenizer give its authors' ids, whatever files are published and whichever library reads them?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sentencepiece
from transformers import AddedToken, LlamaTokenizerFast

from repro.models import load_model
from repro.models.card import FIXTURES
from repro.models.loading import CheckpointError, load_tokenizer

pytestmark = pytest.mark.conformance

MODEL = Path(__file__).with_name("published_code") / "llama-tokenizer.model"


def publish_tokenizer(path, **settings):
    """Beside tokenizer.model the other files that transformers 4 publishes, where new prefixes were asked for."""
    whole = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_prefix_space": None} | settings
    (path / "tokenizer_config.json").write_text(json.dumps(whole))
    made = LlamaTokenizerFast.from_pretrained(path, legacy=False)
    made.backend_tokenizer.save(str(path / "tokenizer.json"))


@pytest.mark.parametrize("both", [False, True], ids=["tokenizer.model", "tokenizer.json beside it"])
@pytest.mark.parametrize("legacy", [None, False, True])
def test_text_behind_the_image_begins_as_where_llavas_authors_tokenize_it_apart(tmp_path, legacy, both):
    """``tokenizer_image_token`` of llava/mm_utils.py: the parts around <image> by themselves, one BOS in front."""
    shutil.copyfile(MODEL, tmp_path / "tokenizer.model")
    publish_tokenizer(tmp_path, **{} if legacy is None else {"legacy": legacy})
    if not both:
        (tmp_path / "tokenizer.json").unlink()
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.add_tokens(AddedToken("<image>", special=True, normalized=False))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    image = tokenizer.convert_tokens_to_ids("<image>")
    for before, after in (
        ("A chat. USER: ", "\nWhat color is it? ASSISTANT:"),
        (" A chat.USER: ", " Is it? ASSISTANT:"),
    ):
        expected = [pieces.bos_id(), *pieces.encode(before), image, *pieces.encode(after)]
        assert tokenizer(f"{before}<image>{after}").input_ids == expected


@pytest.mark.parametrize("both", [False, True], ids=["tokenizer.model", "tokenizer.json beside it"])
@pytest.mark.parametrize("normalized", [False, True])
def test_special_tokens_are_special_whether_or_not_they_are_called_normalized(tmp_path, normalized, both):
    """As files of 2023 do; an answer must not end in "</s>"."""
    shutil.copyfile(MODEL, tmp_path / "tokenizer.model")
    described = {
        str(i): {"content": token, "normalized": normalized, "special": True}
        for i, token in enumerate(("<unk>", "<s>", "</s>"))
    }
    publish_tokenizer(tmp_path, legacy=True, added_tokens_decoder=described)
    if both:
        file = tmp_path / "tokenizer.json"
        whole = json.loads(file.read_text())
        for token in whole["added_tokens"]:
            token["normalized"] = normalized
        file.write_text(json.dumps(whole))
    else:
        (tmp_path / "tokenizer.json").unlink()
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<unk>", "<s>", "</s>"]
    ids = tokenizer("a cat").input_ids
    # Versions differ in the blank, which ``Lvlm.decode`` strips.
    assert tokenizer.decode([*ids, 2], skip_special_tokens=True).strip() == "a cat"
    assert tokenizer("a</s>").input_ids[-1] == 2


@pytest.mark.parametrize("stated", [{"add_bos_token": True}, {}])
def test_prompts_begin_with_the_first_token_unless_the_files_say_otherwise(tmp_path, stated):
    shutil.copyfile(MODEL, tmp_path / "tokenizer.model")
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(settings | stated))
    assert load_tokenizer(tmp_path)("A chat.").input_ids[0] == 1
    file.write_text(json.dumps(settings | {"add_bos_token": False}))
    assert load_tokenizer(tmp_path)("A chat.").input_ids[0] != 1


@pytest.mark.parametrize("name", ["llava-1.5", "llava-1.6", "instructblip", "shikra", "intern-vl"])
def test_prompts_are_those_of_sentencepiece_whatever_the_published_files_say(name, tmp_path, picture):
    """With the whole file set of a tokenizer, and ``legacy: false`` in its settings."""
    path = shutil.copytree(FIXTURES / name, tmp_path / name)
    home = path / "delta" if name == "shikra" else path
    if not (home / "tokenizer.model").exists():
        (home / "tokenizer.json").unlink()
        shutil.copyfile(MODEL, home / "tokenizer.model")
        (home / "added_tokens.json").write_text(json.dumps({"<image>": 680, "<pad>": 681}))
        config = json.loads((home / "config.json").read_text())
        (home / "config.json").write_text(json.dumps(config | {"image_token_index": 680}))
    added = home / "added_tokens.json"
    special = json.loads(added.read_text()) if added.exists() else {}
    described = {
        str(i): {"content": token, "normalized": False, "special": True} for token, i in special.items()
    }
    publish_tokenizer(home, legacy=False, added_tokens_decoder=described)
    lvlm = load_model(name, path)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(home / "tokenizer.model"))

    prompt = lvlm.prompt(picture(50, 30), "What color is it?")

    parts = prompt.text.split("<image>")
    if name == "shikra":  # its authors' tokenizer drops the blanks around the image
        parts = [part.strip() for part in parts]
    expected = [pieces.bos_id(), *(token for part in parts for token in pieces.encode(part))]
    assert [token for token in prompt.input_ids[0].tolist() if token < len(pieces)] == expected


@pytest.mark.parametrize("content", [b"", b"junk"])
def test_a_damaged_tokenizer_is_named(tmp_path, content):
    shutil.copyfile(MODEL, tmp_path / "tokenizer.model")
    publish_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{tmp_path / 'tokenizer.model'} is damaged: .*; get it again"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("model_type", ["llama", "llava", "shikra"])
def test_llama_tokens_are_those_of_sentencepiece(tmp_path, model_type):
    """Whatever config.json says: transformers 5 chooses the class of an AutoTokenizer by it."""
    shutil.copyfile(MODEL, tmp_path / "tokenizer.model")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(tmp_path)
    assert {"<unk>", "<s>", "</s>"} <= tokenizer.get_added_vocab().keys()
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for text in (
        "A chat between a user and an assistant. USER: ",
        "\nWhat color is the kite?\nA. red\nB. blue\nAnswer with the option's letter. ASSISTANT:",
        "Where? 12 naïve 猫\t!",
    ):
        assert tokenizer(text).input_ids == [pieces.bos_id(), *pieces.encode(text)], text
