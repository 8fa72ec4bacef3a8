"""Image-token truncation after a layer (Eqs. 9-13, Fig. 6), under any forward pass or ``generate``."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from repro.models.anatomy import (
    Arguments,
    arguments,
    cache_in,
    first_output,
    hide,
    is_mask,
    put,
    replaced,
    take,
    take_mask,
    with_first_output,
)
from repro.models.attending import Attending, Removal
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.models.rounding import NotAdmitted, apart
from repro.ranking import RankingRow, check_ranking_row, ranking_scores, top_image_tokens

Mode = Literal["drop", "mask"]
#: Methods of a cache by which a model counts the tokens it has seen.
COUNTING = ("get_seq_length", "get_query_offset", "get_mask_sizes")


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


def mask_sizes(seen: int, query: int | Tensor) -> tuple[int, int]:
    """What a cache that has seen so many tokens says of a mask: its keys, and where they begin.

    Args:
        query: new tokens; transformers 4 gives their places.
    """
    return seen + (query if isinstance(query, int) else len(query)), 0


class Cut(Removal):
    """One truncation: its settings, and its state for the current sequence; ``stay`` is Eq. 13.

    Tokens are removed before a layer and zeros put in their places behind it, so that whatever the model does
    between its layers (such as adding further image features) finds every token; behind the last layer none is.
    It does nothing in passes that are to be undisturbed, when it is not the model's truncation.
    """

    def __init__(self, lvlm: Lvlm, after: int, keep: int, mode: Mode, ranking_row: RankingRow):
        super().__init__(after)
        #: int64 [B], where rows of a batch that is masked are truncated after layers of their own.
        self.own: Tensor | None = None
        self.lvlm, self.keep, self.mode, self.ranking_row = lvlm, keep, mode, ranking_row
        self.layers = lvlm.anatomy
        self.image: Tensor | None = None  # int64 [B, n_image], positions in the pass with the image
        self.scores: Tensor | None = None
        self.rank_rows: Tensor | None = None
        self.prefill = False
        self.length = self.followed = 0  # tokens in the pass with the image, and after it
        self.cache: Any = None

    def on_model(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Arguments of the model under which every layer computes every row."""
        if self.lvlm.truncation is not self:
            return args, kwargs
        if not self.announced:  # and nothing is left of a pass that failed
            self.is_image = None
        self.on_ids(module, args, kwargs)
        return args, kwargs if self.lvlm.keeps_rows else kwargs | {"logits_to_keep": 0}

    def on_ids(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The model, or its embedding, gets ids: those with image tokens begin a sequence, others continue it.

        A single id always continues it: an answer may hold the id of the image token.
        """
        ids = kwargs.get("input_ids", args[0] if args else None)
        if self.announced or self.lvlm.truncation is not self:
            return
        if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.shape[1] == 1:
            return
        is_image = torch.isin(ids, torch.tensor(self.lvlm.image_token_ids, device=ids.device))
        if is_image.any():
            self.is_image, self.last = is_image, None

    def begin(self, length: int) -> None:
        """The first layer is reached, with so many tokens."""
        is_image, self.is_image = self.is_image, None
        self.prefill = is_image is not None
        if is_image is None:
            if self.image is None:
                raise ValueError("the prompt holds no image token: there is nothing to truncate")
            self.followed += length
            return
        counts = is_image.sum(dim=1)
        if (counts != counts[0]).any():
            raise ValueError(
                f"prompts of one batch must hold equally many image tokens, not {counts.tolist()}"
            )
        check_cut(self.lvlm.n_layers, self.after, self.keep, int(counts[0]))
        self.image = is_image.nonzero()[:, 1].view(len(is_image), -1)
        self.rank_rows = self.image[:, -1]
        if self.ranking_row == "last_prompt":
            self.rank_rows = counts.new_full((len(is_image),), length - 1) if self.last is None else self.last
        self.stay = self.scores = None
        self.length, self.followed = length, 0

    def on_attention(self, attending: Attending) -> None:
        """After layer ``after`` has attended: the scores that decide which image tokens stay (Eqs. 9-10)."""
        if attending.layer != self.after - 1 or not self.prefill or not self.keep:
            return
        if self.ranking_row == "random":
            return
        assert self.image is not None and self.rank_rows is not None
        self.scores = ranking_scores(attending, self.rank_rows, self.image)

    def before_layer(
        self, index: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments:
        """New arguments of a layer."""
        if self.lvlm.truncation is not self:
            return args, kwargs
        _, hidden, axis = self.layers.hidden(index, args, kwargs)
        if index == 0:
            self.begin(hidden.shape[axis])
        self.watch(cache_in(kwargs))
        if index >= self.after and self.prefill:
            if index == self.after:
                self.stay = self._choose()
            if self.mode == "mask":
                return args, {**kwargs, "attention_mask": self._hiding(index, hidden, kwargs)}
            return self._removed(index, args, kwargs)
        if not self.prefill:
            mask = kwargs.get("attention_mask")
            kwargs = {**kwargs, "attention_mask": self._following(index, hidden, axis, mask)}
            if index >= self.after and self.mode == "drop":
                return self._handed_on(index, args, kwargs)
        return args, kwargs

    def _handed_on(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Arguments without the removed tokens in keys and values that an earlier, complete layer handed on."""
        total, axes = self.length + self.followed, self.layers.axes[index]
        columns = self._stays()
        new = {
            place: take(tensor, columns, axes[place])
            for place, tensor in arguments(args, kwargs)
            if place in axes and tensor.shape[axes[place]] == total
        }
        return (replaced(args, new), replaced(kwargs, new)) if new else (args, kwargs)

    def _stays(self) -> Tensor:
        """Positions that layers > ``after`` see of the sequence so far: int64 [B, S' + followed]."""
        assert self.stay is not None
        total = self.length + self.followed
        later = torch.arange(self.length, total, device=self.stay.device)
        return torch.cat([self.stay, later.expand(len(self.stay), -1)], dim=1)

    def after_layer(self, index: int, module: Any, args: Any, output: Any) -> Any:
        """The output of a layer that tokens were removed from, with zeros in their places."""
        if self.lvlm.truncation is not self or not self.prefill or self.mode == "mask" or self.stay is None:
            return output
        full = put(first_output(output), self.stay, self.layers.hidden_axis(index), self.length)
        return with_first_output(output, full)

    def watch(self, cache: Any) -> None:
        """Let a cache report the complete sequence: its layers hold less, and the model counts by the first."""
        if cache is None or cache is self.cache:
            return
        self.release()
        self.cache = cache

        def seen(*_: Any) -> int:
            return self.length + self.followed if self.image is not None else 0

        def sizes(query: int | Tensor, *_: Any) -> tuple[int, int]:
            return mask_sizes(seen(), query)

        for name, function in zip(COUNTING, (seen, seen, sizes), strict=True):
            if hasattr(cache, name):
                setattr(cache, name, function)

    def release(self) -> None:
        """Undo ``watch``."""
        for name in COUNTING:
            if self.cache is not None:
                self.cache.__dict__.pop(name, None)
        self.cache = None

    def _removed(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Arguments without the rows and columns of the removed tokens."""
        assert self.stay is not None
        sequential = self.layers.sequential(index, args, kwargs)
        new = {place: take(tensor, self.stay, axis) for place, (tensor, axis) in sequential.items()}
        for place, tensor in arguments(args, kwargs):
            if is_mask(place, tensor) and tensor.shape[-1] == self.length:
                new[place] = take_mask(tensor, self.stay, self.stay)
        return replaced(args, new), replaced(kwargs, new)

    def _hiding(self, index: int, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """The layer's mask, and in it nothing of the removed tokens."""
        assert self.stay is not None
        mask = kwargs.get("attention_mask")
        if mask is None:  # causal
            mask = torch.ones(1, 1, self.length, self.length, dtype=torch.bool, device=hidden.device).tril()
        elif mask.dim() != 4:
            raise ValueError(
                f"layer {index + 1} has no mask over queries and keys: mode 'mask' cannot hide tokens"
            )
        stays = torch.zeros(len(self.stay), self.length, dtype=torch.bool, device=hidden.device)
        stays = stays.scatter(1, self.stay, True)
        if self.own is not None:
            stays = stays | (self.own > index)[:, None]
        stays = stays[:, None, None]
        # Nothing reads a removed token's row; it keeps its own key, so that no softmax is empty.
        own = torch.eye(self.length, dtype=torch.bool, device=hidden.device)
        return hide(mask, stays | own)

    def _choose(self) -> Tensor:
        assert self.image is not None
        batch, n_image = self.image.shape
        top = top_image_tokens(self.scores, n_image, self.keep).to(self.image.device).expand(batch, -1)
        stays = torch.ones(batch, self.length, dtype=torch.bool, device=self.image.device)
        stays = stays.scatter(1, self.image, False).scatter(1, self.image.gather(1, top), True)
        return stays.nonzero()[:, 1].view(batch, -1)

    def _following(self, index: int, hidden: Tensor, axis: int, mask: Tensor | None) -> Tensor | None:
        """The mask of tokens after the prompt, over what the layer's cache holds of those before."""
        assert self.image is not None
        total = self.length + self.followed
        cut = index >= self.after
        assert self.stay is not None or not cut or self.after == self.lvlm.n_layers
        if mask is None and (not cut or self.mode == "drop"):
            return None
        if mask is None:
            mask = torch.ones(1, 1, hidden.shape[axis], total, dtype=torch.bool, device=hidden.device)
        if mask.dim() != 4 or mask.shape[-1] != total:
            return mask
        columns = torch.arange(total, device=mask.device)[None]
        if cut and self.stay is not None:
            stay = self._stays()
            if self.mode == "drop":
                columns = stay
            else:
                seen = torch.zeros(len(stay), total, dtype=torch.bool, device=mask.device).scatter(
                    1, stay, True
                )
                mask = hide(mask, seen[:, None, None])
        if self.cache is not None and index < len(self.cache.layers):
            held = getattr(self.cache.layers[index], "keys", None)
            if held is not None:  # a window's cache drops what it will not see again
                columns = columns[:, -(held.shape[-2] + hidden.shape[axis]) :]
        return take_mask(mask, None, columns)


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
    lvlm.admit("truncation", prove_truncation)
    check_cut(lvlm.n_layers, after, keep)
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be 'drop' or 'mask', not {mode!r}")
    if mode == "mask" and not lvlm.known and None in lvlm.attention_modules:
        number = lvlm.attention_modules.index(None) + 1
        raise NotAdmitted(
            f"layer {number} of {lvlm.card.name} does not attend: mode 'mask' cannot hide tokens"
        )
    check_ranking_row(ranking_row)
    if lvlm.truncation is not None:
        raise RuntimeError("the model is truncated already; leave that context first")
    cut = Cut(lvlm, after, keep, mode, ranking_row)
    with ExitStack() as stack:
        lvlm.truncation = cut
        stack.callback(setattr, lvlm, "truncation", None)
        stack.callback(cut.release)
        handles = [
            lvlm.model.register_forward_pre_hook(cut.on_model, with_kwargs=True),
            lvlm.embeddings.register_forward_pre_hook(cut.on_ids, with_kwargs=True),
        ]
        for index, layer in enumerate(lvlm.layers):
            hook = partial(cut.before_layer, index)
            handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
            if after <= index < lvlm.n_layers - 1:
                handles.append(layer.register_forward_hook(partial(cut.after_layer, index)))
        for handle in handles:
            stack.callback(handle.remove)
        ranks = bool(keep and after and ranking_row != "random")
        if ranks and not lvlm.known and not lvlm.watchable:
            raise NotAdmitted("keep needs the attention of a row, and observing it moves the model's logits")
        if ranks or (not lvlm.known and lvlm.watchable):
            stack.enter_context(lvlm.observed(cut.on_attention))
        yield cut


def prove_truncation(lvlm: Lvlm) -> str:
    """That dropping tokens and masking them give the same logits, and a cache the same answer as none.

    Raises NotAdmitted, with the difference, if not.
    """
    prompt, n = lvlm.trial_prompts[2], lvlm.n_layers
    masks = all(module is not None for module in lvlm.attention_modules)
    dropped = {}
    for after in (n - 1, 0, n // 2):
        with truncated(lvlm, after):
            dropped[after] = lvlm.generate(prompt, 1 if after == n - 1 else 3)
    answers = {after: ids for after, (ids, _) in dropped.items()}
    lvlm.reference.update(_references(lvlm, prompt, answers, masks))
    behind = {
        after: [apart(*rows) for rows in zip(lvlm.reference[after][1], decoded, strict=True)]
        for after, (_, decoded) in sorted(dropped.items())
    }
    for after, (opening, *_) in behind.items():
        if masks and not opening <= lvlm.tolerance:
            raise NotAdmitted(
                f"truncated after {after}, dropped and masked image tokens give logits apart by {opening:.2g}, "
                f"rounding is {lvlm.tolerance:.2g}"
            )
    for after, apart_by in behind.items():
        if not max(apart_by) <= lvlm.tolerance:
            raise NotAdmitted(
                f"truncated after {after}, tokens decoded with a cache have logits {max(apart_by):.2g} off those "
                f"of one pass; rounding is {lvlm.tolerance:.2g}"
            )
    if not masks:
        return "dropped; layers without attention cannot be masked"
    return f"dropped = masked within {max(opening for opening, *_ in behind.values()):.1e}"


def _references(
    lvlm: Lvlm, prompt: Prompt, answers: Mapping[int, list[int]], masks: bool
) -> dict[int, tuple[list[int], Tensor]]:
    """Logits of the tokens of answers truncated after each layer, by passes without a cache: image tokens masked.

    Where they cannot be, they are dropped.
    """
    longest = max(map(len, answers.values()))
    rows: dict[int, Tensor] = {}
    with torch.inference_mode():
        if masks and lvlm.batches:
            padded = [(ids + [ids[-1]] * longest)[: longest - 1] for ids in answers.values()]
            with truncated(lvlm, min(answers), mode="mask") as cut:
                cut.own = torch.tensor(list(answers), device=lvlm.device)
                logits = lvlm.forward([prompt] * len(answers), padded)[:, -longest:]
            rows = dict(zip(answers, logits, strict=True))
        else:
            for after, ids in answers.items():
                with truncated(lvlm, after, mode="mask" if masks else "drop"):
                    rows[after] = lvlm.logits(prompt, ids[:-1])[-len(ids) :]
    return {after: (ids, rows[after][: len(ids)].float()) for after, ids in answers.items()}
