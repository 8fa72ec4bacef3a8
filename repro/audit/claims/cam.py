"""LLaVA-CAM: what its equations give, what the released demo does, and what heat maps are said to show."""

from __future__ import annotations

from repro.audit import structure
from repro.audit.claims.text import listed
from repro.audit.experiments import heat
from repro.audit.ledger import Claim, Finding
from repro.audit.paper import DEFINED, FLOW_WORDS, N_LAYERS, NOISE_POWER, SYMBOLS
from repro.audit.released import (
    CAM_IMAGE,
    CAM_NOISE,
    CAM_PROMPTS,
    CAM_RELU_GRADIENTS,
    CAM_SAMPLES,
    CAM_THRESHOLD,
)
from repro.audit.stated import standing

#: Tokens of an answer.
ANSWER = 3


def last_layer() -> Finding:
    [first, *_] = CAM_PROMPTS.values()
    predicting = first - 1 + CAM_IMAGE.length - 1
    seen = structure.reached(predicting, ANSWER, first)
    peaks = structure.heat().max(axis=(1, 2))
    empty = seen.patches[-1] == 0 and peaks[-1] == 0
    return Finding(
        "contradicted" if empty and min(seen.patches[:-1]) > 0 and peaks[:-1].min() > 0 else "holds",
        "Behind the last layer's post-attention norm no token reads another: the logits that predict the "
        "answer do not depend on what stands at image tokens there, and Eqs. 1-3 give zero. With the decoder of "
        f"the miniature the gradient reaches {min(seen.patches[:-1])} of {CAM_IMAGE.length} image tokens in "
        f"every layer but the last, and {seen.patches[-1]} in the last; its heat map has maximum "
        f"{peaks[-1]:.0f} there and {peaks[:-1].min():.0f} in all others. That many features contribute at "
        f"layer {N_LAYERS} cannot come from these equations.",
        {
            "image tokens reached, last layer": seen.patches[-1],
            "image tokens reached, other layers": min(seen.patches[:-1]),
            "maximum of the last map": float(peaks[-1]),
        },
    )


def rows() -> Finding:
    figures: dict[str, float] = {}
    said, at_image = [], []
    for name, prompt in CAM_PROMPTS.items():
        seen = structure.reached(prompt, ANSWER, prompt)
        first = prompt - CAM_IMAGE.start
        at_image.append(seen.rows)
        figures |= {
            f"{name}: first patch": first,
            f"{name}: patches reached": seen.patches[0],
            f"{name}: patches reached in the last layer": seen.patches[-1],
        }
        said.append(
            f"{name}, {prompt} such tokens, is read from image patch {first} on (from 0), and its gradient "
            f"reaches {seen.patches[0]} patches of {CAM_IMAGE.length}, {seen.patches[-1]} in the last layer"
        )
    return Finding(
        "contradicted" if any(at_image) else "holds",
        "The demo reads logits from the row whose number is the prompt's length, with the picture counted as "
        f"one token; the logits count all {CAM_IMAGE.length}, so the prompt ends {CAM_IMAGE.length - 1} rows "
        "further on. There is an answer behind it only from the second layer's map on: each layer's appends one "
        f"more copy. For an answer of {ANSWER} tokens (gradients of the miniature's decoder): "
        f"{'; '.join(said)}.",
        figures,
    )


def steps() -> Finding:
    plain = structure.heat()[:-1]
    demo = structure.heat(CAM_RELU_GRADIENTS, CAM_THRESHOLD)[:-1]
    warm, left = (100 * float((maps > 0).mean()) for maps in (plain, demo))
    return Finding(
        "contradicted" if left != warm or CAM_SAMPLES == 1 else "holds",
        f"The demo averages {CAM_SAMPLES} map, without noise; takes ReLU of the gradients; and sets heat below "
        f"{CAM_THRESHOLD} of the maximum to zero, which no equation does. On the miniature that leaves heat on "
        f"{left:.0f} % of the cells, where the equations leave it on {warm:.0f} %.",
        {
            "percent of cells with heat, equations": warm,
            "percent of cells with heat, demo": left,
            "maps averaged": CAM_SAMPLES,
        },
    )


def target() -> Finding:
    missing = [symbol for symbol in SYMBOLS if symbol not in DEFINED]
    return Finding(
        "undefined" if missing else "holds",
        f"Of {listed(SYMBOLS)}, {listed(missing)} have no definition: c is said to run over the tokens that Eq. 1 "
        "sums, alpha to be a weight vector. z is called probabilities before Eq. 1 and logits behind it. (Here, "
        "as in the demo: z_c is z_answer, of logits, and alpha the mean gradient over image tokens.)",
        {"symbols": len(SYMBOLS), "without a definition": len(missing)},
    )


def noise() -> Finding:
    levels = {where: CAM_NOISE**power for where, power in NOISE_POWER.items()}
    said = listed(f"{level:.2f} by {where}" for where, level in levels.items())
    return Finding(
        "holds" if len(set(levels.values())) == 1 else "contradicted",
        "Eq. 4 makes noise_s the variance, the text under it the standard deviation. At the demo's level of "
        f"{CAM_NOISE} the standard deviation is {said}. The demo takes the text's.",
        levels,
    )


def words() -> Finding:
    left = standing("flow-converges")
    return Finding(
        left.verdict,
        f"In deeper layers the flow is said to {listed(f'{w} ({at})' for at, w in FLOW_WORDS.items())}, and to "
        f"converge before; pictures of single items show it. {left.text}",
        {"words": len(FLOW_WORDS), **left.figures},
    )


def _unscored(claim: str, said: str) -> Finding:
    """A claim on what maps show, of which the text gives pictures."""
    left = standing(claim)
    return Finding(left.verdict, f"{said} {left.text}", left.figures)


def module() -> Finding:
    return _unscored(
        "cam-module", "Clearest is not measured: one picture is shown, of the module that was chosen."
    )


def reveals() -> Finding:
    return _unscored("cam-reveals", "Pictures are shown of the model as it is, and of no other.")


def contribution() -> Finding:
    return _unscored("cam-contribution", "Contribution is read off the maps themselves.")


CLAIMS = (
    Claim(
        id="cam-last-layer",
        where="Section 3.3, Eqs. 1-3, Section A.1",
        statement=f"In LLaVA-CAM a large number of features contribute at layer {N_LAYERS}, the last.",
        quantity="gradient and heat at image tokens behind the last layer's post-attention norm",
        verdict="contradicted",
        check=last_layer,
        figure="figures-3-4",
    ),
    Claim(
        id="cam-rows",
        where="Section 3.1, Eq. 1; released demo",
        statement="The released demo differentiates the logits of the answer, as Eq. 1 has it.",
        quantity="positions of the rows that the released demo differentiates",
        verdict="contradicted",
        check=rows,
        figure="figures-3-4",
    ),
    Claim(
        id="cam-steps",
        where="Section 3.1, Eqs. 2-5; released demo",
        statement="The released demo follows Eqs. 2-5: ReLU of the weighted features, averaged over noisy images.",
        quantity="what the released demo does beside the equations, and how much heat that leaves",
        verdict="contradicted",
        check=steps,
        figure="figures-3-4",
    ),
    Claim(
        id="equations-1-3",
        where="Section 3.1, Eqs. 1-3",
        statement="The map is a sum of features weighted by the gradients of z_c.",
        quantity="symbols used against symbols defined",
        verdict="undefined",
        check=target,
    ),
    Claim(
        id="equation-4",
        where="Section 3.1, Eq. 4",
        statement="The noise has variance noise_s, which is its standard deviation.",
        quantity="standard deviation by the equation against the text's",
        verdict="contradicted",
        check=noise,
    ),
    Claim(
        id="flow-converges",
        where="Abstract, Sections 1, 3.2 and 4.2, Figures 3-4",
        statement="The image's flow converges on the right region in shallow layers, not in deeper ones.",
        quantity="share of the heat on the object asked about, by layer",
        verdict="undefined",
        check=words,
        outcome="in part as claimed",
        experiment=heat.pointing_by_layer,
        figure="pointing",
    ),
    Claim(
        id="cam-module",
        where="Section A.1, Figure 7",
        statement="Maps are clearest behind the post-attention norm.",
        quantity="share of the heat on the object asked about, by the module whose output is taken",
        verdict="undefined",
        check=module,
        outcome="in part as claimed",
        experiment=heat.pointing_by_module,
        figure="pointing",
    ),
    Claim(
        id="cam-reveals",
        where="Abstract, Section 1",
        statement="The maps reveal how the model decides: they depend on what it has learnt.",
        quantity="likeness of a map to that of a model with other weights",
        verdict="undefined",
        check=reveals,
        outcome="as claimed",
        experiment=heat.parameter_randomisation,
        figure="figures-3-4",
    ),
    Claim(
        id="cam-contribution",
        where="Section 1",
        statement="The maps show how image features contribute to the answer.",
        quantity="the answer's probability as image tokens are deleted or inserted in the order of their heat",
        verdict="undefined",
        check=contribution,
        outcome="in part not",
        experiment=heat.deletion_insertion,
        figure="figures-3-4",
    ),
)
