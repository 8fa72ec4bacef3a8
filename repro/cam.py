"""LLaVA-CAM of every decoder layer from one backward pass (Eqs. 1-5, Figs. 3-4 and 7-8)."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from repro.models.anatomy import ROLES, Role, first_output
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.models.rounding import NotAdmitted


@contextmanager
def _activations(lvlm: Lvlm, module: Role) -> Iterator[list[Tensor]]:
    """Outputs of a module of every layer in the next pass, to differentiate at."""
    outputs: list[Tensor] = []

    def record(module: nn.Module, inputs: Any, output: Any) -> Any:
        # Weights are frozen: an output without a graph so far is a leaf and must require its gradient itself.
        first = first_output(output)
        outputs.append(first if first.requires_grad else first.requires_grad_())
        return output

    with ExitStack() as hooks:
        for part in parts_of(lvlm, module):
            hooks.callback(part.register_forward_hook(record).remove)
        yield outputs


def parts_of(lvlm: Lvlm, module: Role) -> list[nn.Module]:
    """That module of every layer; ValueError that names what the layers have, where one has none."""
    for index, roles in enumerate(lvlm.roles):
        if module not in roles:
            others = [name for name in ROLES if all(name in parts for parts in lvlm.roles)]
            raise ValueError(
                f"layer {index + 1} of {lvlm.card.name} ({type(lvlm.layers[index]).__name__}) has no {module}: "
                f"all layers have {', '.join(others)}"
            )
    return [roles[module] for roles in lvlm.roles]


def _at_image(lvlm: Lvlm, layer: int, values: Tensor, batch: int, length: int, image: Tensor) -> Tensor:
    """Values of a layer at the image positions, float32 [B, n_image, width]; zero where truncation removed them.

    Args:
        values: [B, T', width]; or [B T', width], as some layers flatten them before their MLP.
    """
    values = values.reshape(batch, -1, values.shape[-1]).to(image.device)
    cut = lvlm.truncation
    if cut is None or layer < cut.after:
        return values[:, image].float()
    assert cut.stay is not None, "a pass with the image went before"
    stay = cut.stay[..., None].expand(-1, -1, values.shape[-1])
    remaining = values if values.shape[1] == stay.shape[1] else values.gather(1, stay)
    full = values.new_zeros(len(values), length, values.shape[-1]).scatter(1, stay, remaining)
    return full[:, image].float()


@torch.inference_mode(False)  # a caller's inference mode would leave nothing to differentiate
def llava_cam(
    lvlm: Lvlm,
    prompt: Prompt,
    answer: Sequence[int],
    samples: int = 1,
    noise: float = 0.1,
    seed: int = 0,
    batch_size: int = 8,
    relu_gradients: bool = False,
    threshold: float | None = None,
    module: Role = "post_attention_norm",
) -> np.ndarray:
    """Heat of every image token for an answer, at every layer.

    z is the sum of the logits of the answer tokens at the rows that predict them (Eq. 1); G its gradient at the
    activations A behind the post-attention norm (Eq. 2); alpha the mean of G over image positions; heat =
    ReLU(sum_k alpha_k A_k) (Eq. 3); the mean over noisy images (Eqs. 4-5) is divided by its maximum, once. Before
    that, heat of image tokens that cover the same cell of the prompt's grid is summed. Nothing mixes tokens after
    the last layer's norm, so the map of layer N is exactly zero.

    Args:
        answer: token ids of the answer, at least one.
        samples: noisy copies of the image; 1 copy with ``noise=0`` is the plain CAM of Eq. 3.
        noise: standard deviation of the Gaussian on pixels in [0, 1]. (Eq. 4 prints it as a variance, the text
            under it calls it a standard deviation, and the released code uses it as one.)
        seed: of the noise, drawn on the CPU so that it is the same on every device.
        batch_size: copies per pass; changes memory and speed only.
        relu_gradients: as in the released demo, only positive gradients enter alpha. Not in the paper.
        threshold: as in the released demo (0.5), normalised heat below it is set to zero. Not in the paper.
        module: whose output is A, by its role in a layer. The paper takes the norm behind the attention (Sec.
            A.1); the others are for comparison (Fig. 7).

    Returns:
        float32 [N, rows, columns] in [0, 1]; a layer's maximum is 1 unless the layer is zero everywhere.

    Raises ValueError for an empty answer, no sample, an unknown module, and heat that is not finite.
    """
    lvlm.admit("cam", prove_cam)
    _check(answer, samples, noise, batch_size, module)
    if not lvlm.batches:
        batch_size = 1
    draw = torch.Generator().manual_seed(seed)
    drawn = noise * torch.randn(samples, *prompt.image_inputs[lvlm.pixel_name(prompt)].shape, generator=draw)
    target = torch.tensor(list(answer), device=lvlm.device)
    length = len(prompt.segments) + len(answer) - 1
    image = torch.from_numpy(prompt.segments.image).to(lvlm.device)
    total = torch.zeros(lvlm.n_layers, len(image), device=lvlm.device)

    for part in drawn.split(batch_size):
        images = lvlm.with_noise(prompt, part)
        with torch.enable_grad(), _activations(lvlm, module) as activations:
            logits = lvlm.forward([prompt] * len(part), answer[:-1], images, last=len(target))
            z = logits.gather(-1, target.expand(len(part), -1)[..., None]).float().sum()
            gradients = torch.autograd.grad(z, activations)
        for layer, pair in enumerate(zip(activations, gradients, strict=True)):
            feature, gradient = (_at_image(lvlm, layer, v.detach(), len(part), length, image) for v in pair)
            alpha = (gradient.relu() if relu_gradients else gradient).mean(dim=1, keepdim=True)
            total[layer] += (alpha * feature).sum(-1).relu().sum(0)

    return _on_grid(total / samples, prompt, threshold).cpu().numpy()


def _check(answer: Sequence[int], samples: int, noise: float, batch_size: int, module: str) -> None:
    """The errors that ``llava_cam`` promises for its arguments."""
    if not len(answer):
        raise ValueError("LLaVA-CAM needs at least one answer token to differentiate")
    if noise < 0:
        raise ValueError(f"noise must not be negative, not {noise}")
    if samples < 1 or batch_size < 1:
        raise ValueError(f"samples and batch_size must be at least 1, not {samples} and {batch_size}")
    if module not in ROLES:
        raise ValueError(f"module must be one of {', '.join(ROLES)}, not {module!r}")


def _on_grid(heat: Tensor, prompt: Prompt, threshold: float | None) -> Tensor:
    """Heat [N, n_image] on the prompt's grid [N, rows, columns], divided by each layer's maximum; thresholded."""
    if not torch.isfinite(heat).all():
        layer = int((~torch.isfinite(heat)).any(dim=1).nonzero()[0]) + 1
        raise ValueError(
            f"heat of layer {layer} is not finite: weights, image or activations are NaN or infinite"
        )
    if prompt.cells is not None:
        cells = torch.from_numpy(prompt.cells).to(heat.device)
        empty = heat.new_zeros(len(heat), prompt.grid[0] * prompt.grid[1])
        heat = empty.index_add(1, cells[cells >= 0], heat[:, cells >= 0])
    peak = heat.amax(dim=1, keepdim=True)
    heat = torch.where(peak > 0, heat / peak.clamp_min(torch.finfo(heat.dtype).tiny), heat)
    if threshold is not None:
        heat = heat.masked_fill(heat < threshold, 0.0)
    return heat.view(-1, *prompt.grid)


def prove_cam(lvlm: Lvlm) -> str:
    """That heat is finite, and zero behind the last layer's attention as it must be.

    Raises NotAdmitted for a model without a norm behind its attention, naming what can be had instead.
    """
    module: Role = "post_attention_norm"
    if not all(module in roles for roles in lvlm.roles):
        module = "attention"
    prompt = lvlm.trial_prompts[0]
    heat = llava_cam(lvlm, prompt, [int(prompt.input_ids[0, -1])], noise=0, module=module)
    if heat[-1].any():
        raise NotAdmitted(
            "heat of the last layer is not zero, though nothing mixes tokens behind its attention"
        )
    if module == "attention":
        return "of other modules than the norm behind the attention, which not every layer has (module=...)"
    return f"of {type(lvlm.roles[0][module]).__name__} behind the attention"
