"""The tests that watch each part of the code, most specific first: short lists, so that a fault costs seconds.

What survives these is tried again with more tests, by ``--tests``.
"""

from __future__ import annotations

INV, C, F, G, A = "tests/invariants", "tests/conformance", "tests/families", "tests/gate", "tests/audit"
R = f"{INV}/report"
GOLDENS = ("tests/golden/test_earliest_stages.py", "tests/golden/test_goldens.py")
#: Of the miniatures the one that is quickest.
ONE = ("--model", "llava-1.5")
QWEN, SHIKRA, INTERN = (("--model", name) for name in ("qwen-vl", "shikra", "intern-vl"))
OPTIONS = (f"{C}/options",)

#: A room's files by the beginning of their path; the longest that fits counts.
ROOMS: dict[str, tuple[str, ...]] = {
    "repro/admission": (f"{F}/test_admission.py",),
    "repro/attention": (*ONE, f"{INV}/test_attention.py", *GOLDENS),
    "repro/audit": (f"{A}/test_claims.py", f"{A}/test_another_paper.py"),
    "repro/audit/agreement": (f"{A}/test_agreement.py",),
    "repro/audit/arithmetic": (
        f"{A}/test_arithmetic.py",
        f"{A}/test_printed_numbers.py",
        f"{A}/test_claims.py",
    ),
    "repro/audit/experiments": (f"{A}/test_experiments.py",),
    "repro/audit/experiments/heat": (f"{A}/test_heat_experiments.py",),
    "repro/audit/ledger": (f"{A}/test_readings.py", f"{A}/test_another_paper.py", f"{A}/test_claims.py"),
    "repro/audit/needs": (f"{A}/test_released.py", f"{A}/test_claims.py"),
    "repro/audit/paper": (f"{A}/test_transcription.py", f"{A}/test_claims.py"),
    "repro/audit/replayed": (f"{A}/test_released.py", f"{A}/test_claims.py"),
    "repro/audit/structure": (f"{A}/test_released.py", f"{A}/test_claims.py"),
    "repro/benchmarks": (f"{C}/test_data_errors.py", f"{C}/test_versions.py", f"{C}/test_protocols.py"),
    "repro/benchmarks/chair": (f"{C}/test_chair.py", f"{C}/test_data_errors.py"),
    "repro/benchmarks/hub": (f"{C}/test_hub.py",),
    "repro/benchmarks/miniworld": (f"{INV}/test_evaluation.py", f"{C}/test_data_errors.py"),
    "repro/benchmarks/pope": (f"{C}/test_pope.py", f"{C}/replay"),
    "repro/benchmarks/scienceqa": (f"{C}/test_scienceqa.py", f"{C}/test_versions.py", f"{C}/replay"),
    "repro/benchmarks/textvqa": (f"{C}/test_textvqa.py", f"{C}/test_data_errors.py"),
    "repro/cam": (*ONE, f"{INV}/test_cam.py"),
    "repro/cliff": (f"{INV}/test_cliff.py", f"{INV}/test_cliff_images.py"),
    "repro/compare": (f"{R}/test_compare.py",),
    "repro/curves": (*ONE, f"{INV}/test_curves.py"),
    "repro/evaluation": (
        *ONE,
        f"{INV}/test_evaluation.py",
        f"{INV}/test_recorded.py",
        f"{R}/test_numbers.py",
    ),
    "repro/evaluation/answers": (f"{C}/replay",),
    "repro/evaluation/digests": (f"{INV}/test_digests.py",),
    "repro/evaluation/environment": (f"{INV}/test_digests.py",),
    "repro/evaluation/export": (f"{INV}/test_results.py",),
    "repro/evaluation/formats": (f"{C}/replay",),
    "repro/evaluation/pairs": (f"{R}/test_compare.py",),
    "repro/evaluation/prune": (f"{INV}/test_results.py",),
    "repro/evaluation/results": (f"{INV}/test_results.py", f"{INV}/test_resume.py"),
    "repro/evaluation/scored": (f"{C}/replay",),
    "repro/evaluation/shards": (*ONE, f"{INV}/test_shards.py", f"{INV}/test_results.py"),
    "repro/evaluation/sources": (f"{INV}/test_digests.py",),
    "repro/evaluation/tables": (f"{C}/replay",),
    "repro/evaluation/ties": (*ONE, f"{INV}/test_half_precision.py"),
    "repro/gate": (f"{G}/test_verdict.py", f"{G}/test_records.py", f"{G}/test_blind_spots.py"),
    "repro/golden": ("tests/golden/test_golden_extension.py",),
    "repro/look": (f"{R}/test_look.py",),
    "repro/models": (*ONE, f"{INV}/test_model.py", f"{C}/checkpoints", f"{C}/test_prompts.py"),
    "repro/models/anatomy": (
        *ONE,
        f"{INV}/test_sweep.py",
        f"{INV}/test_truncation.py",
        f"{F}/test_admission.py",
    ),
    "repro/models/assembled": (*QWEN, f"{C}/test_prompts.py", f"{C}/test_published_layouts.py"),
    "repro/models/attending": (*ONE, f"{INV}/test_attention.py", f"{INV}/test_model.py"),
    "repro/models/cache": OPTIONS,
    "repro/models/card": (f"{F}/test_refusals.py", *OPTIONS),
    "repro/models/chat": (f"{F}/test_admission.py", f"{F}/test_any_model.py", f"{F}/test_refusals.py"),
    "repro/models/convert": (f"{C}/test_llava_release.py", f"{C}/checkpoints"),
    "repro/models/generating": (*ONE, f"{INV}/test_sweep.py", f"{F}/test_admission.py"),
    "repro/models/images": (f"{C}/test_data_errors.py",),
    "repro/models/instructblip": ("--model", "instructblip", f"{INV}/test_sweep.py", *GOLDENS),
    "repro/models/intern_vl": (*INTERN, *GOLDENS),
    "repro/models/layered": (f"{F}/test_admission.py",),
    "repro/models/llava_release": (f"{C}/test_llava_release.py",),
    "repro/models/native": (
        "--model",
        "llava-1.6",
        *GOLDENS,
        f"{INV}/test_model.py",
        f"{INV}/test_evaluation.py",
    ),
    "repro/models/processors": (f"{F}/test_any_model.py", f"{F}/test_refusals.py"),
    "repro/models/proving": (f"{F}/test_admission.py", f"{F}/test_admission_cost.py"),
    "repro/models/qwen_vl": (*QWEN, *GOLDENS),
    "repro/models/records": (f"{F}/test_admission_cost.py", f"{F}/test_admission.py"),
    "repro/models/rounding": (f"{F}/test_admission.py",),
    "repro/models/shikra": (*SHIKRA, *GOLDENS),
    "repro/models/skeleton": (f"{C}/test_plan.py",),
    "repro/models/trials": (f"{F}/test_admission.py", f"{F}/test_admission_cost.py"),
    "repro/models/weights": (
        f"{C}/checkpoints",
        f"{C}/test_published_layouts.py",
        f"{C}/test_plan.py",
    ),
    "repro/packed": (*ONE, f"{INV}/test_sweep.py", f"{F}/test_admission.py"),
    "repro/paired": (f"{G}/test_verdict.py", f"{R}/test_compare.py"),
    "repro/plan": (f"{C}/test_plan.py",),
    "repro/protocols": (f"{C}/test_protocols.py", f"{C}/test_prompts.py"),
    "repro/pytest_plugin": (*OPTIONS, f"{C}/test_progress.py"),
    "repro/pytest_plugin/planning": (f"{C}/test_plan.py",),
    "repro/pytest_plugin/progress": (f"{C}/test_progress.py",),
    "repro/ranking": (*ONE, f"{INV}/test_ranking.py", f"{INV}/test_sweep.py"),
    "repro/reading": (f"{C}/test_data_errors.py", f"{R}/test_page.py"),
    "repro/report": (f"{R}/test_page.py", f"{R}/test_numbers.py"),
    "repro/report/audit": (f"{R}/test_audit.py",),
    "repro/report/cam_figure": (f"{R}/test_figures.py",),
    "repro/report/figures": (f"{R}/test_figures.py", f"{R}/test_numbers.py"),
    "repro/report/gate": (f"{G}/test_records.py", f"{R}/test_compare.py"),
    "repro/report/items": (f"{R}/test_items.py",),
    "repro/report/outcomes": (f"{G}/test_records.py", f"{R}/test_compare.py"),
    "repro/report/replay": (f"{C}/replay",),
    "repro/report/terminal": OPTIONS,
    "repro/scores": (f"{INV}/test_scores.py", f"{INV}/test_cliff.py"),
    "repro/segments": (*ONE, f"{INV}/test_segments.py", f"{INV}/test_truncation.py"),
    "repro/statistics": (f"{INV}/test_statistics.py", f"{INV}/test_cliff.py"),
    "repro/sweep": (*ONE, f"{INV}/test_sweep.py", f"{F}/test_admission.py"),
    "repro/table1": (*ONE, f"{R}/test_numbers.py", f"{INV}/test_evaluation.py", f"{INV}/test_shards.py"),
    "repro/text": (f"{R}/test_page.py",),
    "repro/truncation": (*ONE, f"{INV}/test_truncation.py"),
    "repro/withdrawal": (*ONE, f"{INV}/test_withdrawal.py"),
    "repro/": (f"{C}/test_docs.py", *OPTIONS),
}


def tests_of(file: str) -> tuple[str, ...]:
    """Pytest's arguments for the room that a file of ``repro/`` stands in."""
    return ROOMS[max((room for room in ROOMS if file.startswith(room)), key=len)]
