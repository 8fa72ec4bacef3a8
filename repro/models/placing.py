"""Where weights are: on one device, or on several GPUs, a part of the decoder layers on each."""

from collections.abc import Sequence
from functools import wraps
from math import ceil
from typing import Any

import torch
from torch import nn

from repro.models.anatomy import arguments
from repro.models.loading import CheckpointError

#: Share of GPUs' memory that weights may take; the rest is for activations, keys and values.
SHARE = 0.8


def gpus_needed(weights: int, memory: float) -> int:
    """How many GPUs of so many bytes a model with weights of so many bytes takes."""
    return max(1, ceil(weights / (SHARE * memory)))


def check_gpus(weights: int, device: torch.device) -> None:
    """CheckpointError, before anything is read, for a GPU that with its neighbours cannot hold so many bytes."""
    if device.type == "cuda" and weights > (there := len(gpus_from(device))) * (memory := memory_of(device)):
        raise CheckpointError(
            f"the weights take {weights / 1e9:.1f} GB, and CUDA_VISIBLE_DEVICES shows {there} GPU(s) of "
            f"{memory / 1e9:.1f} GB from {device} on: {gpus_needed(weights, memory)} are wanted"
        )


def memory_of(device: torch.device) -> int:
    """Bytes of a GPU."""
    return torch.cuda.get_device_properties(device).total_memory


def gpus_from(device: torch.device) -> list[torch.device]:
    """A GPU and those behind it."""
    first = torch.cuda.current_device() if device.index is None else device.index
    return [torch.device("cuda", index) for index in range(first, torch.cuda.device_count())]


def place(model: Any, device: torch.device) -> Any:
    """Move a model to a device; from a GPU without room for it on, to as many GPUs as it takes."""
    needed = gpus_needed(bytes_of(model), memory_of(device)) if device.type == "cuda" else 1
    if needed > 1 and len(devices := gpus_from(device)[:needed]) > 1:
        return spread(model, devices)
    return model.to(device)


def spread(model: Any, devices: Sequence[torch.device]) -> Any:
    """Move a model's decoder layers to several devices, in order and evenly by bytes; all else to the first.

    Layers take what they read to their device and bring what they give back, so that whatever is around them
    meets the first device alone.
    """
    layers = decoder_layers(model)
    modules, total = list(layers), bytes_of(model)
    before = total - bytes_of(layers)
    for index in range(len(modules)):
        layers[index] = nn.Identity()
    model.to(devices[0])
    for index, layer in enumerate(modules):
        layers[index] = layer.to(devices[min(len(devices) - 1, len(devices) * before // total)])
        before += bytes_of(layer)
        if "forward" not in vars(layer):
            layer.forward = _visited(layer)
    return model


def _visited(layer: nn.Module) -> Any:
    """The layer's ``forward``, on its weights' device, for arguments of another."""
    own = layer.forward

    @wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:
        there = next(layer.parameters()).device
        home = next(tensor.device for _, tensor in arguments(args, kwargs))
        if there == home:
            return own(*args, **kwargs)
        return _moved(own(*_moved(args, there), **_moved(kwargs, there)), home)

    return forward


def _moved(value: Any, device: torch.device) -> Any:
    """Nested tuples, lists and dictionaries with their tensors on a device; caches stay as they are."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if type(value) is dict:
        return {key: _moved(part, device) for key, part in value.items()}
    return type(value)(_moved(part, device) for part in value) if type(value) in (list, tuple) else value


def decoder_layers(model: Any) -> nn.ModuleList:
    """The decoder layers of a model: of the lists of modules that are as long, the one with the most weights."""
    count = model.config.get_text_config().num_hidden_layers
    lists = [
        module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    return max(lists, key=bytes_of)


def bytes_of(module: nn.Module) -> int:
    """Bytes of a module's parameters."""
    return sum(parameter.nbytes for parameter in module.parameters())
