"""Checkpoint directories: what must be in them, and how they are read. Safetensors only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel


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
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} should hold a JSON object, not a {type(content).__name__}")
    return content


def check_directory(path: Path, model_type: str) -> None:
    """CheckpointError unless ``path`` holds a configuration of ``model_type`` and safetensors weights."""
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint directory at {path}")
    found = read_json(path / "config.json").get("model_type")
    if found != model_type:
        raise CheckpointError(f"{path / 'config.json'} is of model_type {found!r}; expected {model_type!r}")
    if (path / "model.safetensors").is_file():
        return
    index = path / "model.safetensors.index.json"
    if index.is_file():
        if not isinstance(read_json(index).get("weight_map"), dict):
            raise CheckpointError(f"{index} should hold a weight_map from tensor names to shards")
        return
    pickles = sorted(p.name for suffix in ("*.bin", "*.pt", "*.pth") for p in path.glob(suffix))
    if pickles:
        raise CheckpointError(
            f"{path} holds its weights as pickle ({', '.join(pickles[:3])}), which can run code when read, and "
            "is refused: write them once with safetensors.torch.save_file as model.safetensors"
        )
    raise CheckpointError(
        f"{path} holds no weights: expected model.safetensors, or model.safetensors.index.json with its shards"
    )


def load_part(part: Any, path: Path, file: str) -> Any:
    """``part.from_pretrained`` of a checkpoint directory; CheckpointError that names the file it is made of."""
    if not (path / file).is_file():
        raise CheckpointError(
            f"{path / file} is missing: a checkpoint directory in the published layout has it"
        )
    try:
        return part.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise CheckpointError(f"cannot read {path / file}: {error}") from error


def load_checkpoint(
    architecture: Any, path: Path, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """Read a model; every tensor of the model must be in the checkpoint, in its shape, and no other.

    Raises:
        CheckpointError: weights are damaged, or a tensor is missing, surplus or misshapen (names listed).
    """
    try:
        model, found = architecture.from_pretrained(
            path,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}") from error
    except Exception as error:  # safetensors raises its own error type, which derives from Exception alone
        if type(error).__module__.startswith("safetensors"):
            raise CheckpointError(f"a weight file in {path} is damaged: {error}") from error
        raise
    # transformers 5 lists (name, shape in the checkpoint, shape in the model), transformers 4 names alone.
    misshapen = [key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]]
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = [
        f"{what}: {', '.join(sorted(map(str, names))[:5])}"
        + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        for what, names in (
            ("missing", found["missing_keys"]),
            ("surplus", found["unexpected_keys"]),
            ("misshapen", [f"{name} (the model's is {shapes[name]})" for name in misshapen]),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"the tensors in {path} do not match {architecture.__name__}; " + "; ".join(problems)
        )
    return model.to(device)
