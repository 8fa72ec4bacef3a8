"""Settings and tokenizers of checkpoint directories. What is read is untrusted and checked."""

import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, normalizers
from transformers import AutoTokenizer, LlamaTokenizerFast


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the directory, file or tensor and what to do."""


#: How images are prepared, as published; see ``nested_preparation``.
PREPARATION = "preprocessor_config.json"


class Kind(Enum):
    """Kinds of settings: as messages call them, and the check of a value."""

    COUNT = ("a whole number above 0", lambda value: type(value) is int and value > 0)
    FROM_LAST = ("a whole number below 0", lambda value: type(value) is int and value < 0)
    NUMBER = ("a number above 0", lambda value: type(value) in (int, float) and 0 < value < math.inf)
    FLAG = ("true or false", lambda value: type(value) is bool)
    TEXT = ("a text", lambda value: type(value) is str)
    OBJECT = ("an object", lambda value: type(value) is dict)


#: Settings that decide shapes -> the settings they must divide.
DIVISORS = {
    "num_attention_heads": "hidden_size",
    "num_heads": "hidden_size",
    "heads": "width",
    "num_key_value_heads": "num_attention_heads",
    "patch_size": "image_size",
}
#: model_type of vision towers whose patches fill the image; SigLIP's 384 pixels in patches of 14 leave a margin.
FILLED = (None, "clip_vision_model", "intern_vit_6b")


def missing(path: Path) -> CheckpointError:
    """The error for an absent file."""
    return CheckpointError(f"{path} is missing: a checkpoint directory in the published layout has it")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint; CheckpointError if the file is missing or holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise missing(path) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; a file was expected") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} should hold a JSON object, not a {type(content).__name__}")
    return content


def require(settings: Mapping[str, Any], path: Path | str, kinds: Mapping[str, Kind]) -> None:
    """CheckpointError unless the settings read from ``path`` have all of these keys, each of its kind."""
    if absent := [key for key in kinds if key not in settings]:
        raise CheckpointError(f"{path} lacks {', '.join(absent)}: get the published file")
    for key, kind in kinds.items():
        expected, check = kind.value
        if not check(settings[key]):
            raise CheckpointError(
                f"{path}: {key} is {settings[key]!r}; expected {expected}: get the published file"
            )


def check_shapes(settings: Mapping[str, Any], path: Path | str) -> None:
    """CheckpointError unless heads divide widths and patches divide images, in nested objects too.

    Absent settings have transformers' defaults; lists are left to transformers.
    """
    check_outputs(settings, path)
    for key, value in settings.items():
        if isinstance(value, dict):
            check_shapes(value, f"{path}, {key}")
    stated = {key: value for key, value in settings.items() if not isinstance(value, list | None)}
    exempt = {"hidden_size": "head_dim" in stated, "image_size": stated.get("model_type") not in FILLED}
    for divisor, dividend in DIVISORS.items():
        require(stated, path, {key: Kind.COUNT for key in (divisor, dividend) if key in stated})
        both = divisor in stated and dividend in stated
        if both and not exempt.get(dividend) and stated[dividend] % stated[divisor]:
            raise CheckpointError(
                f"{path}: {divisor} is {stated[divisor]}; expected a divisor of {dividend}, which is "
                f"{stated[dividend]}: get the published file"
            )


def nested_preparation(path: Path) -> bool:
    """Whether processor_config.json holds how images are prepared, as transformers 5 saves it."""
    file = path / "processor_config.json"
    return file.is_file() and isinstance(read_json(file).get("image_processor"), dict)


def check_outputs(settings: Mapping[str, Any], path: Path | str) -> None:
    """CheckpointError for a configuration that has transformers attend in a way that keeps whole maps."""
    if settings.get("output_attentions") is True:
        raise CheckpointError(
            f"{path}: output_attentions is true, for which transformers has no fast attention: set it to false"
        )


def load_part(part: Any, path: Path, file: str, **settings: Any) -> Any:
    """``part.from_pretrained`` of a checkpoint directory; CheckpointError that names the file it reads."""
    if not (path / file).is_file() and not (file == PREPARATION and nested_preparation(path)):
        raise missing(path / file)
    try:
        return part.from_pretrained(path, local_files_only=True, trust_remote_code=False, **settings)
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise CheckpointError(f"cannot read {path / file}: {error}") from error


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a checkpoint directory: LLaMA's from sentencepiece's tokenizer.model, else tokenizer.json.

    AutoTokenizer of transformers 5 goes by the model_type in config.json, and omits the space before LLaMA's texts
    unless that is "llama". Text after a token such as <image> begins with that space too, as LLaVA's authors
    tokenize it separately. It is added here, because versions of the library read different files for it and add
    none to a text that begins with a space.
    """
    file = path / "tokenizer.model"
    if not file.is_file():
        return load_part(AutoTokenizer, path, "tokenizer.json")
    try:
        SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}; get it again") from error
    config = path / "tokenizer_config.json"
    # Files of 2023 may omit the setting: sentencepiece's LLaMA then adds the BOS token, transformers 5 does not.
    add_bos = not config.is_file() or read_json(config).get("add_bos_token", True)
    tokenizer = load_part(LlamaTokenizerFast, path, file.name, add_bos_token=add_bos)
    backend = tokenizer.backend_tokenizer
    backend.normalizer = None
    # Files may say that tokens such as "</s>" are normalized, and the normalizer would put a space before them.
    for token in backend.get_added_tokens_decoder().values():
        strips = {"lstrip": token.lstrip, "rstrip": token.rstrip}
        plain = AddedToken(token.content, single_word=token.single_word, normalized=False, **strips)
        (backend.add_special_tokens if token.special else backend.add_tokens)([plain])
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer
