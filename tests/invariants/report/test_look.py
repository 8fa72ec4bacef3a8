"""One picture and one question: the page shows what the instruments give, and says what cannot be used."""

from __future__ import annotations

import sys

import pytest
import torch

from repro.admission import Admitted
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.look import look, main
from repro.models import load_model
from repro.report.pages import render
from repro.truncation import truncated

pytestmark = pytest.mark.invariant

PICTURE = MINIWORLD / "coco" / "val2014" / "COCO_val2014_000000003033.png"
QUESTION = "Is there a kite in the image?\nAnswer the question using a single word or phrase."


@pytest.fixture(scope="module")
def lvlm():
    return load_model("llava-1.5")


def test_the_page_shows_the_answer_at_every_layer_and_its_probability(lvlm, tmp_path, sample):
    seen = look(lvlm, PICTURE, QUESTION)
    prompt = lvlm.prompt(PICTURE, QUESTION)
    answer = lvlm.answer(prompt, 64)
    assert seen.answer == answer.text == seen.turns[-1].answer and seen.turns[-1].last == lvlm.n_layers
    assert [turn.first for turn in seen.turns[1:]] == [turn.last + 1 for turn in seen.turns[:-1]]
    for after in (0, lvlm.n_layers):
        with truncated(lvlm, after), torch.inference_mode():
            rows = lvlm.logits(prompt, answer.ids[:-1])[-len(answer.ids) :].softmax(-1)
            whole = float(rows[range(len(answer.ids)), answer.ids].prod())
        assert seen.probability[after] == f"{100 * whole:.1f}"
    assert (
        seen.heat.layers == lvlm.n_layers
        and ("image", f"{len(prompt.segments.image)} image tokens") in seen.tokens
    )
    words = "".join(token for segment, token in seen.tokens if segment == "user")
    assert "kite" in words
    (tmp_path / "look.html").write_bytes(render("look.html.j2", report=seen))
    page = sample.read(tmp_path / "look.html")
    page.check_alone()
    assert "Answered: " + seen.answer in page.text and page.tags.count("figure") == lvlm.n_layers + 1


def test_a_model_whose_truncation_is_refused_answers_all_the_same(lvlm, monkeypatch):
    refusal = Admitted("truncation", False, "layers hand their keys on")
    monkeypatch.setattr("repro.look.admission", lambda lvlm: [refusal])
    seen = look(lvlm, PICTURE, QUESTION, 5)
    assert seen.answer == lvlm.answer(lvlm.prompt(PICTURE, QUESTION), 5).text
    assert seen.turns == seen.probability == [] and seen.notes == [str(refusal)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--question": "  "}, "the question is empty"),
        ({"--image": "missing.png"}, "no image at missing.png"),
        ({"--image": __file__}, "cannot read the image"),
        ({"--model": "nobody"}, "no model 'nobody', nor a directory of this name"),
        ({"--model": "llava-1.5=/nowhere"}, "/nowhere"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(monkeypatch, capsys, tmp_path, change, words):
    given = {
        "--model": "llava-1.5",
        "--image": str(PICTURE),
        "--question": QUESTION,
        "--out": str(tmp_path / "l.html"),
    }
    arguments = [part for pair in (given | change).items() for part in pair]
    monkeypatch.setattr(sys, "argv", ["look", *arguments])
    assert main() == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not list(tmp_path.iterdir())
