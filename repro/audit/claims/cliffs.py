"""Cliff layers: where the text puts them, and what it leaves out."""

from repro.audit.ledger import Finding, listed
from repro.audit.paper import Text


def cliff_pope(paper: Text) -> Finding:
    """The layer of one section against the other's."""
    [stated] = [layer for layer in paper.cliffs if layer.benchmark == "pope"]
    return Finding("holds" if len(stated.layers) == 1 else "contradicted", {}, {"place": stated.place})


def no_impact(paper: Text) -> Finding:
    """The cliff layers of the text against the middle of the decoder."""
    late = [stated for stated in paper.cliffs if min(stated.layers) > paper.n_layers // 2]
    last = [stated for stated in late if min(stated.layers) >= paper.n_layers]
    return Finding(
        "contradicted" if last else "undefined" if late else "holds",
        {"in the deeper half": len(late)},
        {"late": listed(map(paper.in_words, late))},
    )


def without_image(paper: Text) -> Finding:
    """What must be known to compare the printed accuracy with another."""
    missing = [name for name in ("model", "benchmark") if getattr(paper.without_image, name) is None]
    return Finding("undefined" if missing else "not measured here", {}, {"missing": listed(missing)})
