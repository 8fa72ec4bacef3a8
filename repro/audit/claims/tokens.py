"""Image tokens: how many there are, where they stand, and which of them the released code hides."""

from __future__ import annotations

from repro.audit import structure
from repro.audit.claims.text import listed
from repro.audit.experiments import cost as cost_experiment
from repro.audit.ledger import Claim, Finding
from repro.audit.needs import SYSTEM, USER
from repro.audit.paper import (
    CLIFF_LAYERS,
    FIGURE_5_MODELS,
    FIGURE_5_TOKENS,
    IMAGE_IDS,
    IMAGE_TOKENS,
    K_VALUES,
    N_LAYERS,
    PRINTED,
    WITHOUT_IMAGE,
)
from repro.audit.released import AGG_LAYER, BEFORE_IMAGE, MASKED, PATCHES, Span
from repro.audit.released import IMAGE_TOKENS as PUBLISHED_TOKENS
from repro.audit.stated import standing

#: The prompt that the ids of Section 3.1 fit.
OWN = "LLaVA's own vicuna_v1"


def counts() -> Finding:
    sides = {model: size // patch for model, (size, patch) in PATCHES.items()}
    right = all(IMAGE_TOKENS[model] == side**2 == PUBLISHED_TOKENS[model] for model, side in sides.items())
    said = [f"{PRINTED[model]} {side} x {side} = {side**2}" for model, side in sides.items()]
    return Finding(
        "holds" if right else "contradicted",
        f"By the published configurations: {listed(said)} (the latter are queries, laid out so).",
        {PRINTED[model]: side**2 for model, side in sides.items()},
    )


def all_576() -> Finding:
    other = [model for model in FIGURE_5_MODELS if PUBLISHED_TOKENS[model] != FIGURE_5_TOKENS]
    said = listed(f"{PRINTED[model]} has {PUBLISHED_TOKENS[model]}" for model in other)
    return Finding(
        "contradicted" if other else "holds",
        f"Figure 5 is of {listed(PRINTED[model] for model in FIGURE_5_MODELS)}. {said}, as Section 3.3 says.",
        {PRINTED[model]: PUBLISHED_TOKENS[model] for model in FIGURE_5_MODELS},
    )


def ids() -> Finding:
    first, last = IMAGE_IDS
    inclusive, stated = last - first + 1, IMAGE_TOKENS["llava-1.5"]
    before = BEFORE_IMAGE["llava-1.5"][OWN]
    half_open = first == before and last - first == stated
    return Finding(
        "holds" if inclusive == stated else "undefined" if half_open else "contradicted",
        f"{first} to {last} are {inclusive} ids, not {stated}. Counted from 0 and with {last} left out they fit "
        f"LLaVA's own prompt, where {before} tokens stand before the image. Missing: from where ids are "
        "counted, and whether the last is one of them.",
        {"ids": inclusive, "image tokens": stated},
    )


def _span(model: str, note: str) -> Finding:
    masked, tokens = MASKED[model], PUBLISHED_TOKENS[model]
    found = {
        name: structure.covered(Span(start, tokens), masked) for name, start in BEFORE_IMAGE[model].items()
    }
    said = [
        f"{name} (image from {BEFORE_IMAGE[model][name]}) {one.visible} and {one.text}"
        for name, one in found.items()
    ]
    exact = [name for name, one in found.items() if one.visible == one.text == 0]
    return Finding(
        "holds" if exact else "contradicted",
        f"The released code hides positions {masked.start} to {masked.start + masked.length - 1}, from 0, "
        "whatever the prompt. Image tokens that stay visible, and other tokens that are hidden: with "
        f"{', '.join(said)}. {note}",
        {f"{name}: visible image tokens": one.visible for name, one in found.items()}
        | {f"{name}: hidden other tokens": one.text for name, one in found.items()},
    )


def llava_span() -> Finding:
    return _span("llava-1.5", "Positions by LLaMA's tokenizer.")


def qwen_span() -> Finding:
    return _span(
        "qwen-vl",
        "<img> and </img> are others. Positions by the rules of Qwen's tokenizer, which was not run.",
    )


def layer_1() -> Finding:
    stated = WITHOUT_IMAGE.layer
    none, one = structure.change_by_image(0), structure.change_by_image(stated)
    return Finding(
        "undefined" if none == 0 < one else "holds",
        f"By the released code's convention (AGG_LAYER = {AGG_LAYER['llava-1.5']}: layers 1 to "
        f"{AGG_LAYER['llava-1.5']} see the image) layer = {stated} lets one layer see it: on the miniature "
        f"another picture then changes the logits of the first answer token by up to {one:.2f}, and by "
        f"{none:.2f} only at 0. Missing: whether layer = {stated} is the last that sees the image, or the first "
        "that does not.",
        {"largest change, layer = 1": one, "largest change, layer = 0": none},
    )


def k_values() -> Finding:
    values = sorted(set(K_VALUES))
    return Finding(
        "holds" if len(values) > 1 else "contradicted",
        f"The values of K that follow are: {listed(values)}. With none but 0 no token is kept and the ranking "
        "of Eqs. 9-12 decides nothing; no result for any other K is given.",
        {"values": len(values)},
    )


def cost() -> Finding:
    figures: dict[str, float] = {}
    said = []
    for one in CLIFF_LAYERS:
        layer = one.layers[len(one.layers) // 2]
        text = SYSTEM + USER[one.benchmark]
        whole = N_LAYERS * (text + IMAGE_TOKENS["llava-1.5"])
        saved = 100 * (N_LAYERS - layer) * IMAGE_TOKENS["llava-1.5"] / whole
        figures[f"{PRINTED[one.benchmark]}: percent of token-layers"] = saved
        said.append(f"{PRINTED[one.benchmark]} (layer {layer}) {saved:.0f} %")
    left = standing("cost")
    return Finding(
        left.verdict,
        "No time or memory is given. The released code masks tokens, computes all rows and caches all keys, "
        "which saves nothing. Removed after LLaVA-1.5's cliff layers they would save, of the token-layers of "
        f"reading the prompt: {', '.join(said)}. {left.text}",
        figures | left.figures,
    )


CLAIMS = (
    Claim(
        id="image-tokens",
        where="Section 3.3",
        statement="Image tokens: "
        + listed(f"{n} in {PRINTED[name]}" for name, n in IMAGE_TOKENS.items())
        + ".",
        quantity="tokens by the published configurations",
        verdict="holds",
        check=counts,
    ),
    Claim(
        id="truncated-576",
        where="Figure 5, Section 3.3",
        statement=f"{FIGURE_5_TOKENS} image tokens are truncated in all models of Figure 5.",
        quantity=f"{FIGURE_5_TOKENS} against each model's image tokens",
        verdict="contradicted",
        check=all_576,
    ),
    Claim(
        id="image-ids",
        where="Section 3.1",
        statement=f"LLaVA-1.5's image tokens are the ids {IMAGE_IDS[0]}-{IMAGE_IDS[1]}.",
        quantity="how many ids that are",
        verdict="undefined",
        check=ids,
    ),
    Claim(
        id="released-span-llava",
        where="Section 3.4, Eq. 13; released truncation of LLaMA",
        statement="The released truncation hides the image tokens and no others, as Eq. 13 has it (LLaVA-1.5).",
        quantity="image tokens outside of the masked positions and others inside, by prompt",
        verdict="contradicted",
        check=llava_span,
    ),
    Claim(
        id="released-span-qwen",
        where="Section 3.4, Eq. 13; released truncation of Qwen",
        statement="The released truncation hides the image tokens and no others, as Eq. 13 has it (Qwen-VL).",
        quantity="image tokens outside of the masked positions and others inside, by prompt",
        verdict="contradicted",
        check=qwen_span,
    ),
    Claim(
        id="layer-1",
        where="Section A.2; released truncation",
        statement=f"With layer = {WITHOUT_IMAGE.layer} no image token is passed to the language model.",
        quantity="change of the logits with the picture, truncated after that layer and after layer 0",
        verdict="undefined",
        check=layer_1,
    ),
    Claim(
        id="k-values",
        where="Section A.2",
        statement="Truncation was tried with different numbers K of kept image tokens.",
        quantity="values of K that are given",
        verdict="contradicted",
        check=k_values,
    ),
    Claim(
        id="cost",
        where="Section A.2",
        statement="Passing on the top K image tokens alone simplifies inference.",
        quantity="token-layers, time and memory with and without truncation at the cliff layer",
        verdict="undefined",
        check=cost,
        outcome="as claimed",
        experiment=cost_experiment.cost,
    ),
)
