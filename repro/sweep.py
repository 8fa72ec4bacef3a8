"""The answer at every truncation layer, in one pass (Fig. 5).

Truncated after L, a prompt differs from the untruncated one only in layers > L, and there only in the tokens
after the first image token: the system tokens before it cannot see the image. So the full prompt runs once (the
trunk), and after layer L a branch forks off with the tokens behind the image (and the k image tokens that stay).
Trunk and branches go through the model's own layers as one packed sequence; only attention separates them. All N
+ 1 answers are then decoded as one batch.

Cost of the first pass in token-layers: N S + U N (N + 1) / 2, for S prompt tokens of which U follow the image,
against (N + 1) N S for one run per layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from repro.models.anatomy import Arguments, hide, replaced, take, take_mask
from repro.models.attending import Attending
from repro.models.lvlm import Answer, Lvlm, Prompt
from repro.truncation import (
    RankingRow,
    check_cut,
    check_ranking_row,
    prove_truncation,
    top_image_tokens,
    truncated,
)


@dataclass(frozen=True)
class Sweep:
    """One prompt at every truncation layer L = 0...N (axis 0; L = N is the untruncated model).

    Attributes:
        logits: float32 [N + 1, vocabulary], of the first answer token.
        answers: N + 1 greedy answers.
    """

    logits: np.ndarray
    answers: tuple[Answer, ...]


def layout(prompt: Prompt) -> tuple[int, ...]:
    """Positions of the image tokens: prompts that agree in them can be swept as one batch."""
    return tuple(prompt.segments.image.tolist())


def memory_of(lvlm: Lvlm, prompt: Prompt, max_new_tokens: int, keep: int = 0) -> int:
    """Bytes of keys and values that the sweep of one prompt holds if every answer takes all its tokens.

    Per layer: the prompt once, the tokens behind the image (and the image tokens that stay) of each branch forked
    so far, and the answers of all N + 1 branches.
    """
    config, n_layers = lvlm.decoder.config.get_text_config(), lvlm.n_layers
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    branch = len(prompt.segments.user) + keep
    tokens = n_layers * (len(prompt.segments) + (n_layers + 1) * max_new_tokens)
    tokens += branch * n_layers * (n_layers + 1) // 2
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return 2 * tokens * heads * head * lvlm.model.dtype.itemsize


class _Pass:
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
        sequential = self.layers.sequential(index, args, kwargs)
        place, (hidden, axis) = next(iter(sequential.items()))
        if self.trunk is not None and self.branches is not None and hidden is not self.trunk:
            self.branches = self.branches + take(hidden - self.trunk, self.at[:, self.total :], axis)
        branch = self.fork()
        joined = [hidden, *([] if self.branches is None else [self.branches]), take(hidden, branch, axis)]
        self.at = torch.cat([self.at, branch], dim=1)
        new = {at: take(tensor, self.at, axis) for at, (tensor, axis) in sequential.items() if at != place}
        new[place] = torch.cat(joined, dim=axis)
        return replaced(args, new), replaced(kwargs, new)

    def after_layer(self, index: int, module: Any, args: Any, output: Any) -> Any:
        """The trunk's output; of the last layer, the last prompt row of each branch and of the trunk."""
        hidden = output[0] if isinstance(output, tuple) else output
        axis = next(iter(self.layers.axes[index].values()))
        self.trunk, self.branches = hidden.split([self.total, hidden.shape[axis] - self.total], dim=axis)
        out = self.trunk
        if index == self.lvlm.n_layers - 1:
            starts = self.total + self.width * torch.arange(index + 1, device=hidden.device)
            last = torch.cat([starts + self.last[:, None], self.lengths[:, None] - 1], dim=1)
            out = take(hidden, last, axis)
            self.trunk = self.branches = None
        return (out, *output[1:]) if isinstance(output, tuple) else out

    def attend(self, attending: Attending) -> Tensor:
        """Attention of trunk and branches in the first pass: [B, T + branches W, H, D]."""
        query, key, value = attending.query, attending.key, attending.value
        total, width, shared = self.total, self.width, self.system
        n = (query.shape[2] - total) // width
        trunk = replace(
            attending, query=query[:, :, :total], key=key[:, :, :total], value=value[:, :, :total]
        )
        if self.ranks:
            rows, own = self.rank_rows.unique(return_inverse=True)
            shares = trunk.softmax_rows(rows)
            self.scores = shares[torch.arange(len(shares), device=own.device), own][:, self.image]
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
        rows = self.at[:, self.total :].unflatten(1, (n, self.width)).flatten(0, 1)
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

    def reserve(self) -> None:
        """Room for keys and values of the first tokens of the answers."""
        branches = self.lvlm.n_layers + 1
        for store in (self.keys, self.values):
            for index, tensor in enumerate(store):
                store[index] = _grown(tensor, min(self.longest, 16) * branches)

    def decode(self, ids: Tensor) -> Tensor:
        """Logits [B, N + 1, vocabulary] after one more token [B, N + 1] of each answer."""
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
        self.allowed = self.allowed_keys(branches)
        cache = _Reported(self.total + self.step)
        with self.lvlm.attention_replaced(self.attend_step):
            out = self.lvlm.generator(**inputs, past_key_values=cache, use_cache=True)
        self.step += 1
        return out.logits.view(*ids.shape, -1)

    def allowed_keys(self, branches: int) -> tuple[Tensor, Tensor]:
        """Of each new key of the answers so far, its position, and which branches it belongs to [N + 1, keys]."""
        steps = torch.arange(self.total, self.total + self.step + 1, device=self.at.device)
        position = steps.repeat_interleave(branches).expand(len(self.at), -1)
        mine = torch.eye(branches, dtype=torch.bool, device=self.at.device).repeat(1, self.step + 1)
        return position, mine

    def attend_step(self, attending: Attending) -> Tensor:
        """Attention of one token per branch, query [B (N + 1), H, 1, D], by one call: rows are branches."""
        layer, branches = attending.layer, self.lvlm.n_layers + 1
        forked = self.total + (layer + 1) * self.width
        start, stop = forked + self.step * branches, forked + (self.step + 1) * branches
        for store, new in ((self.keys, attending.key), (self.values, attending.value)):
            if store[layer].shape[2] < stop:
                # Most answers end long before the longest allowed: the space doubles as needed.
                more = min(self.step, self.longest - self.step)
                store[layer] = _grown(store[layer], more * branches)
            store[layer][:, :, start:stop] = new.squeeze(2).unflatten(0, (-1, branches)).transpose(1, 2)
        query = attending.query.squeeze(2).unflatten(0, (-1, branches)).transpose(1, 2)
        mask = self.step_mask(attending, forked)
        key, value = self.keys[layer][:, :, :stop], self.values[layer][:, :, :stop]
        return attending.attend(query, key, value, mask).flatten(0, 1)[:, None]

    def step_mask(self, attending: Attending, forked: int) -> Tensor:
        """Which keys each branch sees: [B or 1, heads or 1, N + 1, keys], of the layer's kind."""
        new_positions, mine = self.allowed
        layer, branches = attending.layer, len(mine)
        branch = torch.arange(branches, device=mine.device)[:, None]
        own = branch[: layer + 1, 0].repeat_interleave(self.width) == branch
        # Branches 0...layer no longer see the image here.
        trunk = (torch.arange(self.total, device=mine.device) < self.system) | (branch > layer)
        allowed = torch.cat([trunk, own, mine], dim=1)[None, None]
        if attending.mask is None:
            return allowed
        seen = attending.mask.expand(len(attending.query), -1, -1, -1).unflatten(0, (-1, branches))
        seen = seen[:, :, :, 0].transpose(1, 2)  # [B, heads or 1, N + 1, T + step + 1]
        columns = torch.cat([self.at[:, :forked], new_positions], dim=1)[:, None, None]
        seen = seen.gather(3, columns.expand(*seen.shape[:3], -1))
        return hide(seen, allowed)


class _Reported(DynamicCache):
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
        return self.seen + (query if isinstance(query, int) else len(query)), 0


def _grown(tensor: Tensor, more: int) -> Tensor:
    """A tensor [B, Hkv, K, D] with room for more keys."""
    grown = tensor.new_empty((*tensor.shape[:2], tensor.shape[2] + more, tensor.shape[3]))
    grown[:, :, : tensor.shape[2]] = tensor
    return grown


def sweep(
    lvlm: Lvlm,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    keep: int = 0,
    ranking_row: RankingRow = "last_prompt",
    repetition_penalty: float = 1.0,
) -> list[Sweep]:
    """The greedy answer of each prompt at every truncation layer L = 0...N.

    Equal to one ``generate`` under ``truncated(lvlm, after=L, keep=keep)`` per prompt and layer, up to rounding.

    Args:
        prompts: one or more, with their image tokens at the same positions (see ``layout``).
        max_new_tokens: longest answer, at least 1.
        keep, ranking_row: as in ``truncated``.
        repetition_penalty: divisor of the logits (factor, if they are negative) of tokens that the answer already
            has; tokens of the prompt do not count.

    Raises:
        ValueError: no prompt, prompts that differ in their image positions, ``keep`` out of range,
            ``max_new_tokens`` < 1, an unknown ranking row, or logits that are not finite.
        RuntimeError: the model is truncated already.
    """
    lvlm.admit("sweep", prove_sweep)
    _check(lvlm, prompts, max_new_tokens, keep, ranking_row)
    if not lvlm.packs:
        return [
            layer_by_layer(lvlm, prompt, max_new_tokens, keep, ranking_row, repetition_penalty)
            for prompt in prompts
        ]
    if len(groups := _together(lvlm, prompts)) > 1:
        swept = {
            index: one
            for group in groups
            for index, one in zip(
                group,
                sweep(
                    lvlm, [prompts[i] for i in group], max_new_tokens, keep, ranking_row, repetition_penalty
                ),
                strict=True,
            )
        }
        return [swept[index] for index in range(len(prompts))]
    with torch.inference_mode():
        processors = [lvlm.logits_processors(prompt, max_new_tokens) for prompt in prompts]
        run = _Pass(lvlm, prompts, max_new_tokens, keep, ranking_row)
        logits = first = run.prefill()
        run.reserve()
        stop = torch.tensor(sorted(lvlm.stop_ids), device=lvlm.device)
        chosen: list[Tensor] = []
        done = torch.zeros(logits.shape[:2], dtype=torch.bool, device=lvlm.device)
        while True:
            _check_finite(logits, len(chosen) + 1)
            if chosen and repetition_penalty != 1:
                logits = _penalised(logits, torch.stack(chosen, dim=-1), repetition_penalty)
            chosen.append(_processed(processors, prompts, chosen, logits).argmax(dim=-1))
            done |= torch.isin(chosen[-1], stop)
            if done.all() or len(chosen) == max_new_tokens:
                break
            logits = run.decode(chosen[-1])

    return [
        Sweep(opening, tuple(lvlm.decode(until_stop(ids, lvlm.stop_ids)) for ids in answers))
        for opening, answers in zip(
            first.float().cpu().numpy(), torch.stack(chosen, -1).tolist(), strict=True
        )
    ]


def _together(lvlm: Lvlm, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Prompts, by their number, that can be one batch.

    Models without a card, and those whose positions follow from the image's, number the tokens behind a padded
    prompt in their own ways: their prompts are batched by length.
    """
    if not lvlm.batches:
        return [[index] for index in range(len(prompts))]
    groups: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(len(prompt.segments) if lvlm.proves or lvlm.rotates_by_image else 0, []).append(
            index
        )
    return list(groups.values())


def _processed(
    processors: Sequence[Any], prompts: Sequence[Prompt], chosen: Sequence[Tensor], logits: Tensor
) -> Tensor:
    """Logits [B, N + 1, vocabulary] as each prompt's processors leave them."""
    rows = []
    for b, (own, prompt) in enumerate(zip(processors, prompts, strict=True)):
        row = logits[b]
        if own:
            ids = torch.cat(
                [prompt.input_ids.expand(len(row), -1), *(step[b][:, None] for step in chosen)], dim=1
            )
            row = own(ids, row.float())
        rows.append(row)
    return torch.stack(rows) if any(map(len, processors)) else logits


def layer_by_layer(
    lvlm: Lvlm,
    prompt: Prompt,
    max_new_tokens: int,
    keep: int = 0,
    ranking_row: RankingRow = "last_prompt",
    repetition_penalty: float = 1.0,
) -> Sweep:
    """A sweep by one truncated ``generate`` per layer, for models whose layers cannot carry several branches."""
    logits, answers = [], []
    processors = lvlm.logits_processors(prompt, max_new_tokens)
    for after in range(lvlm.n_layers + 1):
        with truncated(lvlm, after, keep, ranking_row=ranking_row), torch.inference_mode():
            ids: list[int] = []
            first = rows = lvlm.logits(prompt)[-1].float()
            while True:
                if ids and repetition_penalty != 1:
                    rows = _penalised(rows, rows.new_tensor(ids).long(), repetition_penalty)
                ids.append(int(processors(lvlm.sequence(prompt, ids), rows[None])[0].argmax()))
                if ids[-1] in lvlm.stop_ids or len(ids) == max_new_tokens:
                    break
                rows = lvlm.logits(prompt, ids)[-1].float()
        logits.append(first.cpu().numpy())
        answers.append(lvlm.decode(ids))
    return Sweep(np.stack(logits), tuple(answers))


def prove_sweep(lvlm: Lvlm) -> str:
    """That the sweep gives what truncated runs give, at L = 0, N / 2 and N, over three tokens.

    Where it does not, ``lvlm.packs`` is set to False: from then on a sweep is one run per layer.
    """
    lvlm.admit("truncation", prove_truncation)
    prompt = lvlm.trial_prompts[0]
    if not lvlm.watchable:
        lvlm.packs = False
        return "one run per layer: the model gives other logits while its attention is replaced"
    try:
        [swept] = sweep(lvlm, [prompt], 3)
        worst = max(_distance(lvlm, prompt, swept, after) for after in (0, lvlm.n_layers // 2, lvlm.n_layers))
    except Exception as error:  # of the model's own code, which is not made for several branches
        lvlm.packs = False
        return f"one run per layer: {type(error).__name__}: {error}"
    if not worst <= lvlm.tolerance:
        lvlm.packs = False
        return f"one run per layer: in one pass, logits would differ by {worst:.2g}"
    return f"in one pass, equal to truncated runs within {worst:.1e}"


def _distance(lvlm: Lvlm, prompt: Prompt, swept: Sweep, after: int) -> float:
    """How far a sweep is from a truncated run: of the first logits, and how far its tokens are from the best."""
    ids = swept.answers[after].ids
    with truncated(lvlm, after):
        rows = lvlm.logits(prompt, ids[:-1])[-len(ids) :].float().cpu()
    behind = rows.amax(dim=-1) - rows.gather(1, torch.tensor(ids)[:, None])[:, 0]
    return max(float(behind.max()), float(np.abs(rows[0].numpy() - swept.logits[after]).max()))


def _check(lvlm: Lvlm, prompts: Sequence[Prompt], max_new_tokens: int, keep: int, ranking_row: str) -> None:
    """The errors that ``sweep`` promises for its arguments."""
    if not prompts:
        raise ValueError("sweep needs at least one prompt")
    if len({layout(prompt) for prompt in prompts}) > 1:
        raise ValueError("prompts of one sweep must have their image tokens at the same positions")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    check_cut(lvlm.n_layers, 0, keep, len(prompts[0].segments.image))
    check_ranking_row(ranking_row)
    if lvlm.truncation is not None:
        raise RuntimeError("the model is truncated already; a sweep truncates by itself")


def _check_finite(logits: Tensor, token: int) -> None:
    """ValueError, naming prompt and layer, if logits [B, N + 1, vocabulary] of a token are not finite."""
    if not torch.isfinite(logits).all():
        item, layer = (~torch.isfinite(logits)).any(-1).nonzero()[0].tolist()
        raise ValueError(
            f"logits of prompt {item}, truncated after {layer}, are not finite at answer token {token}: weights, "
            "image or activations are NaN or infinite"
        )


def _penalised(logits: Tensor, chosen: Tensor, penalty: float) -> Tensor:
    """Logits [..., vocabulary] with those of the tokens [..., n] chosen before lowered."""
    repeated = logits.gather(-1, chosen)
    return logits.scatter(-1, chosen, torch.where(repeated < 0, repeated * penalty, repeated / penalty))


def until_stop(ids: list[int], stop: frozenset[int]) -> list[int]:
    """Ids up to and including the first that ends the answer."""
    end = next((i for i, token in enumerate(ids, 1) if token in stop), len(ids))
    return ids[:end]
