"""Prompts from rendered scenes, and what the invariant tests of the instruments share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.models import load_model
from repro.protocols import find_task

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from repro.models.lvlm import Lvlm
    from repro.models.prompts import Prompt

#: Of different lengths, as the questions of a benchmark are.
QUESTIONS = (
    "Is there a donut in the image?\nAnswer the question using a single word or phrase.",
    "What is the number?",
    "Where is the kite?\nA. left\nB. right\nAnswer with the option's letter from the given choices directly.",
)
ANSWER = "The image shows a red donut and a blue kite."


@pytest.fixture(scope="session")
def about() -> Callable[[str], AbstractContextManager[None]]:
    """Adds to a failed comparison what was compared, in words: numbers alone do not say what broke."""

    @contextmanager
    def noting(words: str) -> Iterator[None]:
        try:
            yield
        except AssertionError as error:
            error.add_note(words)
            raise

    return noting


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Three different scenes."""
    from PIL import Image

    files = sorted((MINIWORLD / "coco" / "val2014").glob("*.png"))
    return [Image.open(file).convert("RGB") for file in files[: len(QUESTIONS)]]


@pytest.fixture(scope="session")
def prompts(lvlm: Lvlm, pictures: list[Image.Image]) -> list[Prompt]:
    """Three prompts of different pictures and lengths."""
    made = [lvlm.prompt(picture, text) for picture, text in zip(pictures, QUESTIONS, strict=True)]
    assert len({len(prompt.segments) for prompt in made}) == len(made)
    return made


@pytest.fixture(scope="session")
def prompt(prompts: list[Prompt]) -> Prompt:
    """The shortest of them."""
    return min(prompts, key=lambda one: len(one.segments))


@pytest.fixture(scope="session")
def answer(lvlm: Lvlm) -> list[int]:
    """Ids to force on the model, whatever it would say itself."""
    ids = lvlm.tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    assert len(ids) > 4 and lvlm.image_token_id not in ids
    return ids


@pytest.fixture(scope="session")
def generate(generated) -> Callable[[Lvlm, Prompt, int], tuple[tuple[int, ...], np.ndarray]]:
    """The model's own greedy ``generate``: ids, and the logits [steps, vocabulary] of every step."""
    import torch

    def run(lvlm: Lvlm, prompt: Prompt, max_new_tokens: int) -> tuple[tuple[int, ...], np.ndarray]:
        out = generated(lvlm, max_new_tokens, input_ids=prompt.input_ids, **prompt.image_inputs)
        ids = out.sequences[0, prompt.input_ids.shape[1] :]
        return tuple(ids.tolist()), torch.cat(out.logits).float().cpu().numpy()

    return run


@pytest.fixture(scope="session")
def eager_attention(lvlm: Lvlm, decoder_inputs) -> Callable[[Prompt, list[int]], np.ndarray]:
    """Attention probabilities [N, T, T] by transformers' own eager code, mean over heads."""
    import torch

    # Loaded anew: transformers captures attentions by hooks that a deep copy would share with the original.
    eager = load_model(lvlm.card.name, lvlm.path, lvlm.model.dtype, lvlm.device)
    # Of the decoder alone, by hand: transformers switches only models whose own module calls its attention.
    eager.decoder.config._attn_implementation = "eager"

    def run(prompt: Prompt, answer: list[int]) -> np.ndarray:
        ids = lvlm.sequence(prompt, answer)
        given = decoder_inputs(eager, lambda: eager.model(input_ids=ids, **prompt.image_inputs))
        embedded = given["inputs_embeds"]
        with torch.inference_mode():
            out = eager.decoder(inputs_embeds=embedded, output_attentions=True, use_cache=False)
        return torch.cat(out.attentions).float().mean(dim=1).cpu().numpy()

    return run


@pytest.fixture(scope="session")
def broken(lvlm: Lvlm) -> Lvlm:
    """A copy of the model with one weight that is not a number, in the queries of layer 4."""
    import torch

    copied = load_model(lvlm.card.name, lvlm.path, lvlm.model.dtype, lvlm.device)
    next(copied.decoder.layers[3].self_attn.parameters()).view(-1)[0] = torch.nan
    return copied


@pytest.fixture(scope="session")
def shifted(prompt: Prompt) -> Prompt:
    """The shortest prompt with its image one token later."""
    import numpy as np

    from repro.segments import Segments

    image, user = prompt.segments.image, prompt.segments.user
    order = np.concatenate([prompt.segments.system, user[:1], image, user[1:]])
    segments = Segments.from_image_mask(np.isin(order, image))
    return replace(prompt, input_ids=prompt.input_ids[:, order], segments=segments)


@pytest.fixture(scope="module")
def evaluation(lvlm, tmp_path_factory):
    """Eight scenes of TextVQA, with the results file of the run."""
    from repro.evaluation.results import Results
    from repro.evaluation.run import begin, evaluate, limited

    task = find_task("official", lvlm.card.name, BENCHMARKS["textvqa"])
    items = limited(task.benchmark.load(MINIWORLD), 8)
    results = Results(tmp_path_factory.mktemp("run") / "results.sqlite", new=True)
    run = begin(results, lvlm, task, items)
    return evaluate(lvlm, task, items, run, progress=False), results


@pytest.fixture
def swept(monkeypatch):
    """Counts the prompts that are swept."""
    from repro.sweep import sweep

    counted = []

    def sweep_and_count(lvlm, prompts, *args, **settings):
        counted.append(len(prompts))
        return sweep(lvlm, prompts, *args, **settings)

    monkeypatch.setattr("repro.evaluation.run.sweep", sweep_and_count)
    return counted
