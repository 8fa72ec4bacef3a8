"""What a model computes and answers, with the picture and without it above a layer.

Independent of the package: plain eager forwards of transformers' own model, and none with a cache but ``answer``.
A model here is on the CPU, loaded with ``attn_implementation="eager"``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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


def noise(models: tuple[PreTrainedModel, PreTrainedModel], inputs: Inputs) -> float:
    """By how much the logits of one checkpoint under two attention kernels of transformers differ."""
    first, second = (logits(model, inputs) for model in models)
    kept = first > -1e30
    return float((first - second)[kept].abs().max())


@torch.no_grad()
def shares(model: PreTrainedModel, inputs: Inputs) -> list[Tensor]:
    """Per layer that attends, [H, S]: the last row's softmax as the layer computed it."""
    output = model(**inputs, use_cache=False, output_attentions=True)
    # Models with a Q-Former hand on what their language model returns.
    output = output.get("language_model_outputs", output)
    return [row[0, :, -1].float() for row in output.attentions if row is not None]


@torch.no_grad()
def attention(model: PreTrainedModel, inputs: Inputs, layer: int) -> Tensor:
    """[S, S] softmax of a layer, counted from 0, averaged over heads."""
    output = model(**inputs, use_cache=False, output_attentions=True)
    output = output.get("language_model_outputs", output)
    return output.attentions[layer][0].float().mean(dim=0)


@torch.no_grad()
def deleted_logits(model: PreTrainedModel, inputs: Inputs, image: Tensor, replaced: Tensor) -> Tensor:
    """[V] of the last row where some places enter the first layer with the mean of what all the image's do.

    What comes to the image's places between two layers, they get the mean of as well.
    """
    layers, left = list(layers_of(model)), [torch.zeros(())]

    def wrapped(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            states = args[0] if args else kwargs["hidden_states"]
            added = states - left[0]
            changed = states.clone()
            mean = added[:, image].mean(dim=1, keepdim=True)
            changed[:, replaced] = states[:, replaced] - added[:, replaced] + mean
            if args:
                out = forward(changed, *args[1:], **kwargs)
            else:
                out = forward(**kwargs | {"hidden_states": changed})
            left[0] = out[0] if isinstance(out, tuple) else out
            return out

        return run

    for layer in layers:
        layer.forward = wrapped(layer.forward)
    try:
        return logits(model, inputs)[-1]
    finally:
        for layer in layers:
            del layer.forward


def heat(model: PreTrainedModel, inputs: Inputs, image: Tensor, names: list[str], token: int) -> Tensor:
    """[layers, image tokens]: LLaVA-CAM at one module of each layer, for the logit of a token; peaks are 1."""
    outputs: list[Tensor] = []

    def record(module: nn.Module, args: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        outputs.append(first if first.requires_grad else first.requires_grad_())

    modules = [layer.get_submodule(name) for layer, name in zip(layers_of(model), names, strict=True)]
    handles = [module.register_forward_hook(record) for module in modules]
    try:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        with torch.enable_grad():
            z = model(**inputs, use_cache=False).logits[0, -1, token]
            gradients = torch.autograd.grad(z, outputs)
    finally:
        for handle in handles:
            handle.remove()
    maps = []
    for output, gradient in zip(outputs, gradients, strict=True):
        values, slopes = (part.detach().reshape(len(image), -1)[image] for part in (output, gradient))
        maps.append((values @ slopes.mean(dim=0)).relu())
    stacked = torch.stack(maps)
    peak = stacked.amax(dim=1, keepdim=True)
    return torch.where(peak > 0, stacked / peak.clamp_min(1e-30), stacked)


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
    layers = list(layers_of(model))[after:]
    for index, layer in enumerate(layers, start=after):
        layer.forward = blinded(layer.forward, image, attends(model, index))
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def attends(model: PreTrainedModel, index: int) -> bool:
    """Whether a layer looks at other places by attention, as the configuration has it."""
    kinds = getattr(model.get_decoder().config.get_text_config(decoder=True), "layer_types", None)
    return kinds is None or (kinds[index].endswith("_attention") and kinds[index] != "linear_attention")


def blinded(forward: Callable[..., Any], image: Tensor, attending: bool) -> Callable[..., Any]:
    """A layer's forward in which no row but the image's own gets anything from the image's places.

    Attention that knows which places are there, but has no mask of rows and columns, is treated as a state is.
    """
    signature = inspect.signature(forward)

    def run(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        states, mask = next(iter(bound.arguments.values())), bound.arguments.get("attention_mask")
        if not attending or (mask is not None and mask.dim() == 2):
            return without_rows(forward, image, states, args, kwargs)
        bound.arguments["attention_mask"] = without_columns(mask, image, states)
        return forward(*bound.args, **bound.kwargs)

    return run


def without_columns(mask: Tensor | None, image: Tensor, states: Tensor) -> Tensor:
    """[B, H, S, S] the mask that a layer gets, in which only the image's rows see the image's columns."""
    length, lowest = len(image), torch.finfo(states.dtype).min
    if mask is None:
        mask = torch.full((length, length), lowest, dtype=states.dtype).triu(1)[None, None]
    if mask.shape[-2:] != (length, length):
        raise AssertionError(f"a layer got a mask of shape {tuple(mask.shape)} for {length} places")
    cut = ~image[:, None] & image[None, :]
    return mask.masked_fill(cut, False if mask.dtype == torch.bool else lowest)


def without_rows(
    forward: Callable[..., Any], image: Tensor, states: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What a layer returns for a sequence without the image's rows, which are put back as they were."""
    length, kept = len(image), torch.nonzero(~image)[:, 0]
    if length in states.shape[2:]:
        raise AssertionError(f"a prompt of {length} tokens cannot be told from the width: ask differently")

    def shorten(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(shorten(part) for part in value)
        for axis in [axis for axis, size in enumerate(getattr(value, "shape", ())) if size == length]:
            value = value.index_select(axis, kept)
        return value

    returned = forward(*shorten(args), **{name: shorten(value) for name, value in kwargs.items()})
    full = states.clone()
    full[:, kept] = returned[0] if isinstance(returned, tuple) else returned
    return (full, *returned[1:]) if isinstance(returned, tuple) else full
