"""What a checkpoint can be measured by: every instrument proves itself on it before the first number.

The proofs stand beside the instruments.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import methodcaller

from repro.attention import prove_shares
from repro.cam import prove_cam
from repro.curves import prove_deletion
from repro.models.lvlm import Lvlm
from repro.models.rounding import NotAdmitted
from repro.sweep import prove_sweep
from repro.truncation import prove_truncation

PROOFS: dict[str, Callable[[Lvlm], str]] = {
    "prompt": methodcaller("prove_prompt"),
    "shares": prove_shares,
    "cam": prove_cam,
    "truncation": prove_truncation,
    "sweep": prove_sweep,
    "deletion": prove_deletion,
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
    """Every instrument's proof on a model, one after the other."""
    for instrument, proof in PROOFS.items():
        try:
            lvlm.admit(instrument, proof)
        except NotAdmitted as error:
            yield Admitted(instrument, False, str(lvlm.admission.get(instrument, error)))
        else:
            yield Admitted(instrument, True, str(lvlm.admission[instrument]))
