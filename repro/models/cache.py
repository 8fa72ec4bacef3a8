"""Published checkpoints on this machine: the cache of huggingface_hub. Nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants

from repro.models.card import ModelCard
from repro.models.loading import CheckpointError, check_directory


def cached(card: ModelCard) -> Path:
    """The directory of the card's checkpoint in the cache.

    Raises:
        CheckpointError: it is not there, not whole or not readable as it is published; the message names the file
            looked for and the commands that get it.
    """
    folder = Path(constants.HF_HUB_CACHE) / f"models--{card.hub_id.replace('/', '--')}"
    reference = folder / "refs" / card.revision
    try:
        if not reference.is_file():
            raise CheckpointError(f"{reference} is missing: {card.hub_id} is not in the cache")
        snapshot = folder / "snapshots" / reference.read_text(encoding="utf-8").strip()
        check_directory(snapshot, card.model_type)
    except CheckpointError as error:
        download = f"hf download {card.hub_id} --local-dir DIR"
        made = "OUT" if card.preparation else "DIR"
        steps = "\n    ".join([download, *card.preparation, f"pytest --model {card.name}={made} ..."])
        raise CheckpointError(f"{error}\nto get it, once:\n    {steps}") from None
    return snapshot
