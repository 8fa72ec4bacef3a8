"""What a model computes and answers, with the picture and without it above a layer, by hooks on its layers.

Independent of the package: plain eager forwards of transformers' own model, and none with a cache but ``answer``.
A model here is on the CPU, loaded with ``attn_implementation="eager"``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Inputs = Mapping[str, Any]


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder's layers: its shallowest list of modules as long as its configuration says."""
    decoder = model.get_decoder()
    count = decoder.config.get_text_config(decoder=True).num_hidden_layers
    lists = [
        (name.count("."), name, module)
        for name, module in decoder.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and "vision" not in name
    ]
    return min(lists, key=lambda entry: entry[:2])[2]


@torch.no_grad()
def logits(model: PreTrainedModel, inputs: Inputs) -> Tensor:
    """[S, V] of a plain forward over the prompt."""
    return model(**inputs, use_cache=False).logits[0].float()


@torch.no_grad()
def shares(model: PreTrainedModel, inputs: Inputs) -> list[Tensor]:
    """Per layer that attends, [H, S]: the last row's softmax as the layer computed it."""
    output = model(**inputs, use_cache=False, output_attentions=True)
    # Models with a Q-Former hand on what their language model returns.
    output = output.get("language_model_outputs", output)
    return [row[0, :, -1].float() for row in output.attentions if row is not None]


@torch.no_grad()
def answer(model: PreTrainedModel, inputs: Inputs, count: int) -> list[int]:
    """The ids of the model's own greedy answer, at most ``count``, up to the token that ends it."""
    ids = model.generate(
        **inputs, max_new_tokens=count, do_sample=False, num_beams=1, repetition_penalty=1.0, use_cache=True
    )
    return ids[0, ids.shape[1] - new_tokens(ids, inputs) :].tolist()


def new_tokens(ids: Tensor, inputs: Inputs) -> int:
    """How many of the ids are new; a few models leave the prompt out of what they return."""
    prompt = inputs["input_ids"]
    length = prompt.shape[1]
    return ids.shape[1] - length if torch.equal(ids[:, :length], prompt) else ids.shape[1]


@torch.no_grad()
def truncated_logits(model: PreTrainedModel, inputs: Inputs, image: Tensor, after: int) -> Tensor:
    """[V] of the last row where only the image's own rows see its places above the first ``after`` layers.

    A layer that attends gets a mask without them. One that does not attend but carries a state along the sequence
    gets a sequence without them, and their rows pass it unchanged.
    """
    with hidden(model, image, after):
        return logits(model, inputs)[-1]


@torch.no_grad()
def truncated_answer(
    model: PreTrainedModel, inputs: Inputs, image: Tensor, after: int, count: int
) -> list[int]:
    """The ids of the greedy answer, at most ``count``, every token by a forward over all that is before it."""
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    ids: list[int] = []
    while len(ids) < count and not (ids and ids[-1] in ends):
        longer = lengthen(model, inputs, ids)
        seen = torch.cat([image, image.new_zeros(len(ids))])
        ids.append(int(truncated_logits(model, longer, seen, after).argmax()))
    return ids


def lengthen(model: PreTrainedModel, inputs: Inputs, ids: list[int]) -> dict[str, Any]:
    """The inputs with the text of these ids behind them, in everything that has one value per place."""
    prompt = inputs["input_ids"]
    fill = {"attention_mask": 1, "token_type_ids": 1 if model.config.model_type == "paligemma" else 0}
    longer = {name: value for name, value in inputs.items() if name != "labels"}
    for name, value in longer.items():
        if not isinstance(value, Tensor) or value.shape[:2] != prompt.shape:
            continue
        if name == "input_ids":
            tail = torch.tensor([ids], dtype=value.dtype)
        else:
            tail = torch.full((1, len(ids), *value.shape[2:]), fill.get(name, 0), dtype=value.dtype)
        longer[name] = torch.cat([value, tail], dim=1)
    return longer


@contextmanager
def hidden(model: PreTrainedModel, image: Tensor, after: int) -> Iterator[None]:
    """Within it, the image's places are out of sight in all layers but the first ``after``."""
    with ExitStack() as stack:
        for layer in layers_of(model)[after:]:
            patch = mask_rows if attends(layer) else drop_rows
            stack.enter_context(patch(layer, image))
        yield


#: What layers call the part that carries a state along the sequence in attention's stead.
STATES = ("linear_attn", "mamba", "conv", "short_conv", "mixer")


def attends(layer: nn.Module) -> bool:
    """Whether a layer looks at other places by attention."""
    return not any(getattr(layer, name, None) is not None for name in STATES)


@contextmanager
def mask_rows(layer: nn.Module, image: Tensor) -> Iterator[None]:
    """Put into the mask that a layer gets that no row but the image's sees the image's columns."""

    def before(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], Any]:
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        states = next(iter(bound.arguments.values()))
        length = states.shape[1]
        mask = bound.arguments.get("attention_mask")
        lowest = torch.finfo(states.dtype).min
        if mask is None:
            mask = torch.full((length, length), lowest, dtype=states.dtype).triu(1)[None, None]
        if mask.dim() != 4 or mask.shape[-2:] != (length, length):
            raise AssertionError(f"{type(module).__name__} got a mask of shape {tuple(mask.shape)}")
        cut = ~image[:, None] & image[None, :]
        bound.arguments["attention_mask"] = mask.masked_fill(
            cut, False if mask.dtype == torch.bool else lowest
        )
        return bound.args, bound.kwargs

    handle = layer.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def drop_rows(layer: nn.Module, image: Tensor) -> Iterator[None]:
    """Keep the image's rows out of what a layer gets, and put them back unchanged into what it returns."""
    forward = layer.forward
    length = len(image)

    def without(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(without(part) for part in value)
        if not isinstance(value, Tensor):
            return value
        for axis, size in enumerate(value.shape):
            if size == length:
                value = value.index_select(axis, torch.nonzero(~image)[:, 0])
        return value

    def shorter(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(forward).bind(*args, **kwargs)
        states = next(iter(bound.arguments.values()))
        returned = forward(*without(args), **{name: without(value) for name, value in kwargs.items()})
        full = states.clone()
        full[:, ~image] = returned[0] if isinstance(returned, tuple) else returned
        return (full, *returned[1:]) if isinstance(returned, tuple) else full

    layer.forward = shorter
    try:
        yield
    finally:
        del layer.forward
