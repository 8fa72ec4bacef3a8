"""Changes that a gate is tempted to pass over, and models and records that it must not believe."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repro.benchmarks import find_benchmark
from repro.benchmarks.miniworld import DIRECTORY
from repro.cam import llava_cam
from repro.evaluation.digests import weights_of
from repro.evaluation.flow import sample
from repro.evaluation.results import NAME as RESULTS
from repro.evaluation.results import Results
from repro.gate.compare import compare
from repro.gate.gate import check, record
from repro.gate.record import GateError, ask, load, save
from repro.gate.stages import distances, read, read_inputs
from repro.gate.tripwires import tripwires
from repro.models import load_model
from repro.paired import MARGIN, difference
from repro.protocols import find_task
from repro.pytest_plugin.options import wanted
from repro.report.gate import load_outcomes, write_gate
from repro.report.outcomes import write_outcome
from repro.scores import Scores
from tests.gate.faults import REPORTED, masked

pytestmark = pytest.mark.invariant

ROOT = Path(__file__).resolve().parents[2]
NAME, FILE = "llava-1.5", "llava-1.5-textvqa-official.npz"
TASK = find_task("official", NAME, find_benchmark("textvqa"))


@pytest.fixture(scope="module", autouse=True)
def few_readings():
    """Enough to see what is put in here; ``-m faults`` reads as many items as a user's record has."""
    with pytest.MonkeyPatch.context() as patched:
        for name, count in {"READ": 6, "VARIED": 2, "AGAIN": 12}.items():
            patched.setattr(f"repro.gate.record.{name}", count)
        yield


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    directory = tmp_path_factory.mktemp("record")
    report = tmp_path_factory.mktemp("report")
    record(load_model(NAME), "textvqa", DIRECTORY, directory, count=24, report=report, progress=False)
    return directory


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A model in bfloat16 and the directory of its record."""
    directory = tmp_path_factory.mktemp("half")
    report = tmp_path_factory.mktemp("report")
    lvlm = load_model(NAME, dtype=torch.bfloat16)
    record(lvlm, "textvqa", DIRECTORY, directory, count=24, report=report, progress=False)
    return directory


def test_heat_is_read_of_a_part_that_every_layer_has(monkeypatch):
    lvlm = load_model(NAME)
    prompt = lvlm.prompt(Image.new("RGB", (48, 48), "red"), "What is in the image?")
    assert read(lvlm, prompt, [5, 6])["heat"].any()  # the proofs on the way learn the parts anew
    layers = lvlm.roles
    for lacking, module in (
        (("post_attention_norm",), "attention"),
        (("post_attention_norm", "attention"), "layer"),
    ):
        own = [{role: part for role, part in layers[1].items() if role not in lacking}]
        monkeypatch.setattr(lvlm, "roles", [layers[0], *own, *layers[2:]])
        expected = llava_cam(lvlm, prompt, [5, 6], noise=0, module=module)
        found = read(lvlm, prompt, [5, 6])["heat"]
        np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-3)


def against(lvlm, directory, tmp_path):
    return check(lvlm, "textvqa", DIRECTORY, directory, report=tmp_path / "report", progress=False)


def items_of(one):
    by_id = {item.id: item for item in TASK.benchmark.load(DIRECTORY)}
    return [by_id[item] for item in one.items]


def compared(before, after):
    return compare(before, after, TASK, items_of(before), MARGIN)


def test_the_same_in_bfloat16_passes_with_another_kernel(half, tmp_path):
    lvlm = load_model(NAME, dtype=torch.bfloat16)
    with lvlm.kernel("eager"):
        outcome = against(lvlm, half, tmp_path)
    assert outcome.verdict in ("identical", "same within noise"), outcome.sentence


@pytest.mark.parametrize("number", [3, 13, 17])
def test_a_fault_is_found_in_bfloat16(half, tmp_path, number):
    [fault] = [fault for name, fault in REPORTED.items() if name.startswith(f"{number} ")]
    lvlm = load_model(NAME, dtype=torch.bfloat16)
    fault.put(lvlm)
    try:
        outcome = against(lvlm, half, tmp_path)
    except GateError:
        return
    assert outcome.failing, outcome.sentence


def test_small_changes_of_pixels_are_seen(recorded):
    lvlm = load_model(NAME)
    prompt = TASK.prompt(lvlm, items_of(load(recorded / FILE))[0])
    name = lvlm.pixel_name(prompt)
    values = prompt.image_inputs[name]
    other = replace(prompt, image_inputs={**prompt.image_inputs, name: values + 1e-3 * values.abs().mean()})
    apart = distances(read_inputs(prompt), read_inputs(other))
    assert apart["prompt"] == 0 and apart["pixels"] > 1e-4


def test_every_number_that_a_processor_gives_is_compared():
    lvlm = load_model("instructblip")
    task = find_task("official", "instructblip", find_benchmark("textvqa"))
    prompt = task.prompt(lvlm, task.benchmark.load(DIRECTORY)[0])
    [name] = [n for n, v in prompt.image_inputs.items() if "qformer" in n and "ids" in n]
    other = replace(prompt, image_inputs={**prompt.image_inputs, name: prompt.image_inputs[name] + 1})
    assert np.isinf(distances(read_inputs(prompt), read_inputs(other))["prompt"])


def test_the_inputs_of_every_item_are_compared(recorded):
    one = load(recorded / FILE)
    unread = next(i for i in range(24) if i not in one.read)
    prompts = one.inputs["prompt"].copy()
    prompts[unread] += 1
    outcome = compared(one, replace(one, inputs={**one.inputs, "prompt": prompts}))
    assert outcome.verdict == "changed" and "prompt differs" in outcome.sentence


def test_nothing_changed_is_equal_bit_by_bit(recorded, tmp_path):
    assert against(load_model(NAME), recorded, tmp_path).verdict == "identical"


def test_other_answers_are_a_change_even_if_all_scores_are_equal(recorded):
    one = load(recorded / FILE)
    outcome = compared(one, replace(one, ids=[["[1]"] * len(layers) for layers in one.ids]))
    assert outcome.verdict == "changed" and "24 of 24 answers changed" in outcome.sentence


def test_a_metric_that_does_not_decide_may_be_worse(recorded):
    """Every metric of a benchmark is looked at; the first only decides whether a loss is ruled out."""
    one = load(recorded / FILE)
    task = find_task("official", NAME, find_benchmark("chair"))
    first, second = (metric.name for metric in task.benchmark.metrics[:2])
    n, layers = len(one.items), one.about["layers"] + 1
    parts = {
        name: np.stack([np.zeros((n, layers)), np.ones((n, layers))], -1)
        for name in task.benchmark.metric_names
    }
    after = {name: values.copy() for name, values in parts.items()}
    after[second][:, :, 0] = 1
    sides = [replace(one, parts=values) for values in (parts, after)]
    outcome = compare(*sides, task, items_of(one), MARGIN)
    assert outcome.scores[0].gain == 0 and outcome.verdict == "worse" and second in outcome.sentence, first


def test_a_change_does_not_hide_that_a_loss_cannot_be_told(recorded):
    one = load(recorded / FILE)
    prompts = one.inputs["prompt"] + 1
    outcome = compared(one, replace(one, inputs={**one.inputs, "prompt": prompts}))
    assert outcome.failing == ["changed", "cannot tell"] and "images would show" in outcome.sentence


def test_questions_about_one_image_are_no_evidence_of_their_own():
    parts = np.ones((786, 1, 2))
    sides = Scores(parts, np.zeros(786, int), np.arange(786) // 6)
    one = difference("accuracy", sides, sides, MARGIN)
    assert (one.n, one.images) == (786, 131) and one.low < -0.027 and one.verdict(MARGIN) == "cannot tell"


def test_a_readme_beside_the_weights_makes_no_other_weights(recorded, tmp_path):
    path = shutil.copytree(load_model(NAME).path, tmp_path / "copy")
    (path / "README.md").write_text("About.")
    assert weights_of(path) == load(recorded / FILE).about["weights"]
    lvlm = load_model(NAME, path)
    outcome = against(lvlm, recorded, tmp_path)
    assert outcome.same_weights and "other weights" not in outcome.sentence


def test_answers_for_another_purpose_or_by_other_threads_are_not_gone_on_with(tmp_path):
    lvlm = load_model(NAME)
    items = TASK.benchmark.load(DIRECTORY)[:12]

    def runs_after(purpose):
        ask(lvlm, TASK, items, items[:6], tmp_path, purpose, progress=False)  # as if broken off
        with closing(Results(tmp_path / RESULTS)) as results:
            return len(results.runs())

    assert [runs_after("record"), runs_after("record"), runs_after("against")] == [1, 1, 2]
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert runs_after("against") == 3
    finally:
        torch.set_num_threads(threads)


def deaf(lvlm):
    lvlm.model.model.multi_modal_projector.register_forward_hook(lambda *args: torch.zeros_like(args[-1]))


def mixed_up(lvlm):
    """The image features of the first prompt for every prompt."""
    features = []

    def run(module, args, output):
        features.append(output[:1])
        return features[0].expand_as(output)

    lvlm.model.model.multi_modal_projector.register_forward_hook(run)


def seeing_ahead(lvlm):
    """Every token sees every other, also those behind it."""
    masked(lvlm, torch.ones_like)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (deaf, "a blank image gives"),
        (mixed_up, "another item's image gives"),
        (seeing_ahead, "causality is lost"),
    ],
)
def test_no_record_is_made_of_a_model_that_fails_a_tripwire(recorded, tmp_path, fault, says):
    lvlm = load_model(NAME)  # proved when it was recorded, and broken since
    fault(lvlm)
    with pytest.raises(GateError, match=f"nothing is recorded .*{says}"):
        record(lvlm, "textvqa", DIRECTORY, tmp_path, count=16, report=tmp_path / "report", progress=False)
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tripwires_hold_in_half_precision(recorded, dtype):
    lvlm = load_model(NAME, dtype=dtype)
    items = items_of(load(recorded / FILE))
    prompts = [TASK.prompt(lvlm, item) for item in items[:2]]
    answers = [tuple(lvlm.answer(prompt, 6).ids) for prompt in prompts]
    assert tripwires(lvlm, prompts, answers, {"logits": np.array([8 * torch.finfo(dtype).eps])}) == []
    deaf(lvlm)
    assert "does not reach the answer" in tripwires(lvlm, prompts, answers, {"logits": np.array([0.05])})[0]


def without_stage(one):
    del one.readings[1]["layers"]


def without_score(one):
    one.parts.clear()


def without_layer(one):
    one.ids[3].pop()


def with_number_type(one):
    one.about["dtype"] = "torch.load"


def without_weights(one):
    del one.about["weights"]


def without_noise(one):
    del one.noise["logits"]


@pytest.mark.parametrize(
    "damage", [without_stage, without_score, without_layer, with_number_type, without_weights, without_noise]
)
def test_a_record_with_something_missing_is_damaged(recorded, tmp_path, damage):
    one = load(recorded / FILE)
    damage(one)
    save(one, tmp_path)
    with pytest.raises(GateError, match=r"is no record, or damaged \(.*\): record it anew"):
        load(tmp_path / FILE)


def test_a_record_of_another_model_is_named(recorded, tmp_path):
    shutil.copy(recorded / FILE, tmp_path / "shikra-textvqa-official.npz")
    with pytest.raises(GateError, match="the record's model is 'llava-1.5', today's is 'shikra'"):
        check(load_model("shikra"), "textvqa", DIRECTORY, tmp_path, report=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("expression", "selected"),
    [
        ("gate", True),
        ("(gate) and not gpu", True),
        ("not gate", False),
        ("not  gate", False),
        ("gated", False),
    ],
)
def test_the_marker_is_found_in_an_expression(expression, selected):
    class Config:
        def getoption(self, name):
            return expression

    assert wanted(Config(), "gate") is selected


def run(*arguments):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gate", "--model", NAME]
    command += ["--benchmark", "textvqa", *map(str, arguments), "tests/gate/test_gate.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_what_could_not_be_compared_is_on_the_page_and_no_earlier_page_stays(tmp_path):
    report = tmp_path / "report"
    report.mkdir()
    for name in ("gate.html", "gate.md", "gate.json"):
        (report / name).write_text("of yesterday")
    status, said = run("--against", tmp_path, "--report", report)
    assert status == 1 and "Traceback" not in said and "not compared" in said
    for name in ("gate.html", "gate.md", "gate.json"):
        text = (report / name).read_text()
        assert "not compared" in text and "of yesterday" not in text and "record it first" in text
    assert json.loads((report / "gate.json").read_text())["outcomes"] == []


def test_verdicts_are_allowed_of_comparisons_only(tmp_path):
    status, said = run("--record", tmp_path, "--allow", "changed")
    assert status == pytest.ExitCode.USAGE_ERROR and "--allow: is about verdicts" in said


def test_an_image_that_cannot_be_read_is_one_line(tmp_path):
    data = shutil.copytree(DIRECTORY, tmp_path / "data")
    for image in (data / "images").rglob("*") if (data / "images").is_dir() else data.rglob("*.png"):
        if image.is_file():
            image.write_bytes(b"no image")
    status, said = run("--record", tmp_path / "record", "--report", tmp_path / "report", "--data", data)
    assert status == 1 and "Traceback" not in said and "llava-1.5 on textvqa" in said


def test_models_of_different_depth_are_compared_by_share_of_it(recorded, tmp_path):
    one = load(recorded / FILE)
    deep = one.about["layers"]
    shallow = replace(
        one,
        about=one.about | {"layers": deep - 2, "weights": "other"},
        parts={name: values[:, 2:] for name, values in one.parts.items()},
        answers=[layers[2:] for layers in one.answers],
        ids=[layers[:-1] + ["[1]"] for layers in (ids[2:] for ids in one.ids)],
    )
    outcome = compared(one, shallow)
    assert outcome.left_out and not outcome.stages and not outcome.curve
    assert [len(values) for values in outcome.values] == [deep + 1, deep - 1]
    assert f"another model (a llava of {deep} layers → a llava of {deep - 2} layers)" in outcome.sentence
    page = write_gate(load_outcomes([write_outcome(outcome, tmp_path)]), "pytest", tmp_path).read_text()
    assert f"of {deep} (" in page and f"of {deep - 2} (" in page and "% of the depth" in page
    assert f"<small>{deep} → {deep - 2}: " in page


def test_a_sample_has_as_many_images_as_it_can_and_every_kind_of_answer():
    items = find_benchmark("pope").load(DIRECTORY)
    few, many = sample(items, 60), sample(items, 784)
    assert len({item.image for item in few}) == len(few) == 60
    images = {item.image for item in items}
    assert len(many) == 3 * len(images) and {item.image for item in many} == images
    for chosen in (few, many):
        assert sum(item.reference for item in chosen) == len(chosen) / 2
