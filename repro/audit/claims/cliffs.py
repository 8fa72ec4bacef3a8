"""Cliff layers: where they are, what they are, and in which order tasks reach them."""

from __future__ import annotations

from repro.audit.experiments import cliffs as cliff_experiments
from repro.audit.experiments import complexity as complexity_experiment
from repro.audit.experiments import no_image, rankings
from repro.audit.ledger import Claim, Finding, listed
from repro.audit.paper import TEXT, Text

LAYERS = listed(map(TEXT.in_words, TEXT.cliffs))
FIRST, LAST = (TEXT.in_words(TEXT.cliffs[i]) for i in (0, -1))
ASCENDING = sorted(TEXT.cliffs, key=lambda stated: min(stated.layers))
RISES = TEXT.figure_2_rises
PLACES = "Sections 3.2 and 4.2; panel A of Figure 5"
MEASURE = {"measure": "Figure 5, accuracy when truncated there"}


@Claim(
    id="cliff-pope",
    where="Sections 3.2 and 4.2, Figure 5",
    statement="LLaVA-1.5's cliff layer on POPE is one layer.",
    quantity="the layer named in one section against the other's",
    verdict="contradicted",
    evidence="{place}, both read as LLaVA-1.5's, by panel A of Figure 5. Neither sentence names the model.",
    figure="figure-5",
)
def cliff_pope(paper: Text) -> Finding:
    [stated] = [layer for layer in paper.cliffs if layer.benchmark == "pope"]
    numbers = {f"layer, {i}": layer for i, layer in enumerate(stated.layers, 1)}
    return Finding("holds" if len(numbers) == 1 else "contradicted", numbers, {"place": stated.place})


@Claim(
    id="no-impact",
    where="Section 1, Figure 1",
    statement="In middle or deep layers image tokens do not affect the answer.",
    quantity="the cliff layers named in the text against the middle of the decoder",
    verdict="undefined",
    evidence="By the accuracy reading (Figure 5) a cliff layer is the last that needs the image. Of the "
    "text's own, {late} are in the deeper half of {paper.n_layers} layers: up to there image tokens matter. "
    "Missing: where middle and deep begin, and whether both are meant or one of them, by task.",
    figure="figure-5",
)
def no_impact(paper: Text) -> Finding:
    late = [stated for stated in paper.cliffs if min(stated.layers) > paper.n_layers // 2]
    last = [stated for stated in late if min(stated.layers) >= paper.n_layers]
    return Finding(
        "contradicted" if last else "undefined" if late else "holds",
        {"cliff layers": len(paper.cliffs), "in the deeper half": len(late)},
        {"late": listed(map(paper.in_words, late))},
    )


@Claim(
    id="without-image",
    where="Section A.2, Figure 9",
    statement=f"Without any image token {TEXT.without_image.accuracy} % of the answers are still right.",
    quantity="accuracy with no layer seeing the image, and with a prompt without one",
    verdict="undefined",
    evidence="{accuracy} % can be compared with nothing: Section A.2 leaves out the {missing}. LLaVA-1.5 "
    "can be measured on all four benchmarks.",
    takes=("llava-1.5",),
    outcome="inconclusive",
    experiment=no_image.no_image,
    figure="figure-5",
)
def without_image(paper: Text) -> Finding:
    missing = [name for name in ("model", "benchmark") if getattr(paper.without_image, name) is None]
    return Finding(
        "undefined" if missing else "not measured here",
        {"accuracy": paper.without_image.accuracy},
        {"missing": listed(missing)},
    )


CLAIMS = (
    cliff_pope,
    Claim(
        id="cliff-definition",
        where="Sections 1, 3.2 and 4.2, Figure 5",
        statement="From the cliff layer on the image no longer contributes to the answer.",
        quantity="a rule that names the layer for given scores",
        verdict="undefined",
        evidence=f"It is {listed(f'{words} ({place})' for place, words in TEXT.cliff_words.items())}. By "
        f"attention it would be layer {TEXT.share_after} (Section 1), by accuracy the text has {FIRST} to "
        f"{LAST} of {TEXT.n_layers}. {{reading}} (Here: the smallest L from which on the paired interval of "
        "the change stays above a stated margin.)",
        stated={"which of its descriptions it is, where they name different layers": None},
        numbers={"layer by attention": TEXT.share_after, "first by accuracy": min(TEXT.cliffs[0].layers)},
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
        evidence=f"The text's layers come in this order ({listed(map(TEXT.in_words, ASCENDING))}), without "
        "intervals. {reading}",
        stated={"model": PLACES, "tasks": "Section 4.2"} | MEASURE,
        numbers={TEXT.names[stated.benchmark]: place for place, stated in enumerate(ASCENDING, 1)},
        takes=("llava-1.5",),
        outcome="not as claimed",
        experiment=cliff_experiments.cliff_order,
        figure="figure-5",
    ),
    Claim(
        id="cliff-layers",
        where="Sections 3.2 and 4.2, Figure 5",
        statement=f"LLaVA-1.5's cliff layers are {LAYERS}.",
        quantity="each layer against the interval of a measured one",
        verdict="not measured here",
        evidence=f"Of {TEXT.n_layers} layers the text names {LAYERS}, without an interval, and none for the "
        "other models of Table 1. {reading}",
        stated={"model": PLACES, "layers": "Section 4.2"} | MEASURE,
        numbers={
            f"{TEXT.names[layer.benchmark]}: first it can mean": min(layer.layers) for layer in TEXT.cliffs
        },
        takes=("llava-1.5",),
        figure="figure-5",
    ),
    no_impact,
    Claim(
        id="complexity",
        where="Sections 3.2 and 4.2",
        statement="The more complex the reasoning, the earlier the cliff layer.",
        quantity="cliff layer by number of objects and of reasoning steps",
        verdict="undefined",
        evidence="ScienceQA is called complex, TextVQA and POPE simpler, captions least so; the cliff "
        f"layers, {LAYERS}, are of four tasks that differ in much else. {{reading}}",
        stated={
            "tasks": "Section 4.2",
            "a measure of complexity that is independent of the layers": None,
            "items that differ in it alone": None,
        },
        numbers={"tasks": len(TEXT.cliffs)},
        outcome="in part not",
        experiment=complexity_experiment.complexity,
        figure="figure-5",
    ),
    Claim(
        id="retrospective",
        where="Sections 3.2, 3.3 and 4.2",
        statement=f"Layer {RISES} seems to look back at image and prompt before the answer is given.",
        quantity=f"score truncated after layer {RISES - 1} against the baseline",
        verdict="undefined",
        evidence=f"One sign would be a loss of score when layer {RISES} alone does not see the image "
        f"(truncated after {RISES - 1}). The text's own cliff layers, {LAYERS}, say that there is none. "
        "{reading} It can be measured if LLaVA-1.5 is meant.",
        stated={"layer": "Section 4.2", "the model": None, "what would show that it looks back": None},
        numbers={"layer": RISES},
        takes=("llava-1.5",),
        outcome="not as claimed",
        experiment=cliff_experiments.retrospective,
        figure="figure-5",
    ),
    without_image,
)
