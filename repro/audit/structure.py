"""What follows from the architecture alone, whatever the weights: shown on the miniature of LLaVA-1.5.

Its decoder is LLaVA-1.5's, smaller. It reads prompts of the published length where that matters.
"""

from functools import cache

import numpy as np
import torch

from repro.attention import attention_shares
from repro.audit.released import CAM_IMAGE, Span
from repro.benchmarks.chair import PROMPT
from repro.benchmarks.miniworld import DIRECTORY
from repro.cam import llava_cam
from repro.models import load_model
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.truncation import truncated

#: Two scenes of the miniature benchmarks.
SCENES = tuple(DIRECTORY / "coco" / "val2014" / f"COCO_val2014_{number:012}.png" for number in (3033, 3527))


@cache
def miniature() -> Lvlm:
    """LLaVA-1.5's, loaded once."""
    return load_model("llava-1.5")


@cache
def captioned() -> tuple[Prompt, tuple[int, ...]]:
    """A scene to be described, and the ids of the miniature's description."""
    prompt = miniature().prompt(SCENES[0], PROMPT)
    return prompt, miniature().answer(prompt, max_new_tokens=64).ids


def covered(image: Span, masked: Span) -> tuple[int, int]:
    """Image tokens that a mask of fixed positions leaves visible, and other tokens that it hides."""
    both = len(set(image.range()) & set(masked.range()))
    return image.length - both, masked.length - both


def reached(first_row: int, answer: int, prompt: int, image: Span = CAM_IMAGE) -> tuple[list[int], int]:
    """Differentiate as many logits as the answer has tokens, from a row on, behind the post-attention norm.

    Args:
        first_row: of the sequence in which the image has all its tokens.
        answer: tokens of the answer.
        prompt: length of the prompt with the image counted as one token.

    Returns:
        image tokens at which the gradient of Eq. 2 is not zero, for each layer, and how many of them are among
        the rows whose logits were differentiated.
    """
    lvlm = miniature()
    length = prompt - 1 + image.length + answer
    drawn = torch.Generator().manual_seed(0)
    embedded = torch.randn(1, length, lvlm.embeddings.embedding_dim, generator=drawn).requires_grad_()
    normed: list[torch.Tensor] = []
    handles = [
        layer.post_attention_layernorm.register_forward_hook(lambda module, args, out: normed.append(out))
        for layer in lvlm.decoder.layers
    ]
    try:
        hidden = lvlm.decoder(inputs_embeds=embedded, use_cache=False).last_hidden_state
        logits = lvlm.head(hidden)[0]
    finally:
        for handle in handles:
            handle.remove()
    z = logits[first_row : first_row + answer].amax(dim=-1).sum()
    at_image = [gradient[0, image.start :][: image.length] for gradient in torch.autograd.grad(z, normed)]
    patches = [int((gradient != 0).any(dim=-1).sum()) for gradient in at_image]
    return patches, len(set(range(first_row, first_row + answer)) & set(image.range()))


def heat(relu_gradients: bool = False, threshold: float | None = None) -> np.ndarray:
    """LLaVA-CAM of a description without noise, [N, rows, columns]; the closing token is left out."""
    prompt, ids = captioned()
    return llava_cam(
        miniature(), prompt, ids[:-1], noise=0, relu_gradients=relu_gradients, threshold=threshold
    )


def answer_sums() -> np.ndarray:
    """Attention on system, image and user tokens together, [N, rows]; row 0 is the last of the prompt."""
    prompt, ids = captioned()
    return attention_shares(miniature(), prompt, ids).raw[..., :3].sum(axis=-1)


def change_by_image(after: int) -> float:
    """How much the logits of the first answer token change with the image, at most, truncated after a layer."""
    lvlm = miniature()
    with truncated(lvlm, after=after):
        first, second = (lvlm.logits(lvlm.prompt(scene, PROMPT))[-1] for scene in SCENES)
    return float((first - second).abs().max())
