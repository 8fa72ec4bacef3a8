"""Which image tokens stay at a truncation: those that a row of the prompt attends to most (Eqs. 9-12)."""

from typing import Literal, get_args

import torch
from torch import Tensor

from repro.models.attending import Attending

RankingRow = Literal["last_prompt", "last_image", "random"]


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


def ranking_scores(attending: Attending, rows: Tensor, image: Tensor) -> Tensor:
    """Attention of each prompt's ranking row to its image tokens, averaged over heads (Eqs. 9-10): [B, n_image].

    Args:
        rows: int64 [B]; image: int64 [B, n_image], positions.
    """
    distinct, own = rows.to(attending.query.device).unique(return_inverse=True)
    shares = attending.softmax_rows(distinct)
    scores = shares[torch.arange(len(shares), device=own.device), own.expand(len(shares))]
    return scores.gather(1, image.to(scores.device))
