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
        style: how its authors ask and read, a key of ``repro.protocols.OFFICIAL``.
        template: the whole prompt, with ``{question}`` and one ``placeholder``.
        placeholder: the text that stands for the image.
        dtype: of real weights; a miniature is read in float32.
        miniature: directory of the trained miniature, shipped with the suite; None where there is none yet.
        source: where template and settings are stated.
        preparation: commands that make OUT, which the suite reads, from DIR, the checkpoint as published; none
            where it is read as it is.
    """

    name: str
    hub_id: str
    revision: str
    family: str
    style: str
    template: str
    placeholder: str
    dtype: str
    miniature: Path | None
    source: str
    preparation: tuple[str, ...] = ()


REGISTRY: dict[str, ModelCard] = {
    card.name: card
    for card in (
        ModelCard(
            name="llava-1.5",
            hub_id="llava-hf/llava-1.5-7b-hf",
            revision="main",
            family="llava",
            style="llava",
            template=VICUNA,
            placeholder="<image>",
            dtype="float16",
            miniature=FIXTURES / "llava-1.5",
            source="haotian-liu/LLaVA, llava/conversation.py, conv_vicuna_v1; its evaluation scripts",
        ),
        ModelCard(
            name="llava-1.6",
            hub_id="llava-hf/llava-v1.6-vicuna-7b-hf",
            revision="main",
            family="llava_next",
            style="llava",
            template=VICUNA,
            placeholder="<image>",
            dtype="float16",
            miniature=FIXTURES / "llava-1.6",
            source="haotian-liu/LLaVA, llava/conversation.py, conv_vicuna_v1; its evaluation scripts",
        ),
        ModelCard(
            name="instructblip",
            hub_id="Salesforce/instructblip-vicuna-7b",
            revision="main",
            family="instructblip",
            style="instructblip",
            template="{question}",
            placeholder="<image>",
            dtype="float16",
            miniature=None,
            source="salesforce/LAVIS, lavis/models/blip2_models/blip2_vicuna_instruct.py",
        ),
        ModelCard(
            name="qwen-vl",
            hub_id="Qwen/Qwen-VL",
            revision="main",
            family="qwen_vl",
            style="qwen_vl",
            template="<image>{question}",
            placeholder="<image>",
            dtype="bfloat16",
            miniature=None,
            source="QwenLM/Qwen-VL, eval_mm; ChatML as Qwen-VL-Chat's qwen_generation_utils.py forms it",
            preparation=("python -m repro.models.convert DIR OUT",),
        ),
        ModelCard(
            name="shikra",
            hub_id="shikras/shikra-7b-delta-v1",
            revision="main",
            family="shikra",
            style="shikra",
            template=VICUNA.replace("<image>\n", ""),
            placeholder="<image>",
            dtype="float16",
            miniature=FIXTURES / "shikra",
            source="shikras/shikra, mllm/conversation, vicuna_v1.1",
            preparation=(
                "python -m repro.models.convert DIR DELTA",
                "hf download openai/clip-vit-large-patch14 --local-dir CLIP",
                "python -m repro.models.shikra DELTA LLAMA CLIP OUT  # LLAMA: LLaMA-7B as safetensors",
            ),
        ),
        ModelCard(
            name="intern-vl",
            hub_id="OpenGVLab/InternVL-Chat-ViT-6B-Vicuna-7B",
            revision="main",
            family="intern_vl",
            style="llava",
            template=VICUNA,
            placeholder="<image>",
            dtype="float16",
            miniature=None,
            source="OpenGVLab/InternVL, internvl_chat_llava/llava/conversation.py, conv_vicuna_v1",
            preparation=(
                "python -m repro.models.convert DIR OUT",
                "hf download OpenGVLab/InternViT-6B-224px config.json --local-dir OUT/vision_tower",
            ),
        ),
    )
}
