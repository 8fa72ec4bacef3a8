"""What is a difference of logits, and what is an error that says nothing of a model."""

import re

import torch
from torch import Tensor

#: Logits below this are those of tokens that a model never says: some give them the lowest number there is.
UNSAID = -1e30


class NotAdmitted(ValueError):
    """An instrument that would be wrong on this model; the message has the reason."""


def raise_if_passing(error: Exception) -> None:
    """Raise an error again that is for lack of memory, a device or a file, and need not come another time."""
    lacking = (MemoryError, OSError, torch.OutOfMemoryError, torch.AcceleratorError)
    if isinstance(error, lacking) or re.search("out of memory|allocate memory", str(error)):
        raise error


def apart(one: Tensor, other: Tensor) -> float:
    """Largest difference of two tensors of logits; infinite if it is not a number.

    Tokens that are unsaid in both are left out.
    """
    said = ~((one < UNSAID) & (other < UNSAID))
    largest = (one.float() - other.float()).abs()[said].max()
    return float(largest) if torch.isfinite(largest) else float("inf")
