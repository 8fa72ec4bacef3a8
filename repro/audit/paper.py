"""What arXiv 2406.06579 prints, as data: Table 1, cliff layers, shares, spans, and the words it uses for them.

Figures are in percent. Item counts are of the published data sets: the paper states none of its own tests.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One row of Table 1.

    Attributes:
        model, benchmark: our names; the paper's are in ``PRINTED``.
        label: the metric as printed.
        baseline, at_cliff: percent, two decimals as printed; None where the table has a dash.
    """

    model: str
    benchmark: str
    label: str
    baseline: float | None
    at_cliff: float | None

    @property
    def metric(self) -> str:
        """Our metric that the row is compared with."""
        return METRICS[self.label]

    @property
    def place(self) -> str:
        """Where the paper has it."""
        return f"Table 1, {PRINTED[self.model]}, {PRINTED[self.benchmark]}, {self.label}"


@dataclass(frozen=True)
class StatedLayer:
    """A cliff layer of the text: the last layer that sees the image, of 32.

    Attributes:
        model, benchmark: our names.
        layers: the layers it can mean.
        place: where, and in which words when they leave more than one.
    """

    model: str
    benchmark: str
    layers: tuple[int, ...]
    place: str


#: The paper's names in Table 1.
PRINTED = {
    "llava-1.5": "LLaVA1.5",
    "qwen-vl": "Qwen-VL",
    "instructblip": "Instruct-Blip2",
    "shikra": "Shikra",
    "intern-vl": "Intern-VL",
    "pope": "POPE",
    "scienceqa": "SQA",
    "textvqa": "TextVQA",
    "chair": "CHAIR",
}

#: Items behind a figure: POPE as LLaVA and OPERA ask it (of its published sizes the one at which every printed
#: accuracy is possible), ScienceQA's test questions with an image, TextVQA's validation set, OPERA's sample.
ITEMS = {"pope": 8910, "scienceqa": 2017, "textvqa": 5000, "chair": 500}

#: Label -> our metric. Only Qwen-VL's row is labelled CHAIR_i, but the others are of its size: OPERA's published
#: greedy captions of up to 512 tokens, as many as are generated here, score CHAIR_s / CHAIR_i 45.0 / 12.7
#: (LLaVA-1.5), 58.8 / 23.7 (InstructBLIP) and 55.8 / 15.4 (Shikra).
METRICS = {"Acc ↑": "accuracy", "F1-score ↑": "F1", "CHAIR_s ↓": "CHAIR_i", "CHAIR_i ↓": "CHAIR_i"}

TABLE_1 = (
    Cell("llava-1.5", "pope", "Acc ↑", 84.70, 85.51),
    Cell("llava-1.5", "pope", "F1-score ↑", 85.50, 85.99),
    Cell("llava-1.5", "scienceqa", "Acc ↑", 65.00, 66.48),
    Cell("llava-1.5", "textvqa", "Acc ↑", 59.34, 60.02),
    Cell("llava-1.5", "chair", "CHAIR_s ↓", 13.80, 13.80),
    Cell("qwen-vl", "pope", "Acc ↑", 80.81, 81.13),
    Cell("qwen-vl", "pope", "F1-score ↑", 77.29, 77.82),
    Cell("qwen-vl", "scienceqa", "Acc ↑", 67.12, 67.67),
    Cell("qwen-vl", "textvqa", "Acc ↑", 60.60, 60.73),
    Cell("qwen-vl", "chair", "CHAIR_i ↓", 12.50, 12.50),
    Cell("instructblip", "pope", "Acc ↑", 84.85, 85.44),
    Cell("instructblip", "pope", "F1-score ↑", 85.40, 85.40),
    Cell("instructblip", "scienceqa", "Acc ↑", 60.50, 60.50),
    Cell("instructblip", "textvqa", "Acc ↑", 50.10, 50.62),
    Cell("instructblip", "chair", "CHAIR_s ↓", 24.50, 22.80),
    Cell("shikra", "pope", "Acc ↑", 75.41, 76.34),
    Cell("shikra", "pope", "F1-score ↑", 78.52, 79.16),
    Cell("shikra", "scienceqa", "Acc ↑", 45.80, 46.70),
    Cell("shikra", "textvqa", "Acc ↑", None, None),
    Cell("shikra", "chair", "CHAIR_s ↓", 12.50, 12.50),
    Cell("intern-vl", "pope", "Acc ↑", 94.01, 94.58),
    Cell("intern-vl", "pope", "F1-score ↑", 86.31, 87.21),
    Cell("intern-vl", "scienceqa", "Acc ↑", 66.20, 66.85),
    Cell("intern-vl", "textvqa", "Acc ↑", 57.00, 58.18),
    Cell("intern-vl", "chair", "CHAIR_s ↓", 12.90, 12.90),
)

CLIFF_LAYERS = (
    StatedLayer("llava-1.5", "scienceqa", (12,), "Sections 3.2 and 4.2"),
    StatedLayer("llava-1.5", "textvqa", (18,), "Sections 3.2 and 4.2"),
    StatedLayer("llava-1.5", "pope", (22, 24), "Section 3.2 says 24, Section 4.2 says 22"),
    StatedLayer("llava-1.5", "chair", (29, 30, 31), 'Section 4.2: "around layer 30"'),
)

#: Decoder layers of every model of the paper.
N_LAYERS = 32


def pairs(benchmark: str, metric: str) -> dict[str, tuple[float, float]]:
    """Baseline and figure at the cliff layer by model, for the rows of Table 1 that have them."""
    return {
        cell.model: (cell.baseline, cell.at_cliff)
        for cell in TABLE_1
        if (cell.benchmark, cell.metric) == (benchmark, metric)
        and cell.baseline is not None
        and cell.at_cliff is not None
    }


# What the text says of models, tokens and set-up

#: Sections 1 and 4.3 say of these that the pattern was verified in them.
VERIFIED_MODELS = ("llava-1.5", "intern-vl", "qwen-vl", "shikra", "instructblip", "llava-1.6")
FIGURE_5_MODELS = ("llava-1.5", "intern-vl", "qwen-vl")
#: How many image tokens the caption of Figure 5 says were truncated, and what Section 3.3 says there are.
FIGURE_5_TOKENS = 576
IMAGE_TOKENS = {"llava-1.5": 576, "qwen-vl": 256}
#: Section 3.1: the ids of LLaVA-1.5's image tokens, first and last as printed.
IMAGE_IDS = (35, 611)
#: Section 4.3: the types that map images to tokens, how many it says were compared, and what each model has.
PROJECTORS_NAMED = ("Linear", "MLP", "Cross-attention", "Q-former")
PROJECTORS_COMPARED = 3
PROJECTORS = {
    "llava-1.5": "MLP",
    "qwen-vl": "Cross-attention",
    "intern-vl": "MLP",
    "instructblip": "MLP",
    "shikra": "Linear",
}
#: Section 4.1: the model replicated, as printed; the decoding; the GPU; the questions of ScienceQA.
REPLICATED = "model"
DECODING = "greedy"
GPU = "A100"
#: Not of the paper: GB of the two kinds of A100 there are.
GPU_MEMORY = (40, 80)
SCIENCEQA_QUESTIONS = 21_208
#: Section A.2: the "different values" of K, as printed.
K_VALUES = (0,)

# What it says of shares, cliffs and heat

#: Section 1: after this layer image tokens have less than this share, "with their weights ranging" from... to.
SHARE_AFTER, SHARE_LIMIT = 3, 2.0
WEIGHTS = (0.0, 20.0)
#: Caption of Figure 2: first and last layer of a fast drop and of a level stretch, and the layer of a fast rise.
FIGURE_2_DROPS, FIGURE_2_LEVEL, FIGURE_2_RISES = (1, 5), (6, 31), 32

# How its equations are written

#: Symbols of Eqs. 1-3, and those of them that an equation or the text defines.
SYMBOLS = ("z_answer", "z_c", "A_k", "alpha_k")
DEFINED = ("z_answer", "A_k")
#: Eq. 4: the noise's level is the Gaussian's variance; the text under it calls it the standard deviation.
NOISE_POWER = {"Eq. 4": 0.5, "the text under it": 1.0}
#: Eq. 8: indices left of the equals sign, indices right of it, and the one that is summed over.
EQUATION_8 = (("j",), ("i", "j"), "j")

# What it calls things, by where

#: What a cliff layer is.
CLIFF_WORDS = {
    "Section 1": "the first sparse layer",
    "Section 1 again": "the deeper layer where the image ceases to contribute to the answer",
    "Figure 5": "a layer from which truncating no longer affects the accuracy",
}
#: What the flow does in deeper layers.
FLOW_WORDS = {
    "Abstract": "diversify",
    "Sections 1 and 4.2": "diverge",
    "Sections 3.2 and 3.3": "disperse",
    "Section 1 again": "become sparse",
}


@dataclass(frozen=True)
class WithoutImage:
    """Section A.2: an accuracy with no image token passed to the language model.

    Attributes:
        accuracy: percent.
        layer: of the truncation, as printed.
        model, benchmark: None, as the section names neither.
    """

    accuracy: float
    layer: int
    model: str | None
    benchmark: str | None


WITHOUT_IMAGE = WithoutImage(47.5, 1, None, None)
