"""How instruments prove themselves on a model before their first use."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from repro.models.prompts import Prompt
from repro.models.records import read_record, record_file, write_record
from repro.models.rounding import NotAdmitted, apart, raise_if_passing
from repro.models.trials import Reading, Trials
from repro.segments import IMAGE


class Proving(Trials):
    """A model that instruments prove themselves on; see ``repro.models.lvlm.Lvlm`` for its parts."""

    card: Any
    tokenizer: Any
    logits: Callable[..., Tensor]
    image_token_ids: tuple[int, ...]

    #: Whether no row before the image sees it.
    causal = True
    #: What ``token_type_ids`` say of an answer; None: the same as of the prompt's last token.
    answer_type: int | None = None
    #: Whether a sweep's branches can ride with the prompt through the model's layers.
    packs = True
    #: Where outcomes are recorded; None: nowhere.
    _record: Any = None
    #: The instrument that is proving itself, and those that it needs.
    _proving: tuple[str, ...] = ()
    #: What proofs settle besides their outcomes, with its types in a record.
    SETTLED = (
        ("causal", bool),
        ("answer_type", int | None),
        ("packs", bool),
        ("batches", bool),
        ("watchable", bool),
        ("tolerance", float),
        ("probe_error", float | str),
        ("located", bool),
    )

    @cached_property
    def admission(self) -> dict[str, str | NotAdmitted]:
        """What instruments proved of themselves on this model, or why they are refused."""
        return {}

    @cached_property
    def reference(self) -> dict[int, tuple[list[int], Tensor]]:
        """By layer, answers of the third trial prompt truncated after it, and the logits of their tokens."""
        return {}

    def recall(self) -> None:
        """Take outcomes from the record of this checkpoint, with this code on this device, if there is one."""
        self._record = record_file(self)
        if (record := read_record(self._record, dict(self.SETTLED))) is not None:
            outcomes, settled = record
            self.admission.update({name: note if ok else NotAdmitted(note) for name, ok, note in outcomes})
            for name, value in settled.items():
                setattr(self, name, value)

    def _remember(self) -> None:
        if self._record is not None:
            outcomes = [
                (name, not isinstance(note, NotAdmitted), str(note)) for name, note in self.admission.items()
            ]
            settled = {name: self.__dict__[name] for name, _ in self.SETTLED if name in self.__dict__}
            write_record(self._record, outcomes, settled)

    def admit(self, instrument: str, proof: Callable[[Self], str]) -> None:
        """Have an instrument prove itself on this model, once, unless it is recorded.

        Args:
            proof: gives what was shown; raises NotAdmitted, or what the instrument raises, if it is wrong here.

        Prompts come first: nothing is admitted on a model that reads them in a way that is not known. A proof runs
        on the untouched model, also where the instrument is first used on a truncated or observed one.

        Raises NotAdmitted if the proof failed; and whatever went wrong for lack of memory or of a device, which
        says nothing of the instrument.
        """
        if instrument in self._proving:
            return
        if instrument != "prompt":
            self.admit("prompt", type(self).prove_prompt)
        if instrument not in self.admission:
            self._proving = (*self._proving, instrument)
            try:
                with self.undisturbed():
                    self.admission[instrument] = proof(self)
            except NotAdmitted as error:
                self.admission[instrument] = error
            except Exception as error:  # of the model's own code
                raise_if_passing(error)
                self.admission[instrument] = NotAdmitted(f"{type(error).__name__}: {error}")
            finally:
                self._proving = self._proving[:-1]
            self._remember()
        outcome = self.admission[instrument]
        if isinstance(outcome, NotAdmitted):
            raise NotAdmitted(f"{instrument} is refused for {self.card.name}: {outcome}")

    # The proof of prompts.

    def prove_prompt(self) -> str:
        """That image tokens are what changes with the image, and that nothing changes with what follows it.

        Sets ``causal``, ``batches`` and ``answer_type``. Raises NotAdmitted if a token outside the image changes
        with it.
        """
        prompt, other, _ = self.trial_prompts
        if not prompt.input_ids.equal(other.input_ids):
            raise NotAdmitted("prompts of two images of one shape differ in their tokens")
        both, ordinary = self._settle()
        notes = self._image_alone_changes(prompt, both)
        if not ordinary:
            if not self._settle_answers(prompt, both.logits[0]):
                raise NotAdmitted("what follows a prompt changes what the prompt's last token predicts")
            self._settle_batches(prompt, other, both.logits)
        if not self.batches:
            notes.append("prompts are run one by one: a batch gives other logits")
        return (
            "; ".join(notes)
            or "image tokens are what changes with the image; a batch gives what its prompts give"
        )

    def _image_alone_changes(self, prompt: Prompt, both: Reading) -> list[str]:
        """What is to be noted of prompts of two images; NotAdmitted unless the image's tokens alone differ."""
        notes = []
        is_image = prompt.segments.labels == IMAGE
        length = len(is_image)  # what follows is no part of them
        changed = (both.entering[0] != both.entering[1])[:length].any(dim=-1).cpu().numpy()
        if (changed & ~is_image).any():
            ids = prompt.input_ids[0].cpu().numpy()[changed & ~is_image]
            raise NotAdmitted(
                f"{(changed & ~is_image).sum()} tokens other than {list(self.image_token_ids)} change with the "
                f"image: {self.tokenizer.convert_ids_to_tokens(ids[:5].tolist())}"
            )
        if not changed.any():
            raise NotAdmitted("no token changes with the image")
        if fixed := int((is_image & ~changed).sum()):
            notes.append(f"{fixed} image tokens are the same for every image")
        first = int(is_image.argmax())
        last, other_last = both.last[0, :first], both.last[1, :first]
        # Experts compute their tokens together, in another order with another image.
        if first and float((last - other_last).abs().max()) > 1e-3 * float(last.abs().max()):
            self.causal = False
            notes.append(
                "not causal over its prompt: what stands before the image sees it, and is part of each branch"
            )
        return notes

    def _settle_answers(self, prompt: Prompt, alone: Tensor) -> bool:
        """Set ``answer_type`` so that an answer changes nothing before it; False if there is no such type.

        Args:
            alone: [T, vocabulary], logits of the prompt.
        """
        for answer_type in (None, 1, 0):
            self.answer_type = answer_type
            followed = self.logits(prompt, [int(prompt.input_ids[0, -1])])
            if apart(followed[-2], alone[-1]) <= self.tolerance:
                return True
        return False

    def _settle_batches(self, prompt: Prompt, other: Prompt, alone: Tensor) -> None:
        """Set ``batches``: whether two images together give the logits [2, T, vocabulary] of each alone."""
        if not self.batches:
            return
        try:
            with torch.inference_mode():
                together = self.forward([prompt, other])
            self.batches = apart(together, alone) <= self.tolerance
        except Exception as error:  # of the model's own code
            raise_if_passing(error)
            self.batches = False
