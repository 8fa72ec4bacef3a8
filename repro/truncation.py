"""Image-token truncation after a layer (Eqs. 9-13, Fig. 6), under any forward pass or ``generate``."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from repro.models.attending import Removal, softmax_rows
from repro.models.lvlm import Lvlm

Mode = Literal["drop", "mask"]
#: Positional and keyword arguments that a hook passes on.
Hooked = tuple[tuple[Any, ...], dict[str, Any]]
RankingRow = Literal["last_prompt", "last_image", "random"]


def check_cut(n_layers: int, after: int, keep: int, n_image: int | None = None) -> None:
    """ValueError unless 0 <= after <= n_layers and 0 <= keep <= n_image (if known)."""
    if not (isinstance(after, int) and isinstance(keep, int)):
        raise ValueError(f"after and keep must be whole numbers, not {after!r} and {keep!r}")
    if not 0 <= after <= n_layers:
        raise ValueError(
            f"after must be a layer from 0 (none sees the image) to {n_layers} (all do), not {after}"
        )
    if keep < 0 or (n_image is not None and keep > n_image):
        most = "the number of image tokens" if n_image is None else f"the prompt's {n_image} image tokens"
        raise ValueError(f"keep must be from 0 to {most}, not {keep}")


def check_ranking_row(ranking_row: str) -> None:
    """ValueError unless it is a ``RankingRow``."""
    if ranking_row not in get_args(RankingRow):
        raise ValueError(f"ranking_row must be 'last_prompt', 'last_image' or 'random', not {ranking_row!r}")


def top_image_tokens(scores: Tensor | None, n_image: int, keep: int) -> Tensor:
    """Which image tokens stay: the argtop of Eq. 12.

    Args:
        scores: [..., n_image] attention of the ranking row to each image token. None if no row ranks them, and
            before the first layer, where no attention exists yet: the choice is then random, there as in the
            released code, here from a fixed seed, so that the same tokens stay in all prompts.

    Returns:
        int64 [..., keep], indices among the image tokens, ascending.
    """
    if scores is None:
        scores = torch.rand(n_image, generator=torch.Generator().manual_seed(0))
    return scores.topk(keep, dim=-1).indices.sort(dim=-1).values


class Cut(Removal):
    """One truncation: its settings, and its state for the current sequence; ``stay`` is Eq. 13.

    Attributes:
        image: int64 [B, n_image], positions of the image tokens in the pass that holds the image.
    """

    def __init__(self, lvlm: Lvlm, after: int, keep: int, mode: Mode, ranking_row: RankingRow):
        super().__init__(after)
        self.lvlm, self.keep, self.mode, self.ranking_row = lvlm, keep, mode, ranking_row
        self.image: Tensor | None = None
        self.scores: Tensor | None = None
        self.visible: Tensor | None = None  # [B, 1, 1, keys] of the prompt, for later tokens
        self.prefill = False
        self.length = self.followed = 0  # tokens in the pass with the image, and after it

    def on_embedding(self, module: Any, args: tuple[Tensor]) -> None:
        """Every pass embeds its ids first: ids with image tokens start a new sequence, others continue it.

        A single id always continues it: an answer may hold the id of the image token.
        """
        is_image = args[0] == self.lvlm.image_token_id
        self.prefill = args[0].shape[1] > 1 and bool(is_image.any())
        if not self.prefill:
            if self.image is None:
                raise ValueError("the prompt holds no image token: there is nothing to truncate")
            self.followed += args[0].shape[1]
            return
        counts = is_image.sum(dim=1)
        if (counts != counts[0]).any():
            raise ValueError(
                f"prompts of one batch must hold equally many image tokens, not {counts.tolist()}"
            )
        check_cut(self.lvlm.n_layers, self.after, self.keep, int(counts[0]))
        self.image = is_image.nonzero()[:, 1].view(len(args[0]), -1)
        self.stay = self.scores = self.visible = None
        self.length, self.followed = args[0].shape[1], 0

    def on_decoder(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hooked:
        """Positions continue from the full prompt, though a cache may hold fewer tokens (``after=0``)."""
        if not self.prefill and kwargs.get("position_ids") is None:
            stop = self.length + self.followed
            new = kwargs["inputs_embeds"].shape[1]
            kwargs["position_ids"] = torch.arange(stop - new, stop, device=self.lvlm.device)[None]
        return args, kwargs

    def on_attention(
        self, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float
    ) -> None:
        """After layer ``after`` has attended: the scores that decide which image tokens stay (Eqs. 9-10)."""
        if layer != self.after - 1 or not self.prefill:
            return
        assert self.image is not None
        last_prompt = self.image.new_tensor([self.length - 1])
        last = self.image[:, -1] if self.ranking_row == "last_image" else last_prompt
        rows, own = last.unique(return_inverse=True)
        shares = softmax_rows(query, key, mask, scaling, rows)
        self.scores = shares[torch.arange(len(shares)), own.expand(len(shares))].gather(1, self.image)

    def on_layer(self, index: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hooked:
        """New arguments of a layer > ``after``."""
        hidden, mask = args[0], kwargs.get("attention_mask")
        if not self.prefill:
            return args, {**kwargs, "attention_mask": self._following_mask(hidden, mask)}
        if index == self.after:
            self.stay = self._choose()
        assert self.stay is not None
        stay = self.stay
        batch, n_stay = stay.shape
        # [B, heads or 1, T, T], True where seen. The causal mask may be implicit (None).
        seen = torch.ones(1, 1, self.length, self.length, dtype=torch.bool, device=stay.device).tril()
        if mask is not None:
            seen = mask if mask.dtype == torch.bool else mask == 0
        seen = seen.expand(batch, -1, -1, -1)
        if self.mode == "mask":
            remaining = torch.zeros(batch, self.length, dtype=torch.bool, device=stay.device)
            remaining = remaining.scatter(1, stay, True)[:, None, None]
            self.visible = seen[:, :, -1:] & remaining
            # Nothing reads a removed token's row; it keeps its own key, so that no softmax is empty.
            own = torch.eye(self.length, dtype=torch.bool, device=stay.device)
            return args, {**kwargs, "attention_mask": _like(mask, hidden, seen & (remaining | own))}

        if hidden.shape[1] == self.length and n_stay < self.length:
            args = (hidden.gather(1, stay[..., None].expand(-1, -1, hidden.shape[-1])), *args[1:])
        kwargs = dict(kwargs)
        kwargs["position_embeddings"] = tuple(_rows(part, stay) for part in kwargs["position_embeddings"])
        if kwargs.get("position_ids") is not None:
            kwargs["position_ids"] = kwargs["position_ids"].expand(batch, -1).gather(1, stay)
        if kwargs.get("cache_position") is not None:
            kwargs["cache_position"] = kwargs["cache_position"][:n_stay]
        if mask is not None:
            heads = seen.shape[1]
            seen = seen.gather(2, stay[:, None, :, None].expand(-1, heads, -1, self.length))
            seen = seen.gather(3, stay[:, None, None, :].expand(-1, heads, n_stay, -1))
            self.visible = seen[:, :, -1:]
            kwargs["attention_mask"] = _like(mask, hidden, seen)
        return args, kwargs

    def _choose(self) -> Tensor:
        assert self.image is not None
        batch, n_image = self.image.shape
        top = top_image_tokens(self.scores, n_image, self.keep).to(self.image.device).expand(batch, -1)
        stays = torch.ones(batch, self.length, dtype=torch.bool, device=self.image.device)
        stays = stays.scatter(1, self.image, False).scatter(1, self.image.gather(1, top), True)
        return stays.nonzero()[:, 1].view(batch, -1)

    def _following_mask(self, hidden: Tensor, mask: Tensor | None) -> Tensor | None:
        """The mask of tokens after the prompt: what is visible of the prompt, and all later tokens up to each."""
        new = hidden.shape[1]
        ones = partial(torch.ones, dtype=torch.bool, device=hidden.device)
        if self.visible is None:
            if new == 1:
                return None
            assert self.stay is not None
            self.visible = ones(len(hidden), 1, 1, self.stay.shape[1])
        later = ones(new, self.followed).tril(self.followed - new)
        shape = (len(hidden), self.visible.shape[1], new, -1)
        seen = torch.cat([self.visible.expand(shape), later.expand(*shape[:3], -1)], dim=-1)
        return _like(mask, hidden, seen)


def _rows(part: Tensor, stay: Tensor) -> Tensor:
    """Rows ``stay`` [B, S'] of position embeddings [1 or B, T, D], or of three of them, [3, 1 or B, T, D]."""
    shape = (*part.shape[:-3], *stay.shape, part.shape[-1])
    return part.expand(*shape[:-2], *part.shape[-2:]).gather(-2, stay[..., None].expand(shape))


def _like(mask: Tensor | None, hidden: Tensor, seen: Tensor) -> Tensor:
    """``seen`` as a mask of the layer's kind: additive if ``mask`` is, boolean otherwise."""
    if mask is None or mask.dtype == torch.bool:
        return seen
    hiding = torch.finfo(hidden.dtype).min
    return torch.zeros(seen.shape, dtype=hidden.dtype, device=hidden.device).masked_fill(~seen, hiding)


@contextmanager
def truncated(
    lvlm: Lvlm, after: int, keep: int = 0, mode: Mode = "drop", ranking_row: RankingRow = "last_prompt"
) -> Iterator[Cut]:
    """Within the context, layers 1...after see the image tokens and later layers only ``keep`` of them.

    Works in forward passes, the instruments and ``generate``, prefill and decoding alike; positions are kept, and
    the choice made in the pass that holds the image stays for the complete answer. (The released code would choose
    again at each decoding step if k were not 0.)

    Args:
        after: 0...N. 0: no layer sees the image; N: the untruncated model. ``AGG_LAYER`` of the released code.
        keep: the k of Eq. 12; 0 removes every image token.
        mode: "drop" removes the tokens from hidden states, mask, position embeddings and so from the KV cache of
            layers > after; output logits then have fewer rows. "mask" hides their keys and keeps every length, as
            the released code does.
        ranking_row: the row whose attention at layer ``after``, averaged over heads, ranks the image tokens:
            "last_prompt", the last row of the pass that holds the image (released code), or "last_image", the row
            of the last image token (Eq. 10 as printed); "random": none, for comparison. Irrelevant if keep = 0.

    Raises:
        ValueError: ``after`` outside 0...N, ``keep`` < 0 or above the number of image tokens, a prompt without
            image tokens, or an unknown mode or ranking row.
        RuntimeError: the model is truncated already.
    """
    check_cut(lvlm.n_layers, after, keep)
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be 'drop' or 'mask', not {mode!r}")
    check_ranking_row(ranking_row)
    if lvlm.truncation is not None:
        raise RuntimeError("the model is truncated already; leave that context first")
    cut = Cut(lvlm, after, keep, mode, ranking_row)
    with ExitStack() as stack:
        lvlm.truncation = cut
        stack.callback(setattr, lvlm, "truncation", None)
        handles = [
            lvlm.embeddings.register_forward_pre_hook(cut.on_embedding),
            lvlm.decoder.register_forward_pre_hook(cut.on_decoder, with_kwargs=True),
        ]
        for index in range(after, lvlm.n_layers):
            hook = partial(cut.on_layer, index)
            handles.append(lvlm.decoder.layers[index].register_forward_pre_hook(hook, with_kwargs=True))
        for handle in handles:
            stack.callback(handle.remove)
        if keep and after and ranking_row != "random":
            stack.enter_context(lvlm.observed(cut.on_attention))
        yield cut
