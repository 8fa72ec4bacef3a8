"""Weight files of checkpoint directories and the models made from them. Safetensors only."""

import os
import re
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import PretrainedConfig, PreTrainedModel

from repro.models.loading import CheckpointError, check_shapes, read_json
from repro.models.placing import place

#: Suffix of tensors that old conversions store; models compute them, and they are never trained.
RECOMPUTED = "rotary_emb.inv_freq"
#: Names of number types in safetensors.
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
#: Published name of tensors -> names of the model, ``*`` standing for the same text in both. Several names stand
#: for equal parts of one published tensor along its first axis.
Names = Mapping[str, tuple[str, ...]]


def check_directory(path: Path, model_type: str) -> None:
    """CheckpointError unless ``path`` holds a configuration of ``model_type`` and safetensors weights."""
    check_settings(path, model_type)
    if (path / INDEX).is_file():
        if not isinstance(read_json(path / INDEX).get("metadata"), dict):
            raise CheckpointError(f"{path / INDEX} holds no metadata, which transformers needs: get it again")
        check_index(path)
    elif not (path / WEIGHTS).is_file():
        refuse_pickles(path)
        raise CheckpointError(f"{path} holds no weights: expected {WEIGHTS}, or {INDEX} with its shards")


def check_settings(path: Path, model_type: str) -> None:
    """CheckpointError unless ``path`` holds a configuration of ``model_type``, of a complete model.

    Settings of ``generate`` may be missing. If they cannot be read, transformers would go on without the tokens
    that end an answer.
    """
    check_whole(path)
    file = path / "config.json"
    settings = read_json(file)
    if settings.get("model_type") != model_type:
        raise CheckpointError(
            f"{file} is of model_type {settings.get('model_type')!r}; expected {model_type!r}"
        )
    check_shapes(settings, file)
    if (generation := path / "generation_config.json").is_file():
        read_json(generation)


def check_whole(path: Path) -> None:
    """CheckpointError unless ``path`` is a directory, and of a complete model.

    An adapter in it would be applied or not, depending on what else is installed.
    """
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint directory at {path}")
    if (path / "adapter_config.json").is_file():
        beside = " beside the model's own weights: move it away, or" if (path / WEIGHTS).is_file() else ":"
        raise CheckpointError(
            f"{path} holds an adapter (adapter_config.json){beside} merge it into its base model first (peft: "
            "PeftModel.from_pretrained(base, DIR).merge_and_unload().save_pretrained(OUT))"
        )


def refuse_pickles(path: Path) -> None:
    """CheckpointError with the command that converts them if a directory holds pickled weights."""
    pickles = sorted(p.name for suffix in ("*.bin", "*.pt", "*.pth") for p in path.glob(suffix))
    if pickles:
        raise CheckpointError(
            f"{path} holds its weights as pickle ({', '.join(pickles[:3])}), which can run code when read, and "
            f"is refused; convert them once: python -m repro.models.convert {path} {path}-safetensors"
        )


def weight_map_of(index: Path) -> dict[str, str]:
    """Tensor name -> shard of an index file; CheckpointError unless it holds such a map."""
    shards = read_json(index).get("weight_map")
    if not (isinstance(shards, dict) and shards and all(isinstance(name, str) for name in shards.values())):
        raise CheckpointError(f"{index} should hold a weight_map from tensor names to shards: get it again")
    return shards


def shards_of(path: Path) -> list[Path]:
    """The weight files of a checkpoint directory; CheckpointError if one that its index names is missing."""
    index, names = path / INDEX, {WEIGHTS}
    if index.is_file():
        names = set(weight_map_of(index).values())
        if (path / WEIGHTS).is_file() and WEIGHTS not in names:
            raise CheckpointError(
                f"{path} holds {WEIGHTS} and an index of other shards: remove the one that is left over"
            )
    elif not (path / WEIGHTS).is_file():
        refuse_pickles(path)
    return weight_files(path, names)


def weight_files(path: Path, names: set[str]) -> list[Path]:
    """Files of these names, sorted; CheckpointError if one is missing or lies outside of ``path``."""
    for name in sorted(names):
        if Path(name).name != name or not (path / name).is_file():
            raise CheckpointError(f"{path} should hold the weight file {name}, and does not: get it again")
    return [path / name for name in sorted(names)]


def check_index(path: Path) -> None:
    """CheckpointError unless every shard holds exactly the tensors its index lists; reads headers only."""
    if not (path / INDEX).is_file():
        return
    weight_map = weight_map_of(path / INDEX)
    for file in shards_of(path):
        with _opened(file) as shard:
            stored = set(shard.keys())
        listed = {name for name, shard_name in weight_map.items() if shard_name == file.name}
        if differing := sorted(name for name in stored ^ listed if not name.endswith(RECOMPUTED)):
            raise CheckpointError(
                f"{path / INDEX} and {file.name} do not agree on {', '.join(differing[:5])}: get them again"
            )


def published_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint directory by name, as views of the files, without ``RECOMPUTED`` ones.

    Raises CheckpointError for a damaged or missing file, and for an index and shards that do not agree.
    """
    check_index(path)
    return {name: tensor for file in shards_of(path) for name, tensor in stored_tensors(file).items()}


def stored_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of one weight file; see ``published_tensors``."""
    with _opened(file) as opened:
        return {name: opened.get_tensor(name) for name in opened.keys() if not name.endswith(RECOMPUTED)}


def stored(path: Path) -> tuple[int, torch.dtype | None]:
    """Numbers in the weight files of a directory, and the type of most of them: None if that is no float.

    Reads headers only.
    """
    counts: Counter[str] = Counter()
    for file in shards_of(path):
        with _opened(file) as shard:
            for name in shard.keys():  # noqa: SIM118  (no mapping)
                part = shard.get_slice(name)
                counts[part.get_dtype()] += prod(part.get_shape())
    return counts.total(), FLOATS.get(counts.most_common(1)[0][0]) if counts else None


def fits_in_float32(path: Path) -> bool:
    """Whether this machine's memory holds the weights of a directory in float32, with a fifth to spare."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 4 * stored(path)[0] <= 0.8 * memory


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except SafetensorError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error


def write_shard(file: Path, sources: Sequence[Path], tensors: Callable[[], dict[str, torch.Tensor]]) -> None:
    """Write a weight file unless it has been written from the same ``sources`` before; never leaves half a file.

    Raises CheckpointError if the file was written from other sources, or from earlier versions of them.
    """
    stamps = ((source.name, source.stat()) for source in sources)
    source = "; ".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stamps)
    metadata = {"format": "pt", "source": source}
    if file.exists():
        with _opened(file) as opened:
            if opened.metadata() == metadata:
                return
        raise CheckpointError(
            f"{file} was made from other files than those given now: remove {file.parent} first"
        )
    partial = file.with_name("partial")
    # No name for the tensors: it would keep them in memory while the caller reads the next shard.
    save_file(tensors(), partial, metadata=metadata)
    partial.replace(file)


def run_command(command: Callable[..., None], description: str | None, *arguments: str) -> None:
    """Call ``command`` with the paths given on the command line; a CheckpointError becomes its error message."""
    parser = ArgumentParser(description=(description or "").partition("\n")[0])
    for name in arguments:
        parser.add_argument(name, type=Path)
    try:
        command(**vars(parser.parse_args()))
    except CheckpointError as error:
        parser.error(str(error))


def load_checkpoint(
    architecture: Any,
    path: Path,
    dtype: torch.dtype,
    device: torch.device,
    attention: str | None = "sdpa",
    published_name: Callable[[str], str] = str,
    **source: Any,
) -> PreTrainedModel:
    """Read a model; every tensor of the model must be in the checkpoint, in its shape, and no other.

    Args:
        attention: transformers' attention implementation, for all parts of the model; None: the library's choice.
        published_name: from the name of a tensor in the model to its name in the checkpoint, for messages.
        source: ``config`` and ``state_dict`` in place of the files in ``path``.

    Raises CheckpointError for damaged weights and for missing, surplus or misshapen tensors (names listed).
    """
    try:
        model, info = architecture.from_pretrained(
            None if source else path,
            **source,
            **({} if attention is None else {"attn_implementation": attention}),
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise CheckpointError(f"a weight file in {path} is damaged: {error}") from error
    except Exception as error:  # bad settings raise whatever the model's class stumbles over
        raise CheckpointError(
            f"cannot read the checkpoint {path}: {type(error).__name__}: {error}"
        ) from error
    # transformers 5 lists (name, shape in the checkpoint, shape in the model), transformers 4 names alone.
    misshapen = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = {
        "missing": [published_name(name) for name in info["missing_keys"]],
        "surplus": [published_name(name) for name in info["unexpected_keys"]],
        "misshapen": [f"{published_name(name)} (the model's is {shapes[name]})" for name in misshapen],
    }
    if any(problems.values()):
        raise CheckpointError(_mismatch(path, architecture, problems))
    # Settings that change what a pass returns, and no number: files may have them from whoever saved them.
    for part in model.modules():
        if (config := getattr(part, "config", None)) is not None and hasattr(config, "return_dict"):
            config.return_dict, config.output_attentions, config.output_hidden_states = True, False, False
    _fill_buffers(model, path)
    return place(model, device)


def _fill_buffers(model: PreTrainedModel, path: Path) -> None:
    """Set positions that no checkpoint holds, which transformers 5.0 and 5.1 leave as memory that is not filled.

    Raises CheckpointError for another buffer that holds no numbers.
    """
    stored = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if name in stored:
            continue
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
        elif buffer.is_floating_point() and not torch.isfinite(buffer).all():
            raise CheckpointError(
                f"{path}: {name} of the model is not finite: its settings are not those of a model"
            )


def load_renamed(
    architecture: Any,
    config: PretrainedConfig,
    published: Mapping[str, torch.Tensor],
    path: Path,
    names: Names,
    dtype: torch.dtype,
    device: torch.device,
) -> PreTrainedModel:
    """Read a model whose published tensors have other names, or are fused.

    Tensors are views of the files, read when they are copied, so memory peaks at the model plus one shard.

    Args:
        published: tensors by their published names, see ``published_tensors``.

    Raises CheckpointError as ``load_checkpoint``, with the published names.
    """
    tensors: dict[str, torch.Tensor] = {}
    surplus = []
    for name, tensor in published.items():
        parts = renamed(name, names)
        if not parts:
            surplus.append(name)
        elif len(parts) == 1:
            tensors[parts[0]] = tensor
        else:
            tensors.update(zip(parts, tensor.tensor_split(len(parts)), strict=True))
    if surplus:
        raise CheckpointError(_mismatch(path, architecture, {"surplus": surplus}))
    back = {part: (name,) for name, parts in names.items() for part in parts}
    source: dict[str, Any] = {"config": config, "state_dict": tensors}
    source["published_name"] = lambda name: (*renamed(name, back), name)[0]
    return load_checkpoint(architecture, path, dtype, device, **source)


def renamed(name: str, names: Names) -> tuple[str, ...]:
    """The names for ``name`` of the first pattern that matches it, () if none does."""
    for pattern, others in names.items():
        if match := re.fullmatch(re.escape(pattern).replace(r"\*", "(.+)"), name):
            middle = match[match.re.groups]  # irrelevant without a star, which the others then lack too
            return tuple(other.replace("*", middle) for other in others)
    return ()


def _mismatch(path: Path, architecture: Any, problems: Mapping[str, list[str]]) -> str:
    listed = []
    for kind, names in problems.items():
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        listed += [f"{kind}: {', '.join(sorted(names)[:5])}{more}"] if names else []
    tower = path / "vision_tower"
    if any(tower.glob("*.safetensors")) and any("vision_" in name for name in chain(*problems.values())):
        listed.append(f"those of the vision tower are in {tower}")
    return f"the tensors in {path} do not match {architecture.__name__}; " + "; ".join(listed)
