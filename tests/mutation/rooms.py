"""The tests that watch each part of the code, most specific first: short lists, so that a fault costs seconds."""

from __future__ import annotations

INV, C, F, G = "tests/invariants", "tests/conformance", "tests/families", "tests/gate"
R = f"{INV}/report"
GOLDENS = ("tests/golden/test_earliest_stages.py", "tests/golden/test_goldens.py")
#: A room's files by the beginning of their path; the longest that fits counts.
ROOMS: dict[str, tuple[str, ...]] = {
    "repro/admission": (f"{F}/test_admission.py", f"{F}/test_admission_cost.py"),
    "repro/attention": (f"{INV}/test_attention.py", *GOLDENS),
    "repro/audit": (
        "tests/audit/test_arithmetic.py",
        "tests/audit/test_claims.py",
        "tests/audit/test_ledger.py",
        "tests/audit/test_readings.py",
        "tests/audit/test_marks.py",
        "tests/audit/test_released.py",
        "tests/audit/test_agreement.py",
        "tests/audit/test_another_paper.py",
        f"{R}/test_audit.py",
    ),
    "repro/audit/experiments": (
        "tests/audit/test_experiments.py",
        "tests/audit/test_heat_experiments.py",
        "tests/audit/test_claims.py",
    ),
    "repro/benchmarks": (
        f"{C}/test_data_errors.py",
        f"{C}/test_pope.py",
        f"{C}/test_scienceqa.py",
        f"{C}/test_textvqa.py",
        f"{C}/test_versions.py",
        f"{C}/test_protocols.py",
    ),
    "repro/benchmarks/chair": (f"{C}/test_chair.py", f"{C}/test_data_errors.py", f"{C}/test_versions.py"),
    "repro/benchmarks/hub": (f"{C}/test_hub.py",),
    "repro/cam": (f"{INV}/test_cam.py", *GOLDENS),
    "repro/cliff": (f"{INV}/test_cliff.py", f"{INV}/test_statistics.py", f"{R}/test_numbers.py"),
    "repro/compare": (f"{R}/test_compare.py",),
    "repro/curves": (f"{INV}/test_curves.py", f"{F}/test_admission.py"),
    "repro/evaluation": (
        f"{INV}/test_evaluation.py",
        f"{INV}/test_results.py",
        f"{INV}/test_resume.py",
        f"{INV}/test_shards.py",
        f"{C}/replay/test_own_results.py",
        f"{R}/test_numbers.py",
        f"{R}/test_compare.py",
    ),
    "repro/evaluation/answers": (f"{C}/replay", "tests/table1/test_replay.py"),
    "repro/evaluation/formats": (f"{C}/replay", "tests/table1/test_replay.py"),
    "repro/evaluation/scored": (f"{C}/replay", f"{INV}/test_evaluation.py"),
    "repro/evaluation/tables": (f"{C}/replay", f"{INV}/test_evaluation.py"),
    "repro/evaluation/ties": (f"{INV}/test_half_precision.py",),
    "repro/gate": (
        f"{G}/test_verdict.py",
        f"{G}/test_records.py",
        f"{G}/test_blind_spots.py",
        f"{G}/test_faults.py",
    ),
    "repro/golden": ("tests/golden/test_golden_extension.py", *GOLDENS),
    "repro/look": (f"{R}/test_look.py",),
    "repro/models": (
        f"{INV}/test_model.py",
        f"{C}/test_checkpoints.py",
        f"{C}/test_prompts.py",
        f"{F}/test_admission.py",
        *GOLDENS,
        f"{C}/test_published_layouts.py",
    ),
    "repro/models/attending": (
        f"{INV}/test_attention.py",
        f"{INV}/test_model.py",
        f"{INV}/test_truncation.py",
        *GOLDENS,
    ),
    "repro/models/chat": (f"{F}/test_admission.py", f"{F}/test_any_model.py", f"{F}/test_refusals.py"),
    "repro/models/convert": (
        f"{C}/test_llava_release.py",
        f"{C}/test_checkpoints.py",
        f"{C}/test_options.py",
    ),
    "repro/models/llava_release": (f"{C}/test_llava_release.py",),
    "repro/models/layered": (f"{F}/test_admission.py", f"{F}/test_any_model.py", f"{F}/test_refusals.py"),
    "repro/models/native": (
        *GOLDENS,
        f"{INV}/test_model.py",
        f"{C}/test_published_code.py",
        f"{C}/test_prompts.py",
    ),
    "repro/models/proving": (
        f"{F}/test_admission.py",
        f"{F}/test_admission_cost.py",
        f"{F}/test_refusals.py",
    ),
    "repro/models/records": (f"{F}/test_admission_cost.py", f"{F}/test_admission.py"),
    "repro/models/qwen_vl": (f"{C}/test_published_code.py", *GOLDENS, f"{C}/test_published_layouts.py"),
    "repro/models/skeleton": (f"{C}/test_plan.py",),
    "repro/packed": (f"{INV}/test_sweep.py", f"{F}/test_admission.py", *GOLDENS),
    "repro/paired": (
        f"{G}/test_verdict.py",
        f"{R}/test_compare.py",
        f"{G}/test_blind_spots.py",
        f"{G}/test_gate.py",
    ),
    "repro/plan": (f"{C}/test_plan.py",),
    "repro/protocols": (f"{C}/test_protocols.py", f"{C}/test_prompts.py", *GOLDENS),
    "repro/pytest_plugin": (
        f"{C}/test_options.py",
        f"{C}/test_progress.py",
        f"{C}/test_plan.py",
        f"{C}/test_foreign_project.py",
    ),
    "repro/ranking": (f"{INV}/test_truncation.py", f"{INV}/test_sweep.py", *GOLDENS),
    "repro/reading": (
        f"{C}/test_data_errors.py",
        f"{C}/test_checkpoints.py",
        f"{C}/replay/test_bad_input.py",
    ),
    "repro/report": (
        f"{R}/test_numbers.py",
        f"{R}/test_page.py",
        f"{R}/test_figures.py",
        f"{R}/test_items.py",
    ),
    "repro/report/audit": (f"{R}/test_audit.py", "tests/audit/test_another_paper.py"),
    "repro/report/cam_figure": (f"{R}/test_figures.py",),
    "repro/report/gate": (f"{G}/test_records.py", f"{G}/test_blind_spots.py", f"{R}/test_compare.py"),
    "repro/report/items": (f"{R}/test_items.py", f"{R}/test_page.py"),
    "repro/report/outcomes": (f"{G}/test_records.py", f"{G}/test_blind_spots.py", f"{R}/test_compare.py"),
    "repro/report/replay": (f"{C}/replay", "tests/table1/test_replay.py"),
    "repro/report/terminal": (f"{C}/test_options.py", f"{C}/replay", f"{R}/test_page.py"),
    "repro/scores": (
        f"{INV}/test_scores.py",
        f"{INV}/test_cliff.py",
        f"{INV}/test_statistics.py",
        f"{INV}/test_evaluation.py",
    ),
    "repro/segments": (f"{INV}/test_segments.py", f"{INV}/test_truncation.py", f"{INV}/test_sweep.py"),
    "repro/statistics": (f"{INV}/test_statistics.py", f"{INV}/test_cliff.py", f"{C}/replay/test_figures.py"),
    "repro/sweep": (f"{INV}/test_sweep.py", f"{INV}/test_truncation.py", *GOLDENS),
    "repro/table1": (
        f"{R}/test_numbers.py",
        f"{INV}/test_evaluation.py",
        f"{INV}/test_resume.py",
        f"{INV}/test_shards.py",
    ),
    "repro/text": (f"{R}/test_page.py", f"{C}/replay/test_bad_input.py", f"{C}/test_progress.py"),
    "repro/truncation": (f"{INV}/test_truncation.py", f"{INV}/test_attention.py", *GOLDENS),
    "repro/withdrawal": (f"{INV}/test_withdrawal.py", f"{INV}/test_sweep.py"),
    "repro/": (f"{C}/test_options.py",),
}


def tests_of(file: str) -> tuple[str, ...]:
    """The tests of the room that a file of ``repro/`` stands in."""
    return ROOMS[max((room for room in ROOMS if file.startswith(room)), key=len)]
