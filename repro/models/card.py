"""What the suite knows about each model, as data: a ``ModelCard`` per name, in a registry."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Miniatures and the data they were trained for.
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
#: What to say where something of ``FIXTURES`` is missing.
NOT_INSTALLED = (
    "part of the repository, not of an installed package: clone it, `python -m pip install -e .` there"
)

#: Style of models without a card: a chat model like any other, asked as protocol ``chat`` has it.
CHAT = "chat"

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
    "USER: <image>\n{question} ASSISTANT:"
)

#: ChatML with the question after the image, for a system message and the text around the image.
CHATML = (
    "<|im_start|>system\n{system}<|im_end|>\n"
    "<|im_start|>user\n{image}{{question}}<|im_end|>\n<|im_start|>assistant\n"
)


@dataclass(frozen=True)
class ModelCard:
    """One model.

    Attributes:
        name: value of ``--model``.
        hub_id, revision: where the checkpoint is published.
        model_type: in its ``config.json``.
        style: how its authors word questions and read answers, a key of ``repro.protocols.OFFICIAL``.
        template: the complete prompt, with ``{question}`` and one ``placeholder``.
        source: where template and settings are stated.
        family: the module of ``repro.models`` that adapts it; "native" if transformers has the complete model.
        placeholder: the text that stands for the image.
        dtype: of real weights; a miniature is read in float32.
        miniature: directory of the trained miniature, shipped with the suite; None if there is none yet.
        extra: of the suite, which has to be installed for the miniature; then nothing else is published, and the
            model is run only where it or the extra is named. Empty for most.
        preparation: commands that make OUT, which the suite reads, from DIR, the published checkpoint; none if the
            suite reads DIR.
        image_settings: for the image processor of a native model, where they differ from its published file.
    """

    name: str
    hub_id: str
    model_type: str
    style: str
    template: str
    source: str
    family: str = "native"
    revision: str = "main"
    placeholder: str = "<image>"
    dtype: str = "float16"
    miniature: Path | None = None
    extra: str = ""
    preparation: tuple[str, ...] = ()
    image_settings: Mapping[str, Any] = field(default_factory=dict)


#: A small model over a decoder that others trained; it stands apart from the miniatures.
PRETRAINED = "smol-llava"

REGISTRY: dict[str, ModelCard] = {
    card.name: card
    for card in (
        ModelCard(
            name="llava-1.5",
            hub_id="llava-hf/llava-1.5-7b-hf",
            family="llava",
            model_type="llava",
            style="llava",
            template=VICUNA,
            miniature=FIXTURES / "llava-1.5",
            source="haotian-liu/LLaVA, llava/conversation.py, conv_vicuna_v1; its evaluation scripts",
        ),
        ModelCard(
            name="llava-1.6",
            hub_id="llava-hf/llava-v1.6-vicuna-7b-hf",
            model_type="llava_next",
            style="llava",
            template=VICUNA,
            miniature=FIXTURES / "llava-1.6",
            source="haotian-liu/LLaVA, llava/conversation.py, conv_vicuna_v1; its evaluation scripts",
        ),
        ModelCard(
            name="instructblip",
            hub_id="Salesforce/instructblip-vicuna-7b",
            family="instructblip",
            model_type="instructblip",
            style="instructblip",
            template="{question}",
            miniature=FIXTURES / "instructblip",
            source="salesforce/LAVIS, lavis/models/blip2_models/blip2_vicuna_instruct.py",
        ),
        ModelCard(
            name="qwen-vl",
            hub_id="Qwen/Qwen-VL",
            family="qwen_vl",
            model_type="qwen",
            style="qwen_vl",
            template="<image>{question}",
            dtype="bfloat16",
            miniature=FIXTURES / "qwen-vl",
            source="QwenLM/Qwen-VL, eval_mm; ChatML as Qwen-VL-Chat's qwen_generation_utils.py forms it",
            preparation=("python -m repro.models.convert DIR OUT",),
        ),
        ModelCard(
            name="shikra",
            hub_id="shikras/shikra-7b-delta-v1",
            family="shikra",
            model_type="shikra",
            style="shikra",
            template=VICUNA.replace("<image>\n", ""),
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
            family="intern_vl",
            model_type="llava",
            style="llava",
            template=VICUNA,
            miniature=FIXTURES / "intern-vl",
            source="OpenGVLab/InternVL, internvl_chat_llava/llava/conversation.py, conv_vicuna_v1",
            preparation=(
                "python -m repro.models.convert DIR OUT",
                "hf download OpenGVLab/InternViT-6B-224px config.json --local-dir OUT/vision_tower",
            ),
        ),
        ModelCard(
            name=PRETRAINED,
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            family="smol_llava",
            model_type="llava",
            style="llava",
            template=CHATML.format(
                system="You are a helpful AI assistant named SmolLM, trained by Hugging Face",
                image="<image>\n",
            ),
            miniature=FIXTURES / "smol-llava",
            extra="smol",
            source="chat template of SmolLM2-135M-Instruct; haotian-liu/LLaVA, its evaluation scripts",
        ),
        ModelCard(
            name="llava-onevision",
            hub_id="llava-hf/llava-onevision-qwen2-7b-ov-hf",
            model_type="llava_onevision",
            style="llava",
            template=CHATML.format(system="You are a helpful assistant.", image="<image>\n"),
            source="LLaVA-VL/LLaVA-NeXT, llava/conversation.py, conv_qwen",
        ),
        ModelCard(
            name="internvl3",
            hub_id="OpenGVLab/InternVL3-8B-hf",
            model_type="internvl",
            style="internvl",
            template=CHATML.format(
                system="你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。",
                image="<img><IMG_CONTEXT></img>\n",
            ),
            placeholder="<IMG_CONTEXT>",
            dtype="bfloat16",
            source="OpenGVLab/InternVL, conversation.py, internvl2_5; eval/*.py --dynamic, max-num 6",
            image_settings={"crop_to_patches": True, "max_patches": 6},
        ),
        ModelCard(
            name="qwen2.5-vl",
            hub_id="Qwen/Qwen2.5-VL-7B-Instruct",
            model_type="qwen2_5_vl",
            style="qwen2_vl",
            template=CHATML.format(
                system="You are a helpful assistant.", image="<|vision_start|><|image_pad|><|vision_end|>"
            ),
            placeholder="<|image_pad|>",
            dtype="bfloat16",
            source="chat_template.json of the checkpoint; open-compass/VLMEvalKit, vlmeval/vlm/qwen2_vl/prompt.py",
        ),
    )
}


#: Names of the models whose miniatures need nothing else.
MINIATURES = tuple(name for name, card in REGISTRY.items() if card.miniature and not card.extra)


def has_card(name: str) -> bool:
    """Whether a model is known by its card, not by its checkpoint alone."""
    return name in REGISTRY and REGISTRY[name].style != CHAT


def register(path: Path, name: str = "") -> ModelCard:
    """Make the checkpoint in a directory a model of the registry, by the directory's name unless one is given.

    Nothing is read yet. Raises KeyError if another model has the name: one with a card, or of another directory.
    """
    path = path.expanduser().resolve()
    name = re.sub(r"[^\w.+-]+", "-", name or path.name) or "model"
    if name in REGISTRY and REGISTRY[name].hub_id != str(path):
        raise KeyError(f"{path} would be called {name}, which is another model: give it a name, NAME={path}")
    REGISTRY[name] = ModelCard(
        name=name,
        hub_id=str(path),
        model_type="",
        style=CHAT,
        template="",
        source="the checkpoint's own chat template",
        family="chat",
    )
    return REGISTRY[name]
