"""Did an upgrade change a model, where on the way from image to answer, and does it matter?

``record`` measures before, ``compare`` after; see docs/gate.md. The parts: ``stages`` reads one prompt on its way
through the model, ``noise`` what the same reading varies by, ``record`` keeps both with the answers, ``compare``
finds the first stage that differs, ``verdict`` decides from paired scores.
"""

from typing import Literal, get_args

#: From nothing changed to what must not happen.
Verdict = Literal["identical", "same within noise", "better", "not worse", "changed", "cannot tell", "worse"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
#: Verdicts under which a gate stays shut unless they are allowed by name; "worse" is not to be allowed.
FAILING: tuple[Verdict, ...] = ("changed", "cannot tell", "worse")
