"""Attention during a pass: observing it, replacing it, and the record of tokens a truncation has removed from it.

The decoder layers of a model attend through transformers' ``AttentionInterface`` by ``_dispatch`` while their
attention is observed (``observed``) or replaced (``attention_replaced``).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

#: Called after the attention of every decoder layer with (layer index from 0, query [B, H, Q, D],
#: key [B, Hkv, K, D], mask that the layer got, scaling).
Observer = Callable[[int, Tensor, Tensor, Tensor | None, float], None]
#: Replaces the decoder's attention: (layer index from 0, query, key, value, scaling) -> [B, H, Q, D].
Attention = Callable[[int, Tensor, Tensor, Tensor, float], Tensor]


@dataclass
class Removal:
    """Image tokens removed from the layers > ``after``.

    Attributes:
        after: 0...N, the last layer that sees every image token.
        stay: int64 [B, S'], positions of the pass with the image that later layers see; None before such a pass.
    """

    after: int
    stay: Tensor | None = None


@dataclass
class _Hooks:
    """Observers and replacement of the attention of one model's decoder layers."""

    observers: list[Observer] = field(default_factory=list)
    replacement: Attention | None = None


_INTERFACE = "repro"
#: Attribute of an attention module for its hooks, while it goes through ``_dispatch``.
_NAME = "repro_attending"


def _dispatch(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    hooks: _Hooks = module.__dict__[_NAME]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if hooks.replacement is not None:
        out = hooks.replacement(module.layer_idx, query, key, value, scaling)
        return out.transpose(1, 2).contiguous(), None
    out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **settings)
    for observer in hooks.observers:
        observer(module.layer_idx, query, key, attention_mask, scaling)
    return out, None


AttentionInterface.register(_INTERFACE, _dispatch)
AttentionMaskInterface.register(_INTERFACE, sdpa_mask)


class ObservableAttention:
    """A decoder whose attention can be observed and replaced."""

    decoder: Any

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """Within the context, ``observer`` is called after the attention of every decoder layer."""
        with self._hooks() as hooks:
            hooks.observers.append(observer)
            try:
                yield
            finally:
                hooks.observers.remove(observer)

    @contextmanager
    def attention_replaced(self, attention: Attention) -> Iterator[None]:
        """Within the context, decoder layers attend by ``attention``; observers are not called.

        Raises RuntimeError if their attention is replaced already.
        """
        with self._hooks() as hooks:
            if hooks.replacement is not None:
                raise RuntimeError("the decoder's attention is already replaced; leave that context first")
            hooks.replacement = attention
            try:
                yield
            finally:
                hooks.replacement = None

    @contextmanager
    def _hooks(self) -> Iterator[_Hooks]:
        """Within the context, the decoder attends by ``_dispatch``; the outermost context ends that."""
        modules, config = [layer.self_attn for layer in self.decoder.layers], self.decoder.config
        if _NAME in modules[0].__dict__:
            yield modules[0].__dict__[_NAME]
            return
        hooks, before = _Hooks(), config._attn_implementation
        for module in modules:
            module.__dict__[_NAME] = hooks
        config._attn_implementation = _INTERFACE
        try:
            yield hooks
        finally:
            config._attn_implementation = before
            for module in modules:
                del module.__dict__[_NAME]


def softmax_rows(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, rows: Tensor) -> Tensor:
    """Attention probabilities of some query rows of a causal layer, averaged over heads (Eq. 9).

    Args:
        query: [B, H, Q, D]; key: [B, Hkv, K, D], H a multiple of Hkv (grouped-query attention).
        mask: None (causal), or [B or 1, 1 or H, Q, K], boolean (True = seen) or additive.
        scaling: factor on the scores.
        rows: int64 [R], query rows.

    Returns:
        float32 [B, R, K].
    """
    batch, heads, length, width = query.shape
    keys = key.shape[2]
    selected = query[:, :, rows].float().reshape(batch, key.shape[1], -1, width)
    scores = (selected @ key.float().mT * scaling).view(batch, heads, len(rows), keys)
    if mask is None:
        # Queries are the last positions of the keys, also while decoding with a cache.
        last = rows + keys - length
        seen = torch.arange(keys, device=rows.device) <= last[:, None]
    else:
        seen = mask[:, :, rows, :keys]
    if seen.dtype == torch.bool:
        scores = scores.masked_fill(~seen, float("-inf"))
    else:
        scores = scores + seen.float()
    return scores.softmax(dim=-1).mean(dim=1)
