"""Set-up: models, projectors, code, GPU and data."""

import json

from repro.audit import released
from repro.audit.ledger import Finding, Verdict, listed
from repro.audit.needs import need
from repro.audit.paper import Text
from repro.models.card import REGISTRY


def models_verified(paper: Text) -> Finding:
    """Models named against models with scores and with cliff layers."""
    measured, placed = set(paper.table_models), {stated.model for stated in paper.cliffs}
    missing = [model for model in paper.models if model not in measured | set(paper.figure_5_models)]
    return Finding(
        "contradicted" if missing else "holds",
        {"named": len(paper.models), "in Table 1": len(measured), "in Figure 5": len(paper.figure_5_models)},
        {"missing": listed(missing), "placed": listed(paper.names[model] for model in sorted(placed))},
    )


def projector_types(paper: Text) -> Finding:
    """The published architecture of InstructBLIP is that of its miniature's configuration."""
    miniature = REGISTRY["instructblip"].miniature
    assert miniature is not None
    queried = "qformer_config" in json.loads((miniature / "config.json").read_text(encoding="utf-8"))
    types = {*paper.projectors.values(), *(["Q-former"] if queried else [])}
    return Finding(
        "contradicted" if queried and paper.projectors["instructblip"] != "Q-former" else "holds",
        {"named": len(paper.projectors_named), "of the models": len(types)},
        {"names": listed(paper.projectors_named)},
    )


def model_replicated(paper: Text) -> Finding:
    """Whether the sentence names a model."""
    return Finding("undefined" if paper.replicated == "model" else "holds", {})


def released_code(paper: Text) -> Finding:
    """Parts of the method and its evaluation against the released files."""
    absent = [part for part, code in released.CODE.items() if code.file is None]
    stopped = [f"{part} ({code.file}) {code.stops}" for part, code in released.CODE.items() if code.stops]
    complete = [part for part, code in released.CODE.items() if code.file is not None and not code.stops]
    return Finding(
        "contradicted" if absent or stopped else "holds",
        {"parts": len(released.CODE), "without code": len(absent), "not as committed": len(stopped)},
        {
            "absent": listed(absent),
            "stopped": "; ".join(stopped),
            "complete": len(complete),
            "listed": listed(complete),
        },
    )


def gpu(paper: Text) -> Finding:
    """Memory needed against memory there."""
    needed = need(paper, tuple(paper.projectors)).memory_gb
    supports: Verdict = "holds" if needed <= min(paper.gpu_memory) else "contradicted"
    return Finding(supports, {"GB needed": needed}, {"sizes": " or ".join(map(str, paper.gpu_memory))})


def scienceqa_questions(paper: Text) -> Finding:
    """Questions of the published splits."""
    splits = released.SCIENCEQA_SPLITS
    total = sum(splits.values())
    return Finding(
        "holds" if total == paper.scienceqa_questions else "contradicted",
        {"questions": total, "test": splits["test"], "test, with an image": released.SCIENCEQA_WITH_IMAGE},
        {"splits": listed(f"{n} {split}" for split, n in splits.items())},
    )
