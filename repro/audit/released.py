"""What was released beside arXiv 2406.06579 and what others published, as ``FILE`` has it with its sources."""

from collections.abc import Mapping
from typing import NamedTuple

from repro.audit.readings import Tables
from repro.models.card import FIXTURES

FILE = FIXTURES / "paper" / "released.toml"


class Span(NamedTuple):
    """Consecutive positions of a sequence, ``start`` to ``start + length - 1``, counted from 0."""

    start: int
    length: int

    def range(self) -> range:
        return range(self.start, self.start + self.length)


class Code(NamedTuple):
    """What was released of a part of the method or of its evaluation.

    Attributes:
        file: holds its code; None where no file does, in no commit.
        stops: why the file does not do it as committed; empty where it does.
    """

    file: str | None = None
    stops: str = ""


_DATA = Tables(FILE)
#: Of the released truncation, by model: the positions it masks, and the last layer that sees the image.
MASKED = {model: Span(*span) for model, span in _DATA["masked"].items()}
AGG_LAYER: Mapping[str, int] = _DATA["agg_layer"]
#: By model: image tokens, side of the image and of a patch in pixels, tokens before the image by prompt.
IMAGE_TOKENS: Mapping[str, int] = _DATA["image_tokens"]
PATCHES: Mapping[str, tuple[int, int]] = _DATA["patches"]
BEFORE_IMAGE: Mapping[str, Mapping[str, int]] = _DATA["before_image"]
#: Of the released demo of heat maps: the positions it takes for the image's, the length of its prompts with the
#: image as one token, whether it takes ReLU of gradients, the share of the maximum below which heat is zero, how
#: many noisy copies it averages, and the noise's level.
CAM_IMAGE = Span(*_DATA["cam_image"])
CAM_PROMPTS: Mapping[str, int] = _DATA["cam_prompts"]
CAM_RELU_GRADIENTS: bool = _DATA["cam_relu_gradients"]
CAM_THRESHOLD: float = _DATA["cam_threshold"]
CAM_SAMPLES: int = _DATA["cam_samples"]
CAM_NOISE: float = _DATA["cam_noise"]
#: Captions that the released evaluation writes, and the most tokens of each.
CAPTIONS: int = _DATA["captions"]
CAPTION_TOKENS: int = _DATA["caption_tokens"]
#: What was released of each part that the paper describes.
CODE = {part: Code(**code) for part, code in _DATA["code"].items()}
#: Accuracies of (model, benchmark) that the models' authors published, and Intern-VL's F1 on POPE.
PUBLISHED = {(model, name): score for model, row in _DATA["published"].items() for name, score in row.items()}
INTERN_VL_F1: float = _DATA["intern_vl_f1"]
#: Questions of ScienceQA by split, and those of the test split with an image.
SCIENCEQA_SPLITS: Mapping[str, int] = _DATA["scienceqa_splits"]
SCIENCEQA_WITH_IMAGE: int = _DATA["scienceqa_with_image"]
