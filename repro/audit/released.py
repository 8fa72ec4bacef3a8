"""What was released beside arXiv 2406.06579 and what others published, as data.

The paper's code is zhangbaijin/From-Redundancy-to-Relevance at b8cd5e7; line numbers are of that commit.
"""

from typing import NamedTuple


class Span(NamedTuple):
    """Consecutive positions of a sequence, ``start`` to ``start + length - 1``, counted from 0."""

    start: int
    length: int

    def range(self) -> range:
        return range(self.start, self.start + self.length)


#: Positions that ``modeling_llama_truncation.py`` (719-724) and ``modeling_qwen_truncation.py`` (714-719) mask.
MASKED = {"llava-1.5": Span(36, 576), "qwen-vl": Span(6, 258)}
#: Image tokens as the models' own code lays them out: LLaVA-1.5 (336 / 14)^2, Qwen-VL's queries, the others'
#: likewise.
IMAGE_TOKENS = {"llava-1.5": 576, "intern-vl": 576, "qwen-vl": 256, "shikra": 256, "instructblip": 32}
#: Side of the picture and of a patch, in pixels; Qwen-VL's 256 queries stand for squares of 2 x 2 patches of 14.
PATCHES = {"llava-1.5": (336, 14), "qwen-vl": (448, 28)}
#: Tokens before the first image token, by prompt: LLaVA-1.5's with the LLaMA tokenizer, its beginning-of-sequence
#: token included; Qwen-VL's by the rules of its tokenizer, which was not run.
BEFORE_IMAGE = {
    "llava-1.5": {
        "the released code's prompt": 34,
        "LLaVA's own vicuna_v1": 35,
        "transformers' USER: <image>": 5,
    },
    "qwen-vl": {"<img>...</img> alone": 1, "Picture 1: <img>...</img>": 6, "ChatML": 20},
}
#: ``AGG_LAYER`` of the two truncation files. Layers 1...AGG_LAYER see the image, with layers counted from 1.
AGG_LAYER = {"llava-1.5": 22, "qwen-vl": 2}
#: ``demo_smooth_grad_threshold.py``: the positions it takes for the image's (112-115), and the length of its
#: prompts, in which the picture counts as one token (llava.py, 237); logits are read from that row on (103).
CAM_IMAGE = Span(34, 576)
CAM_PROMPTS = {"the demo's prompt": 48, "its ScienceQA prompt": 159}
#: What the demo does to gradients and heat that no equation has: ReLU on gradients (116), zero below this share of
#: the maximum (129-130), and how many noisy copies it averages (338 calls the plain map).
CAM_RELU_GRADIENTS, CAM_THRESHOLD, CAM_SAMPLES = True, 0.5, 1
#: The noise's level in it, used as a standard deviation of pixels in [0, 1] (152-160).
CAM_NOISE = 0.1
#: How many captions ``chair_eval.py`` writes, and of at most how many tokens.
CAPTIONS, CAPTION_TOKENS = 500, 512


class Code(NamedTuple):
    """What was released of a part of the method or of its evaluation.

    Attributes:
        file: holds its code; None where no file does, in no commit.
        stops: why the file does not do it as committed; empty where it does.
    """

    file: str | None
    stops: str = ""


#: What the paper describes, part by part.
CODE = {
    "heat maps (Eqs. 1-3)": Code("demo_smooth_grad_threshold.py"),
    "their mean over noisy images (Eqs. 4-5)": Code(
        "demo_smooth_grad_threshold.py", "is called by nothing, and divides a uint8 picture in place"
    ),
    "attention shares (Eqs. 6-8, Figure 2)": Code(None),
    "truncation in LLaMA's decoder (Eqs. 9-13)": Code(
        "modeling_llama_truncation.py",
        "is imported by nothing, and reads a setting that the transformers 4.29.2 beside it does not have",
    ),
    "truncation in Qwen's decoder": Code(
        "modeling_qwen_truncation.py", "is imported by nothing, and imports three modules that are not there"
    ),
    "truncation in the other models": Code(None),
    "the sweep over layers (Figure 5)": Code(None),
    "the choice of a cliff layer": Code(None),
    "POPE": Code(
        "pope_eval.py",
        "passes arguments that LLaVA's generate does not take, and reads questions that were deleted",
    ),
    "CHAIR": Code("chair_eval.py", "passes arguments that LLaVA's generate does not take"),
    "ScienceQA": Code(None),
    "TextVQA": Code(None),
}
#: Accuracies of (model, benchmark) of one decimal that the models' authors published, all there are for rows of
#: Table 1: LLaVA (docs/MODEL_ZOO.md at c121f04), InstructBLIP (its paper's Table 1, with Vicuna-7B), InternVL-Chat
#: 1.0 (internvl_chat_llava/README.md at 2410d1d) and Qwen-VL (README.md at aa00ed0). POPE's are F1 or by category.
PUBLISHED = {
    ("llava-1.5", "scienceqa"): 66.8,
    ("llava-1.5", "textvqa"): 58.2,
    ("instructblip", "scienceqa"): 60.5,
    ("instructblip", "textvqa"): 50.1,
    ("intern-vl", "scienceqa"): 66.2,
    ("intern-vl", "textvqa"): 57.0,
    ("qwen-vl", "scienceqa"): 67.1,
    ("qwen-vl", "textvqa"): 63.8,
}
#: POPE's F1 that InternVL-Chat 1.0's authors published.
INTERN_VL_F1 = 86.4
#: Questions of ScienceQA by split (lupantech/ScienceQA, pid_splits.json); those of the test split with an image.
SCIENCEQA_SPLITS = {"train": 12_726, "val": 4_241, "test": 4_241}
SCIENCEQA_WITH_IMAGE = 2_017
