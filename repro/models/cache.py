"""Published checkpoints in the local cache of huggingface_hub. Nothing is downloaded."""

from pathlib import Path

from huggingface_hub import constants

from repro.models.card import ModelCard
from repro.models.loading import CheckpointError
from repro.models.weights import check_directory


def cached(card: ModelCard) -> Path:
    """The directory of the card's checkpoint in the cache.

    Raises CheckpointError if it is absent, incomplete or not readable as published; the message names the file
    expected and the commands that get it.
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
        directory = "OUT" if card.preparation else "DIR"
        steps = "\n    ".join([download, *card.preparation, f"pytest --model {card.name}={directory} ..."])
        raise CheckpointError(f"{error}\nto get it, once:\n    {steps}") from None
    return snapshot
