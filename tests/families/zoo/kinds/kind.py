"""What sets one model type's small checkpoint apart from the next: data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kind:
    """How a checkpoint of one model type is written.

    ``image_token`` is the token at whose places the features go into the sequence, ``placeholder`` what the chat
    template writes for a picture. ``tokens`` are special tokens by the tokenizer's attribute, ``more`` those
    without one. ``config`` goes over the shrunken configuration, part by part; a text in the place of a token's id
    names the token. ``image`` and ``processor`` are settings of the image processor and of the processor, ``call``
    those of every call. ``chat`` says whether the type's processor applies a chat template; where not, its
    tokenizer writes the text out and the processor gets text and picture. Classes are named where transformers
    has none for the type.
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
