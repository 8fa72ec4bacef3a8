"""Models by name: ``load_model("llava-1.5")``. Importing this imports neither torch nor transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from repro.models.card import NOT_INSTALLED, REGISTRY, ModelCard, has_card, register

if TYPE_CHECKING:
    import torch

    from repro.models.lvlm import Lvlm


def find_card(name: str) -> ModelCard:
    """The card called ``name``; KeyError that lists the names otherwise."""
    if name not in REGISTRY:
        raise KeyError(
            f"no model {name!r}, nor a directory of this name; the models are {', '.join(sorted(REGISTRY))}"
        )
    return REGISTRY[name]


def find_family(card: ModelCard) -> type[Lvlm]:
    """The class that adapts the card's model; its module is imported, and no other family's."""
    match card.family:
        case "native":
            from repro.models.native import Native

            return Native
        case "llava":
            from repro.models.llava import Llava

            return Llava
        case "smol_llava":
            from repro.models.smol_llava import SmolLlava

            return SmolLlava
        case "instructblip":
            from repro.models.instructblip import InstructBlip

            return InstructBlip
        case "qwen_vl":
            from repro.models.qwen_vl import QwenVL

            return QwenVL
        case "shikra":
            from repro.models.shikra import Shikra

            return Shikra
        case "intern_vl":
            from repro.models.intern_vl import InternVL

            return InternVL
        case "chat":
            from repro.models.chat import Chat

            return Chat
    raise KeyError(f"{card.name}: no family {card.family!r} in repro.models")


def find_checkpoint(name: str, path: Path | None = None, published: bool = False) -> Path:
    """The checkpoint directory of a model, its configuration and weight files looked at and not yet read.

    Args:
        path: a directory; default: the miniature shipped with the suite.
        published: by default the published checkpoint in the cache of huggingface_hub instead, where there is one.

    Raises KeyError and CheckpointError as ``load_model`` does.
    """
    from repro.models.cache import cached
    from repro.models.loading import CheckpointError

    card = find_card(name)
    if path is None and published and not card.extra:
        return cached(card)
    if path is None and not has_card(name):
        path = Path(card.hub_id)
    path = card.miniature if path is None else Path(path)
    if path is None:
        raise CheckpointError(
            f"{name} has no miniature: give a checkpoint directory of {card.hub_id} (--model {name}=PATH)"
        )
    if path == card.miniature and not path.is_dir():
        raise CheckpointError(
            f"no miniature of {name} at {path}, which is {NOT_INSTALLED}, or give a checkpoint directory of "
            f"{card.hub_id} (--model {name}=PATH)"
        )
    find_family(card).check(card, path)
    return path


def load_model(
    name: str,
    path: Path | None = None,
    dtype: torch.dtype | Literal["own"] | None = None,
    device: torch.device | str = "cpu",
) -> Lvlm:
    """Load a model by the name of its card.

    Args:
        name: a name in the registry; or the checkpoint directory of any vision-language model that transformers
            has, or with ``path`` a name for it.
        path: checkpoint directory in the published layout; default: the miniature shipped with the suite.
        dtype: of the weights in memory; "own": as they are stored; default: float32 for a miniature, and on a CPU
            whose memory holds that (else their own), on other devices the card's.
        device: where to put the weights; those that one GPU does not hold go to those behind it, too. On CUDA,
            this process then convolves float32 in float32, not in TF32.

    Raises:
        KeyError: no such name.
        CheckpointError: the directory, a file or a tensor is not what the family reads.
    """
    import torch

    from repro.models.placing import check_gpus
    from repro.models.weights import fits_in_float32, stored

    if not has_card(name) and (path is not None or Path(name).is_dir()):
        path = Path(name if path is None else path)
        name = register(path, "" if path == Path(name) else name).name
    path = find_checkpoint(name, path)
    card = find_card(name)
    family = find_family(card)
    device = torch.device(device)
    with family.loadable(path) as directory:
        if dtype is None and (
            path == card.miniature or (device.type == "cpu" and fits_in_float32(directory))
        ):
            dtype = torch.float32
        if dtype is None or dtype == "own":
            own = stored(directory)[1] if dtype == "own" or device.type == "cpu" else None
            dtype = own or getattr(torch, family.dtype(card, path))
        if device.type == "cuda":
            check_gpus(stored(directory)[0] * dtype.itemsize, device)
            # By default cuDNN rounds what float32 convolutions multiply to ten bits: a tower's patches, say.
            torch.backends.cudnn.allow_tf32 = False
        lvlm = family.load(card, directory, dtype, device)
    lvlm.path = path
    lvlm.recall()
    return lvlm
