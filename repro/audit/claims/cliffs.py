"""Cliff layers: where they are, what they are, and in which order tasks reach them."""

from __future__ import annotations

from repro.audit.claims.text import listed
from repro.audit.experiments import cliffs as cliff_experiments
from repro.audit.experiments import complexity as complexity_experiment
from repro.audit.experiments import no_image, rankings
from repro.audit.ledger import Claim, Finding
from repro.audit.needs import need
from repro.audit.paper import (
    CLIFF_LAYERS,
    CLIFF_WORDS,
    FIGURE_2_RISES,
    N_LAYERS,
    PRINTED,
    SHARE_AFTER,
    WITHOUT_IMAGE,
    StatedLayer,
)
from repro.audit.stated import standing


def _said(one: StatedLayer) -> str:
    """A benchmark and its layers; three in a row stand for "around" the middle one."""
    layers = f"about {one.layers[1]}" if len(one.layers) == 3 else " or ".join(map(str, one.layers))
    return f"{PRINTED[one.benchmark]} {layers}"


def pope_layer() -> Finding:
    [stated] = [one for one in CLIFF_LAYERS if one.benchmark == "pope"]
    return Finding(
        "holds" if len(stated.layers) == 1 else "contradicted",
        f"{stated.place}, both read as LLaVA-1.5's, by panel A of Figure 5. Neither sentence names the model.",
        {f"layer, {i}": layer for i, layer in enumerate(stated.layers, 1)},
    )


def definition() -> Finding:
    first, last = CLIFF_LAYERS[0], CLIFF_LAYERS[-1]
    left = standing("cliff-definition")
    return Finding(
        left.verdict,
        f"It is {listed(f'{words} ({place})' for place, words in CLIFF_WORDS.items())}. By attention it would "
        f"be layer {SHARE_AFTER} (Section 1), by accuracy the text has {_said(first)} to {_said(last)} of "
        f"{N_LAYERS}. {left.text} (Here: the smallest L from which on the paired interval of the change stays "
        "above a stated margin.)",
        {"layer by attention": SHARE_AFTER, "first by accuracy": min(first.layers), **left.figures},
    )


def order() -> Finding:
    takes, left = need(["llava-1.5"]), standing("cliff-order")
    ascending = sorted(CLIFF_LAYERS, key=lambda one: min(one.layers))
    return Finding(
        left.verdict,
        f"The text's layers come in this order ({listed(map(_said, ascending))}), without intervals. "
        f"{left.text} {takes.text}",
        {PRINTED[one.benchmark]: place for place, one in enumerate(ascending, 1)}
        | takes.figures
        | left.figures,
    )


def layers() -> Finding:
    takes, left = need(["llava-1.5"]), standing("cliff-layers")
    return Finding(
        left.verdict,
        f"Of {N_LAYERS} layers the text names {listed(map(_said, CLIFF_LAYERS))}, without an interval, and none "
        f"for the other models of Table 1. {left.text} {takes.text}",
        {f"{PRINTED[one.benchmark]}: first it can mean": min(one.layers) for one in CLIFF_LAYERS}
        | takes.figures
        | left.figures,
    )


def retrospective() -> Finding:
    takes, left = need(["llava-1.5"]), standing("retrospective")
    return Finding(
        left.verdict,
        f"One sign would be a loss of score when layer {FIGURE_2_RISES} alone does not see the image (truncated "
        f"after {FIGURE_2_RISES - 1}). The text's own cliff layers, {listed(map(_said, CLIFF_LAYERS))}, say "
        f"that there is none. {left.text} If LLaVA-1.5 is meant: {takes.text}",
        {"layer": FIGURE_2_RISES, **takes.figures, **left.figures},
    )


def no_impact() -> Finding:
    half = N_LAYERS // 2
    late = [one for one in CLIFF_LAYERS if min(one.layers) > half]
    last = [one for one in late if min(one.layers) >= N_LAYERS]
    return Finding(
        "contradicted" if last else "undefined" if late else "holds",
        "By the accuracy reading (Figure 5) a cliff layer is the last that needs the image. Of the text's own, "
        f"{listed(map(_said, late))} are in the deeper half of {N_LAYERS} layers: up to there image tokens "
        "matter. Missing: where middle and deep begin, and whether both are meant or one of them, by task.",
        {"cliff layers": len(CLIFF_LAYERS), "in the deeper half": len(late)},
    )


def complexity() -> Finding:
    left = standing("complexity")
    return Finding(
        left.verdict,
        "ScienceQA is called complex, TextVQA and POPE simpler, captions least so; the cliff layers, "
        f"{listed(map(_said, CLIFF_LAYERS))}, are of four tasks that differ in much else. {left.text}",
        {"tasks": len(CLIFF_LAYERS), **left.figures},
    )


def without_image() -> Finding:
    missing = [name for name in ("model", "benchmark") if getattr(WITHOUT_IMAGE, name) is None]
    takes = need(["llava-1.5"])
    return Finding(
        "undefined" if missing else "not measured here",
        f"{WITHOUT_IMAGE.accuracy} % can be compared with nothing: Section A.2 leaves out the "
        f"{listed(missing)}. For LLaVA-1.5 and all four benchmarks: {takes.text}",
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
        figure="figure-5",
    ),
    Claim(
        id="cliff-definition",
        where="Sections 1, 3.2 and 4.2, Figure 5",
        statement="From the cliff layer on the image no longer contributes to the answer.",
        quantity="a rule that names the layer for given scores",
        verdict="undefined",
        check=definition,
        outcome="compared",
        experiment=rankings.vtw,
        figure="figure-5",
    ),
    Claim(
        id="cliff-order",
        where="Sections 3.2 and 4.2",
        statement="LLaVA-1.5's cliff layers come in the order ScienceQA, TextVQA, POPE, captions.",
        quantity="cliff layers by accuracy, with intervals, and the probability of the order",
        verdict="not measured here",
        check=order,
        outcome="not as claimed",
        experiment=cliff_experiments.cliff_order,
        figure="figure-5",
    ),
    Claim(
        id="cliff-layers",
        where="Sections 3.2 and 4.2, Figure 5",
        statement=f"LLaVA-1.5's cliff layers are {listed(map(_said, CLIFF_LAYERS))}.",
        quantity="each layer against the interval of a measured one",
        verdict="not measured here",
        check=layers,
        figure="figure-5",
    ),
    Claim(
        id="no-impact",
        where="Section 1, Figure 1",
        statement="In middle or deep layers image tokens do not affect the answer.",
        quantity="the cliff layers named in the text against the middle of the decoder",
        verdict="undefined",
        check=no_impact,
        figure="figure-5",
    ),
    Claim(
        id="complexity",
        where="Sections 3.2 and 4.2",
        statement="The more complex the reasoning, the earlier the cliff layer.",
        quantity="cliff layer by number of objects and of reasoning steps",
        verdict="undefined",
        check=complexity,
        outcome="in part not",
        experiment=complexity_experiment.complexity,
        figure="figure-5",
    ),
    Claim(
        id="retrospective",
        where="Sections 3.2, 3.3 and 4.2",
        statement=f"Layer {FIGURE_2_RISES} seems to look back at image and prompt before the answer is given.",
        quantity=f"score truncated after layer {FIGURE_2_RISES - 1} against the baseline",
        verdict="undefined",
        check=retrospective,
        outcome="not as claimed",
        experiment=cliff_experiments.retrospective,
        figure="figure-5",
    ),
    Claim(
        id="without-image",
        where="Section A.2, Figure 9",
        statement=f"Without any image token {WITHOUT_IMAGE.accuracy} % of the answers are still right.",
        quantity="accuracy with no layer seeing the image, and with a prompt without one",
        verdict="undefined",
        check=without_image,
        outcome="inconclusive",
        experiment=no_image.no_image,
        figure="figure-5",
    ),
)
