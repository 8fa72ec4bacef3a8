"""Cliff layers: where they are, what they are, and in which order tasks reach them."""

from __future__ import annotations

from repro.audit.claims.table1 import listed
from repro.audit.ledger import Claim, Finding
from repro.audit.needs import need
from repro.audit.paper import (
    CLIFF_LAYERS,
    CLIFF_WORDS,
    N_LAYERS,
    PRINTED,
    SHARE_AFTER,
    WITHOUT_IMAGE,
)


def pope_layer() -> Finding:
    [stated] = [one for one in CLIFF_LAYERS if one.benchmark == "pope"]
    return Finding(
        "holds" if len(stated.layers) == 1 else "contradicted",
        f"{stated.place}, both for LLaVA-1.5 and both of Figure 5.",
        {f"layer, {i}": layer for i, layer in enumerate(stated.layers, 1)},
    )


def definition() -> Finding:
    layers = [layer for one in CLIFF_LAYERS for layer in one.layers]
    return Finding(
        "undefined",
        f"It is {listed(f'{words} ({place})' for place, words in CLIFF_WORDS.items())}. By attention it would "
        f"be layer {SHARE_AFTER} (Section 1), by accuracy the text names {min(layers)} to {max(layers)} of "
        f"{N_LAYERS}. Missing: how much change counts as none, and on which items. (Here: the smallest L from "
        "which on the lower end of the paired 95 % interval of the change stays above -3 points.)",
        {"layer by attention": SHARE_AFTER, "first by accuracy": min(layers), "last": max(layers)},
    )


def order() -> Finding:
    first = [f"{PRINTED[one.benchmark]} {' or '.join(map(str, one.layers))}" for one in CLIFF_LAYERS]
    takes = need(["llava-1.5"])
    return Finding(
        "not measured here",
        f"The text names {listed(first)} and gives no interval. {takes.text}",
        {PRINTED[one.benchmark]: min(one.layers) for one in CLIFF_LAYERS} | takes.figures,
    )


def without_image() -> Finding:
    missing = [name for name in ("model", "benchmark") if getattr(WITHOUT_IMAGE, name) is None]
    takes = need(["llava-1.5"])
    return Finding(
        "undefined" if missing else "not measured here",
        f"{WITHOUT_IMAGE.accuracy} % can be compared with nothing: Section A.2 leaves out the "
        f"{listed(missing)}. For LLaVA-1.5 on all four benchmarks: {takes.text}",
        {"accuracy": WITHOUT_IMAGE.accuracy, **takes.figures},
    )


CLAIMS = (
    Claim(
        id="cliff-pope",
        where="Sections 3.2 and 4.2, Figure 5",
        statement="LLaVA-1.5's cliff layer on POPE is one layer.",
        quantity="the layer named in one section against the other's",
        verdict="contradicted",
        check=pope_layer,
    ),
    Claim(
        id="cliff-definition",
        where="Sections 1, 3.2 and 4.2, Figure 5",
        statement="From the cliff layer on the image no longer contributes to the answer.",
        quantity="a rule that names the layer for given scores",
        verdict="undefined",
        check=definition,
    ),
    Claim(
        id="cliff-order",
        where="Sections 3.2 and 4.2",
        statement="LLaVA-1.5's cliff layers come in the order ScienceQA, TextVQA, POPE, captions.",
        quantity="cliff layers by accuracy, with intervals, and the probability of the order",
        verdict="not measured here",
        check=order,
    ),
    Claim(
        id="without-image",
        where="Section A.2, Figure 9",
        statement="Without any image token the language model is still right in 47.5 % of the cases.",
        quantity="accuracy with no layer seeing the image, and with a prompt without one",
        verdict="undefined",
        check=without_image,
    ),
)
