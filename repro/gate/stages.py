"""What becomes of a prompt on its way from image to answer, stage by stage, small enough to keep."""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.attention import attention_shares
from repro.cam import llava_cam
from repro.models.anatomy import ROLES, arguments, first_output
from repro.models.attending import Attending
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.models.rounding import UNSAID, NotAdmitted

#: Tokens that the model generates for a reading at least; otherwise as many as the recorded answer and one more.
GENERATED = 12
#: Numbers that stand for a tensor of any size.
WIDTH = 64
#: Stages in the order in which an image becomes an answer -> where to look if one is the first to differ.
STAGES = {
    "prompt": "the tokenizer, the chat template, or how many tokens the processor makes of an image",
    "pixels": "the image processor: size, crop, padding, resampling, normalisation",
    "image features": "the image tower or its projector",
    "text embeddings": "the embedding of tokens that are no image",
    "positions": "position ids or rotary tables",
    "masks": "which tokens see which",
    "layers": "this decoder layer: its attention, norms or MLP, or what is added to its output",
    "logits": "the last norm or the head",
    "shares": "how a layer attends",
    "heat": "gradients",
    "generated answer": "decoding: settings of generate, the cache, positions of new tokens",
}
#: Stages that are kept with the size of their tensors, which may be several: [tensors, 65].
_SHAPED = ("pixels", "image features", "text embeddings", "positions")
#: In place of all stages: the prompt cannot be made.
REFUSED = "refused"
#: One prompt at every stage: arrays by stage, a sketch or the values themselves.
Reading = dict[str, np.ndarray]


def sketch(tensor: Tensor) -> np.ndarray:
    """A tensor of any shape as float32 [64], whose distances are about those of the tensors.

    A count sketch (Charikar, Chen & Farach-Colton 2002): values with fixed random signs, summed over every 64th
    place. The squared distance of two sketches has the squared distance of the tensors as its mean.
    """
    values = tensor.detach().to("cpu", torch.float64).reshape(-1).numpy()
    signed = values * _signs(len(values))
    return np.pad(signed, (0, -len(signed) % WIDTH)).reshape(-1, WIDTH).sum(axis=0).astype(np.float32)


@cache
def _signs(count: int) -> np.ndarray:
    """Signs that no version of a library draws otherwise: int8 [count]."""
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(b"repro").digest(count // 8 + 1), np.uint8))
    return (2 * bits[:count].astype(np.int8) - 1).astype(np.int8)


def read(lvlm: Lvlm, prompt: Prompt, answer: Sequence[int], copies: int = 1) -> Reading:
    """Every stage of one prompt, with an answer teacher-forced behind it.

    Args:
        answer: token ids, at least one; usually those recorded before an upgrade, so that one other token does not
            hide or invent what follows it.
        copies: of the prompt in a batch; the first is read.

    Stages that a model does not have, or whose instrument is refused, are left out.
    """
    reading = read_inputs(prompt) | read_pass(lvlm, prompt, answer, copies)
    try:
        shares = attention_shares(lvlm, prompt, answer[:-1])
        reading["shares"] = shares.raw.mean(axis=1).astype(np.float32)
    except NotAdmitted:
        pass
    try:
        module = next(
            role for role in (ROLES[0], "attention", "layer") if all(role in parts for parts in lvlm.roles)
        )
        heat = llava_cam(lvlm, prompt, answer, noise=0, module=module)
        reading["heat"] = heat.reshape(len(heat), -1).astype(np.float16)
    except NotAdmitted:
        pass
    generated = lvlm.answer(prompt, min(max(GENERATED, len(answer) + 1), lvlm.room(prompt)))
    reading["generated answer"] = np.array(generated.ids, np.int32)
    return reading


def read_inputs(prompt: Prompt) -> Reading:
    """What the model is given: a digest of whole numbers, and a sketch of the others, which are the pixels."""
    digest = hashlib.sha256(np.asarray(prompt.segments.labels).astype(np.int8).tobytes())
    values = []
    for name, tensor in sorted({**prompt.image_inputs, "input_ids": prompt.input_ids}.items()):
        if tensor.is_floating_point():
            values.append(tensor.reshape(-1).to("cpu", torch.float64))
        else:
            digest.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.cpu().long().numpy().tobytes())
    return {
        "prompt": np.frombuffer(digest.digest()[:16], np.uint8),
        "pixels": _shaped(torch.cat(values) if values else torch.zeros(1)),
    }


def _shaped(tensor: Tensor) -> np.ndarray:
    """A tensor's number of values and its sketch, float32 [1, 65]: tensors of other sizes are never alike."""
    return np.concatenate([np.array([tensor.numel()], np.float32), sketch(tensor)])[None]


def read_pass(lvlm: Lvlm, prompt: Prompt, answer: Sequence[int], copies: int) -> Reading:
    """Stages of the decoder, from one pass."""
    reading: Reading = {}
    anatomy = lvlm.anatomy  # learnt by passes of its own, before this one
    image = torch.from_numpy(prompt.segments.image).to(lvlm.device)
    layers: list[np.ndarray] = []
    masks = np.zeros((lvlm.n_layers, 8), np.uint8)

    def entering(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        _, hidden, axis = anatomy.hidden(0, args, kwargs)
        rows = hidden.movedim(axis, 0)[: len(prompt.segments)]
        if axis != -hidden.dim():  # the batch comes before the sequence
            rows = rows[:, :1]
        reading["image features"] = _shaped(rows[image])
        text = torch.ones(len(rows), dtype=torch.bool, device=rows.device).index_fill(0, image, False)
        reading["text embeddings"] = _shaped(rows[text])
        named = [(place, tensor) for place, tensor in arguments(args, kwargs) if "position" in str(place)]
        chosen = [tensor for place, tensor in named if "embedding" in str(place)] or [
            tensor for _, tensor in named
        ]
        if chosen:
            reading["positions"] = np.concatenate([_shaped(_first(tensor, copies)) for tensor in chosen])

    def leaving(module: Any, args: Any, output: Any) -> None:
        hidden = first_output(output)
        layers.append(sketch(_first(hidden, copies)))

    def attended(attending: Attending) -> None:
        masks[attending.layer] = _mask_digest(attending)

    with ExitStack() as hooks:
        hooks.callback(lvlm.layers[0].register_forward_pre_hook(entering, with_kwargs=True).remove)
        for layer in lvlm.layers:
            hooks.callback(layer.register_forward_hook(leaving).remove)
        if lvlm.known or lvlm.watchable:
            hooks.enter_context(lvlm.observed(attended))
        with torch.inference_mode():
            logits = lvlm.forward([prompt] * copies, answer[:-1], last=len(answer))[0].float()
    reading["masks"] = masks
    reading["layers"] = np.stack(layers)
    reading["logits"] = sketch(logits.masked_fill(logits < UNSAID, 0))
    return reading


def _first(tensor: Tensor, copies: int) -> Tensor:
    """The first prompt's part, where a tensor has one for each of the batch."""
    return tensor[:1] if copies > 1 and tensor.shape[0] == copies else tensor


def _mask_digest(attending: Attending) -> np.ndarray:
    """Digest of which rows see which keys in the first prompt: uint8 [8], the same for every kind of mask."""
    queries, keys = attending.query.shape[2], attending.key.shape[2]
    if attending.mask is None:
        seen = torch.ones(queries, keys, dtype=torch.bool)
        seen = seen.tril(keys - queries) if attending.causal else seen
    else:
        mask = attending.mask[0, 0, :queries, :keys]
        seen = (mask if mask.dtype == torch.bool else mask > -1e4).cpu()
    bits = np.packbits(seen.numpy())
    return np.frombuffer(hashlib.sha256(bits.tobytes()).digest()[:8], np.uint8)


def distances(before: Reading, after: Reading) -> dict[str, np.ndarray]:
    """How far two readings are apart at each stage that both have.

    Of sketches, the distance relative to the first; of prompts and masks, 0 or infinity; of shares the largest
    difference; of heat 1 - cosine. "layers", "masks", "shares" and "heat" have one value per layer, [N]. Infinite
    where sizes differ or a value is not a number.
    """
    found = {}
    if REFUSED in before or REFUSED in after:
        return {next(iter(STAGES)): np.array([0.0 if REFUSED in before and REFUSED in after else np.inf])}
    for stage in STAGES:
        one, other = before.get(stage), after.get(stage)
        if one is None or other is None:
            continue
        if stage in ("prompt", "generated answer"):
            found[stage] = np.array([0.0 if np.array_equal(one, other) else np.inf])
        elif one.shape != other.shape or (stage in _SHAPED and (one[:, 0] != other[:, 0]).any()):
            found[stage] = np.array([np.inf])
        elif stage in _SHAPED:
            found[stage] = np.nan_to_num(_relative(one[:, 1:], other[:, 1:]), nan=np.inf).max(keepdims=True)
        elif stage == "masks":
            found[stage] = np.where((one != other).any(axis=1), np.inf, 0.0)
        else:
            rows = (part.astype(np.float64).reshape(-1, part.shape[-1]) for part in (one, other))
            found[stage] = np.nan_to_num(_METRICS.get(stage, _relative)(*rows), nan=np.inf)
    return found


def _relative(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Distance of rows over the norm of the first."""
    before, after = before.astype(np.float64), after.astype(np.float64)
    distance, norm = (np.linalg.norm(rows, axis=1) for rows in (after - before, before))
    return np.where(distance == 0, 0.0, distance / np.maximum(norm, np.finfo(np.float32).tiny))


def _largest(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.abs(after - before).max(axis=1)


def _cosine(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """1 - cosine of rows; 0 where both are zero, 1 where one is."""
    norms = [np.linalg.norm(rows, axis=1) for rows in (before, after)]
    both = norms[0] * norms[1]
    cosine = (before * after).sum(axis=1) / np.where(both == 0, 1, both)
    distance = np.where(both == 0, (norms[0] != norms[1]).astype(float), (1 - cosine).clip(0))
    return np.where((before == after).all(axis=1), 0.0, distance)


_METRICS = {"shares": _largest, "heat": _cosine}


def largest_and_mean(readings: Sequence[tuple[Reading, Reading]]) -> dict[str, np.ndarray]:
    """The largest and the mean distance of pairs of readings at each stage that any have: [2, 1 or N].

    Of heat the median, not the largest: a map is scaled by its maximum, which of some items is only rounding.
    """
    found = [distances(*pair) for pair in readings if not all(REFUSED in reading for reading in pair)]
    gathered = {}
    for stage in STAGES:
        if each := [one[stage] for one in found if stage in one]:
            # A single infinite distance, of readings of other sizes, counts for every layer.
            rows = np.stack(np.broadcast_arrays(*each))
            largest = np.median(rows, axis=0) if stage == "heat" else rows.max(axis=0)
            gathered[stage] = np.stack([largest, rows.mean(axis=0)])
    return gathered
