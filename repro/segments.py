"""Token index sets of a prompt: system, image, user, answer (Eq. 6)."""

from dataclasses import dataclass
from typing import Self

import numpy as np

SYSTEM, IMAGE, USER, ANSWER = range(4)
NAMES = ("system", "image", "user", "answer")


@dataclass(frozen=True)
class Segments:
    """A partition of prompt positions 0...T-1 into system S, image I and user U.

    ``labels`` holds ``SYSTEM``, ``IMAGE`` or ``USER`` per position (int8, [T]). Positions before the first image
    token are S, which may be empty; image tokens may lie in several spans; every other position is U.
    """

    labels: np.ndarray

    @classmethod
    def from_image_mask(cls, is_image: np.ndarray) -> Self:
        """Build from a boolean array [T], True at image tokens; at least one must be True."""
        is_image = np.asarray(is_image, dtype=bool)
        if not is_image.any():
            raise ValueError("the prompt holds no image token: give it an image and one image placeholder")
        labels = np.full(is_image.shape, USER, dtype=np.int8)
        labels[: int(is_image.argmax())] = SYSTEM
        labels[is_image] = IMAGE
        return cls(labels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def system(self) -> np.ndarray:
        """Positions of S, ascending."""
        return np.flatnonzero(self.labels == SYSTEM)

    @property
    def image(self) -> np.ndarray:
        """Positions of I, ascending."""
        return np.flatnonzero(self.labels == IMAGE)

    @property
    def user(self) -> np.ndarray:
        """Positions of U, ascending; ends with the generation prompt."""
        return np.flatnonzero(self.labels == USER)

    def with_answer(self, length: int) -> np.ndarray:
        """Labels [T + length] of the prompt followed by ``length`` answer tokens (A)."""
        return np.concatenate([self.labels, np.full(length, ANSWER, dtype=np.int8)])
