"""Which weights a name stands for on a GPU and without one, and what is refused there before it measures."""

import os
import shutil
from pathlib import Path

import pytest

from repro.models import load_model
from repro.models.card import FIXTURES, REGISTRY
from repro.pytest_plugin.options import models_of
from repro.pytest_plugin.suite import _take_gpu
from tests.conformance.options.running import ONE, ROOT, said

pytestmark = pytest.mark.conformance


def test_gpu_without_cuda_fails(run, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    given = ("--model", f"llava-1.5={FIXTURES / 'llava-1.5'}")
    result = run("-m", "gpu", *given, "--benchmark", "pope", "--report", tmp_path / "report")
    result.assert_outcomes(errors=1)
    assert "no CUDA device" in said(result)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache of huggingface_hub, on a machine without CUDA."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return tmp_path / "hub"


def store_snapshot(cache: Path, repository: str, *files: Path) -> Path:
    """A snapshot of these files in the cache, as ``hf download`` leaves it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abc")
    snapshot = folder / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    for file in files:
        (snapshot / file.name).symlink_to(file)
    return snapshot


def test_gpu_by_name_alone_asks_for_the_published_weights_before_cuda(run, cache, tmp_path):
    result = run("-m", "gpu", "--model", "qwen-vl", "--benchmark", "pope", "--report", tmp_path / "report")
    result.assert_outcomes(errors=1)
    message = said(result)
    assert str(cache / "models--Qwen--Qwen-VL" / "refs" / "main") + " is missing" in message
    assert "hf download Qwen/Qwen-VL --local-dir DIR" in message
    assert "python -m repro.models.convert DIR OUT" in message and "--model qwen-vl=OUT" in message
    assert "CUDA" not in message


def test_a_snapshot_without_its_files_names_the_first_that_is_missing(run, cache, tmp_path):
    snapshot = store_snapshot(cache, "llava-hf/llava-1.5-7b-hf")
    arguments = ("-m", "gpu", "--model", "llava-1.5", "--benchmark", "pope", "--report", tmp_path / "report")
    assert f"{snapshot / 'config.json'} is missing" in said(run(*arguments))
    (snapshot / "config.json").symlink_to(REGISTRY["llava-1.5"].miniature / "config.json")
    message = said(run(*arguments))
    assert f"{snapshot} holds no weights: expected model.safetensors" in message
    assert "hf download llava-hf/llava-1.5-7b-hf" in message and "--model llava-1.5=DIR" in message


def test_weights_that_are_there_lead_on_to_cuda(run, cache, monkeypatch, tmp_path):
    miniature = REGISTRY["llava-1.5"].miniature
    store_snapshot(cache, "llava-hf/llava-1.5-7b-hf", *miniature.iterdir())
    monkeypatch.chdir(miniature.parent)
    for given in ("llava-1.5", f"llava-1.5={miniature}", "llava-1.5=llava-1.5"):
        result = run("-m", "gpu", "--model", given, "--benchmark", "pope", "--report", tmp_path / "report")
        result.assert_outcomes(errors=1)
        assert "no CUDA device" in said(result)


def test_a_relative_path_to_the_miniature_is_the_miniature(pytester, monkeypatch):
    monkeypatch.chdir(FIXTURES)
    config = pytester.parseconfig("-c", ROOT / "pyproject.toml", "--model", "llava-1.5=llava-1.5")
    assert models_of(config) == {"llava-1.5": REGISTRY["llava-1.5"].miniature}


def test_a_name_alone_is_the_miniature_on_a_cpu(run, cache, tmp_path):
    result = run(
        "--model", "llava-1.5", "--data", tmp_path, "--benchmark", "textvqa", "--report", tmp_path / "r"
    )
    result.assert_outcomes(errors=1)
    assert "TextVQA_0.5.1_val.json" in said(result) and str(cache) not in said(result)


@pytest.fixture
def as_real(monkeypatch, tmp_path):
    """``--model`` with a copy of the miniature, which counts as a real model; the CPU stands in for CUDA."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a stand-in")
    monkeypatch.setattr(
        "repro.pytest_plugin.suite.load_model", lambda name, path, device: load_model(name, path)
    )
    copy = shutil.copytree(REGISTRY["llava-1.5"].miniature, tmp_path / "checkpoint")
    return f"--model=llava-1.5={copy}"


@pytest.mark.parametrize("chosen", ["checkpoint", "chair", "cuda"])
def test_an_update_that_would_record_nothing_fails_before_it_measures(
    run, swept, monkeypatch, tmp_path, chosen
):
    records = tmp_path / "records"
    monkeypatch.setattr("repro.evaluation.recorded.RECORDS", records)
    copy = shutil.copytree(REGISTRY["llava-1.5"].miniature, tmp_path / "checkpoint")
    arguments = {
        "checkpoint": [f"--model=llava-1.5={copy}", "--benchmark", "textvqa"],
        "chair": [*ONE, "--benchmark", "chair", "--chair", "exact"],
        "cuda": [
            *ONE[:1],
            f"llava-1.5={REGISTRY['llava-1.5'].miniature}",
            "-m",
            "gpu",
            "--benchmark",
            "pope",
        ],
    }[chosen]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a stand-in")
    monkeypatch.setattr(
        "repro.pytest_plugin.suite.load_model", lambda name, path, device: load_model(name, path)
    )
    result = run(*arguments, "--snapshot-update", "--report", tmp_path / "report")
    result.assert_outcomes(failed=1)
    assert "--snapshot-update records shipped miniatures" in said(result) and swept["prompts"] == 0
    assert not records.exists()


def test_on_cuda_a_real_model_is_not_compared_on_miniature_data(run, as_real, tmp_path):
    result = run("-m", "gpu", as_real, "--benchmark", "textvqa", "--report", tmp_path / "report")
    result.assert_outcomes(failed=1)
    assert "TextVQA are of the published data" in said(result) and "--data DIR" in said(result)


def test_on_cuda_a_real_model_is_compared_with_the_paper(run, as_real, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(FIXTURES / "miniworld" / "textvqa", data / "textvqa")
    arguments = ("--data", data, "--benchmark", "textvqa", "--limit", "8", "--report", tmp_path / "report")
    result = run("-m", "gpu", as_real, *arguments)
    result.assert_outcomes(failed=1)
    message = said(result)
    assert (
        "llava-1.5 on TextVQA, protocol official: " in message
        and "the paper's is 59.34 % on 5000 (Table 1, " in message
    )
    assert "on 8 items, 95 % interval [" in message and "tolerance " in message
    assert "report: " in message  # what was measured is shown although it differs


def test_gpu_and_performance_run_only_when_named(run):
    result = run("--collect-only", "-q")
    assert "cuda" not in said(result) and "cpu" in said(result)
    result = run("--collect-only", "-q", "-m", "gpu")
    assert "cuda" in said(result) and "cpu" not in said(result)


@pytest.mark.parametrize(
    ("visible", "taken"),
    [("4,7,9", ["4", "7", "9", "4"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"]), ("5", ["5", "5"])],
)
def test_every_worker_takes_one_gpu(monkeypatch, visible, taken):
    for worker, gpu in enumerate(taken):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        _take_gpu(f"gw{worker}")
        assert os.environ["CUDA_VISIBLE_DEVICES"] == gpu
