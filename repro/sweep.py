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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.models.lvlm import Lvlm
from repro.models.prompts import Answer, Prompt
from repro.models.rounding import apart, raise_if_passing
from repro.packed import PackedPass
from repro.ranking import RankingRow, check_ranking_row
from repro.truncation import (
    check_cut,
    prove_truncation,
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
    branch = len(prompt.segments.user) + keep
    length, answers = len(prompt.segments), max_new_tokens
    each = bytes_per_token(lvlm.decoder.config.get_text_config(), lvlm.computes_in)
    return each * kept_tokens(lvlm.n_layers, length, branch, answers)


def kept_tokens(n_layers: int, length: int, branch: int, answer: int) -> int:
    """Tokens of one layer whose keys and values a sweep holds, all layers together; see ``memory_of``."""
    return n_layers * (length + (n_layers + 1) * answer) + branch * n_layers * (n_layers + 1) // 2


def bytes_per_token(config: Any, dtype: torch.dtype) -> int:
    """Bytes of the keys and values of one token in one layer, from a decoder's configuration."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return 2 * heads * head * dtype.itemsize


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
    swept: dict[int, Sweep] = {}
    for group in _together(lvlm, prompts):
        together = [prompts[index] for index in group]
        answers = _swept(lvlm, together, max_new_tokens, keep, ranking_row, repetition_penalty)
        swept |= zip(group, answers, strict=True)
    return [swept[index] for index in range(len(prompts))]


def _swept(
    lvlm: Lvlm,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    keep: int,
    ranking_row: RankingRow,
    repetition_penalty: float,
) -> list[Sweep]:
    """``sweep`` of prompts that are one batch."""
    with torch.inference_mode():
        processors = [lvlm.logits_processors(prompt, max_new_tokens) for prompt in prompts]
        run = PackedPass(lvlm, prompts, max_new_tokens, keep, ranking_row)
        logits = first = run.prefill()
        stop = torch.tensor(sorted(lvlm.stop_ids), device=lvlm.device)
        # [B, N + 1, tokens so far]
        chosen = torch.empty(*logits.shape[:2], 0, dtype=torch.int64, device=lvlm.device)
        done = torch.zeros(logits.shape[:2], dtype=torch.bool, device=lvlm.device)
        going = torch.arange(logits.shape[1], device=lvlm.device)
        while True:
            own = chosen[:, going]
            _check_finite(logits, own.shape[-1] + 1, going)
            if own.numel() and repetition_penalty != 1:
                logits = _penalised(logits, own, repetition_penalty)
            tokens = _processed(processors, prompts, own, logits).argmax(dim=-1)
            # Whatever stands behind an answer's end is cut off.
            chosen = torch.cat([chosen, chosen.new_zeros(*chosen.shape[:2], 1)], dim=-1)
            chosen[:, going, -1] = tokens
            done[:, going] |= torch.isin(tokens, stop)
            if done.all() or chosen.shape[-1] == max_new_tokens:
                break
            # A branch goes on until the last of the prompts has its answer.
            unfinished = ~done.all(dim=0)[going]
            going = going[unfinished]
            logits = run.decode(tokens[:, unfinished], going)

    return [
        Sweep(opening, tuple(lvlm.decode(until_stop(ids, lvlm.stop_ids)) for ids in answers))
        for opening, answers in zip(first.float().cpu().numpy(), chosen.tolist(), strict=True)
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
        groups.setdefault(len(prompt.segments) if not lvlm.known or lvlm.rotates_by_image else 0, []).append(
            index
        )
    return list(groups.values())


def _processed(
    processors: Sequence[Any], prompts: Sequence[Prompt], chosen: Tensor, logits: Tensor
) -> Tensor:
    """Logits [B, n, vocabulary] behind tokens [B, n, so many] as each prompt's processors leave them."""
    rows = []
    for b, (own, prompt) in enumerate(zip(processors, prompts, strict=True)):
        row = logits[b]
        if own:
            ids = torch.cat([prompt.input_ids.expand(len(row), -1), chosen[b]], dim=1)
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
                _check_finite(rows[None, None], len(ids) + 1, torch.tensor([after]))
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
    prompt = lvlm.trial_prompts[2]
    if not lvlm.watchable:
        lvlm.packs = False
        return "one run per layer: the model gives other logits while its attention is replaced"
    try:
        [swept] = sweep(lvlm, [prompt], 3)
        worst = max(_distance(lvlm, prompt, swept, after) for after in (0, lvlm.n_layers // 2, lvlm.n_layers))
    except Exception as error:  # of the model's own code, which is not made for several branches
        raise_if_passing(error)
        lvlm.packs = False
        return f"one run per layer: {type(error).__name__}: {error}"
    if not worst <= lvlm.tolerance:
        lvlm.packs = False
        return f"one run per layer: in one pass, logits would differ by {worst:.2g}"
    return f"in one pass, equal to truncated runs within {worst:.1e}"


def _distance(lvlm: Lvlm, prompt: Prompt, swept: Sweep, after: int) -> float:
    """How far a sweep is from a truncated run: of the first logits, and how far its tokens are from the best."""
    ids = swept.answers[after].ids
    known, rows = lvlm.reference.get(after, ([], torch.empty(0)))
    if known != list(ids):  # of another choice among equals, or not part of the proof of truncation
        with truncated(lvlm, after):
            rows = lvlm.logits(prompt, ids[:-1])[-len(ids) :].float()
    rows = rows.cpu()
    chosen = rows.gather(1, torch.tensor(ids)[:, None])[:, 0]
    return max(apart(rows.amax(dim=-1), chosen), apart(rows[0], torch.from_numpy(swept.logits[after])))


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


def _check_finite(logits: Tensor, token: int, layers: Tensor) -> None:
    """ValueError, naming prompt and layer, if logits [B, layers, vocabulary] are not finite."""
    if not torch.isfinite(logits).all():
        item, layer = (~torch.isfinite(logits)).any(-1).nonzero()[0].tolist()
        raise ValueError(
            f"logits of prompt {item}, truncated after {int(layers[layer])}, are not finite at answer token "
            f"{token}: weights, image or activations are NaN or infinite"
        )


def _penalised(logits: Tensor, chosen: Tensor, penalty: float) -> Tensor:
    """Logits [..., vocabulary] with those of the tokens [..., n] chosen before lowered."""
    repeated = logits.gather(-1, chosen)
    return logits.scatter(-1, chosen, torch.where(repeated < 0, repeated * penalty, repeated / penalty))


def until_stop(ids: list[int], stop: frozenset[int]) -> list[int]:
    """Ids up to and including the first that ends the answer."""
    end = next((i for i, token in enumerate(ids, 1) if token in stop), len(ids))
    return ids[:end]
