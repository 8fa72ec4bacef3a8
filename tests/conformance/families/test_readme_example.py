"""Does the README's example of adding a model run as it stands there?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from repro.models.card import REGISTRY
from repro.truncation import truncated

pytestmark = pytest.mark.conformance

README = Path(__file__).resolve().parents[3] / "README.md"
EXAMPLE = re.compile(r"<!-- adding a model -->\n```python\n(.*?)```\n<!-- /adding a model -->", re.DOTALL)


@pytest.fixture
def place_of_the_example(llava_interleave, picture, monkeypatch):
    """The working directory in which the README's example finds its checkpoint and its picture."""
    directory = llava_interleave.parents[1]
    picture(30, 20).save(directory / "kite.png")
    monkeypatch.chdir(directory)
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


@pytest.mark.usefixtures("place_of_the_example")
def test_the_example_of_at_most_40_lines_sweeps_a_model_it_adds(capsys):
    [example] = EXAMPLE.findall(README.read_text(encoding="utf-8"))
    assert len(example.splitlines()) <= 40
    found: dict = {}
    exec(compile(example, str(README), "exec"), found)
    lvlm, prompt = found["lvlm"], found["prompt"]
    assert len(prompt.segments.image) == 16
    answers = []
    for layer in range(lvlm.n_layers + 1):
        with truncated(lvlm, layer):
            answers.append(lvlm.answer(prompt, 8).text)
    assert len(set(answers)) > 1
    lines = [f"truncated after layer {layer}: {text}" for layer, text in enumerate(answers)]
    assert capsys.readouterr().out == "\n".join(lines) + "\n"
