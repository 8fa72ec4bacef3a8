"""What sets one model type's small checkpoint apart from the next: data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kind:
    """How a checkpoint of one model type is written.

    ``tokens`` are the attributes of the tokenizer that hold special tokens, by name; ``more`` are special tokens
    without one. ``placeholder`` is what the chat template writes for a picture. ``config`` goes over the shrunken
    configuration, key by key; a text in the place of a token's id names the token. ``image`` and ``processor`` are
    settings of the image processor and of the processor, ``call`` those of every call of it. ``image_token`` is the token at whose places the features
    go into the sequence. ``chat`` says whether the type's processor has a chat template of its own; elsewhere its
    tokenizer's is written out and the processor gets text and picture.
    """

    image_token: str
    placeholder: str
    tokens: dict[str, str] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    image: dict[str, Any] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    bos: bool = False
    chat: bool = True
    image_class: str | None = None
    processor_class: str | None = None
