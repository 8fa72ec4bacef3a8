"""Prompts at every truncation layer as one packed sequence through the model's own layers, see ``repro.sweep``."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from repro.models.anatomy import (
    Arguments,
    first_output,
    hide,
    replaced,
    take,
    take_mask,
    with_first_output,
)
from repro.models.attending import Attending
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.ranking import RankingRow, ranking_scores, top_image_tokens
from repro.truncation import mask_sizes

#: Tokens of each answer that there is room for at first.
ROOM = 16


class PackedPass:
    """One sweep. B prompts, T padded prompt length, W branch width, s leading tokens that branches share.

    Prompts are padded on the right. The model's own pass over the prompts is the trunk: before each of its layers
    the branches join its rows, behind it they leave again, so that what the model does between its layers meets
    the prompt alone; what that adds to a row is added to the row's copies.
    """

    def __init__(
        self, lvlm: Lvlm, prompts: Sequence[Prompt], longest: int, keep: int, ranking_row: RankingRow
    ):
        self.lvlm, self.prompts, self.longest, self.keep = lvlm, prompts, longest, keep
        self.ranks = keep > 0 and ranking_row != "random"
        self.layers = lvlm.anatomy
        device, segments = lvlm.device, prompts[0].segments
        self.n_image = len(segments.image)
        self.image = torch.from_numpy(segments.image).to(device)
        self.lengths = torch.tensor([len(p.segments) for p in prompts], device=device)
        self.total = int(self.lengths.max())
        #: Tokens before the image are shared, unless they see it.
        self.system = int(segments.image[0]) if lvlm.causal else 0
        own = [np.setdiff1d(np.arange(self.system, len(p.segments)), p.segments.image) for p in prompts]
        width = max(map(len, own))
        # Padding is a token past the end of its prompt, which the model's mask hides.
        padded = [np.r_[rows, np.full(width - len(rows), self.total - 1)] for rows in own]
        self.own = torch.from_numpy(np.stack(padded)).to(device)
        self.width = width + keep
        self.last = torch.tensor([len(rows) - 1 + keep for rows in own], device=device)
        last_image = self.image[-1:].expand(len(prompts))
        self.rank_rows = self.lengths - 1 if ranking_row == "last_prompt" else last_image
        self.scores: Tensor | None = None
        self.at = torch.arange(self.total, device=device).expand(len(prompts), -1)
        self.trunk: Tensor | None = None  # output of the layer before
        self.branches: Tensor | None = None
        self.masks: dict[tuple[int, int], tuple[Tensor | None, Tensor]] = {}
        self.keys: list[Tensor] = []  # per layer [B, Hkv, T + branches W + answers, D]
        self.values: list[Tensor] = []
        self.step = 0
        #: Branch and position of each key of the answers so far; for how many keys there is room.
        self.owner = self.place = torch.empty(0, dtype=torch.int64, device=device)
        self.room = 0

    def fork(self) -> Tensor:
        """Positions [B, W] of the tokens that a truncation at this layer leaves (Eq. 13)."""
        top = top_image_tokens(self.scores, self.n_image, self.keep).to(self.own.device)
        stay = self.image[top].expand(len(self.own), -1)
        # Padding, at the last position, must stay behind every real token.
        order = torch.cat([stay, self.own], dim=1)
        return order.sort(dim=1, stable=True).values

    def prefill(self) -> Tensor:
        """Logits [B, N + 1, vocabulary] of the last prompt rows."""
        hooks = [
            hook
            for index, layer in enumerate(self.lvlm.layers)
            for hook in (
                layer.register_forward_pre_hook(partial(self.before_layer, index), with_kwargs=True),
                layer.register_forward_hook(partial(self.after_layer, index)),
            )
        ]
        try:
            with self.lvlm.attention_replaced(self.attend):
                return self.lvlm.forward(self.prompts)
        finally:
            for hook in hooks:
                hook.remove()

    def before_layer(
        self, index: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments:
        """Arguments of a layer for the trunk and all branches, the one that forks off here among them."""
        place, hidden, axis = self.layers.hidden(index, args, kwargs)
        if self.trunk is not None and self.branches is not None and hidden is not self.trunk:
            self.branches = self.branches + take(hidden - self.trunk, self.at[:, self.total :], axis)
        branch = self.fork()
        joined = [hidden, *([] if self.branches is None else [self.branches]), take(hidden, branch, axis)]
        self.at = torch.cat([self.at, branch], dim=1)
        sequential = self.layers.sequential(index, args, kwargs)
        new = {
            name: take(tensor, self.at, along)
            for name, (tensor, along) in sequential.items()
            if name != place
        }
        new[place] = torch.cat(joined, dim=axis)
        return replaced(args, new), replaced(kwargs, new)

    def after_layer(self, index: int, module: Any, args: Any, output: Any) -> Any:
        """The trunk's output; of the last layer, the last prompt row of each branch and of the trunk."""
        hidden, axis = first_output(output), self.layers.hidden_axis(index)
        self.trunk, self.branches = hidden.split([self.total, hidden.shape[axis] - self.total], dim=axis)
        out = self.trunk
        if index == self.lvlm.n_layers - 1:
            starts = self.total + self.width * torch.arange(index + 1, device=hidden.device)
            last = torch.cat([starts + self.last[:, None], self.lengths[:, None] - 1], dim=1)
            out = take(hidden, last, axis)
            self.trunk = self.branches = None
        return with_first_output(output, out)

    def attend(self, attending: Attending) -> Tensor:
        """Attention of trunk and branches in the first pass: [B, T + branches W, H, D]."""
        query, key, value = attending.query, attending.key, attending.value
        total, width, shared = self.total, self.width, self.system
        n = (query.shape[2] - total) // width
        trunk = replace(
            attending, query=query[:, :, :total], key=key[:, :, :total], value=value[:, :, :total]
        )
        if self.ranks:
            self.scores = ranking_scores(trunk, self.rank_rows, self.image.expand(len(query), -1))
        out = trunk.attend(trunk.query, trunk.key, trunk.value, attending.mask)

        def split(tensor: Tensor) -> Tensor:  # [B, heads, n W, D] -> [B n, heads, W, D]
            parts = tensor.unflatten(2, (n, width)).transpose(1, 2)
            return parts.flatten(0, 1)

        def with_shared(tensor: Tensor) -> Tensor:
            before = tensor[:, None, :, :shared].expand(-1, n, -1, -1, -1).flatten(0, 1)
            return torch.cat([before, split(tensor[:, :, total:])], dim=2)

        mask = self.branch_mask(attending, n)
        mixed = attending.attend(split(query[:, :, total:]), with_shared(key), with_shared(value), mask)
        for store, tensor in ((self.keys, key), (self.values, value)):
            store.append(tensor)
        return torch.cat([out, mixed.unflatten(0, (-1, n)).flatten(1, 2)], dim=1)

    def branch_mask(self, attending: Attending, n: int) -> Tensor | None:
        """The layer's mask at the rows and columns of n branches: [B n, heads or 1, W, s + W]."""
        if attending.mask is None and not attending.causal:
            return None
        if (key := (id(attending.mask), n)) in self.masks:
            return self.masks[key][1]
        rows = self.at[:, self.total :].to(attending.query.device).unflatten(1, (n, self.width)).flatten(0, 1)
        shared = torch.arange(self.system, device=rows.device).expand(len(rows), -1)
        columns = torch.cat([shared, rows], dim=1)
        if attending.mask is None:
            mask = (columns[:, None] <= rows[..., None])[:, None]
        else:
            own = attending.mask.expand(len(self.at), -1, -1, -1).repeat_interleave(n, dim=0)
            mask = take_mask(own, rows, columns)
        if len(self.masks) > 4:
            self.masks.clear()
        self.masks[key] = (attending.mask, mask)  # the first keeps its id its own
        return mask

    def make_room(self, going: Tensor) -> None:
        """For one more key of each branch that goes on; as room grows, keys of branches that have ended go."""
        needed = len(self.owner) + len(going)
        if needed > self.room:
            kept = torch.isin(self.owner, going)
            self.owner, self.place = self.owner[kept], self.place[kept]
            # Most answers end long before the longest allowed: the room doubles as needed.
            more = min(max(self.step, ROOM), self.longest - self.step) * len(going)
            self.room = len(self.owner) + more
            for store in (self.keys, self.values):
                for layer, tensor in enumerate(store):
                    forked = self.total + (layer + 1) * self.width
                    answers = tensor[:, :, forked : forked + len(kept)][:, :, kept.to(tensor.device)]
                    free = tensor.new_empty((*tensor.shape[:2], more, tensor.shape[3]))
                    store[layer] = torch.cat([tensor[:, :, :forked], answers, free], dim=2)
        self.owner = torch.cat([self.owner, going])
        self.place = torch.cat([self.place, torch.full_like(going, self.total + self.step)])

    def decode(self, ids: Tensor, going: Tensor) -> Tensor:
        """Logits [B, n, vocabulary] after one more token [B, n] of the n branches that go on, in their order."""
        branches, device = ids.shape[1], ids.device
        inputs = {"input_ids": ids.reshape(-1, 1)}
        for name, values in self.prompts[0].sequence_inputs.items():
            if name == "token_type_ids":  # tells how a prompt is masked, and is not given with an answer
                continue
            value = values[..., -1:] + (self.step + 1 if name == "position_ids" else 0)
            inputs[name] = value.expand(ids.numel(), *value.shape[1:])
        if (self.lengths < self.total).any():
            seen = torch.ones(len(ids), self.total + self.step + 1, dtype=torch.int64, device=device)
            seen[:, : self.total] = torch.arange(self.total, device=device) < self.lengths[:, None]
            inputs["attention_mask"] = seen.repeat_interleave(branches, dim=0)
            inputs["position_ids"] = (self.lengths + self.step).repeat_interleave(branches)[:, None]
        elif self.lvlm.counts_in_cache:
            # As transformers 4 generates; 5 takes both from the cache.
            place = torch.tensor([self.total + self.step], device=device)
            inputs["cache_position"] = place
            if (deltas := self.lvlm.rope_deltas) is not None:
                inputs["position_ids"] = (place + deltas).repeat_interleave(branches, dim=0).expand(3, -1, -1)
        self.going = going
        self.make_room(going)
        cache = CountingCache(self.total + self.step)
        with self.lvlm.attention_replaced(self.attend_step):
            out = self.lvlm.generator(**inputs, **{self.lvlm.cache_argument: cache}, use_cache=True)
        self.step += 1
        return out.logits.view(*ids.shape, -1)

    def attend_step(self, attending: Attending) -> Tensor:
        """Attention of one token per branch, query [B n, H, 1, D], by one call: rows are branches."""
        layer, branches = attending.layer, len(self.going)
        forked = self.total + (layer + 1) * self.width
        stop = forked + len(self.owner)
        start = stop - branches
        for store, new in ((self.keys, attending.key), (self.values, attending.value)):
            store[layer][:, :, start:stop] = new.squeeze(2).unflatten(0, (-1, branches)).transpose(1, 2)
        query = attending.query.squeeze(2).unflatten(0, (-1, branches)).transpose(1, 2)
        mask = self.step_mask(attending, forked)
        key, value = self.keys[layer][:, :, :stop], self.values[layer][:, :, :stop]
        return attending.attend(query, key, value, mask).flatten(0, 1)[:, None]

    def step_mask(self, attending: Attending, forked: int) -> Tensor:
        """Which keys each branch sees: [B or 1, heads or 1, n, keys], of the layer's kind."""
        parts = (self.at, self.going, self.owner, self.place)
        at, going, owner, place = (part.to(attending.query.device) for part in parts)
        layer, branches, branch = attending.layer, len(going), going[:, None]
        own = torch.arange(layer + 1, device=going.device).repeat_interleave(self.width) == branch
        # Branches 0...layer no longer see the image here.
        trunk = (torch.arange(self.total, device=going.device) < self.system) | (branch > layer)
        allowed = torch.cat([trunk, own, owner == branch], dim=1)[None, None]
        if attending.mask is None:
            return allowed
        seen = attending.mask.expand(len(attending.query), -1, -1, -1).unflatten(0, (-1, branches))
        seen = seen[:, :, :, 0].transpose(1, 2)  # [B, heads or 1, n, T + step + 1]
        columns = torch.cat([at[:, :forked], place.expand(len(at), -1)], dim=1)[:, None, None]
        seen = seen.gather(3, columns.expand(*seen.shape[:3], -1))
        return hide(seen, allowed)


class CountingCache(DynamicCache):
    """A cache that only says how many tokens were seen: attention keeps keys and values itself."""

    def __init__(self, seen: int):
        super().__init__()
        self.seen = seen

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return key_states, value_states

    def get_seq_length(self, *_: Any) -> int:
        return self.seen

    def get_query_offset(self, *_: Any) -> int:
        return self.seen

    def get_mask_sizes(self, query: int | Tensor, *_: Any) -> tuple[int, int]:
        return mask_sizes(self.seen, query)
