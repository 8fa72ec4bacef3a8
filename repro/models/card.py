"""What the suite knows of each model, as data: one ``ModelCard`` per name, in one registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
    "USER: <image>\n{question} ASSISTANT:"
)


@dataclass(frozen=True)
class ModelCard:
    """One model.

    Attributes:
        name: what ``--model`` takes.
        hub_id, revision: where the checkpoint is published.
        family: the module of ``repro.models`` that adapts it.
        template: the whole prompt, with ``{question}`` and one ``placeholder``.
        placeholder: the text that stands for the image.
        dtype: of real weights; a miniature is read in float32.
        miniature: directory of the trained miniature, shipped with the suite.
        source: where template and settings are stated.
    """

    name: str
    hub_id: str
    revision: str
    family: str
    template: str
    placeholder: str
    dtype: str
    miniature: Path
    source: str


REGISTRY: dict[str, ModelCard] = {
    card.name: card
    for card in (
        ModelCard(
            name="llava-1.5",
            hub_id="llava-hf/llava-1.5-7b-hf",
            revision="main",
            family="llava",
            template=VICUNA,
            placeholder="<image>",
            dtype="float16",
            miniature=FIXTURES / "llava-1.5",
            source="haotian-liu/LLaVA, llava/conversation.py, conv_vicuna_v1; its evaluation scripts",
        ),
    )
}
