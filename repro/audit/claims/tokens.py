"""Image tokens: how many there are, where they stand, and which of them the released code hides."""

from repro.audit import released, structure
from repro.audit.ledger import Finding, listed
from repro.audit.needs import SYSTEM, USER
from repro.audit.paper import Text

#: The prompt that the ids of Section 3.1 fit.
OWN = "LLaVA's own vicuna_v1"


def image_tokens(paper: Text) -> Finding:
    """Tokens of the text against those of the published configurations."""
    sides = {model: size // patch for model, (size, patch) in released.PATCHES.items()}
    right = all(
        paper.image_tokens[model] == side**2 == released.IMAGE_TOKENS[model] for model, side in sides.items()
    )
    return Finding(
        "holds" if right else "contradicted",
        {},
        {"grids": listed(f"{paper.names[m]} {side} x {side} = {side**2}" for m, side in sides.items())},
    )


def truncated_576(paper: Text) -> Finding:
    """The number that Figure 5 says was truncated against each model's image tokens."""
    tokens = {paper.names[model]: released.IMAGE_TOKENS[model] for model in paper.figure_5_models}
    other = {name: n for name, n in tokens.items() if n != paper.figure_5_tokens}
    return Finding(
        "contradicted" if other else "holds",
        {},
        {"models": listed(tokens), "others": listed(f"{name} has {n}" for name, n in other.items())},
    )


def image_ids(paper: Text) -> Finding:
    """How many ids the text gives the image, and where they would start in LLaVA's prompt."""
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
        f"{name} (image from {before[name]}) {visible} and {hidden}"
        for name, (visible, hidden) in covered.items()
    ]
    return Finding(
        "holds" if (0, 0) in covered.values() else "contradicted",
        {f"{name}: visible image tokens": visible for name, (visible, _) in covered.items()}
        | {f"{name}: hidden other tokens": hidden for name, (_, hidden) in covered.items()},
        {"first": masked.start, "last": masked.start + masked.length - 1, "by_prompt": ", ".join(by_prompt)},
    )


def layer_1(paper: Text) -> Finding:
    """How the logits change with the image, truncated after the layer of the text and after layer 0."""
    stated = paper.without_image.layer
    after_0, after_stated = structure.change_by_image(0), structure.change_by_image(stated)
    return Finding(
        "undefined" if after_0 == 0 < after_stated else "holds",
        {"largest change, layer = 1": after_stated, "largest change, layer = 0": after_0},
        {"agg": released.AGG_LAYER["llava-1.5"]},
    )


def k_values(paper: Text) -> Finding:
    """Values of K that are given."""
    values = sorted(set(paper.k_values))
    return Finding("holds" if len(values) > 1 else "contradicted", {}, {"given": listed(values)})


def cost(paper: Text) -> Finding:
    """Token-layers that removing image tokens behind the text's cliff layers would save."""
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
