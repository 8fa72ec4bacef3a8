"""How many GPUs a model takes, and what lies on which; that instruments work on it is in tests/devices."""

from __future__ import annotations

import pytest
import torch

from repro.models import load_model, placing
from repro.models.loading import CheckpointError
from repro.models.placing import SHARE, bytes_of, check_gpus, gpus_needed, place

pytestmark = pytest.mark.invariant

CUDA = torch.device("cuda", 0)


@pytest.fixture
def gpus(monkeypatch):
    """Say of how many bytes and which devices the GPUs are: torch's meta device, or the CPU."""

    def there(memory: int, *devices: str) -> None:
        monkeypatch.setattr(placing, "memory_of", lambda device: memory)
        monkeypatch.setattr(placing, "gpus_from", lambda device: list(map(torch.device, devices)))

    return there


def test_published_sizes_take_the_gpus_that_hold_them():
    # LLaVA-1.5-7B, a 34B and Qwen2.5-VL-72B in bfloat16, on cards of 80 GB; the last on 141 GB, too.
    assert [gpus_needed(weights, 80e9) for weights in (int(14.1e9), int(68e9), int(147e9))] == [1, 2, 3]
    assert gpus_needed(int(147e9), 141e9) == 2
    assert gpus_needed(int(SHARE * 80e9), 80e9) == 1 and gpus_needed(0, 80e9) == 1


def test_layers_are_spread_evenly_and_in_order(gpus):
    model = load_model("llava-1.5").model
    total = bytes_of(model)
    gpus(total // 2, "cpu", "meta", "meta", "cpu")  # takes three
    assert place(model, CUDA) is model
    where = [next(layer.parameters()).device.type for layer in model.model.language_model.layers]
    assert where == sorted(where) and set(where) == {"cpu", "meta"}
    rest = [
        p.device.type for name, p in model.named_parameters() if ".layers." not in name or "vision" in name
    ]
    assert set(rest) == {"cpu"}
    moved = sum(p.nbytes for p in model.parameters() if p.device.type == "meta")
    layer = bytes_of(model.model.language_model.layers[0])
    assert abs(moved - 2 * total / 3) <= layer


@pytest.mark.parametrize("devices", [("meta",), ("meta", "cpu")])
def test_a_model_that_fits_one_gpu_or_has_but_one_is_on_it(gpus, devices):
    model = load_model("llava-1.5").model
    gpus(bytes_of(model) if len(devices) == 1 else 2 * bytes_of(model), *devices)
    moved = []
    model.to = lambda device: moved.append(device) or model
    assert place(model, CUDA) is model and moved == [CUDA]


def test_too_few_gpus_are_an_error_that_says_how_many_are_wanted(gpus):
    gpus(int(80e9), "meta")
    with pytest.raises(CheckpointError) as error:
        check_gpus(int(147e9), CUDA)
    assert str(error.value) == (
        "the weights take 147.0 GB, and CUDA_VISIBLE_DEVICES shows 1 GPU(s) of 80.0 GB from cuda:0 on: "
        "3 are wanted"
    )
    check_gpus(int(79e9), CUDA)
    check_gpus(int(147e9), torch.device("cpu"))
