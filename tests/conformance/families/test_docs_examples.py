"""Do the examples of the README and of docs/ run as they stand there?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from repro.models.card import REGISTRY
from repro.truncation import truncated

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).resolve().parents[3]


def example(file: Path, name: str) -> str:
    """The Python code between two marks of this name."""
    marks = rf"<!-- {name} -->\n```python\n(.*?)```\n<!-- /{name} -->"
    [code] = re.findall(marks, file.read_text(encoding="utf-8"), re.DOTALL)
    return code


@pytest.fixture
def place_of_the_example(llava_interleave, picture, monkeypatch):
    """The working directory in which the example finds its checkpoint and its picture."""
    directory = llava_interleave.parents[1]
    picture(30, 20).save(directory / "kite.png")
    monkeypatch.chdir(directory)
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


@pytest.mark.usefixtures("place_of_the_example")
def test_the_example_of_at_most_40_lines_sweeps_a_model_it_adds(capsys):
    code = example(ROOT / "docs" / "models.md", "adding a model")
    assert len(code.splitlines()) <= 40
    found: dict = {}
    exec(compile(code, "docs/models.md", "exec"), found)
    lvlm, prompt = found["lvlm"], found["prompt"]
    assert len(prompt.segments.image) == 16
    answers = []
    for layer in range(lvlm.n_layers + 1):
        with truncated(lvlm, layer):
            answers.append(lvlm.answer(prompt, 8).text)
    assert len(set(answers)) > 1
    lines = [f"truncated after layer {layer}: {text}" for layer, text in enumerate(answers)]
    assert capsys.readouterr().out == "\n".join(lines) + "\n"


def test_the_notebook_of_the_readme_runs(monkeypatch, tmp_path):
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(example(ROOT / "README.md", "notebook"), "README.md", "exec"), names)
    swept, answer = names["swept"], names["answer"]
    assert swept.answers[-1] == answer and len(swept.answers) == names["lvlm"].n_layers + 1
    assert (tmp_path / "report" / "measured" / "llava-1.5-textvqa-official.npz").is_file()
