"""The ledger of arXiv 2406.06579: its claims from ``FILE``, each with what checks it, and the paper with them."""

from dataclasses import replace
from functools import partial

from repro.audit.claims import cam, cliffs, setup, shares, significance, table1, tokens
from repro.audit.experiments import cliffs as cliff_experiments
from repro.audit.experiments import complexity, cost, heat, no_image, rankings
from repro.audit.experiments import shares as share_experiments
from repro.audit.paper import FILE, TEXT
from repro.audit.readings import Check, Experiment, read_claims

#: What computes the evidence; the other claims are read off the text.
CHECKS: dict[str, Check] = {
    "table-1": table1.table_1,
    "pope-intern-vl": table1.intern_vl,
    "pope-others": table1.other_pope,
    "granularity-pope": partial(table1.possible, benchmark="pope", subject="questions"),
    "granularity-scienceqa": partial(table1.possible, benchmark="scienceqa", subject="questions"),
    "granularity-textvqa": partial(table1.possible, benchmark="textvqa", subject="tenths"),
    "granularity-chair": partial(table1.possible, benchmark="chair", subject="captions", metric="CHAIR_i"),
    "chair-label": table1.chair_label,
    "equal-or-better": significance.equal_or_better,
    "improvement": significance.improvement,
    "selection": significance.selection,
    "baselines": significance.baselines,
    "cliff-pope": cliffs.cliff_pope,
    "no-impact": cliffs.no_impact,
    "without-image": cliffs.without_image,
    "share-range": shares.share_range,
    "equation-7": shares.equation_7,
    "equation-8": shares.equation_8,
    "equation-10": shares.equation_10,
    "cam-last-layer": cam.cam_last_layer,
    "cam-rows": cam.cam_rows,
    "cam-steps": cam.cam_steps,
    "equations-1-3": cam.equations_1_3,
    "equation-4": cam.equation_4,
    "image-tokens": tokens.image_tokens,
    "truncated-576": tokens.truncated_576,
    "image-ids": tokens.image_ids,
    "released-span-llava": partial(tokens.span, model="llava-1.5"),
    "released-span-qwen": partial(tokens.span, model="qwen-vl"),
    "layer-1": tokens.layer_1,
    "k-values": tokens.k_values,
    "cost": tokens.cost,
    "models-verified": setup.models_verified,
    "projector-types": setup.projector_types,
    "model-replicated": setup.model_replicated,
    "released-code": setup.released_code,
    "gpu": setup.gpu,
    "scienceqa-questions": setup.scienceqa_questions,
}
#: What shows the outcome on miniatures.
EXPERIMENTS: dict[str, Experiment] = {
    "cliff-definition": rankings.vtw,
    "cliff-order": cliff_experiments.cliff_order,
    "complexity": complexity.complexity,
    "retrospective": cliff_experiments.retrospective,
    "without-image": no_image.no_image,
    "share-below-2": share_experiments.image_share,
    "share-shape": share_experiments.share_shape,
    "share-ordering": share_experiments.share_ordering,
    "equation-10": rankings.fastv,
    "flow-converges": heat.pointing_by_layer,
    "cam-module": heat.pointing_by_module,
    "cam-reveals": heat.parameter_randomisation,
    "cam-contribution": heat.deletion_insertion,
    "cost": cost.cost,
    "projector-independence": cliff_experiments.projectors,
}
PAPER = replace(TEXT, claims=read_claims(FILE, TEXT, CHECKS, EXPERIMENTS))
