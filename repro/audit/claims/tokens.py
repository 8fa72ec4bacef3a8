"""Image tokens: how many there are, where they stand, and which of them the released code hides."""

from __future__ import annotations

from functools import partial

from repro.audit import released, structure
from repro.audit.experiments import cost as cost_experiment
from repro.audit.ledger import Claim, Finding, listed
from repro.audit.needs import SYSTEM, USER
from repro.audit.paper import TEXT, Text

#: The prompt that the ids of Section 3.1 fit.
OWN = "LLaVA's own vicuna_v1"


@Claim(
    id="image-tokens",
    where="Section 3.3",
    statement=f"Image tokens: {listed(f'{n} in {TEXT.names[model]}' for model, n in TEXT.image_tokens.items())}.",
    quantity="tokens by the published configurations",
    verdict="holds",
    evidence="By the published configurations: {grids} (the latter are queries, laid out so).",
)
def image_tokens(paper: Text) -> Finding:
    sides = {model: size // patch for model, (size, patch) in released.PATCHES.items()}
    right = all(
        paper.image_tokens[model] == side**2 == released.IMAGE_TOKENS[model] for model, side in sides.items()
    )
    return Finding(
        "holds" if right else "contradicted",
        {paper.names[model]: side**2 for model, side in sides.items()},
        {"grids": listed(f"{paper.names[m]} {side} x {side} = {side**2}" for m, side in sides.items())},
    )


@Claim(
    id="truncated-576",
    where="Figure 5, Section 3.3",
    statement=f"{TEXT.figure_5_tokens} image tokens are truncated in all models of Figure 5.",
    quantity=f"{TEXT.figure_5_tokens} against each model's image tokens",
    verdict="contradicted",
    evidence="Figure 5 is of {models}. {others}, as Section 3.3 says.",
)
def truncated_576(paper: Text) -> Finding:
    tokens = {paper.names[model]: released.IMAGE_TOKENS[model] for model in paper.figure_5_models}
    other = {name: n for name, n in tokens.items() if n != paper.figure_5_tokens}
    return Finding(
        "contradicted" if other else "holds",
        tokens,
        {"models": listed(tokens), "others": listed(f"{name} has {n}" for name, n in other.items())},
    )


@Claim(
    id="image-ids",
    where="Section 3.1",
    statement=f"LLaVA-1.5's image tokens are the ids {TEXT.image_ids[0]}-{TEXT.image_ids[1]}.",
    quantity="how many ids that are",
    verdict="undefined",
    evidence="{paper.image_ids[0]} to {paper.image_ids[1]} are {ids} ids, not {image tokens}. Counted from "
    "0 and with {paper.image_ids[1]} left out they fit LLaVA's own prompt, where {before} tokens stand "
    "before the image. Missing: from where ids are counted, and whether the last is one of them.",
)
def image_ids(paper: Text) -> Finding:
    first, last = paper.image_ids
    inclusive, stated = last - first + 1, paper.image_tokens["llava-1.5"]
    before = released.BEFORE_IMAGE["llava-1.5"][OWN]
    half_open = first == before and last - first == stated
    return Finding(
        "holds" if inclusive == stated else "undefined" if half_open else "contradicted",
        {"ids": inclusive, "image tokens": stated},
        {"before": before},
    )


def span(paper: Text, model: str) -> Finding:
    """The positions that the released truncation of a model hides, against those of its image tokens."""
    masked, before = released.MASKED[model], released.BEFORE_IMAGE[model]
    images = {name: released.Span(start, released.IMAGE_TOKENS[model]) for name, start in before.items()}
    covered = {name: structure.covered(image, masked) for name, image in images.items()}
    by_prompt = [
        f"{name} (image from {before[name]}) {seen} and {text}" for name, (seen, text) in covered.items()
    ]
    return Finding(
        "holds" if (0, 0) in covered.values() else "contradicted",
        {f"{name}: visible image tokens": seen for name, (seen, _) in covered.items()}
        | {f"{name}: hidden other tokens": text for name, (_, text) in covered.items()},
        {"first": masked.start, "last": masked.start + masked.length - 1, "by_prompt": ", ".join(by_prompt)},
    )


HIDDEN = (
    "The released code hides positions {first} to {last}, from 0, whatever the prompt. Image tokens that "
    "stay visible, and other tokens that are hidden: with {by_prompt}."
)
SPANS = tuple(
    Claim(
        id=f"released-span-{name}",
        where=f"Section 3.4, Eq. 13; released truncation of {decoder}",
        statement=f"The released truncation hides the image tokens and no others, as Eq. 13 has it ({printed}).",
        quantity="image tokens outside of the masked positions and others inside, by prompt",
        verdict="contradicted",
        evidence=f"{HIDDEN} {note}",
        compute=partial(span, model=model),
    )
    for name, model, printed, decoder, note in (
        ("llava", "llava-1.5", "LLaVA-1.5", "LLaMA", "Positions by LLaMA's tokenizer."),
        (
            "qwen",
            "qwen-vl",
            "Qwen-VL",
            "Qwen",
            "<img> and </img> are others. Positions by the rules of Qwen's tokenizer, which was not run.",
        ),
    )
)


@Claim(
    id="layer-1",
    where="Section A.2; released truncation",
    statement=f"With layer = {TEXT.without_image.layer} no image token is passed to the language model.",
    quantity="change of the logits with the image, truncated after that layer and after layer 0",
    verdict="undefined",
    evidence="By the released code's convention (AGG_LAYER = {agg}: layers 1 to {agg} see the image) layer "
    "= {stated} lets one layer see it: on the miniature another image then changes the logits of the first "
    "answer token by up to {largest change, layer = 1:.2f}, and by {largest change, layer = 0:.2f} only at "
    "0. Missing: whether layer = {stated} is the last that sees the image, or the first that does not.",
)
def layer_1(paper: Text) -> Finding:
    stated = paper.without_image.layer
    after_0, after_stated = structure.change_by_image(0), structure.change_by_image(stated)
    return Finding(
        "undefined" if after_0 == 0 < after_stated else "holds",
        {"largest change, layer = 1": after_stated, "largest change, layer = 0": after_0},
        {"agg": released.AGG_LAYER["llava-1.5"], "stated": stated},
    )


@Claim(
    id="k-values",
    where="Section A.2",
    statement="Truncation was tried with different numbers K of kept image tokens.",
    quantity="values of K that are given",
    verdict="contradicted",
    evidence="The values of K that follow are: {given}. With none but 0 no token is kept and the ranking of "
    "Eqs. 9-12 decides nothing; no result for any other K is given.",
)
def k_values(paper: Text) -> Finding:
    values = sorted(set(paper.k_values))
    return Finding(
        "holds" if len(values) > 1 else "contradicted", {"values": len(values)}, {"given": listed(values)}
    )


@Claim(
    id="cost",
    where="Section A.2",
    statement="Passing on the top K image tokens alone simplifies inference.",
    quantity="token-layers, time and memory with and without truncation at the cliff layer",
    verdict="undefined",
    evidence="No time or memory is given. The released code masks tokens, computes all rows and caches all "
    "keys, which saves nothing. Removed after LLaVA-1.5's cliff layers they would save, of the token-layers "
    "of reading the prompt: {by_benchmark}. {reading}",
    stated={"whether tokens are removed or masked": None, "what was simplified, and by how much": None},
    outcome="as claimed",
    experiment=cost_experiment.cost,
)
def cost(paper: Text) -> Finding:
    numbers: dict[str, float] = {}
    by_benchmark = []
    for stated in paper.cliffs:
        layer, name = stated.layers[len(stated.layers) // 2], paper.names[stated.benchmark]
        tokens = paper.image_tokens["llava-1.5"]
        text = SYSTEM + USER[stated.benchmark]
        saved = 100 * (paper.n_layers - layer) * tokens / (paper.n_layers * (text + tokens))
        numbers[f"{name}: percent of token-layers"] = saved
        by_benchmark.append(f"{name} (layer {layer}) {saved:.0f} %")
    return Finding(None, numbers, {"by_benchmark": ", ".join(by_benchmark)})


CLAIMS = (image_tokens, truncated_576, image_ids, *SPANS, layer_1, k_values, cost)
