"""A second device on a machine without one: tensors of the CPU behind a device of their own, as strict as CUDA.

``torch.device("pretend")`` is torch's private backend. What CUDA refuses is refused: tensors of two devices in one
operation, ``numpy`` of a tensor that was not brought to the CPU, a generator of another device. What CUDA allows
is allowed: numbers (tensors without axes) and indices on the CPU, copies between devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

NAME = "pretend"
aten = torch.ops.aten
#: Operations that bring values from one device to another.
COPIES = {aten._to_copy.default, aten.copy_.default}
#: Operations whose indices may be on the CPU.
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class Pretend(Tensor):
    """A tensor of the device; ``held`` has its values, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Pretend:
        tensor = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(NAME, 0),
        )
        tensor.held = held
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls,
        function: Any,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return run(function, args, dict(kwargs or {}))

    def new_tensor(self, data: Any, **settings: Any) -> Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device} | settings)

    def tolist(self) -> Any:
        return self.held.tolist()

    def __setitem__(self, place: Any, value: Any) -> None:
        super().__setitem__(torch.tensor(place) if isinstance(place, list) else place, value)

    def __repr__(self, *_: object, **__: object) -> str:
        return f"Pretend({self.held!r})"


def run(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """An operation on tensors of the device, on what they hold."""
    leaves, structure = tree_flatten((args, kwargs))
    asked = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
    on_device = asked.type == NAME if asked is not None else any(map(_is_pretend, leaves))
    if function not in COPIES:
        _check_devices(function, args, leaves, on_device)
    plain = [leaf.held if _is_pretend(leaf) else leaf for leaf in leaves]
    plain = ["cpu" if isinstance(leaf, torch.device) and leaf.type == NAME else leaf for leaf in plain]
    plain_args, plain_kwargs = tree_unflatten(plain, structure)
    result = function(*plain_args, **plain_kwargs)
    # What was changed in its place is the tensor that was given.
    given = {id(leaf.held): leaf for leaf in leaves if _is_pretend(leaf)}
    if function is aten.copy_.default:
        return args[0]

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in given:
            return given[id(value)] if on_device else value.clone()
        # A view of an ordinary tensor is an ordinary one, also in inference mode.
        with torch.inference_mode(value.is_inference()):
            return Pretend(value) if on_device else value

    return tree_map(wrapped, result)


def _is_pretend(value: object) -> bool:
    return isinstance(value, Pretend)


def _check_devices(function: Any, args: Sequence[Any], leaves: Sequence[Any], on_device: bool) -> None:
    """RuntimeError, in CUDA's words, for tensors or a generator of another device."""
    if any(map(_is_pretend, leaves)):
        strict = leaves if function not in INDEXING else [args[0], *args[2:]]
        for leaf in strict:
            if isinstance(leaf, Tensor) and not _is_pretend(leaf) and leaf.dim():
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and "
                    f"{leaf.device}! (in {function})"
                )
    for leaf in leaves:
        if on_device and isinstance(leaf, torch.Generator) and leaf.device.type != NAME:
            raise RuntimeError(
                f"Expected a '{NAME}' device type for generator but found '{leaf.device.type}'"
            )


def _by_way_of_the_cpu(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @wraps(make)
    def made(data: Any, *, device: Any = None, **settings: Any) -> Tensor:
        if device is None or torch.device(device).type != NAME:
            return make(data, device=device, **settings)
        return make(data, **settings).to(device)

    return made


@cache
def register() -> torch.device:
    """Make the device known to torch, once for this process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("_", "IMPL")

    def fallback(function: Any, *args: Any, **kwargs: Any) -> Any:
        return run(function, args, kwargs)

    library.fallback(fallback, "PrivateUse1")
    _device_constructors()  # keeps the functions that follow ``with torch.device(...)``: those of now
    # torch makes such a tensor on the CPU and brings it over in a way that does not know backends in Python.
    for name in ("tensor", "as_tensor"):
        setattr(torch, name, _by_way_of_the_cpu(getattr(torch, name)))
    register.library = library  # type: ignore[attr-defined]  # which ends with its object
    return torch.device(NAME)


def loading(load_model: Callable[..., Any]) -> Callable[..., Any]:
    """``load_model``, with every model on the device."""
    register()

    @wraps(load_model)
    def load(name: str, path: Any = None, dtype: Any = None, device: Any = None) -> Any:
        return load_model(name, path, dtype, NAME)

    return load
