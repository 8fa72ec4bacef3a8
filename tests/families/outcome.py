"""What becomes of a checkpoint of each model type: every instrument against plain eager transformers.

``python -m tests.families.outcome`` measures all types and writes their table into docs/models.md; with names of
types it prints their rows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForImageTextToText
from transformers.utils import is_torchvision_available

from repro.admission import admission
from repro.attention import attention_shares
from repro.cam import llava_cam
from repro.curves import deletion_curve
from repro.models import load_model
from repro.models.loading import CheckpointError
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.models.rounding import NotAdmitted
from repro.segments import IMAGE
from repro.sweep import sweep
from repro.truncation import truncated
from tests.families import zoo
from tests.families.zoo import reference

#: Least tolerance of logits with a spread of about 1.4 over four layers: measured 2e-5 at most where every layer
#: attends, here times 5. Elsewhere twice what two kernels of transformers differ by, see ``noise``.
TOLERANCE = 1e-4
TOKENS = 3
DOCS = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- families -->", "<!-- /families -->"


@dataclass
class Outcome:
    """What was compared for one model type.

    Attributes:
        equal: instruments that gave the reference's values.
        refused: instruments, or all, with the reason.
        wrong: instruments that were admitted and gave other values: there must be none.
        notes: what admission says of those that are admitted.
    """

    equal: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether nothing is refused."""
        return not self.refused


class Comparison:
    """One checkpoint, loaded by the package and by plain eager transformers."""

    def __init__(self, model_type: str, directory: Path):
        self.lvlm: Lvlm = load_model(f"tiny-{model_type}", directory)
        self.eager = AutoModelForImageTextToText.from_pretrained(
            directory, attn_implementation="eager"
        ).eval()
        for module in self.eager.modules():  # transformers 4 leaves a Q-Former's language model out
            if hasattr(getattr(module, "config", None), "_attn_implementation"):
                module.config._attn_implementation = "eager"
        image, question = zoo.picture(60, 44, seed=3), "what is the red thing in this picture here"
        self.inputs = zoo.prompt(directory, question, image)
        self.inputs.pop("labels", None)
        self.prompt: Prompt = self.lvlm.prompt(image, question)
        if is_torchvision_available():
            # The package prepares images with PIL where it can, whose resizing differs.
            for name, value in self.prompt.image_inputs.items():
                if name in self.inputs and self.inputs[name].shape == value.shape:
                    self.inputs[name] = value
        self.places = zoo.image_places(model_type, directory, self.inputs)
        self.tolerance = max(TOLERANCE, 2 * reference.noise((self.eager, self.lvlm.model), self.inputs))
        n = self.lvlm.n_layers
        self.layers = (0, n // 2, n - 1)

    def prompts(self) -> None:
        """Ids, image positions and logits."""
        assert torch.equal(self.prompt.input_ids, self.inputs["input_ids"]), "other ids than the processor's"
        found = torch.from_numpy(self.prompt.segments.labels == IMAGE)
        assert torch.equal(found, self.places), "other image positions"
        self.close(self.lvlm.logits(self.prompt), reference.logits(self.eager, self.inputs))
        assert list(self.lvlm.answer(self.prompt, TOKENS).ids) == reference.answer(
            self.eager, self.inputs, TOKENS
        )

    def shares(self) -> None:
        """The last prompt row of every layer, by segment."""
        rows = torch.stack([row.mean(dim=0) for row in reference.shares(self.eager, self.inputs)])
        labels = torch.from_numpy(self.prompt.segments.labels).long()
        expected = torch.stack([rows[:, labels == segment].sum(dim=1) for segment in range(4)], dim=1)
        found = torch.from_numpy(attention_shares(self.lvlm, self.prompt).raw[:, 0])
        assert found.shape == expected.shape, "other layers"
        assert float((found - expected).abs().max()) < 1e-5, float((found - expected).abs().max())

    def cam(self) -> None:
        """Heat without noise, by gradients of the eager model; with it, finite and zero behind the last layer."""
        module = "post_attention_norm"
        if not all(module in roles for roles in self.lvlm.roles):
            module = "attention"
        answer = self.lvlm.answer(self.prompt, 1).ids
        heat = llava_cam(self.lvlm, self.prompt, answer, noise=0, module=module)
        names = [
            next(name for name, part in layer.named_modules() if part is roles[module])
            for layer, roles in zip(self.lvlm.layers, self.lvlm.roles, strict=True)
        ]
        expected = reference.heat(self.eager, self.inputs, self.places, names, answer[0]).numpy()
        assert self.prompt.cells is None
        difference = np.abs(heat.reshape(len(heat), -1) - expected).max()
        assert difference < 1e-3, f"heat differs by {difference:.2g}"
        noisy = llava_cam(self.lvlm, self.prompt, answer, samples=2, module=module)
        assert np.isfinite(noisy).all() and not noisy[-1].any()

    def truncation(self) -> None:
        """Logits and answers of three tokens, dropped and masked, at three layers."""
        masks = None not in self.lvlm.attention_modules
        for after in self.layers:
            expected = reference.truncated_logits(self.eager, self.inputs, self.places, after)
            for mode in ("drop", "mask") if masks else ("drop",):
                with truncated(self.lvlm, after, mode=mode):
                    self.close(self.lvlm.logits(self.prompt)[-1], expected)
                    assert list(self.lvlm.answer(self.prompt, TOKENS).ids) == self.answer(after)

        self.kept()

    def kept(self) -> None:
        """Logits with the two image tokens that each row ranks first, dropped, masked and swept."""
        if "shares" not in self.lvlm.admission or isinstance(self.lvlm.admission["shares"], NotAdmitted):
            return
        after, image = max(1, self.lvlm.n_layers // 2), torch.nonzero(self.places)[:, 0]
        attention = reference.attention(self.eager, self.inputs, after - 1)
        ranked = {
            "last_prompt": attention[-1, image],
            "last_image": attention[image[-1], image],
            "random": torch.rand(len(image), generator=torch.Generator().manual_seed(0)),
        }
        for row, scores in ranked.items():
            hidden = self.places.clone()
            hidden[image[scores.topk(2).indices]] = False
            expected = reference.truncated_logits(self.eager, self.inputs, hidden, after)
            for mode in ("drop", "mask"):
                with truncated(self.lvlm, after, keep=2, mode=mode, ranking_row=row):
                    self.close(self.lvlm.logits(self.prompt)[-1], expected, f"two kept by {row}, {mode}")
            [swept] = sweep(self.lvlm, [self.prompt], 1, keep=2, ranking_row=row)
            self.close(torch.from_numpy(swept.logits[after]), expected, f"two kept by {row}, swept")

    def deletion(self) -> None:
        """The probability of the first token with every second image token replaced by the mean, and all."""
        answer = self.lvlm.answer(self.prompt, 1).ids
        image = torch.nonzero(self.places)[:, 0]
        order = [*range(0, len(image), 2), *range(1, len(image), 2)]
        found = deletion_curve(self.lvlm, self.prompt, answer, order, steps=3)
        half = round(len(image) / 2)
        for step, count in enumerate((0, half, len(image))):
            replaced = image[sorted(order[:count])]
            rows = reference.deleted_logits(self.eager, self.inputs, image, replaced)
            expected = float(rows.softmax(dim=-1)[answer[0]])
            assert abs(found[step] - expected) < 1e-4, f"step {step}: {found[step]:.6f}, not {expected:.6f}"

    def sweep(self) -> None:
        """Logits and answers of three tokens at every layer, alone and in a batch."""
        other = self.lvlm.prompt(zoo.picture(60, 44, seed=4), "is it red")
        [swept], together = (
            sweep(self.lvlm, [self.prompt], TOKENS),
            sweep(self.lvlm, [self.prompt, other], TOKENS)
            if len(other.segments.image) == len(self.prompt.segments.image)
            and (other.segments.image == self.prompt.segments.image).all()
            else [],
        )
        for after in range(self.lvlm.n_layers + 1):
            expected = reference.truncated_logits(self.eager, self.inputs, self.places, after)
            self.close(torch.from_numpy(swept.logits[after]), expected)
            assert list(swept.answers[after].ids) == self.answer(after), f"another answer after {after}"
        if together:
            alone = [swept, *sweep(self.lvlm, [other], TOKENS)]
            for one, in_batch in zip(alone, together, strict=True):
                self.close(torch.from_numpy(in_batch.logits), torch.from_numpy(one.logits), "in a batch")
                assert in_batch.answers == one.answers, "other answers in a batch"

    def answer(self, after: int) -> list[int]:
        return reference.truncated_answer(self.eager, self.inputs, self.places, after, TOKENS)

    def close(self, found: torch.Tensor, expected: torch.Tensor, what: str = "") -> None:
        kept = expected > -1e30  # some models give tokens that they never say the lowest number
        difference = float((found - expected)[kept].abs().max())
        assert difference < self.tolerance, f"logits differ by {difference:.2g} {what}"


def outcome_of(model_type: str, directory: Path) -> Outcome:
    """Build a checkpoint of a type and measure it; LookupError if there is none to build."""
    zoo.build(model_type, directory)
    outcome = Outcome()
    try:
        comparison = Comparison(model_type, directory)
    except CheckpointError as error:
        outcome.refused["all"] = str(error).replace(str(directory), "DIR")
        return outcome
    checks: dict[str, Callable[[], None]] = {
        "prompt": comparison.prompts,
        "shares": comparison.shares,
        "cam": comparison.cam,
        "truncation": comparison.truncation,
        "sweep": comparison.sweep,
        "deletion": comparison.deletion,
    }
    for admitted in admission(comparison.lvlm):
        if not admitted.admitted:
            outcome.refused[admitted.instrument] = admitted.note
            continue
        outcome.notes[admitted.instrument] = admitted.note
        try:
            assert comparison.lvlm.tolerance < 1e-3, f"takes {comparison.lvlm.tolerance:.2g} for rounding"
            checks[admitted.instrument]()
            outcome.equal.append(admitted.instrument)
        except Exception as error:
            outcome.wrong[admitted.instrument] = f"{type(error).__name__}: {error}"
    return outcome


def line_of(model_type: str, outcome: Outcome | None, reason: str = "") -> str:
    """A row of the table in the docs."""
    if outcome is None:
        return f"| {model_type} | out of scope | {reason} |"
    if outcome.wrong:
        return f"| {model_type} | **WRONG** | {outcome.wrong} |"
    if "all" in outcome.refused:
        return f"| {model_type} | refused | {outcome.refused['all']} |"
    notes = [f"{name} refused: {reason}" for name, reason in outcome.refused.items()]
    if outcome.notes.get("sweep", "").startswith("one run per layer"):
        notes.append("sweep: one run per layer")
    if outcome.notes.get("cam", "").startswith("of other modules"):
        notes.append("CAM: no norm behind the attention")
    if outcome.notes.get("prompt", "").startswith("not causal"):
        notes.append("not causal over its prompt")
    kind = "equal" if outcome.whole else f"equal: {', '.join(outcome.equal)}" if outcome.equal else "refused"
    return f"| {model_type} | {kind} | {'; '.join(notes)[:300]} |"


def measure(model_type: str) -> tuple[str, Outcome]:
    """The row of a type in this process."""
    with tempfile.TemporaryDirectory(prefix="families-") as directory:
        outcome = outcome_of(model_type, Path(directory) / model_type)
    return line_of(model_type, outcome), outcome


def measure_with_stand_in(model_type: str) -> str:
    """The row of a type whose processor needs torchvision, with a stand-in for it, in a process of its own."""
    paths = [str(Path(__file__).parent / "torchvision_stand_in"), str(Path(__file__).parents[2])]
    command = [sys.executable, "-m", "tests.families.outcome", model_type]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in run.stdout.splitlines() if line.startswith(f"| {model_type} |")]
    row = lines[0] if lines else f"| {model_type} | **NOT MEASURED** | {run.stderr.strip()[-200:]} |"
    return row.removesuffix(" |") + " (with a stand-in for torchvision) |"


def main() -> None:
    """Measure every type, proved anew, and write the table."""
    os.environ["REPRO_CACHE"] = tempfile.mkdtemp(prefix="families-cache-")
    rows = []
    for number, (model_type, reason) in enumerate(sorted(zoo.TYPES.items()), 1):
        if reason is None:
            row = measure(model_type)[0]
        elif "torchvision" in reason:
            row = measure_with_stand_in(model_type)
        else:
            row = line_of(model_type, None, reason)
        rows.append(row)
        print(f"{number} of {len(zoo.TYPES)}: {row}", file=sys.stderr, flush=True)
    counts = Counter(row.split("|")[2].strip().partition(":")[0] for row in rows)
    wholly = sum(row.split("|")[2].strip() == "equal" for row in rows)
    text = [
        f"transformers {transformers.__version__}: of {len(rows)} model types {wholly} are equal to plain eager "
        f"transformers in every instrument, {counts['equal'] - wholly} in those that they are admitted to, "
        f"{counts['refused']} refused, {counts['out of scope']} out of scope, {counts['**WRONG**']} wrong.",
        "",
        "| model type | result | remarks |",
        "|---|---|---|",
        *rows,
    ]
    content = DOCS.read_text()
    before, after = content.split(BEGIN)[0], content.split(END)[1]
    DOCS.write_text(f"{before}{BEGIN}\n{chr(10).join(text)}\n{END}{after}")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    if sys.argv[1:]:
        for name in sys.argv[1:]:
            print(measure(name)[0])
    else:
        main()
