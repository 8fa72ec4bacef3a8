"""What arXiv 2406.06579 prints, as data: Table 1, cliff layers, shares, spans, and the words it uses for them.

Numbers are in percent. Item counts are of the published benchmarks: the paper states none of its own tests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from repro.audit.ledger import Cell, Paper, StatedLayer


class WithoutImage(NamedTuple):
    """Section A.2: percent right with no image token, the layer as printed, and of what: it names neither."""

    accuracy: float
    layer: int
    model: str | None
    benchmark: str | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Text(Paper):
    """What it says of models, tokens, set-up, shares, cliffs and heat.

    Attributes:
        figure_5_models, figure_5_tokens: its panels, and how many image tokens its caption says were truncated.
        image_tokens: how many Section 3.3 says there are.
        image_ids: Section 3.1, the ids of LLaVA-1.5's image tokens, first and last as printed.
        projectors_named, projectors_compared, projectors: Section 4.3, the types that map images to tokens, how
            many it says were compared, and what each model has.
        replicated, decoding, gpu, scienceqa_questions: Section 4.1, the model replicated, as printed, and more.
        gpu_memory: not of the paper, GB of the two kinds of that GPU there are.
        k_values: Section A.2, the "different values" of K, as printed.
        share_after, share_limit, weights: Section 1, after this layer image tokens have less than this share,
            "with their weights ranging" from... to.
        figure_2_drops, figure_2_level, figure_2_rises: its caption, first and last layer of a fast drop and of a
            level stretch, and the layer of a fast rise.
        symbols, defined: of Eqs. 1-3, and those of them that an equation or the text defines.
        noise_power: Eq. 4, the noise's level is the Gaussian's variance; the text under it calls it the standard
            deviation.
        equation_8: indices left of the equals sign, indices right of it, and the one that is summed over.
        cliff_words, flow_words: what a cliff layer is, and what the flow does in deeper layers, by where.
    """

    figure_5_models: tuple[str, ...]
    figure_5_tokens: int
    image_tokens: Mapping[str, int]
    image_ids: tuple[int, int]
    projectors_named: tuple[str, ...]
    projectors_compared: int
    projectors: Mapping[str, str]
    replicated: str
    decoding: str
    gpu: str
    gpu_memory: tuple[int, ...]
    scienceqa_questions: int
    k_values: tuple[int, ...]
    share_after: int
    share_limit: float
    weights: tuple[float, float]
    figure_2_drops: tuple[int, int]
    figure_2_level: tuple[int, int]
    figure_2_rises: int
    symbols: tuple[str, ...]
    defined: tuple[str, ...]
    noise_power: Mapping[str, float]
    equation_8: tuple[tuple[str, ...], tuple[str, ...], str]
    cliff_words: Mapping[str, str]
    flow_words: Mapping[str, str]
    without_image: WithoutImage


#: Table 1: our names of benchmark and metric, and the label printed, of every model's rows. Only Qwen-VL's last is
#: labelled CHAIR_i, but the others are of its size: OPERA's published greedy captions of up to 512 tokens, as many
#: as are generated here, score CHAIR_s / CHAIR_i 45.0 / 12.7 (LLaVA-1.5), 58.8 / 23.7 (InstructBLIP) and 55.8 /
#: 15.4 (Shikra).
ROWS = (
    ("pope", "accuracy", "Acc ↑"),
    ("pope", "F1", "F1-score ↑"),
    ("scienceqa", "accuracy", "Acc ↑"),
    ("textvqa", "accuracy", "Acc ↑"),
    ("chair", "CHAIR_i", "CHAIR_s ↓"),
)
#: Baseline and score at the cliff layer of these rows, by model.
SCORES: Mapping[str, tuple[tuple[float, float] | tuple[None, None], ...]] = {
    "llava-1.5": ((84.70, 85.51), (85.50, 85.99), (65.00, 66.48), (59.34, 60.02), (13.80, 13.80)),
    "qwen-vl": ((80.81, 81.13), (77.29, 77.82), (67.12, 67.67), (60.60, 60.73), (12.50, 12.50)),
    "instructblip": ((84.85, 85.44), (85.40, 85.40), (60.50, 60.50), (50.10, 50.62), (24.50, 22.80)),
    "shikra": ((75.41, 76.34), (78.52, 79.16), (45.80, 46.70), (None, None), (12.50, 12.50)),
    "intern-vl": ((94.01, 94.58), (86.31, 87.21), (66.20, 66.85), (57.00, 58.18), (12.90, 12.90)),
}
#: The paper but for its claims (``repro.audit.claims``).
TEXT = Text(
    citation="arXiv 2406.06579",
    title="From Redundancy to Relevance",
    # Sections 1 and 4.3 say of these that the pattern was verified in them.
    models=("llava-1.5", "llava-1.6", "instructblip", "qwen-vl", "shikra", "intern-vl"),
    benchmarks=("pope", "scienceqa", "textvqa", "chair"),
    names={
        "llava-1.5": "LLaVA1.5",
        "qwen-vl": "Qwen-VL",
        "instructblip": "Instruct-Blip2",
        "shikra": "Shikra",
        "intern-vl": "Intern-VL",
        "pope": "POPE",
        "scienceqa": "SQA",
        "textvqa": "TextVQA",
        "chair": "CHAIR",
    },
    # POPE as LLaVA and OPERA ask it (of its published sizes the one at which every printed accuracy is possible),
    # ScienceQA's test questions with an image, TextVQA's validation set, OPERA's sample.
    items={"pope": 8910, "scienceqa": 2017, "textvqa": 5000, "chair": 500},
    n_layers=32,
    table=tuple(
        Cell(model, of, metric, "CHAIR_i ↓" if (model, of) == ("qwen-vl", "chair") else label, *pair)
        for model, pairs in SCORES.items()
        for (of, metric, label), pair in zip(ROWS, pairs, strict=True)
    ),
    cliffs=(
        StatedLayer("llava-1.5", "scienceqa", (12,), "Sections 3.2 and 4.2"),
        StatedLayer("llava-1.5", "textvqa", (18,), "Sections 3.2 and 4.2"),
        StatedLayer("llava-1.5", "pope", (22, 24), "Section 3.2 says 24, Section 4.2 says 22"),
        StatedLayer("llava-1.5", "chair", (29, 30, 31), 'Section 4.2: "around layer 30"'),
    ),
    figure_5_models=("llava-1.5", "intern-vl", "qwen-vl"),
    figure_5_tokens=576,
    image_tokens={"llava-1.5": 576, "qwen-vl": 256},
    image_ids=(35, 611),
    projectors_named=("Linear", "MLP", "Cross-attention", "Q-former"),
    projectors_compared=3,
    projectors={
        "llava-1.5": "MLP",
        "qwen-vl": "Cross-attention",
        "intern-vl": "MLP",
        "instructblip": "MLP",
        "shikra": "Linear",
    },
    replicated="model",
    decoding="greedy",
    gpu="A100",
    gpu_memory=(40, 80),
    scienceqa_questions=21_208,
    k_values=(0,),
    share_after=3,
    share_limit=2.0,
    weights=(0.0, 20.0),
    figure_2_drops=(1, 5),
    figure_2_level=(6, 31),
    figure_2_rises=32,
    symbols=("z_answer", "z_c", "A_k", "alpha_k"),
    defined=("z_answer", "A_k"),
    noise_power={"Eq. 4": 0.5, "the text under it": 1.0},
    equation_8=(("j",), ("i", "j"), "j"),
    cliff_words={
        "Section 1": "the first sparse layer",
        "Section 1 again": "the deeper layer where the image ceases to contribute to the answer",
        "Figure 5": "a layer from which truncating no longer affects the accuracy",
    },
    flow_words={
        "Abstract": "diversify",
        "Sections 1 and 4.2": "diverge",
        "Sections 3.2 and 3.3": "disperse",
        "Section 1 again": "become sparse",
    },
    without_image=WithoutImage(47.5, 1, None, None),
)
