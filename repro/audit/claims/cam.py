"""LLaVA-CAM: what its equations give, what the released demo does, and what heat maps are said to show."""

from __future__ import annotations

from repro.audit import released, structure
from repro.audit.experiments import heat
from repro.audit.ledger import Claim, Finding, listed
from repro.audit.paper import TEXT, Text

#: Tokens of an answer.
ANSWER = 3


@Claim(
    id="cam-last-layer",
    where="Section 3.3, Eqs. 1-3, Section A.1",
    statement=f"In LLaVA-CAM a large number of features contribute at layer {TEXT.n_layers}, the last.",
    quantity="gradient and heat at image tokens behind the last layer's post-attention norm",
    verdict="contradicted",
    evidence="Behind the last layer's post-attention norm no token reads another: the logits that predict "
    "the answer do not depend on what stands at image tokens there, and Eqs. 1-3 give zero. With the "
    "decoder of the miniature the gradient reaches {image tokens reached, other layers} of {tokens} image "
    "tokens in every layer but the last, and {image tokens reached, last layer} in the last; its heat map "
    "has maximum {maximum of the last map:.0f} there and {least:.0f} in all others. That many features "
    "contribute at layer {paper.n_layers} cannot come from these equations.",
    figure="figures-3-4",
)
def cam_last_layer(paper: Text) -> Finding:
    [first, *_] = released.CAM_PROMPTS.values()
    *others, last = structure.reached(first - 1 + released.CAM_IMAGE.length - 1, ANSWER, first)[0]
    peaks = structure.heat().max(axis=(1, 2))
    empty = last == 0 and peaks[-1] == 0
    return Finding(
        "contradicted" if empty and min(others) > 0 and peaks[:-1].min() > 0 else "holds",
        {
            "image tokens reached, last layer": last,
            "image tokens reached, other layers": min(others),
            "maximum of the last map": float(peaks[-1]),
        },
        {"tokens": released.CAM_IMAGE.length, "least": peaks[:-1].min()},
    )


@Claim(
    id="cam-rows",
    where="Section 3.1, Eq. 1; released demo",
    statement="The released demo differentiates the logits of the answer, as Eq. 1 has it.",
    quantity="positions of the rows that the released demo differentiates",
    verdict="contradicted",
    evidence="The demo reads logits from the row whose number is the prompt's length, with the image "
    f"counted as one token; the logits count all {released.CAM_IMAGE.length}, so the prompt ends "
    f"{released.CAM_IMAGE.length - 1} rows further on. There is an answer behind it only from the second "
    f"layer's map on: each layer's appends one more copy. For an answer of {ANSWER} tokens (gradients of "
    "the miniature's decoder): {by_prompt}.",
    figure="figures-3-4",
)
def cam_rows(paper: Text) -> Finding:
    numbers: dict[str, float] = {}
    by_prompt, at_image = [], []
    for name, prompt in released.CAM_PROMPTS.items():
        patches, rows = structure.reached(prompt, ANSWER, prompt)
        first = prompt - released.CAM_IMAGE.start
        at_image.append(rows)
        numbers |= {
            f"{name}: first patch": first,
            f"{name}: patches reached": patches[0],
            f"{name}: patches reached in the last layer": patches[-1],
        }
        by_prompt.append(
            f"{name}, {prompt} such tokens, is read from image patch {first} on (from 0), and its gradient "
            f"reaches {patches[0]} patches of {released.CAM_IMAGE.length}, {patches[-1]} in the last layer"
        )
    return Finding("contradicted" if any(at_image) else "holds", numbers, {"by_prompt": "; ".join(by_prompt)})


@Claim(
    id="cam-steps",
    where="Section 3.1, Eqs. 2-5; released demo",
    statement="The released demo follows Eqs. 2-5: ReLU of the weighted features, averaged over noisy images.",
    quantity="what the released demo does beside the equations, and how much heat that leaves",
    verdict="contradicted",
    evidence="The demo averages {maps averaged} map, without noise; takes ReLU of the gradients; and sets "
    f"heat below {released.CAM_THRESHOLD} of the maximum to zero, which no equation does. On the miniature "
    "that leaves heat on {percent of cells with heat, demo:.0f} % of the cells, where the equations leave "
    "it on {percent of cells with heat, equations:.0f} %.",
    figure="figures-3-4",
)
def cam_steps(paper: Text) -> Finding:
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
    )


@Claim(
    id="equations-1-3",
    where="Section 3.1, Eqs. 1-3",
    statement="The map is a sum of features weighted by the gradients of z_c.",
    quantity="symbols used against symbols defined",
    verdict="undefined",
    evidence="Of {used}, {missing} have no definition: c is said to run over the tokens that Eq. 1 sums, "
    "alpha to be a weight vector. z is called probabilities before Eq. 1 and logits behind it. (Here, as in "
    "the demo: z_c is z_answer, of logits, and alpha the mean gradient over image tokens.)",
)
def equations_1_3(paper: Text) -> Finding:
    missing = [symbol for symbol in paper.symbols if symbol not in paper.defined]
    return Finding(
        "undefined" if missing else "holds",
        {"symbols": len(paper.symbols), "without a definition": len(missing)},
        {"used": listed(paper.symbols), "missing": listed(missing)},
    )


@Claim(
    id="equation-4",
    where="Section 3.1, Eq. 4",
    statement="The noise has variance noise_s, which is its standard deviation.",
    quantity="standard deviation by the equation against the text's",
    verdict="contradicted",
    evidence="Eq. 4 makes noise_s the variance, the text under it the standard deviation. At the demo's "
    f"level of {released.CAM_NOISE} the standard deviation is {{by_place}}. The demo takes the text's.",
)
def equation_4(paper: Text) -> Finding:
    levels = {where: released.CAM_NOISE**power for where, power in paper.noise_power.items()}
    by_place = listed(f"{level:.2f} by {where}" for where, level in levels.items())
    return Finding(
        "holds" if len(set(levels.values())) == 1 else "contradicted", levels, {"by_place": by_place}
    )


CLAIMS = (
    cam_last_layer,
    cam_rows,
    cam_steps,
    equations_1_3,
    equation_4,
    Claim(
        id="flow-converges",
        where="Abstract, Sections 1, 3.2 and 4.2, Figures 3-4",
        statement="The image's flow converges on the right region in shallow layers, not in deeper ones.",
        quantity="share of the heat on the object asked about, by layer",
        verdict="undefined",
        evidence="In deeper layers the flow is said to "
        f"{listed(f'{words} ({place})' for place, words in TEXT.flow_words.items())}, and to converge "
        "before; pictures of single items show it. {reading}",
        stated={
            "a number that is small where the flow converges and large where it does not": None,
            "from which value on it has": None,
        },
        numbers={"words": len(TEXT.flow_words)},
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
        evidence="Clearest is not measured: one picture is shown, of the module that was chosen. {reading}",
        stated={
            "the module": "Section A.1",
            "the maps of other modules": None,
            "a score, such as the share of the heat inside the object's box": None,
        },
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
        evidence="Pictures are shown of the model as it is, and of no other. {reading}",
        stated={
            "a test that a map of something else would fail (Adebayo et al. 2018: weights drawn anew)": None,
            "on how many items, by which measure": None,
        },
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
        evidence="Contribution is read off the maps themselves. {reading}",
        stated={
            "what becomes of the answer when what the maps mark is taken away (Petsiuk et al. 2018: as the "
            "hottest image tokens are deleted or inserted, against a random order)": None
        },
        outcome="in part not",
        experiment=heat.deletion_insertion,
        figure="figures-3-4",
    ),
)
