"""Where a model's decoder layers are and which of their arguments run over the sequence, learnt from its passes.

A pass over a prompt and one over the same prompt and one more text token are compared: what grew by one from the
first to the second runs over the sequence. Nothing is known of any architecture.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

#: Where a tensor stands among positional arguments (by number), keyword arguments (by name) and what they nest.
Place = tuple[int | str, ...]
#: Positional and keyword arguments of a module.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]
#: Names of a cache among arguments and results: since transformers 5.24, and before.
CACHE_NAMES = ("cache", "past_key_values")


def cache_in(values: Mapping[str, Any]) -> Any:
    """The cache of keys and values among a pass's arguments or results; None if there is none."""
    return next((values[name] for name in CACHE_NAMES if values.get(name) is not None), None)


def tensors(value: Any, place: Place = ()) -> Iterator[tuple[Place, Tensor]]:
    """All tensors within tuples, lists and dictionaries, with their places."""
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from tensors(part, (*place, key))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from tensors(part, (*place, index))


def replaced(value: Any, new: Mapping[Place, Tensor], place: Place = ()) -> Any:
    """Nested tuples, lists and dictionaries with ``new`` tensors at their places.

    Inner dictionaries are changed where they are: layers hand tensors on to later layers in them.
    """
    if place in new:
        return new[place]
    if isinstance(value, MutableMapping):
        parts = {key: replaced(part, new, (*place, key)) for key, part in value.items()}
        if not place:
            return parts
        value.update(parts)
    elif type(value) in (list, tuple):
        return type(value)(replaced(part, new, (*place, index)) for index, part in enumerate(value))
    return value


def arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[Place, Tensor]]:
    """All tensors among the arguments of a layer; hidden states come first."""
    yield from tensors(args)
    yield from tensors(kwargs)


def first_output(output: Any) -> Any:
    """What a module returns, or the first of it: some, and more in transformers 4, return tuples."""
    return output[0] if isinstance(output, tuple) else output


def with_first_output(output: Any, first: Tensor) -> Any:
    """The same output with another first part."""
    return (first, *output[1:]) if isinstance(output, tuple) else first


def is_mask(place: Place, tensor: Tensor) -> bool:
    """Whether it is a mask over queries and keys."""
    return place[-1] == "attention_mask" and tensor.dim() == 4


class NoLayers(ValueError):
    """A model without decoder layers that a prompt's tokens pass through."""


@dataclass(frozen=True)
class Layers:
    """The decoder layers.

    Attributes:
        modules: in order.
        axes: for each layer, by place the axis, counted from the end, of tensors that run over the sequence once.
    """

    modules: Sequence[nn.Module]
    axes: tuple[dict[Place, int], ...]

    def hidden_axis(self, index: int) -> int:
        """The axis of a layer's hidden states, in and out, that runs over the sequence, counted from the end."""
        return next(iter(self.axes[index].values()))

    def hidden(
        self, index: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Place, Tensor, int]:
        """The hidden states among the arguments of a layer: their place, themselves and their sequence axis."""
        place, axis = next(iter(self.axes[index].items()))
        return place, dict(arguments(args, kwargs))[place], axis

    def sequential(
        self, index: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> dict[Place, tuple[Tensor, int]]:
        """Arguments of a layer that run over the sequence once, with their axes; hidden states come first."""
        axes = self.axes[index]
        _, hidden, axis = self.hidden(index, args, kwargs)
        # What earlier layers handed on may be shorter.
        return {
            place: (tensor, axes[place])
            for place, tensor in arguments(args, kwargs)
            if place in axes and tensor.shape[axes[place]] == hidden.shape[axis]
        }


def find_layers(model: nn.Module, run: Callable[[int], Any]) -> Layers:
    """The decoder layers of a model.

    They are the longest list of modules that the sequence of a prompt passes through, each once.

    Args:
        run: one pass over a prompt followed by that many text tokens.

    Raises NoLayers if there is none, as in models without image tokens in a decoder's sequence.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    calls: dict[nn.Module, list[dict[Place, torch.Size]]] = {}

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.setdefault(module, []).append(
            {place: tensor.shape for place, tensor in arguments(args, kwargs)}
        )

    with ExitStack() as hooks:
        for module in {child for modules in lists for child in modules}:
            hooks.callback(module.register_forward_pre_hook(record, with_kwargs=True).remove)
        for extra in (0, 1):
            run(extra)
    found: list[Layers] = []
    for modules in lists:
        pairs = [calls.get(module, []) for module in modules]
        if all(len(pair) == 2 for pair in pairs):
            axes = tuple(_growing(*pair) for pair in pairs)
            # Hidden states come first, and must run over the sequence.
            if all(next(iter(pair[0]), None) in grown for pair, grown in zip(pairs, axes, strict=True)):
                found.append(Layers(list(modules), axes))
    if not found:
        raise NoLayers("no list of decoder layers that the tokens of a prompt pass through")
    return max(found, key=lambda layers: len(layers.modules))


#: Parts of a decoder layer by their role.
Role = Literal["post_attention_norm", "input_norm", "attention", "mlp", "layer"]
ROLES: tuple[Role, ...] = get_args(Role)


def find_roles(layers: Sequence[nn.Module], run: Callable[[], Any]) -> list[dict[str, nn.Module]]:
    """The parts that each layer has, by their roles, from one pass.

    Its first part that is no norm mixes tokens: attention, or what stands in its place. The norm behind it is the
    first that reads not its output but the sum of that and the layer's input; layers with attention and MLP side
    by side have none.
    """
    # Tensors are kept: as long as they are, no other tensor is they.
    calls: dict[nn.Module, tuple[int, Any, Any]] = {}

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        first = next((tensor for _, tensor in arguments(args, kwargs)), None)
        calls[module] = (len(calls), first, first_output(output))

    with ExitStack() as hooks:
        for layer in layers:
            for child in layer.children():
                hooks.callback(child.register_forward_hook(record, with_kwargs=True).remove)
        run()
    return [_roles_of(layer, calls) for layer in layers]


def _roles_of(layer: nn.Module, calls: Mapping[nn.Module, tuple[int, Any, Any]]) -> dict[str, nn.Module]:
    roles, mixed = {"layer": layer}, None
    for module in sorted(
        (child for child in layer.children() if child in calls), key=lambda child: calls[child][0]
    ):
        _, read, written = calls[module]
        kind = type(module).__name__.lower()
        if "norm" not in kind and mixed is None:
            roles["attention"], mixed = module, written
        elif "norm" in kind and mixed is None:
            roles.setdefault("input_norm", module)
        elif "norm" in kind and read is not mixed:
            roles.setdefault("post_attention_norm", module)
        elif "mlp" in kind or "moe" in kind:
            roles.setdefault("mlp", module)
    return roles


def _growing(before: Mapping[Place, torch.Size], after: Mapping[Place, torch.Size]) -> dict[Place, int]:
    """Places of tensors with one axis that is longer by 1, and that axis, counted from the end."""
    axes = {}
    for place, shape in before.items():
        new = after.get(place, shape)
        if len(new) == len(shape):
            grown = [axis for axis in range(-len(shape), 0) if new[axis] == shape[axis] + 1]
            if len(grown) == 1:
                axes[place] = grown[0]
    return axes


def find_batch_axis(tensor: Tensor, axis: int, batch: int) -> int | None:
    """The axis before ``axis``, or the first, if it can be that of the batch; None if there is none."""
    for candidate in (axis - 1, -tensor.dim()):
        if -tensor.dim() <= candidate < axis and tensor.shape[candidate] in (1, batch):
            return candidate
    return None


def _index(rows: Tensor, batch_axis: int | None, axis: int, shape: Sequence[int]) -> Tensor:
    """Rows [B, R] as an index of the shape, which has B along ``batch_axis`` and R along ``axis``."""
    sizes = {batch_axis: len(rows), axis: -1}
    return rows.view([sizes.get(place, 1) for place in range(-len(shape), 0)]).expand(list(shape))


def take(tensor: Tensor, rows: Tensor, axis: int) -> Tensor:
    """The rows of each prompt of a batch.

    Args:
        rows: int64 [B or 1, R].
        axis: of the sequence, counted from the end.
    """
    batch_axis = find_batch_axis(tensor, axis, len(rows))
    if len(rows) == 1 or batch_axis is None:
        return tensor.index_select(axis, rows[0])
    shape = list(tensor.shape)
    shape[batch_axis] = len(rows)
    tensor = tensor.expand(shape)
    shape[axis] = rows.shape[1]
    return tensor.gather(axis, _index(rows, batch_axis, axis, shape))


def put(tensor: Tensor, rows: Tensor, axis: int, length: int) -> Tensor:
    """The inverse of ``take``: zeros of that length along the axis, with the tensor's rows in their places."""
    shape = list(tensor.shape)
    shape[axis] = length
    empty = tensor.new_zeros(shape)
    if len(rows) == 1:
        return empty.index_copy(axis, rows[0], tensor)
    batch_axis = find_batch_axis(tensor, axis, len(rows))
    return empty.scatter(axis, _index(rows, batch_axis, axis, tensor.shape), tensor)


def take_mask(mask: Tensor, rows: Tensor | None, columns: Tensor) -> Tensor:
    """A mask [B or 1, heads or 1, R, C] of rows [B or 1, R] (None: all) and columns [B or 1, C] of a mask."""
    batch = max(len(mask), len(columns))
    mask = mask.expand(batch, -1, -1, -1)
    if rows is not None:
        index = rows[:, None, :, None].expand(batch, mask.shape[1], -1, mask.shape[3])
        mask = mask.gather(2, index)
    return mask.gather(3, columns[:, None, None].expand(batch, *mask.shape[1:3], -1))


def hide(mask: Tensor, seen: Tensor) -> Tensor:
    """A mask, boolean or additive, that in addition hides what is not ``seen``."""
    if mask.dtype == torch.bool:
        return mask & seen
    return torch.where(seen, mask, torch.finfo(mask.dtype).min)
