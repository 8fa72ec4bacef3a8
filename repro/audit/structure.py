"""What follows from the architecture alone, whatever the weights: shown on the miniature of LLaVA-1.5.

Its decoder is LLaVA-1.5's, smaller. It reads prompts of the published length where that matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from repro.attention import attention_shares
from repro.audit.released import CAM_IMAGE, Span
from repro.benchmarks.chair import PROMPT
from repro.cam import llava_cam
from repro.models import load_model
from repro.models.card import FIXTURES
from repro.models.lvlm import Lvlm, Prompt
from repro.truncation import truncated

#: Two scenes of the miniature data sets.
PICTURES = tuple(
    FIXTURES / "miniworld" / "coco" / "val2014" / f"COCO_val2014_{number:012}.png" for number in (3033, 3527)
)


@cache
def miniature() -> Lvlm:
    """LLaVA-1.5's, loaded once."""
    return load_model("llava-1.5")


@cache
def captioned() -> tuple[Prompt, tuple[int, ...]]:
    """A scene to be described, and the ids of the miniature's description."""
    prompt = miniature().prompt(PICTURES[0], PROMPT)
    return prompt, miniature().answer(prompt, max_new_tokens=64).ids


# Spans


@dataclass(frozen=True)
class Covered:
    """What a mask of fixed positions does to a prompt.

    Attributes:
        visible: image tokens outside of it, which later layers still see.
        text: other tokens inside of it, which later layers do not see.
    """

    visible: int
    text: int


def covered(image: Span, masked: Span) -> Covered:
    """Of a span of image tokens and the positions that are masked."""
    both = len(set(image.range()) & set(masked.range()))
    return Covered(image.length - both, masked.length - both)


# LLaVA-CAM


@dataclass(frozen=True)
class Reached:
    """Where the gradient of Eq. 2 is not zero.

    Attributes:
        patches: image tokens with a gradient, for each layer.
        rows: image tokens among the rows whose logits were differentiated.
    """

    patches: list[int]
    rows: int


def reached(first_row: int, answer: int, prompt: int, image: Span = CAM_IMAGE) -> Reached:
    """Differentiate as many logits as the answer has tokens, from a row on, behind the post-attention norm.

    Args:
        first_row: of the sequence in which the image has all its tokens.
        answer: tokens of the answer.
        prompt: length of the prompt with the picture counted as one token.
    """
    lvlm = miniature()
    length = prompt - 1 + image.length + answer
    drawn = torch.Generator().manual_seed(0)
    embedded = torch.randn(1, length, lvlm.embeddings.embedding_dim, generator=drawn).requires_grad_()
    found: list[torch.Tensor] = []
    handles = [
        layer.post_attention_layernorm.register_forward_hook(lambda module, args, out: found.append(out))
        for layer in lvlm.decoder.layers
    ]
    try:
        logits = lvlm.head(lvlm.hidden_states(embedded))[0]
    finally:
        for handle in handles:
            handle.remove()
    rows = range(first_row, first_row + answer)
    z = logits[rows.start : rows.stop].amax(dim=-1).sum()
    gradients = torch.autograd.grad(z, found)
    at_image = [gradient[0, image.start : image.start + image.length] for gradient in gradients]
    return Reached(
        [int((one != 0).any(dim=-1).sum()) for one in at_image], len(set(rows) & set(image.range()))
    )


def heat(relu_gradients: bool = False, threshold: float | None = None) -> np.ndarray:
    """LLaVA-CAM of a description without noise, [N, rows, columns]; the closing token is left out."""
    prompt, ids = captioned()
    return llava_cam(
        miniature(), prompt, ids[:-1], noise=0, relu_gradients=relu_gradients, threshold=threshold
    )


# Attention and truncation


def answer_sums() -> np.ndarray:
    """Attention on system, image and user tokens together, [N, rows]; row 0 is the last of the prompt."""
    prompt, ids = captioned()
    return attention_shares(miniature(), prompt, ids).raw[..., :3].sum(axis=-1)


def change_by_image(after: int) -> float:
    """How much the logits of the first answer token change with the picture, at most, truncated after a layer."""
    lvlm = miniature()
    with truncated(lvlm, after=after):
        first, second = (lvlm.logits(lvlm.prompt(picture, PROMPT))[-1] for picture in PICTURES)
    return float((first - second).abs().max())
