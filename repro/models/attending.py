"""Attention during a pass: observing it, replacing it, and the record of tokens a truncation has removed from it.

The decoder layers of a model attend through transformers' ``AttentionInterface`` by ``_dispatch`` while their
attention is observed (``observed``) or replaced (``attention_replaced``). It calls the function that the model
would have called, with its own mask and settings.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


@dataclass(frozen=True)
class Attending:
    """One decoder layer's attention in the current pass.

    Attributes:
        layer: from 0.
        query: [B, H, Q, D]; key, value: [B, Hkv, K, D], H a multiple of Hkv (grouped-query attention).
        mask: [B or 1, 1 or H, Q, K], boolean (True = seen) or additive; None: causal, see ``causal``.
        scaling: factor on the scores.
        causal: what None as a mask means: later tokens hidden, or nothing.
        settings: what else the layer hands to its attention function.
        function: that function, as in transformers.
        module: the layer's attention.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float
    causal: bool
    settings: Mapping[str, Any]
    function: Callable[..., tuple[Tensor, Tensor | None]]
    module: nn.Module

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """The layer's own attention on other tensors: [B, Q, H, D]."""
        return self.function(self.module, query, key, value, mask, scaling=self.scaling, **self.settings)[0]

    def eager_weights(self) -> Tensor:
        """Attention probabilities [B, H, Q, K] by the eager code that the layer's module brings.

        Raises ValueError if it brings none, or if its output is not that of the function in use.
        """
        eager = inspect.unwrap(type(self.module).forward).__globals__.get("eager_attention_forward")
        if eager is None:
            raise ValueError(f"{type(self.module).__name__} has no eager attention to compare with")
        mask = self.mask
        if mask is None and self.causal:
            length, keys = self.query.shape[2], self.key.shape[2]
            mask = torch.ones(1, 1, length, keys, dtype=torch.bool, device=self.query.device).tril(
                keys - length
            )
        if mask is not None and mask.dtype == torch.bool:
            mask = self.query.new_zeros(mask.shape).masked_fill(~mask, torch.finfo(self.query.dtype).min)
        out, weights = eager(
            self.module, self.query, self.key, self.value, mask, scaling=self.scaling, **self.settings
        )
        used = self.attend(self.query, self.key, self.value, self.mask)
        difference, size = float((out - used)[:, -1].abs().max()), float(used[:, -1].abs().max())
        if not difference <= 64 * torch.finfo(out.dtype).eps * size:
            raise ValueError(
                f"eager attention gives other values than {self.function.__name__}, by {difference:.2g}"
            )
        return weights

    def softmax_rows(self, rows: Tensor) -> Tensor:
        """Attention probabilities of some query rows, averaged over heads (Eq. 9): float32 [B, R, K].

        Args:
            rows: int64 [R].
        """
        batch, heads, length, width = self.query.shape
        keys = self.key.shape[2]
        selected = self.query[:, :, rows].float().reshape(batch, self.key.shape[1], -1, width)
        scores = (selected @ self.key.float().mT * self.scaling).view(batch, heads, len(rows), keys)
        sinks = None
        if self.function.__name__ != "sdpa_attention_forward":  # which knows neither
            if (cap := self.settings.get("softcap")) is not None:
                scores = (scores / cap).tanh() * cap
            sinks = self.settings.get("s_aux")
        if self.mask is not None:
            seen = self.mask[:, :, rows, :keys]
            if seen.dtype == torch.bool:
                scores = scores.masked_fill(~seen, float("-inf"))
            else:
                scores = scores + seen.float()
        elif self.causal:
            # Queries are the last positions of the keys, also while decoding with a cache.
            last = rows + keys - length
            seen = torch.arange(keys, device=rows.device) <= last[:, None]
            scores = scores.masked_fill(~seen, float("-inf"))
        if sinks is not None:
            sink = sinks.float().view(1, heads, 1, 1).expand(batch, -1, len(rows), 1)
            scores = torch.cat([scores, sink], dim=-1)
        return scores.softmax(dim=-1)[..., :keys].mean(dim=1)


#: Called after the attention of every decoder layer.
Observer = Callable[[Attending], None]
#: Replaces the decoder's attention: gives [B, Q, H, D].
Attention = Callable[[Attending], Tensor]


@dataclass
class Removal:
    """Image tokens removed from the layers > ``after``.

    Attributes:
        after: 0...N, the last layer that sees every image token.
        stay: int64 [B, S'], positions of the pass with the image that later layers see; None before such a pass.
        is_image: bool [B, T], of the pass that comes; None unless it holds the image.
        last: int64 [B], last prompt row of that pass; None: its last row.
        announced: whether both were said of a pass before it began, and its ids are not to be asked.
    """

    after: int
    stay: Tensor | None = None
    is_image: Tensor | None = None
    last: Tensor | None = None
    announced: bool = False


@dataclass
class _Hooks:
    """Observers and replacement of the attention of one model's decoder layers."""

    observers: list[Observer] = field(default_factory=list)
    replacement: Attention | None = None


#: Attribute of a module while it attends by ``_dispatch``: hooks, layer from 0, implementation before.
_NAME = "repro_attending"


def _dispatch(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[Tensor, Tensor | None]:
    hooks, layer, before = module.__dict__.get(_NAME, (_Hooks(), 0, "sdpa"))
    if before == "eager":
        function = inspect.unwrap(type(module).forward).__globals__["eager_attention_forward"]
    else:
        function = ALL_ATTENTION_FUNCTIONS[before]
    longer = (
        attention_mask is not None and attention_mask.dim() == 4 and attention_mask.shape[-1] > key.shape[2]
    )
    if longer and attention_mask is not None and hooks.replacement is None:
        # A window's cache holds the last keys only, and the mask of a truncation is for all.
        attention_mask = attention_mask[..., -key.shape[2] :]
    causal = settings.get("is_causal")
    attending = Attending(
        layer=layer,
        query=query,
        key=key,
        value=value,
        mask=attention_mask,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        causal=getattr(module, "is_causal", True) if causal is None else causal,
        settings=settings,
        function=function,
        module=module,
    )
    if hooks.replacement is not None:
        return hooks.replacement(attending).contiguous(), None
    out = function(module, query, key, value, attention_mask, scaling=scaling, **settings)
    for observer in hooks.observers:
        observer(attending)
    return out


#: Our names of the interface, by the implementation that they stand in for.
_NAMES = {"eager": "repro_eager", "sdpa": "repro"}
for _name, _mask in (("repro", sdpa_mask), ("repro_eager", eager_mask)):
    AttentionInterface.register(_name, _dispatch)
    AttentionMaskInterface.register(_name, _mask)


class ObservableAttention:
    """A decoder whose attention can be observed and replaced."""

    #: The decoder layers.
    layers: Sequence[nn.Module]

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

    @cached_property
    def _configured(self) -> list[tuple[int, nn.Module, Any]]:
        """Layer from 0, module and configuration of all that may attend in the decoder layers."""
        return [
            (index, module, module.config)
            for index, layer in enumerate(self.layers)
            for module in layer.modules()
            if hasattr(getattr(module, "config", None), "_attn_implementation")
        ]

    @contextmanager
    def _hooks(self) -> Iterator[_Hooks]:
        """Within the context, the decoder attends by ``_dispatch``; the outermost context ends that."""
        if (hooks := self._installed) is not None:
            yield hooks
            return
        self._install(hooks := _Hooks())
        try:
            yield hooks
        finally:
            self._uninstall()

    @contextmanager
    def kernel(self, implementation: str) -> Iterator[None]:
        """Within the context, the decoder attends by this implementation of transformers, e.g. "eager"."""
        before = [(config, config._attn_implementation) for _, _, config in self._configured]
        for config, _ in before:
            config._attn_implementation = implementation
        try:
            yield
        finally:
            for config, own in before:
                config._attn_implementation = own

    @contextmanager
    def unobserved(self) -> Iterator[None]:
        """Within the context, the decoder attends as if it were neither observed nor replaced."""
        if (hooks := self._installed) is None:
            yield
            return
        self._uninstall()
        try:
            yield
        finally:
            self._install(hooks)

    @property
    def _installed(self) -> _Hooks | None:
        for _, module, _ in self._configured:
            if _NAME in module.__dict__:
                return module.__dict__[_NAME][0]
        return None

    def _install(self, hooks: _Hooks) -> None:
        before = {id(config): config._attn_implementation for _, _, config in self._configured}
        for index, module, config in self._configured:
            module.__dict__[_NAME] = (hooks, index, before[id(config)])
        for _, _, config in self._configured:
            config._attn_implementation = _NAMES.get(before[id(config)], "repro")

    def _uninstall(self) -> None:
        for _, module, config in self._configured:
            config._attn_implementation = module.__dict__.pop(_NAME)[2]
