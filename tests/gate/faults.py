"""Faults of libraries and models, to be put into a loaded model on purpose, each with the stage where it begins.

The first are the kinds of regression that users of this field reported of transformers, torch and processors; the
others are our own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from repro.models.lvlm import Lvlm


@dataclass(frozen=True)
class Fault:
    """Attributes: model, whose miniature it is put into; ``says``, what the sentence of the gate must name."""

    put: Callable[[Lvlm], Any]
    says: str
    model: str = "llava-1.5"


def before(module: nn.Module, change: Callable[[tuple[Any, ...], dict[str, Any]], Any]) -> None:
    """Change a module's arguments."""
    module.register_forward_pre_hook(lambda _, args, kwargs: change(args, kwargs), with_kwargs=True)


def after(module: nn.Module, change: Callable[[Any], Any]) -> None:
    """Change a module's output."""

    def run(_: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    module.register_forward_hook(run)


def set_in(module: Any, **settings: Any) -> None:
    for name, value in settings.items():
        setattr(module, name, value)


def rotary(lvlm: Lvlm) -> nn.Module:
    return lvlm.decoder.rotary_emb


def tower(lvlm: Lvlm) -> nn.Module:
    return lvlm.model.model.vision_tower


def tower_layer(lvlm: Lvlm) -> Any:
    return next(layer for name, layer in tower(lvlm).named_modules() if name.endswith("encoder.layers.0"))


def positions(lvlm: Lvlm, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(args) > 1:
            return (args[0], change(args[1]), *args[2:]), kwargs
        return args, kwargs | {"position_ids": change(kwargs["position_ids"])}

    before(rotary(lvlm), run)


def leaking(lvlm: Lvlm) -> None:
    calls = [0]

    def change(ids: torch.Tensor) -> torch.Tensor:
        if ids.shape[-1] > 1:
            calls[0] += 1
        return ids + 3 * (calls[0] % 4)

    positions(lvlm, change)


def masked(lvlm: Lvlm, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Every layer's mask, made explicit; True = seen."""

    def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mask, length = kwargs.get("attention_mask"), args[0].shape[1]
        if length == 1:
            return args, kwargs
        if mask is None:
            mask = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
        seen = change(mask if mask.dtype == torch.bool else mask > -1)
        return args, kwargs | {"attention_mask": seen}

    for layer in lvlm.layers:
        before(layer, run)


def tokenized(lvlm: Lvlm, change: Callable[[list[int]], list[int]]) -> None:
    kind = type(lvlm.tokenizer)
    own = kind.__call__

    class Changed(kind):  # type: ignore[misc, valid-type]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            out = own(self, *args, **kwargs)
            if out["input_ids"] and isinstance(out["input_ids"][0], int):
                out["input_ids"] = change(out["input_ids"])
            return out

    lvlm.tokenizer.__class__ = Changed


def expanding_less(lvlm: Lvlm) -> None:
    own = lvlm.build_prompt

    def build(self: Lvlm, *args: Any) -> Any:
        from dataclasses import replace

        from repro.segments import Segments

        prompt = own(*args)
        at = int(prompt.segments.image[0])
        ids = torch.cat([prompt.input_ids[:, :at], prompt.input_ids[:, at + 1 :]], dim=1)
        is_image = (ids[0] == self.image_token_id).numpy()
        return replace(prompt, input_ids=ids, segments=Segments.from_image_mask(is_image))

    lvlm.build_prompt = MethodType(build, lvlm)


def pixels(lvlm: Lvlm, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    own = lvlm.build_prompt

    def build(self: Lvlm, *args: Any) -> Any:
        from dataclasses import replace

        prompt = own(*args)
        name = self.pixel_name(prompt)
        return replace(prompt, image_inputs={**prompt.image_inputs, name: change(prompt.image_inputs[name])})

    lvlm.build_prompt = MethodType(build, lvlm)


def mixed_up(lvlm: Lvlm) -> None:
    """Images of a batch go to the prompts beside them."""

    def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        images = kwargs.get("pixel_values")
        if images is not None and len(images) > 1:
            kwargs = kwargs | {"pixel_values": images.roll(1, dims=0)}
        return args, kwargs

    before(lvlm.model, run)


def attention_times(lvlm: Lvlm, factor: float) -> None:
    for layer in lvlm.layers:
        layer.self_attn.scaling *= factor


def reset(parameter: nn.Parameter, value: float) -> None:
    with torch.no_grad():
        parameter.fill_(value)


def scaled(parameter: nn.Parameter, factor: float) -> None:
    with torch.no_grad():
        parameter.mul_(factor)


def without_queries(model: Any) -> None:
    tokens = next(value for name, value in model.named_parameters() if name.endswith("query_tokens"))
    with torch.no_grad():
        tokens[:, ::2] = 0


def swapped(lvlm: Lvlm) -> None:
    with torch.no_grad():
        first, second = (lvlm.layers[index].mlp.state_dict() for index in (3, 4))
        first, second = ({k: v.clone() for k, v in state.items()} for state in (first, second))
        lvlm.layers[3].mlp.load_state_dict(second)
        lvlm.layers[4].mlp.load_state_dict(first)


#: Kinds of regression that were reported, by what happened.
REPORTED = {
    "1 positions lost in generate": Fault(
        lambda m: positions(m, lambda ids: ids * 0 if ids.shape[-1] == 1 else ids), "generated answer|cache"
    ),
    "2 state leaks between calls": Fault(leaking, "positions|state leaks"),
    "3 wrong positions of the image": Fault(
        lambda m: positions(m, lambda ids: torch.where(ids > 5, ids + 1, ids)), "positions"
    ),
    "4 a Q-Former that lost its queries": Fault(
        lambda m: without_queries(m.model),
        "image features",
        "instructblip",
    ),
    "5 no beginning of the sequence": Fault(lambda m: tokenized(m, lambda ids: ids[1:]), "prompt"),
    "6 kernels that differ": Fault(lambda m: attention_times(m, 1.01), "layer 1 "),
    "7 observing attention loses causality": Fault(
        lambda m: masked(m, lambda seen: torch.ones_like(seen)), "masks|causality"
    ),
    "8 a repair of overflow breaks causality": Fault(
        lambda m: masked(m, lambda seen: seen | seen.roll(1, dims=-1)), "masks|causality"
    ),
    "9 the wrong kind of attention in the tower": Fault(
        lambda m: before(
            tower_layer(m).self_attn,
            lambda args, kwargs: (
                args,
                kwargs
                | {
                    "attention_mask": torch.full(
                        (1, 1, *[(args[0] if args else kwargs["hidden_states"]).shape[1]] * 2), -1e9
                    ).triu(1)
                },
            ),
        ),
        "image features",
    ),
    "10 another kernel in the tower": Fault(
        lambda m: after(tower_layer(m).self_attn, lambda out: out.bfloat16().float()), "image features"
    ),
    "11 another number of image tokens": Fault(expanding_less, "prompt"),
    "12 cut instead of padded": Fault(
        lambda m: pixels(m, lambda p: F.pad(p[..., 4:-4, 4:-4], (4, 4, 4, 4))), "pixels"
    ),
    "13 another resampling": Fault(lambda m: set_in(m.processor.image_processor, resample=0), "pixels"),
    "14 another number type": Fault(lambda m: m.model.to(torch.bfloat16), "bfloat16"),
    "15 weights not loaded": Fault(lambda m: reset(m.decoder.norm.weight, 1.0), "logits|layers? 1?[0-9]"),
    "16 images mixed up in a batch": Fault(mixed_up, "batch"),
    "17 a cache off by one": Fault(
        lambda m: positions(m, lambda ids: ids + 1 if ids.shape[-1] == 1 else ids), "generated answer|cache"
    ),
    "18 other settings of generate": Fault(
        lambda m: m.generation_config.update(min_new_tokens=6), "generated answer"
    ),
    "19 the wrong path of embeddings": Fault(
        lambda m: after(m.embeddings, lambda out: out * 1.1), "text embeddings"
    ),
    "20 a module that moved": Fault(lambda m: set_in(m, layers=m.layers[:-1]), "of 9 layers"),
}
OWN = {
    "approximate GELU in the tower": Fault(
        lambda m: set_in(tower_layer(m).mlp, activation_fn=nn.GELU(approximate="none")), "image features"
    ),
    "RMSNorm's epsilon": Fault(
        lambda m: set_in(m.layers[2].input_layernorm, variance_epsilon=0.1), "layer 3 "
    ),
    "rotary base": Fault(lambda m: scaled_buffer(rotary(m), 0.9), "positions"),
    "mean of normalisation": Fault(
        lambda m: set_in(m.processor.image_processor, image_mean=[0.5, 0.5, 0.5]), "pixels"
    ),
    "red and blue swapped": Fault(lambda m: pixels(m, lambda p: p.flip(1)), "pixels"),
    "half a pixel": Fault(lambda m: pixels(m, lambda p: (p + p.roll(1, -1)) / 2), "pixels"),
    "image tokens in column order": Fault(
        lambda m: after(m.model.model.multi_modal_projector, transposed), "image features"
    ),
    "bias of the projector": Fault(
        lambda m: reset(m.model.model.multi_modal_projector.linear_1.bias, 0.0), "image features"
    ),
    "activation of an MLP": Fault(lambda m: set_in(m.layers[4].mlp, act_fn=nn.GELU()), "layer 5 "),
    "a layer left out": Fault(lambda m: scaled(m.layers[5].self_attn.o_proj.weight, 0.0), "layer 6 "),
    "MLPs of two layers swapped": Fault(swapped, "layer 4 "),
    "a head lost": Fault(lambda m: scaled_rows(m.layers[6].self_attn.o_proj.weight, 4), "layer 7 "),
    "last norm left out": Fault(lambda m: after(m.decoder.norm, lambda out: out * 0.9), "logits"),
    "cap on logits": Fault(lambda m: after(m.head, lambda out: 5 * (out / 5).tanh()), "logits"),
    "a space before the question": Fault(lambda m: tokenized(m, lambda ids: [*ids[:1], *ids]), "prompt"),
    "no token that ends": Fault(lambda m: set_in(m.generation_config, eos_token_id=[-1]), "generated answer"),
    "a window of 16": Fault(lambda m: masked(m, lambda seen: seen.triu(-15)), "masks"),
    "the last token sees all but the first": Fault(
        lambda m: masked(
            m, lambda seen: seen.index_fill(3, torch.tensor([0]), False) | torch.eye(seen.shape[-1]).bool()
        ),
        "masks",
    ),
    "dropout while measuring": Fault(
        lambda m: after(m.layers[1].mlp, lambda out: F.dropout(out, 0.02)), "layer 2 |state leaks"
    ),
    "half precision in one layer": Fault(
        lambda m: after(m.layers[7].mlp, lambda out: out.half().float()), "layer 8 "
    ),
    "the tower's first layer instead of its last": Fault(
        lambda m: set_in(m.model.config, vision_feature_layer=-3), "image features"
    ),
    "noise in 1 of 10,000 weights": Fault(
        lambda m: sparse_noise(m.layers[0].mlp.down_proj.weight), "layer 1 "
    ),
}


def scaled_buffer(module: Any, factor: float) -> None:
    module.inv_freq = module.inv_freq * factor
    module.original_inv_freq = module.inv_freq


def transposed(out: torch.Tensor) -> torch.Tensor:
    side = int(out.shape[-2] ** 0.5)
    return out.unflatten(-2, (side, side)).transpose(-2, -3).flatten(-3, -2)


def scaled_rows(weight: nn.Parameter, heads: int) -> None:
    with torch.no_grad():
        weight[:, : weight.shape[1] // heads] = 0


def sparse_noise(weight: nn.Parameter) -> None:
    with torch.no_grad():
        flat = weight.view(-1)
        flat[:: max(1, flat.numel() // max(1, flat.numel() // 10_000))] += 0.05
