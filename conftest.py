"""What the tests of this checkout share; the suite's own plugin is ``repro.pytest_plugin.suite``.

Every start of pytest reads this file: what is slow to import is imported where it is used.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from repro.models.card import REGISTRY

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor
    from transformers.generation import GenerateDecoderOnlyOutput

    from repro.models.lvlm import Lvlm

pytest_plugins = ["pytester"]

#: Of logits, relative to the largest: float32 summed in another order. Measured 3e-6 at most, here times 10.
LOGIT_TOLERANCE = 3e-5


#: Markers of tests that all stand in the room of that name: behind ``-m`` alone, no other room is imported.
ROOMS = ("audit", "families", "gate", "golden", "table1")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    marker = config.getoption("-m")
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    other = collection_path.parent == config.rootpath / "tests" and collection_path.name != marker
    return True if whole and marker in ROOMS and other else None


def pytest_configure(config: pytest.Config) -> None:
    """What is proved of shipped miniatures is recorded for one session, for all of its workers."""
    if hasattr(config, "workerinput") or config.getoption("--model"):
        return  # a worker inherits the directory; a person's own model is recorded in their own cache
    directory = tempfile.mkdtemp(prefix="repro-cache-")
    config.add_cleanup(partial(shutil.rmtree, directory, ignore_errors=True))
    patched = pytest.MonkeyPatch()
    patched.setenv("REPRO_CACHE", directory)
    config.add_cleanup(patched.undo)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """A regression suite must find the same examples every time, on however slow a machine."""
    if session.config.getoption("-m") in set(ROOMS) - {"audit"}:  # where no test draws examples
        return
    # Tests take the profile that is loaded when their module is imported.
    from hypothesis import settings

    settings.register_profile("repro", derandomize=True, deadline=None)
    settings.load_profile("repro")


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Models that a test registers are gone after it."""
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


@pytest.fixture(scope="session")
def generated() -> Callable[..., GenerateDecoderOnlyOutput]:
    """The model's own greedy ``generate`` of input ids and image inputs: ids, the logits of every step, cache."""
    import torch

    def run(lvlm: Lvlm, max_new_tokens: int, **inputs: Tensor) -> GenerateDecoderOnlyOutput:
        inputs = {"attention_mask": torch.ones_like(inputs["input_ids"]), **inputs}
        with torch.inference_mode():
            return lvlm.model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,
                return_dict_in_generate=True,
                output_logits=True,
            )

    return run


@pytest.fixture(scope="session")
def decoder_inputs() -> Callable[..., dict[str, Any]]:
    """What the model hands its decoder by keyword, ``inputs_embeds`` among it, in the first pass of a run."""
    import torch

    def capture(lvlm: Lvlm, run: Callable[[], object]) -> dict[str, Any]:
        calls: list[dict[str, Any]] = []

        def record(module: object, args: object, kwargs: dict[str, Any]) -> None:
            calls.append(kwargs)

        handle = lvlm.decoder.register_forward_pre_hook(record, with_kwargs=True)
        try:
            with torch.no_grad():
                run()
        finally:
            handle.remove()
        return calls[0]

    return capture


@pytest.fixture(scope="session")
def close() -> Callable[..., None]:
    """Fails unless two arrays are equal to a tolerance relative to the largest value expected."""
    import torch

    def check(found: ArrayLike, expected: ArrayLike, tolerance: float = LOGIT_TOLERANCE) -> None:
        found, expected = torch.as_tensor(found).cpu(), torch.as_tensor(expected).cpu()
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))

    return check
