"""What was answered is not asked again; what cannot be asked fails by itself."""

import dataclasses
import zlib

import numpy as np
import pytest

import repro.evaluation.run as running
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.evaluation.results import Results
from repro.evaluation.run import begin, evaluate
from repro.models import find_card, load_model
from repro.protocols import find_task

pytestmark = pytest.mark.invariant


def same(one, other):
    assert one.items == other.items and one.answers == other.answers
    np.testing.assert_array_equal(one.parts["accuracy"], other.parts["accuracy"])
    np.testing.assert_array_equal(one.probability, other.probability)


def test_what_is_known_is_not_asked_again(lvlm, evaluation, swept, tmp_path):
    result, _ = evaluation
    task, items = result.task, result.items
    results = Results(tmp_path / "results.sqlite", new=True)
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "_probability", broken_off(running._probability, after=5))
        evaluate(lvlm, task, items, begin(results, lvlm, task, items), batch_size=2, progress=False)
    swept.clear()
    whole = evaluate(lvlm, task, items, begin(results, lvlm, task, items), batch_size=2, progress=False)
    assert swept == [2, 2]  # of four batches two had been written
    fresh = evaluate(lvlm, task, items, batch_size=2, progress=False)
    same(whole, fresh)
    assert (whole.known, fresh.known) == (4, 0)
    asked = results.asked(1)
    assert [asked[item.id] for item in items] == [running.asked_of(task, item) for item in items]
    swept.clear()
    same(evaluate(lvlm, task, items, begin(results, lvlm, task, items), progress=False), fresh)
    assert swept == []


def broken_off(function, after):
    """The function, interrupted at a call after so many."""
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) > after:
            raise KeyboardInterrupt
        return function(*args)

    return interrupted


def test_other_items_numbers_and_lengths_are_other_runs(lvlm, evaluation, tmp_path, monkeypatch):
    result, _ = evaluation
    results, made = Results(tmp_path / "results.sqlite", new=True), []

    def number(items=result.items, task=result.task):
        return begin(results, lvlm, task, items).number

    first = number()
    made.append(number(result.items[:2]))
    made.append(number(task=dataclasses.replace(result.task, max_new_tokens=3)))
    made.append(number(task=dataclasses.replace(result.task, protocol="opera")))
    exact = dataclasses.replace(result.task.benchmark, mode="exact")
    made.append(number(task=dataclasses.replace(result.task, benchmark=exact)))
    with monkeypatch.context() as patch:
        patch.setattr(type(lvlm), "computes_in", "float16")
        made.append(number())
    with monkeypatch.context() as patch:
        patch.setattr(running, "versions", lambda: {"torch": "0"})
        made.append(number())
    with monkeypatch.context() as patch:
        patch.setattr(running, "revision_of", lambda path: "other weights")
        made.append(number())
    assert len({first, *made}) == 8 and number() == first


def test_a_question_that_changed_is_asked_again(lvlm, evaluation, swept):
    result, results = evaluation
    task, items = result.task, list(result.items)
    items[0] = dataclasses.replace(items[0], question="What is the price?")
    items[1] = dataclasses.replace(items[1], reference=("7",) * 10)
    other = evaluate(lvlm, task, items, begin(results, lvlm, task, items), progress=False)
    assert sum(swept) == len(items)  # the batch they belong to
    assert other.answers[2:] == result.answers[2:]
    evaluate(lvlm, task, result.items, begin(results, lvlm, task, result.items), progress=False)


def test_a_digest_is_of_all_that_is_asked_and_of_the_reference(evaluation):
    """One that left the wording or the template out would resume a run with the answers of another protocol."""
    result, _ = evaluation
    card, task, item = find_card("llava-1.5"), result.task, result.items[0]
    others = [
        (card, dataclasses.replace(task, template=f"{task.template or card.template} "), item),
        (dataclasses.replace(card, template=f"\n{card.template}"), task, item),
        (card, dataclasses.replace(task, ask=lambda item: f"{item.question} In one word."), item),
        (card, task, dataclasses.replace(item, question=f"{item.question} ")),
        (card, task, dataclasses.replace(item, choices=("left", "right"))),
        (card, task, dataclasses.replace(item, reference=("7",) * 10)),
    ]
    digests = [running.question_digest(*one) for one in [(card, task, item), *others]]
    assert len(set(digests)) == len(digests)


def test_an_item_that_cannot_be_asked_fails_alone_and_is_asked_again(lvlm, evaluation, tmp_path, swept):
    result, _ = evaluation
    task, items = result.task, list(result.items)
    corrupt = tmp_path / "train_images" / items[3].image.name
    corrupt.parent.mkdir()
    # A header that says 30000 x 30000 pixels.
    size = (30000).to_bytes(4)
    header = items[3].image.read_bytes()[:16] + size + size + items[3].image.read_bytes()[24:29]
    corrupt.write_bytes(header + zlib.crc32(header[12:29]).to_bytes(4) + items[3].image.read_bytes()[33:])
    items[3] = dataclasses.replace(items[3], image=corrupt)
    own = sorted(set(lvlm.tokenizer.get_added_vocab()) - {lvlm.card.placeholder})[0]
    items[5] = dataclasses.replace(items[5], question=f"{own} What is the number?")
    results = Results(tmp_path / "results.sqlite", new=True)
    part = evaluate(lvlm, task, items, begin(results, lvlm, task, items), progress=False)
    assert set(part.failed) == {items[3].id, items[5].id}
    assert str(corrupt) in part.failed[items[3].id] and repr(own) in part.failed[items[5].id]
    assert part.items == [item for i, item in enumerate(items) if i not in (3, 5)]
    assert len(part.answers) == len(part.probability) == len(part.parts["accuracy"]) == len(items) - 2
    swept.clear()
    corrupt.write_bytes(result.items[3].image.read_bytes())
    mended = evaluate(lvlm, task, items, begin(results, lvlm, task, items), progress=False)
    assert set(mended.failed) == {items[5].id} and mended.answers[3] == result.answers[3]
    with pytest.raises(ValueError, match=f"no item could be asked; the first: item {items[5].id}: "):
        evaluate(lvlm, task, [items[5]], progress=False)


def test_a_run_obeys_its_task():
    """Wording, length, penalty, reading and score; see test_prompts.py for the picture and the template."""
    seen = []

    def score(item, said):
        seen.append(said)
        return {"CHAIR_s": (0.25, 0.5)}

    lvlm, chair = load_model("llava-1.5"), BENCHMARKS["chair"]
    task = find_task("official", "llava-1.5", chair)
    task = dataclasses.replace(task, max_new_tokens=12, score=score, read=lambda text: f"read: {text}")
    answers = {}
    for penalty in (1.0, 1e6):
        penalised = dataclasses.replace(task, repetition_penalty=penalty)
        seen.clear()
        result = evaluate(lvlm, penalised, chair.load(MINIWORLD)[:2], progress=False)
        answers[penalty] = [answer.ids for answer in result.answers]
        assert {f"read: {answer.text}" for answer in result.answers} <= set(seen)
        assert all(said.startswith("read: ") for said in seen) and len(seen) == 2 * (lvlm.n_layers + 1)
        assert (result.parts["CHAIR_s"] == [0.25, 0.5]).all()
    assert [len(ids) for ids in answers[1.0]] == [12, 12]
    assert any(len(set(ids)) < 12 for ids in answers[1.0])
    assert all(len(set(ids)) == len(ids) for ids in answers[1e6])
