"""Checkpoint directories: what must be in them, and how they are read. Safetensors only."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, normalizers
from transformers import AutoTokenizer, LlamaTokenizerFast, PretrainedConfig, PreTrainedModel

#: How names of tensors end that models compute by themselves.
RECOMPUTED = "rotary_emb.inv_freq"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the directory or tensor and what to do."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint; CheckpointError if it is missing or not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing: a checkpoint directory in the published layout has it"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; a file was expected") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} should hold a JSON object, not a {type(content).__name__}")
    return content


#: Kinds of settings, as ``require`` checks them.
KINDS: dict[str, Callable[[Any], bool]] = {
    "a whole number above 0": lambda value: type(value) is int and value > 0,
    "a whole number below 0": lambda value: type(value) is int and value < 0,
    "a number above 0": lambda value: type(value) in (int, float) and 0 < value < math.inf,
    "true or false": lambda value: type(value) is bool,
    "a text": lambda value: type(value) is str,
    "an object": lambda value: type(value) is dict,
}
COUNT, FROM_LAST, NUMBER, FLAG, TEXT, OBJECT = KINDS


#: Settings that decide shapes -> what they must divide.
DIVISORS = {
    "num_attention_heads": "hidden_size",
    "num_heads": "hidden_size",
    "heads": "width",
    "num_key_value_heads": "num_attention_heads",
    "patch_size": "image_size",
}
#: Towers by model_type whose patches fill the picture; SigLIP's 384 pixels leave a margin beside patches of 14.
FILLED = (None, "clip_vision_model", "intern_vit_6b")


def require(settings: Mapping[str, Any], path: Path | str, expected: Mapping[str, str]) -> None:
    """CheckpointError unless the settings read from ``path`` have all of these keys, each of its kind."""
    if absent := [key for key in expected if key not in settings]:
        raise CheckpointError(f"{path} lacks {', '.join(absent)}: get the published file")
    for key, kind in expected.items():
        if not KINDS[kind](settings[key]):
            raise CheckpointError(
                f"{path}: {key} is {settings[key]!r}; expected {kind}: get the published file"
            )


def check_shapes(settings: Mapping[str, Any], path: Path | str) -> None:
    """CheckpointError unless heads divide widths, and patches pictures, here and in the objects within.

    What is not stated is as transformers sets it, and what is a list is left to it.
    """
    for key, within in settings.items():
        if isinstance(within, dict):
            check_shapes(within, f"{path}, {key}")
    stated = {key: value for key, value in settings.items() if not isinstance(value, list | None)}
    free = {"hidden_size": "head_dim" in stated, "image_size": stated.get("model_type") not in FILLED}
    for key, whole in DIVISORS.items():
        require(stated, path, {one: COUNT for one in (key, whole) if one in stated})
        if key in stated and whole in stated and not free.get(whole) and stated[whole] % stated[key]:
            raise CheckpointError(
                f"{path}: {key} is {stated[key]}; expected a divisor of {whole}, which is {stated[whole]}: get "
                "the published file"
            )


def check_directory(path: Path, model_type: str) -> None:
    """CheckpointError unless ``path`` holds a configuration of ``model_type`` and safetensors weights.

    Settings of ``generate`` may be missing. Where they cannot be read, transformers would go on without the tokens
    that end an answer.
    """
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint directory at {path}")
    file = path / "config.json"
    settings = read_json(file)
    if (found := settings.get("model_type")) != model_type:
        raise CheckpointError(f"{file} is of model_type {found!r}; expected {model_type!r}")
    check_shapes(settings, file)
    if (generation := path / "generation_config.json").is_file():
        read_json(generation)
    index = path / "model.safetensors.index.json"
    if index.is_file():
        if not isinstance(read_json(index).get("metadata"), dict):
            raise CheckpointError(f"{index} holds no metadata, which transformers needs: get it again")
        check_index(path)
        return
    if (path / "model.safetensors").is_file():
        return
    refuse_pickles(path)
    raise CheckpointError(
        f"{path} holds no weights: expected model.safetensors, or model.safetensors.index.json with its shards"
    )


def refuse_pickles(path: Path) -> None:
    """CheckpointError with the command that converts them where a directory holds its weights as pickles."""
    pickles = sorted(p.name for suffix in ("*.bin", "*.pt", "*.pth") for p in path.glob(suffix))
    if pickles:
        raise CheckpointError(
            f"{path} holds its weights as pickle ({', '.join(pickles[:3])}), which can run code when read, and "
            f"is refused; convert them once: python -m repro.models.convert {path} {path}-safetensors"
        )


def check_index(path: Path) -> None:
    """CheckpointError unless every shard holds just the tensors that the index says; only headers are read."""
    place = weight_map_of(path / "model.safetensors.index.json")
    for file in shards_of(path):
        try:
            with safe_open(file, framework="pt") as opened:
                held = set(opened.keys())
        except SafetensorError as error:
            raise CheckpointError(f"{file} is damaged: {error}") from error
        listed = {name for name, shard in place.items() if shard == file.name}
        if odd := sorted(name for name in held ^ listed if not name.endswith(RECOMPUTED)):
            raise CheckpointError(
                f"{path / 'model.safetensors.index.json'} and {file.name} do not agree on {', '.join(odd[:5])}: "
                "get them again"
            )


def load_part(part: Any, path: Path, file: str, **settings: Any) -> Any:
    """``part.from_pretrained`` of a checkpoint directory; CheckpointError that names the file it is made of."""
    if not (path / file).is_file():
        raise CheckpointError(
            f"{path / file} is missing: a checkpoint directory in the published layout has it"
        )
    try:
        return part.from_pretrained(path, local_files_only=True, trust_remote_code=False, **settings)
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise CheckpointError(f"cannot read {path / file}: {error}") from error


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a checkpoint directory: LLaMA's from sentencepiece's tokenizer.model, else tokenizer.json.

    AutoTokenizer of transformers 5 goes by the model_type in config.json, and leaves out the blank that LLaMA puts
    before a text when that is not "llama". What stands behind a token such as <image> begins with that blank too,
    as where LLaVA's authors tokenize it apart: it is put there here, because versions of the library go by
    different files for it, and put none before a text that begins with a blank of its own.
    """
    file = path / "tokenizer.model"
    if not file.is_file():
        return load_part(AutoTokenizer, path, "tokenizer.json")
    try:
        SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}; get it again") from error
    described = path / "tokenizer_config.json"
    # Files of 2023 may leave it out: sentencepiece's LLaMA begins with it, transformers 5 does not.
    begins = not described.is_file() or read_json(described).get("add_bos_token", True)
    tokenizer = load_part(LlamaTokenizerFast, path, file.name, add_bos_token=begins)
    backend = tokenizer.backend_tokenizer
    backend.normalizer = None
    # A normalizer would put the blank before "</s>" too where the files say that such tokens are normalized.
    for token in backend.get_added_tokens_decoder().values():
        plain = AddedToken(
            token.content,
            single_word=token.single_word,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            normalized=False,
        )
        (backend.add_special_tokens if token.special else backend.add_tokens)([plain])
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def load_checkpoint(
    architecture: Any, path: Path, dtype: torch.dtype, device: torch.device, attention: str = "sdpa"
) -> PreTrainedModel:
    """Read a model; every tensor of the model must be in the checkpoint, in its shape, and no other.

    Args:
        attention: how all of its parts attend.

    Raises:
        CheckpointError: weights are damaged, or a tensor is missing, surplus or misshapen (names listed).
    """
    return _load(architecture, path, {"attn_implementation": attention}, dtype, device, str)


def load_renamed(
    architecture: Any,
    config: PretrainedConfig,
    published: Mapping[str, torch.Tensor],
    path: Path,
    names: Mapping[str, tuple[str, ...]],
    dtype: torch.dtype,
    device: torch.device,
) -> PreTrainedModel:
    """Read a model whose published tensors have other names, or are fused.

    Tensors are views of the files, read when they are copied, so memory peaks at the model plus one shard.

    Args:
        published: tensors by their published names, see ``published_tensors``.
        names: published name -> names of the model, ``*`` standing for the same text in both. Several names are
            parts of one published tensor, along its first axis, all of one size.

    Raises:
        CheckpointError: as ``load_checkpoint``, with the published names.
    """
    tensors, surplus = {}, []
    for name, tensor in published.items():
        ours = renamed(name, names)
        if not ours:
            surplus.append(name)
        elif len(ours) == 1:
            tensors[ours[0]] = tensor
        else:
            tensors.update(zip(ours, tensor.tensor_split(len(ours)), strict=True))
    if surplus:
        raise CheckpointError(_mismatch(path, architecture, {"surplus": surplus}))
    back = {part: (name,) for name, ours in names.items() for part in ours}
    given = {"config": config, "state_dict": tensors, "attn_implementation": "sdpa"}
    return _load(architecture, path, given, dtype, device, lambda name: (*renamed(name, back), name)[0])


def weight_map_of(index: Path) -> dict[str, str]:
    """Tensor name -> shard of an index file; CheckpointError unless it holds such a map."""
    place = read_json(index).get("weight_map")
    if not isinstance(place, dict) or not place or not all(isinstance(v, str) for v in place.values()):
        raise CheckpointError(f"{index} should hold a weight_map from tensor names to shards: get it again")
    return place


def written(file: Path, sources: Sequence[Path]) -> dict[str, str] | None:
    """Metadata that says which files a weight file is made from, or None where it is there already.

    Raises:
        CheckpointError: the file is there, but made from others, or from earlier versions of them.
    """
    stamps = (f"{one.name} {one.stat().st_size} {one.stat().st_mtime_ns}" for one in sources)
    made = {"format": "pt", "source": "; ".join(stamps)}
    if not file.exists():
        return made
    with safe_open(file, framework="pt") as opened:
        if opened.metadata() == made:
            return None
    raise CheckpointError(
        f"{file} was made from other files than those given now: remove {file.parent} first"
    )


def shards_of(path: Path) -> list[Path]:
    """The weight files of a checkpoint directory; CheckpointError if one that its index names is not there."""
    index = path / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.is_file():
        names = set(weight_map_of(index).values())
        if (path / "model.safetensors").is_file() and "model.safetensors" not in names:
            raise CheckpointError(
                f"{path} holds model.safetensors and an index of other shards: remove the one that is left over"
            )
    elif not (path / "model.safetensors").is_file():
        refuse_pickles(path)
    for name in sorted(names):
        if Path(name).name != name or not (path / name).is_file():
            raise CheckpointError(f"{path} should hold the weight file {name}, and does not: get it again")
    return [path / name for name in sorted(names)]


def published_tensors(path: Path, shard: str | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint directory, or of one of its shards, by name, as views of the files.

    Without the rotary frequencies that old conversions store: they are computed, never trained.

    Raises:
        CheckpointError: a file is damaged or missing, or index and shards do not agree on the names.
    """
    tensors: dict[str, torch.Tensor] = {}
    for file in shards_of(path):
        if shard in (None, file.name):
            try:
                with safe_open(file, framework="pt") as opened:
                    kept = (name for name in opened.keys() if not name.endswith(RECOMPUTED))  # noqa: SIM118
                    tensors |= {name: opened.get_tensor(name) for name in kept}
            except SafetensorError as error:
                raise CheckpointError(f"{file} is damaged: {error}") from error
    index = path / "model.safetensors.index.json"
    if shard is None and index.is_file():
        listed = {name for name in weight_map_of(index) if not name.endswith(RECOMPUTED)}
        if odd := sorted(listed ^ set(tensors)):
            raise CheckpointError(
                f"{index} and its shards do not agree on {', '.join(odd[:5])}: get them again"
            )
    return tensors


def renamed(name: str, names: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What a name becomes by the first pattern that it fits; () if it fits none. See ``load_renamed``."""
    for pattern, others in names.items():
        head, star, tail = pattern.partition("*")
        if name == pattern:
            return others
        if star and name.startswith(head) and name.endswith(tail) and len(name) > len(head) + len(tail):
            middle = name[len(head) : len(name) - len(tail)]
            return tuple(other.replace("*", middle) for other in others)
    return ()


def _load(
    architecture: Any,
    path: Path,
    given: dict[str, Any],
    dtype: torch.dtype,
    device: torch.device,
    published: Callable[[str], str],
) -> PreTrainedModel:
    try:
        model, found = architecture.from_pretrained(
            None if "state_dict" in given else path,
            **given,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise CheckpointError(f"a weight file in {path} is damaged: {error}") from error
    except Exception as error:  # settings that make no model raise whatever its class stumbles over
        raise CheckpointError(
            f"cannot read the checkpoint {path}: {type(error).__name__}: {error}"
        ) from error
    # transformers 5 lists (name, shape in the checkpoint, shape in the model), transformers 4 names alone.
    misshapen = [key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]]
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = {
        "missing": [published(name) for name in found["missing_keys"]],
        "surplus": [published(name) for name in found["unexpected_keys"]],
        "misshapen": [f"{published(name)} (the model's is {shapes[name]})" for name in misshapen],
    }
    if any(problems.values()):
        raise CheckpointError(_mismatch(path, architecture, problems))
    return model.to(device)


def _mismatch(path: Path, architecture: Any, problems: Mapping[str, list[str]]) -> str:
    listed = [
        f"{what}: {', '.join(sorted(names)[:5])}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        for what, names in problems.items()
        if names
    ]
    tower = path / "vision_tower"
    if any(tower.glob("*.safetensors")) and any(
        "vision_" in name for names in problems.values() for name in names
    ):
        listed.append(f"those of the vision tower are in {tower}")
    return f"the tensors in {path} do not match {architecture.__name__}; " + "; ".join(listed)
