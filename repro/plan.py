"""What a run takes, from a model's configuration alone: weights, memory of the sweep, operations, hours.

Operations are those of matrix products, a multiplication and an addition being two, as torch's FlopCounterMode
counts them. Hours divide them by a share of what a card is sold with (``GPUS``); decoding is taken to be limited
by reading weights, keys and values. No run on a GPU stands behind these shares.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

from repro.models.card import ModelCard
from repro.models.loading import CheckpointError
from repro.models.placing import decoder_layers, gpus_needed
from repro.models.skeleton import skeleton
from repro.protocols.task import Task
from repro.sweep import bytes_per_token, kept_tokens

GIB = 2**30
#: By card: operations per second in bfloat16 without sparsity, bytes per second, bytes of memory. From NVIDIA's
#: data sheets of the A100 80GB SXM, H100 SXM, H200 SXM and L40S.
GPUS = {
    "A100-80GB": (312e12, 2.039e12, 80e9),
    "H100-80GB": (989e12, 3.35e12, 80e9),
    "H200-141GB": (989e12, 4.8e12, 141e9),
    "L40S-48GB": (362e12, 0.864e12, 48e9),
}
#: Shares of both that a run is taken to reach: assumed, as of other implementations on transformers.
COMPUTES, READS = 0.4, 0.6
#: Items of the published benchmarks, and characters of a user's turn with its wording: of LLaVA's question files.
PUBLISHED = {"pope": (9000, 92), "scienceqa": (2017, 320), "textvqa": (5000, 190), "chair": (500, 39)}
#: Tokens of an answer: a word or letter and its end; captions of LLaVA-1.5 are about so long.
ANSWER, CAPTION = 3, 110
#: Characters of a token of English text.
CHARACTERS = 4
#: Width and height of an image, where the number of its tokens depends on them: most frequent in COCO.
IMAGE = (640, 480)
#: Items and noisy images behind shares and heat maps, see ``repro.table1``.
FLOW_ITEMS, SAMPLES = 60, 4
#: Prompts that are swept at once, at most, and the share of free memory that they may take.
BATCH, FREE = 24, 0.7


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that decide what a run takes.

    Attributes:
        weights: parameters in memory; ``decoder`` those that a token meets in the decoder layers, ``head`` those
            of the head, ``merger`` those that image tokens meet on the way to the decoder, ``vision`` the rest.
        tokens: image tokens of a prompt; ``patches``: rows of the vision tower for one image.
    """

    weights: int
    decoder: int
    vision: int
    merger: int
    head: int
    n_layers: int
    width: int
    inner: int
    query: int
    vocabulary: int
    token_bytes: int
    itemsize: int
    tokens: int
    patches: int


@dataclass(frozen=True)
class Cost:
    """What the sweep of one prompt takes.

    Attributes:
        token_layers: of the first pass.
        prefill, decoding: operations of the first pass with its image, and of the tokens that follow.
        held, passing: bytes of keys and values; of activations and logits in the first pass.
        read: bytes that the tokens that follow read beside the weights.
        plain: operations of one pass over the prompt.
    """

    token_layers: int
    prefill: float
    decoding: float
    held: int
    passing: int
    read: float
    plain: float


def shape_of(card: ModelCard, path: Path, dtype: torch.dtype, image: tuple[int, int] = IMAGE) -> Shape:
    """The shape of a model from its directory's configuration; CheckpointError if that is of none."""
    model = skeleton(card, path)
    config = model.config.get_text_config()
    layers = decoder_layers(model)
    total, decoder = _count(model), _count(layers)
    head = model.get_output_embeddings() or model.language_model.get_output_embeddings()
    words = {id(part.weight): part.weight.numel() for part in (model.get_input_embeddings(), head)}  # or tied
    merging = {
        m for name, m in model.named_modules() if name.endswith(("merger", "merger_list", "projector"))
    }
    merger = sum(map(_count, merging))
    heads = config.num_attention_heads
    tokens, patches = image_tokens(model.config, image)
    return Shape(
        weights=total,
        decoder=decoder - _idle(layers, config),
        vision=total - decoder - merger - sum(words.values()),
        merger=merger,
        head=head.weight.numel(),
        n_layers=len(layers),
        width=config.hidden_size,
        inner=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        query=heads * (getattr(config, "head_dim", None) or config.hidden_size // heads),
        vocabulary=head.weight.shape[0],
        token_bytes=bytes_per_token(config, dtype),
        itemsize=dtype.itemsize,
        tokens=tokens,
        patches=patches,
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _idle(layers: nn.Module, config: Any) -> int:
    """Parameters of experts that a token does not meet."""
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    if not experts:
        return 0
    all_experts = sum(p.numel() for name, p in layers.named_parameters() if ".experts." in name)
    return all_experts - all_experts * config.num_experts_per_tok // experts


def image_tokens(config: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Image tokens of a prompt, and rows of the vision tower, for an image of this width and height.

    Raises CheckpointError for a configuration that does not say.
    """
    if published := getattr(config, "published", None):  # Qwen-VL
        visual = published["visual"]
        return visual.get("n_queries", 256), (visual["image_size"] // visual["patch_size"]) ** 2
    vision = getattr(config, "vision_config", None) or getattr(config, "vision", None)
    settings: dict[str, Any] = vision if isinstance(vision, dict) else vision.to_dict() if vision else {}
    patch, side = settings.get("patch_size"), settings.get("image_size")
    patch, side = (value[0] if isinstance(value, list | tuple) else value for value in (patch, side))
    if not patch:
        raise CheckpointError(
            f"{config.model_type}: its configuration does not say how many tokens an image has; expected "
            "patch_size in vision_config"
        )
    if settings.get("temporal_patch_size") and (merge := settings.get("spatial_merge_size")):
        tokens = prod(round(length / (patch * merge)) for length in size)
        return tokens, tokens * merge**2
    patches = (side // patch) ** 2 if side else prod(length // patch for length in size)
    if count := getattr(config, "num_query_tokens", None):
        return count, patches + 1
    if side and hasattr(config, "image_grid_pinpoints"):
        grid = get_anyres_image_grid_shape(size[::-1], config.image_grid_pinpoints, side)
        tiles = torch.zeros(1, *(count * side // patch for count in grid))
        rows, columns = unpad_image(tiles, size[::-1]).shape[1:]
        return patches + rows * (columns + 1), (patches + 1) * (1 + prod(grid))
    shrunk = int(patches * getattr(config, "downsample_ratio", 1.0) ** 2)
    return getattr(config, "mm_tokens_per_image", None) or shrunk, patches + 1


def cost_of(shape: Shape, system: int, user: int, answer: int) -> Cost:
    """What the sweep of one prompt takes, by the tokens before and behind its image and those of an answer."""
    layers, branches = shape.n_layers, shape.n_layers + 1
    length = system + shape.tokens + user
    forked = user * layers * branches // 2
    token_layers = layers * length + forked
    per_token_layer = 2 * shape.decoder / layers
    # Scores and their product with the values, of every query with every key, masked or not.
    pair = 4 * shape.query
    trunk = pair * layers * length**2
    apart = pair * forked * (system + user)
    images = 2 * (shape.vision * shape.patches + shape.merger * shape.tokens)
    plain = per_token_layer * layers * length + trunk + images + 2 * shape.head
    steps = max(0, answer - 1)
    keys = kept_tokens(layers, length, user, 0) + layers * branches * steps / 2
    return Cost(
        token_layers=token_layers,
        prefill=per_token_layer * token_layers + trunk + apart + images + 2 * shape.head * branches,
        decoding=steps * branches * (2 * shape.decoder + pair * keys + 2 * shape.head),
        held=shape.token_bytes * kept_tokens(layers, length, user, answer),
        passing=(length + layers * user) * (3 * shape.inner + 4 * shape.width) * shape.itemsize
        + 2 * branches * shape.vocabulary * 4,
        read=steps * keys * shape.token_bytes,
        plain=plain,
    )


def hours_of(shape: Shape, cost: Cost, items: int, answer: int, gpu: str, heats: bool = True) -> float:
    """Hours of a replica over a benchmark, with shares and heat maps; infinite if a prompt does not fit.

    A replica is one GPU, or as many as the weights take, of which one computes at a time.
    """
    operations, bandwidth, memory = GPUS[gpu]
    weights = shape.weights * shape.itemsize
    memory *= gpus_needed(weights, memory)
    room = FREE * (memory - weights)
    if cost.held > room or weights + cost.held + cost.passing > memory:
        return float("inf")
    batch = min(BATCH, int(room // cost.held))
    computing = items * (cost.prefill + cost.decoding) / (operations * COMPUTES)
    reading = items * (max(0, answer - 1) * weights / batch + cost.read) / (bandwidth * READS)
    flow = min(items, FLOW_ITEMS) * cost.plain * (1 + 3 * SAMPLES * heats) / (operations * COMPUTES)
    return (max(computing, items * cost.prefill / (operations * COMPUTES) + reading) + flow) / 3600


def prompt_tokens(card: ModelCard, task: Task, characters: float) -> tuple[int, int]:
    """About how many tokens stand before the image and behind it, for a turn of so many characters."""
    template = task.template or card.template or f"{' ' * 60}{card.placeholder}{{question}}{' ' * 20}"
    before, _, after = template.partition(card.placeholder)
    behind = after.replace("{question}", "")
    return round(len(before) / CHARACTERS), round((len(behind) + characters) / CHARACTERS)


def plan(
    card: ModelCard, path: Path, dtype: torch.dtype, tasks: Sequence[tuple[Task, int, float]]
) -> Iterator[str]:
    """Lines that say what a run takes.

    Args:
        tasks: with the number of items and the mean characters of a turn.

    Raises CheckpointError for a configuration of no model, or that does not say how many tokens an image has.
    """
    try:
        shape = shape_of(card, path, dtype)
    except CheckpointError:
        raise
    except Exception as error:  # of a configuration that lacks what others have
        raise CheckpointError(
            f"{path / 'config.json'} cannot be planned: {type(error).__name__}: {error}"
        ) from error
    kind, weights = str(dtype).removeprefix("torch."), shape.weights * shape.itemsize
    several = {gpu: count for gpu in GPUS if (count := gpus_needed(weights, GPUS[gpu][2])) > 1}
    yield (
        f"{card.name} ({path}): {shape.weights / 1e9:.3f} G weights, {weights / GIB:.1f} GiB in {kind}; "
        f"{shape.n_layers} layers of width {shape.width}; {shape.tokens} image tokens"
    )
    columns = ["benchmark", "items", "prompt", "answer", "token-layers", "TFLOP/item", "GiB/item", "peak GiB"]
    yield "  " + " ".join(f"{name:>12}" for name in [*columns, *(f"h {gpu}" for gpu in GPUS)])
    for task, items, characters in tasks:
        system, user = prompt_tokens(card, task, characters)
        answer = min(task.max_new_tokens, CAPTION if task.benchmark.captions else ANSWER)
        cost = cost_of(shape, system, user, answer)
        hours = [hours_of(shape, cost, items, answer, gpu) for gpu in GPUS]
        cells = [
            task.benchmark.name,
            str(items),
            str(system + shape.tokens + user),
            str(answer),
            f"{cost.token_layers:,}",
            f"{(cost.prefill + cost.decoding) / 1e12:.2f}",
            f"{cost.held / GIB:.2f}",
            f"{(weights + cost.held + cost.passing) / GIB:.1f}",
            *("too large" if one == float("inf") else f"{one:.2f}" for one in hours),
        ]
        yield "  " + " ".join(f"{cell:>12}" for cell in cells)
    if several:
        counts = ", ".join(f"{count} {gpu}" for gpu, count in several.items())
        yield f"  a replica takes {counts}, of which one computes at a time"
    yield (
        f"  assumed: {CHARACTERS} characters a token, answers of {ANSWER} tokens and captions of {CAPTION}, "
        f"images of {IMAGE[0]} x {IMAGE[1]}; one GPU at {COMPUTES:.0%} of the dense bfloat16 operations and "
        f"{READS:.0%} of the bandwidth in NVIDIA's data sheets"
    )
