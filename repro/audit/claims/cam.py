"""LLaVA-CAM: what its equations give, and what the released demo does."""

from repro.audit import released, structure
from repro.audit.ledger import Finding, listed
from repro.audit.paper import Text

#: Tokens of an answer.
ANSWER = 3


def cam_last_layer(paper: Text) -> Finding:
    """The gradient of Eq. 2 and the heat of the last layer against those of the others."""
    [first, *_] = released.CAM_PROMPTS.values()
    *others, last = structure.reached(first - 1 + released.CAM_IMAGE.length - 1, ANSWER, first)[0]
    *peaks, last_peak = structure.heat().max(axis=(1, 2))
    empty = last == 0 and last_peak == 0
    return Finding(
        "contradicted" if empty and min(others) > 0 and min(peaks) > 0 else "holds",
        {
            "image tokens reached, last layer": last,
            "image tokens reached, other layers": min(others),
            "maximum of the last map": float(last_peak),
        },
        {"tokens": released.CAM_IMAGE.length, "least": min(peaks)},
    )


def cam_rows(paper: Text) -> Finding:
    """Where the rows that the demo differentiates stand, with all tokens of the image counted."""
    numbers: dict[str, float] = {}
    by_prompt, at_image = [], []
    tokens = released.CAM_IMAGE.length
    for name, prompt in released.CAM_PROMPTS.items():
        patches, rows = structure.reached(prompt, ANSWER, prompt)
        first = prompt - released.CAM_IMAGE.start
        at_image.append(rows)
        numbers |= {f"{name}: first patch": first, f"{name}: patches reached": patches[0]}
        by_prompt.append(
            f"{name}, {prompt} such tokens, is read from image patch {first} on (from 0), and its gradient "
            f"reaches {patches[0]} patches of {tokens}, {patches[-1]} in the last layer"
        )
    words = {"tokens": tokens, "further": tokens - 1, "answer": ANSWER, "by_prompt": "; ".join(by_prompt)}
    return Finding("contradicted" if any(at_image) else "holds", numbers, words)


def cam_steps(paper: Text) -> Finding:
    """The heat by the equations against the demo's, which has more steps."""
    plain = structure.heat()[:-1]
    demo = structure.heat(released.CAM_RELU_GRADIENTS, released.CAM_THRESHOLD)[:-1]
    warm, left = (100 * float((maps > 0).mean()) for maps in (plain, demo))
    return Finding(
        "contradicted" if left != warm or released.CAM_SAMPLES == 1 else "holds",
        {
            "percent of cells with heat, equations": warm,
            "percent of cells with heat, demo": left,
            "maps averaged": released.CAM_SAMPLES,
        },
        {"threshold": released.CAM_THRESHOLD},
    )


def equations_1_3(paper: Text) -> Finding:
    """Symbols used against symbols defined."""
    missing = [symbol for symbol in paper.symbols if symbol not in paper.defined]
    words = {"used": listed(paper.symbols), "missing": listed(missing)}
    return Finding("undefined" if missing else "holds", {}, words)


def equation_4(paper: Text) -> Finding:
    """The noise's standard deviation by the equation against the text's."""
    levels = {where: released.CAM_NOISE**power for where, power in paper.noise_power.items()}
    by_place = listed(f"{level:.2f} by {where}" for where, level in levels.items())
    words = {"level": released.CAM_NOISE, "by_place": by_place}
    return Finding("holds" if len(set(levels.values())) == 1 else "contradicted", levels, words)
