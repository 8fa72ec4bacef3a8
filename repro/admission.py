"""What a checkpoint can be measured by: every instrument proves itself on it before the first number.

The proofs stand beside the instruments.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from repro.attention import prove_shares
from repro.cam import prove_cam
from repro.models.chat import prove_prompt
from repro.models.lvlm import Lvlm, NotAdmitted
from repro.sweep import prove_sweep
from repro.truncation import prove_truncation

PROOFS: dict[str, Callable[[Lvlm], str]] = {
    "prompt": prove_prompt,
    "shares": prove_shares,
    "cam": prove_cam,
    "truncation": prove_truncation,
    "sweep": prove_sweep,
}


@dataclass(frozen=True)
class Admitted:
    """One instrument on one model.

    Attributes:
        admitted: False if it is refused.
        note: what was shown, or why it is refused.
    """

    instrument: str
    admitted: bool
    note: str

    def __str__(self) -> str:
        return f"{self.instrument} {'admitted' if self.admitted else 'REFUSED'}, {self.note}"


def admission(lvlm: Lvlm) -> Iterator[Admitted]:
    """Every instrument's proof on a model that is not known, one after the other; nothing for one with a card."""
    for instrument, proof in PROOFS.items():
        with suppress(NotAdmitted):
            lvlm.admit(instrument, proof)
        if (outcome := lvlm.admission.get(instrument)) is not None:
            yield Admitted(instrument, not isinstance(outcome, NotAdmitted), str(outcome))
