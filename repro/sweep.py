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
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from repro.models.attending import softmax_rows
from repro.models.lvlm import Answer, Lvlm, Prompt
from repro.truncation import RankingRow, check_cut, check_ranking_row, top_image_tokens


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
    config, n_layers = lvlm.decoder.config, lvlm.n_layers
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    branch = len(prompt.segments.user) + keep
    tokens = n_layers * (len(prompt.segments) + (n_layers + 1) * max_new_tokens)
    tokens += branch * n_layers * (n_layers + 1) // 2
    return 2 * tokens * config.num_attention_heads * head * lvlm.model.dtype.itemsize


class _Pass:
    """The tensors of one sweep. B prompts, T padded prompt length, W branch width, s system tokens.

    Prompts are padded on the right, where causal attention never looks from a real token.
    """

    def __init__(
        self, lvlm: Lvlm, prompts: Sequence[Prompt], longest: int, keep: int, ranking_row: RankingRow
    ):
        self.lvlm, self.keep, self.longest = lvlm, keep, longest
        self.ranks = keep > 0 and ranking_row != "random"
        device = lvlm.device
        segments = prompts[0].segments
        self.n_image = len(segments.image)
        self.system = int(segments.image[0])
        self.image = torch.from_numpy(segments.image).to(device)
        self.lengths = torch.tensor([len(p.segments) for p in prompts], device=device)
        self.total = int(self.lengths.max())
        # Rotary positions [3, B, T + longest]; None if a token's position is its index in the sequence.
        rows = [lvlm.positions(p, self.total - len(p.segments) + longest) for p in prompts]
        self.places = None if rows[0] is None else torch.cat([row for row in rows if row is not None], dim=1)
        users = [p.segments.user for p in prompts]
        width = max(map(len, users))
        # Padding takes positions past the prompt, so that it sorts behind every real token.
        padded = [np.r_[u, self.total + np.arange(width - len(u))] for u in users]
        self.user = torch.from_numpy(np.stack(padded)).to(device)
        self.width = width + keep
        self.widths = torch.tensor([len(u) + keep for u in users], device=device)
        last_image = self.image[-1:].expand(len(prompts))
        self.rank_rows = self.lengths - 1 if ranking_row == "last_prompt" else last_image
        self.scores: Tensor | None = None
        self.keys: list[Tensor] = []  # per layer [B, H, T, D]
        self.values: list[Tensor] = []
        self.own_keys: list[Tensor] = []  # per layer [B, H, branches, W, D]
        self.own_values: list[Tensor] = []
        self.new_keys: list[Tensor] = []  # per layer [B, H, N + 1, room, D]
        self.new_values: list[Tensor] = []
        self.step = 0

    def fork(self) -> Tensor:
        """Positions [B, W] of the tokens that a truncation at this layer leaves (Eq. 13)."""
        top = top_image_tokens(self.scores, self.n_image, self.keep).to(self.user.device)
        stay = self.image[top].expand(len(self.user), -1)
        return torch.cat([stay, self.user], dim=1).sort(dim=1).values

    def rotary(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        if self.places is not None:
            positions = self.places.gather(2, positions.expand(len(self.places), -1, -1))
        return self.lvlm.decoder.rotary_emb(hidden, positions)

    def run_layer(self, index: int, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        out = self.lvlm.decoder.layers[index](hidden, attention_mask=None, position_embeddings=rotary)
        return out[0] if isinstance(out, tuple) else out  # Qwen2.5-VL's of transformers 4 return tuples

    def prefill(self, embedded: Tensor) -> Tensor:
        """Logits [B, N + 1, vocabulary] of the last prompt row, from embeddings [B, T, width]."""
        batch = len(embedded)
        trunk_at = torch.arange(self.total, device=embedded.device).expand(batch, -1)
        hidden, at = embedded, trunk_at
        with self.lvlm.attention_replaced(self.attend):
            for index in range(self.lvlm.n_layers):
                branch = self.fork()
                source = branch.clamp(max=self.total - 1)[..., None].expand(-1, -1, hidden.shape[-1])
                hidden = torch.cat([hidden, hidden[:, : self.total].gather(1, source)], dim=1)
                at = torch.cat([at, branch], dim=1)
                # Padding must not make prompts look longer, as the rotary base may depend on their length.
                rotary = self.rotary(hidden, at.clamp(max=self.total - 1))
                hidden = self.run_layer(index, hidden, rotary)
        branches = hidden[:, self.total :].view(batch, -1, self.width, hidden.shape[-1])
        rows = torch.arange(batch, device=hidden.device)
        last = torch.cat([branches[rows, :, self.widths - 1], hidden[rows, self.lengths - 1][:, None]], dim=1)
        return self.lvlm.head(self.lvlm.decoder.norm(last))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of trunk and branches in the first pass; query [B, H, T + branches W, D]."""
        if self.ranks:
            rows, own = self.rank_rows.unique(return_inverse=True)
            trunk = slice(None, self.total)
            shares = softmax_rows(query[:, :, trunk], key[:, :, trunk], None, scaling, rows)
            self.scores = shares[torch.arange(len(shares), device=own.device), own][:, self.image]
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        total, system, width = self.total, self.system, self.width
        trunk_k, trunk_v = key[:, :, :total], value[:, :, :total]
        trunk_q, branch_q = query[:, :, :total], query[:, :, total:]
        out = F.scaled_dot_product_attention(trunk_q, trunk_k, trunk_v, is_causal=True, scale=scaling)

        split = (*query.shape[:2], -1, width, query.shape[-1])
        own_k, own_v = key[:, :, total:].reshape(split), value[:, :, total:].reshape(split)
        above = torch.ones(width, width, dtype=torch.bool, device=query.device).triu(1)
        own = (branch_q.reshape(split) @ own_k.mT).masked_fill(above, float("-inf"))
        before = (branch_q @ trunk_k[:, :, :system].mT).view(*own.shape[:-1], system)
        share = (torch.cat([before, own], dim=-1).float() * scaling).softmax(dim=-1).to(value.dtype)
        mixed = (share[..., system:] @ own_v).flatten(2, 3)
        mixed = mixed + share[..., :system].flatten(2, 3) @ trunk_v[:, :, :system]

        stores = (self.keys, self.values, self.own_keys, self.own_values)
        for store, tensor in zip(stores, (trunk_k, trunk_v, own_k, own_v), strict=True):
            store.append(tensor)
        return torch.cat([out, mixed], dim=2)

    def reserve(self) -> None:
        """Allocate keys and values of the first tokens of the answers."""
        tokens = min(self.longest, 16)
        for key in self.keys:
            shape = (*key.shape[:2], self.lvlm.n_layers + 1, tokens, key.shape[-1])
            self.new_keys.append(key.new_empty(shape))
            self.new_values.append(key.new_empty(shape))
        self.padded = _beyond(self.lengths, self.total)
        self.own_padded = _beyond(self.widths, self.width)

    def decode(self, ids: Tensor) -> Tensor:
        """Logits [B, N + 1, vocabulary] after one more token [B, N + 1] of each answer."""
        hidden = self.lvlm.embeddings(ids)
        rotary = self.rotary(hidden, (self.lengths + self.step)[:, None].expand(-1, ids.shape[1]))
        with self.lvlm.attention_replaced(self.attend_step):
            for index in range(self.lvlm.n_layers):
                hidden = self.run_layer(index, hidden, rotary)
        self.step += 1
        return self.lvlm.head(self.lvlm.decoder.norm(hidden))

    def attend_step(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of one token per branch; query [B, H, N + 1, D], row L truncated after L."""
        groups = query.shape[1] // key.shape[1]
        if self.step == self.new_keys[layer].shape[3]:
            # Most answers end long before the longest allowed: the space doubles as needed.
            more = min(self.step, self.longest - self.step)
            for stored in (self.new_keys, self.new_values):
                grown = torch.empty_like(stored[layer][:, :, :, :more])
                stored[layer] = torch.cat([stored[layer], grown], dim=3)
        keys, values = self.new_keys[layer], self.new_values[layer]
        keys[:, :, :, self.step] = key.repeat_interleave(groups, dim=1)
        values[:, :, :, self.step] = value.repeat_interleave(groups, dim=1)
        keys, values = keys[:, :, :, : self.step + 1], values[:, :, :, : self.step + 1]
        recent = (query[:, :, :, None] @ keys.mT).squeeze(3)
        blind = layer + 1  # branches 0...layer no longer see the image here
        prompt_k, prompt_v = self.keys[layer], self.values[layer]
        own_k, own_v = self.own_keys[layer], self.own_values[layer]

        def mix(scores: list[Tensor]) -> list[Tensor]:
            share = (torch.cat(scores, dim=-1).float() * scaling).softmax(dim=-1).to(value.dtype)
            return list(share.split([s.shape[-1] for s in scores], dim=-1))

        q = query[:, :, :blind]
        own = (q[:, :, :, None] @ own_k.mT).squeeze(3).masked_fill(self.own_padded, float("-inf"))
        system = q @ prompt_k[:, :, : self.system].mT
        to_system, to_own, to_recent = mix([system, own, recent[:, :, :blind]])
        to_own, to_recent = to_own[:, :, :, None], to_recent[:, :, :, None]
        own_mix = (to_own @ own_v + to_recent @ values[:, :, :blind]).squeeze(3)
        cut = to_system @ prompt_v[:, :, : self.system] + own_mix

        q = query[:, :, blind:]
        prompt = (q @ prompt_k.mT).masked_fill(self.padded, float("-inf"))
        to_prompt, to_recent = mix([prompt, recent[:, :, blind:]])
        full = to_prompt @ prompt_v + (to_recent[:, :, :, None] @ values[:, :, blind:]).squeeze(3)
        return torch.cat([cut, full], dim=2)


def _beyond(lengths: Tensor, width: int) -> Tensor:
    """True at padding: bool [B, 1, 1, width], from each row's length [B] on."""
    return (torch.arange(width, device=lengths.device) >= lengths[:, None])[:, None, None]


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
    _check(lvlm, prompts, max_new_tokens, keep, ranking_row)
    with torch.inference_mode():
        run = _Pass(lvlm, prompts, max_new_tokens, keep, ranking_row)
        ids = torch.zeros(len(prompts), run.total, dtype=torch.int64, device=lvlm.device)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt.segments)] = prompt.input_ids[0]
        logits = first = run.prefill(lvlm.embed(ids, lvlm.batched(list(prompts))))
        run.reserve()
        stop = torch.tensor(sorted(lvlm.stop_ids), device=lvlm.device)
        chosen: list[Tensor] = []
        done = torch.zeros(logits.shape[:2], dtype=torch.bool, device=lvlm.device)
        while True:
            _check_finite(logits, len(chosen) + 1)
            if chosen and repetition_penalty != 1:
                logits = _penalised(logits, torch.stack(chosen, dim=-1), repetition_penalty)
            chosen.append(logits.argmax(dim=-1))
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
