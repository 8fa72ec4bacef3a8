"""One picture and one question as a page: ``python -m repro.look --model MODEL --image FILE --question TEXT``.

Writes look.html (``--out``): the answer when the image is truncated after each layer, and how probable the model's
own answer is then; attention shares; heat of LLaVA-CAM by layer; the tokens that the model read.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from repro import text
from repro.admission import admission
from repro.attention import attention_shares
from repro.cam import llava_cam
from repro.evaluation.environment import environment, now
from repro.models import load_model
from repro.models.images import read_image, thumbnail
from repro.models.loading import CheckpointError
from repro.models.lvlm import Lvlm
from repro.models.prompts import Answer, Prompt
from repro.models.rounding import NotAdmitted
from repro.report.heat import Heat, heat_of
from repro.report.items import Turn
from repro.report.pages import ReportError, check_writable, render, write
from repro.report.panels import Panel, share_panel
from repro.segments import IMAGE, NAMES
from repro.sweep import Sweep, sweep
from repro.truncation import truncated

#: Pixels of the longer side of the picture.
SIDE = 320


@dataclass(frozen=True)
class Look:
    """What the page shows; texts are untrusted.

    Attributes:
        turns: the answer at every L, layers with the same one drawn together.
        probability: of the complete baseline answer at L = 0...N, as printed.
        tokens: segment and text of each token of the prompt; image tokens drawn together.
        notes: what could not be measured, and why.
    """

    title: str
    created: str
    environment: dict[str, str]
    question: str
    answer: str
    turns: Sequence[Turn]
    probability: Sequence[str]
    tokens: Sequence[tuple[str, str]]
    shares: Panel | None = None
    share_rows: Sequence[Sequence[str]] = ()
    heat: Heat | None = None
    notes: list[str] = field(default_factory=list)


def look(lvlm: Lvlm, image: Path, question: str, max_new_tokens: int = 64) -> Look:
    """Every instrument on one picture and one question.

    Raises ValueError for an empty question, and ValueError or OSError for an image that cannot be read.
    """
    if not question.strip():
        raise ValueError("the question is empty: ask something by --question")
    picture = read_image(image)
    refused = {one.instrument: str(one) for one in admission(lvlm) if not one.admitted}
    prompt = lvlm.prompt(picture, question)
    if refused.keys() & {"prompt", "truncation"}:
        swept, answer = None, lvlm.answer(prompt, max_new_tokens)
    else:
        [swept] = sweep(lvlm, [prompt], min(max_new_tokens, lvlm.room(prompt)))
        answer = swept.answers[-1]
    shown: dict[str, Any] = {"notes": list(refused.values())}
    if "shares" not in refused:
        raw = attention_shares(lvlm, prompt, answer.ids[:-1]).raw.mean(axis=1)
        eq7 = raw[:, :3] / raw[:, :3].sum(axis=1, keepdims=True)
        shown["shares"] = share_panel("Attention of the answer", f"{len(answer.ids)} tokens", raw, eq7)
        shown["share_rows"] = [[str(i), *map(text.percent, row)] for i, row in enumerate(raw, 1)]
    if "cam" not in refused and prompt.spatial:
        ids = answer.ids[:-1] if len(answer.ids) > 1 and answer.ids[-1] in lvlm.stop_ids else answer.ids
        seen = thumbnail(prompt.image, SIDE)
        shown["heat"] = heat_of("heat", question, seen, llava_cam(lvlm, prompt, ids, samples=8))
    elif "cam" not in refused:
        shown["notes"].append("no heat maps: this model's image tokens have no place in the image")
    return Look(
        title=f"{lvlm.card.name}, asked of {image.name}",
        created=now(),
        environment=environment() | {"dtype": str(lvlm.computes_in)},
        question=question,
        answer=answer.text,
        turns=_turns(swept),
        probability=[text.percent(value) for value in _probability(lvlm, prompt, answer)] if swept else [],
        tokens=_tokens(lvlm, prompt),
        **shown,
    )


def _turns(swept: Sweep | None) -> list[Turn]:
    """Runs of the same answer; those of the baseline's are marked."""
    texts = [answer.text for answer in swept.answers] if swept else []
    runs = [(said, list(run)) for said, run in groupby(range(len(texts)), lambda i: texts[i])]
    return [Turn(run[0], run[-1], said, "good" if said == texts[-1] else "part", False) for said, run in runs]


def _probability(lvlm: Lvlm, prompt: Prompt, answer: Answer) -> list[float]:
    """Of the complete answer, teacher forced, by the model truncated after L = 0...N."""
    ids, values = torch.tensor(answer.ids), []
    for after in range(lvlm.n_layers + 1):
        with truncated(lvlm, after), torch.inference_mode():
            rows = lvlm.logits(prompt, answer.ids[:-1])[-len(ids) :].double().cpu()
        values.append(float(rows.log_softmax(-1).gather(1, ids[:, None]).sum().exp()))
    return values


def _tokens(lvlm: Lvlm, prompt: Prompt) -> list[tuple[str, str]]:
    """Segment and text of each token."""
    tokens: list[tuple[str, str]] = []
    ids = prompt.input_ids[0].tolist()
    for label, run in groupby(range(len(ids)), lambda i: int(prompt.segments.labels[i])):
        places = list(run)
        if label == IMAGE:
            tokens.append((NAMES[label], f"{len(places)} image tokens"))
        else:
            tokens += [(NAMES[label], lvlm.tokenizer.decode([ids[i]])) for i in places]
    return tokens


def main() -> int:
    """The command line; 1 and a line on stderr for a model, an image or a question that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m repro.look", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a name, a checkpoint directory, or NAME=DIR")
    parser.add_argument("--image", required=True, type=Path, help="the picture")
    parser.add_argument("--question", required=True, help="what to ask about it")
    parser.add_argument("--out", type=Path, default=Path("look.html"), help="the page (default: look.html)")
    parser.add_argument("--device", default="cpu", help="where to run (default: cpu)")
    arguments = parser.parse_args()
    try:
        if not arguments.question.strip():
            raise ValueError("the question is empty: ask something by --question")
        read_image(arguments.image)  # before the model, which takes longer
        check_writable(arguments.out.parent)
        name, _, path = arguments.model.partition("=")
        lvlm = load_model(name, Path(path) if path else None, device=arguments.device)
        seen = look(lvlm, arguments.image, arguments.question)
        page = render("look.html.j2", report=seen)
        write(arguments.out.parent, {arguments.out.name: page})
    except KeyError as error:
        print(text.printable(f"--model {arguments.model}: {error.args[0]}"), file=sys.stderr)
        return 1
    except (CheckpointError, NotAdmitted, ReportError, OSError, ValueError) as error:
        print(text.printable(str(error)), file=sys.stderr)
        return 1
    print(text.printable(f"{arguments.out}: answered {seen.answer!r}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
