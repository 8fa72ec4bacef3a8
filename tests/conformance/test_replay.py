"""Recorded answers are matched to their questions by id, checked by text, and scored as the official scripts do.

Set ``REPRO_DATA`` to a directory with the published files to have their published figures checked:
``llava-1.5-13b/`` of LLaVA's eval.zip (llava_pope_test.jsonl, pope_answers.jsonl, llava_test_CQM-A.json,
scienceqa_answers.jsonl), ``pope/`` with POPE's own files, ``chair/captions/MODEL.greedy.jsonl`` of OPERA and
``chair/ground_truth_objects.json``. Without it, made-up files in the same formats take their place.
"""

import itertools
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from repro.benchmarks import chair
from repro.benchmarks.benchmark import DataError, aggregate
from repro.cliff import compare
from repro.evaluation.answers import replay
from repro.evaluation.run import image_names
from repro.protocols import LETTER_ANSWER, SHORT_ANSWER, ProtocolError
from repro.report.replay import HEADER, PAIRED, rows
from repro.report.text import percent_interval
from repro.statistics import wilson

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).resolve().parents[2]
CAPTIONED = ("llava-1.5", "instructblip", "shikra")
#: LLaVA's ids of a category begin behind these.
OFFSETS = {"adversarial": 0, "popular": 20_000_000, "random": 10_000_000}
#: What the official scripts give on the published files; CHAIR_s and CHAIR_i in exact mode.
PUBLISHED = {
    "pope": {"adversarial": 84.46, "popular": 86.25, "random": 87.14, "mean of 3": 85.95},
    "scienceqa": {"with an image": 71.64, "all": 74.39},
    "chair": {"llava-1.5": (45.0, 12.7), "instructblip": (58.8, 23.7), "shikra": (55.8, 15.4)},
}


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = values if isinstance(values, str) else "".join(json.dumps(value) + "\n" for value in values)
    path.write_text(lines, encoding="utf-8")


def made_pope(directory, draw):
    """POPE's files, LLaVA's question file and answers to it in another order; F1 by category."""
    asked, answers, expected = [], [], {}
    for category, offset in OFFSETS.items():
        published, labels, said = [], [], []
        for number in range(1, 41):
            image = f"COCO_val2014_{number // 4:012}.jpg"
            text = f"Is there a {category} thing {number} in the imange?"
            label, answer = draw.choice(["yes", "no"]), draw.choice(["Yes", "No", "No, sir.", "Yes."])
            published.append({"question_id": number, "image": image, "text": text, "label": label})
            row = {"question_id": offset + number, "image": image, "text": text + SHORT_ANSWER}
            asked.append(row | {"category": category})
            answers.append({"question_id": offset + number, "prompt": text + SHORT_ANSWER, "text": answer})
            labels.append(label == "yes")
            said.append(answer.startswith("Yes"))
        # Another version: other rows under the same ids.
        others = [row | {"text": row["text"].replace("imange", "image")} for row in reversed(published)]
        write(directory / "pope" / "version-a" / f"coco_pope_{category}.json", others)
        write(directory / "pope" / "version-b" / f"coco_pope_{category}.json", published)
        expected[category] = 100 * f1_score(labels, said)
    draw.shuffle(answers)
    expected["mean of 3"] = sum(expected.values()) / 3
    write(directory / "llava-1.5-13b" / "llava_pope_test.jsonl", asked)
    write(directory / "llava-1.5-13b" / "pope_answers.jsonl", answers)
    return expected


def made_scienceqa(directory, draw):
    """LLaVA's question file, every second question with an image, and answers; accuracies in percent."""
    asked, answers, right = [], [], []
    for number in range(1, 31):
        text = f"Which is {number}?\nA. {number}\nB. other"
        gold, answer = (
            draw.choice("AB"),
            draw.choice(["A", "B", "A. one", "The answer is B.", "neither", "a"]),
        )
        with_image = number % 2 == 0
        value, prompt = ("<image>\n" + text, "<image>\n" + text) if with_image else (text, text)
        turns = [{"from": "human", "value": value}, {"from": "gpt", "value": gold}]
        row = {"id": str(number), "conversations": turns}
        asked.append(row | {"image": f"{number}/image.png"} if with_image else row)
        answers.append({"question_id": str(number), "prompt": prompt + LETTER_ANSWER, "text": answer})
        letter = {"A. one": "A", "The answer is B.": "B"}.get(answer, answer)
        right.append((with_image, letter == gold))
    draw.shuffle(answers)
    write(directory / "llava-1.5-13b" / "llava_test_CQM-A.json", json.dumps(asked))
    write(directory / "llava-1.5-13b" / "scienceqa_answers.jsonl", answers)
    pictured = [correct for with_image, correct in right if with_image]
    return {
        "with an image": 100 * sum(pictured) / len(pictured),
        "all": 100 * sum(correct for _, correct in right) / len(right),
    }


def made_captions(directory, draw):
    """OPERA's logs of three models over some of the images objects are known of; CHAIR_s and CHAIR_i."""
    truth = {str(number): draw.sample(["cat", "dog", "bus", "car"], 2) for number in range(100, 140)}
    write(directory / "chair" / "ground_truth_objects.json", json.dumps(truth))
    expected = {}
    for model in CAPTIONED:
        log, wrong, named = [], [], 0
        for number in draw.sample(sorted(truth), 20):
            objects = draw.choices(["cat", "dog", "bus", "car"], k=3)
            log.append(
                {"image_id": int(number), "caption": "".join(f"There is a {name}. " for name in objects)}
            )
            wrong.append(sum(name not in truth[number] for name in objects))
            named += len(objects)
        write(directory / "chair" / "captions" / f"{model}.greedy.jsonl", log)
        expected[model] = 100 * sum(count > 0 for count in wrong) / len(log), 100 * sum(wrong) / named
    return expected


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A directory in the layout above, and the figures its answers must get."""
    given = os.environ.get("REPRO_DATA")
    if given:
        return Path(given), PUBLISHED
    directory, draw = tmp_path_factory.mktemp("published"), random.Random(0)
    figures = made_pope(directory, draw), made_scienceqa(directory, draw), made_captions(directory, draw)
    return directory, dict(zip(("pope", "scienceqa", "chair"), figures, strict=True))


def shown(scored, metric):
    """The figures of a metric as the table shows them, by the group they are of."""
    table = [dict(zip(HEADER, row, strict=True)) for row in rows(scored)]
    return {row["of"]: float(row["score"]) for row in table if row["metric"].startswith(metric)}


def test_pope_gets_the_figures_of_llavas_script(published):
    directory, figures = published
    scored = replay(directory / "llava-1.5-13b" / "pope_answers.jsonl", directory)
    assert shown(scored, "F1") == pytest.approx(figures["pope"], abs=0.0051)
    assert scored.title == f"POPE {len(scored.items)}"


def test_scienceqa_gets_the_figures_of_llavas_script(published):
    directory, figures = published
    scored = replay(directory / "llava-1.5-13b" / "scienceqa_answers.jsonl", directory)
    assert shown(scored, "accuracy") == pytest.approx(figures["scienceqa"], abs=0.0051)


@pytest.mark.parametrize("model", CAPTIONED)
def test_chair_gets_the_figures_of_operas_script(published, model):
    directory, figures = published
    if figures is PUBLISHED:
        try:
            chair.require_nltk_data()
        except DataError as error:
            pytest.skip(str(error))
    scored = replay(directory / "chair" / "captions" / f"{model}.greedy.jsonl", directory)
    sentences, instances = figures["chair"][model]
    assert shown(scored, "CHAIR_s") == {"all": pytest.approx(sentences, abs=0.051)}
    assert shown(scored, "CHAIR_i") == {"all": pytest.approx(instances, abs=0.051)}


@pytest.fixture
def made(tmp_path):
    """Made-up files that a test may change."""
    draw = random.Random(1)
    made_pope(tmp_path, draw), made_scienceqa(tmp_path, draw), made_captions(tmp_path, draw)
    return tmp_path


def change(path, edit):
    """Let ``edit`` change the list of rows of a file."""
    values = [json.loads(line) for line in path.read_text().splitlines()]
    write(path, edit(values))


def refused(path, data, *said, **options):
    with pytest.raises(DataError) as error:
        replay(path, data, **options)
    for part in (str(path), *said):
        assert part in str(error.value)
    return str(error.value)


def test_the_order_of_answers_does_not_matter(made):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    before = rows(replay(path, made))
    change(path, lambda values: list(reversed(values)))
    assert rows(replay(path, made)) == before


def test_the_version_of_the_questions_is_found_by_text(made):
    scored = replay(made / "llava-1.5-13b" / "pope_answers.jsonl", made)
    assert all("imange" in item.question for item in scored.items)
    (made / "pope" / "version-b" / "coco_pope_popular.json").unlink()
    with pytest.raises(DataError, match="missing file .*version-b/coco_pope_popular.json"):
        replay(made / "llava-1.5-13b" / "pope_answers.jsonl", made)


@pytest.mark.parametrize("name", ["pope_answers.jsonl", "scienceqa_answers.jsonl"])
def test_an_answer_recorded_for_another_prompt_is_refused_whatever_is_allowed(made, name):
    path = made / "llava-1.5-13b" / name

    def swap(values):
        values[4]["prompt"], values[9]["prompt"] = values[9]["prompt"], values[4]["prompt"]
        return values

    change(path, swap)
    for allowed in (False, True):
        refused(
            path,
            made,
            "2 answers whose prompt asks something else",
            "line 5",
            "line 10",
            allow_missing=allowed,
        )


def test_choices_in_another_order_are_another_question(made):
    path = made / "llava-1.5-13b" / "scienceqa_answers.jsonl"
    problems = {}
    for number in range(1, 31):
        image = None if number % 2 else "image.png"
        problem = {
            "question": f"Which is {number}?",
            "choices": [str(number), "other"],
            "answer": 0,
            "hint": "",
        }
        problems[str(number)] = problem | {"image": image}
    (made / "llava-1.5-13b" / "llava_test_CQM-A.json").unlink()
    write(made / "scienceqa" / "pid_splits.json", json.dumps({"test": list(problems)}))
    write(made / "scienceqa" / "problems.json", json.dumps(problems))
    assert set(shown(replay(path, made), "accuracy")) == {"with an image", "all"}
    problems["7"]["choices"] = ["other", "7"]
    write(made / "scienceqa" / "problems.json", json.dumps(problems))
    refused(path, made, "1 answers whose prompt asks something else")


def test_answers_to_the_image_questions_alone_are_scored_alone(made):
    path = made / "llava-1.5-13b" / "scienceqa_answers.jsonl"
    test_choices_in_another_order_are_another_question(made)
    change(path, lambda values: [value for value in values if "<image>" in value["prompt"]])
    scored = replay(path, made)
    assert len(scored.items) == 15 and list(shown(scored, "accuracy")) == ["all"]


def test_answers_without_a_prompt_are_matched_by_id(made):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    before = rows(replay(path, made))
    change(path, lambda values: [{key: value[key] for key in ("question_id", "text")} for value in values])
    assert rows(replay(path, made)) == before


def test_missing_answers_are_listed_and_refused_unless_allowed(made):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    gone = {3, 20_000_011}
    change(path, lambda values: [value for value in values if value["question_id"] not in gone])
    refused(path, made, "2 questions without an answer: '3', '20000011'", "--allow-missing")
    scored = replay(path, made, allow_missing=True)
    assert len(scored.items) == 118 and scored.notes == ["2 questions without an answer: '3', '20000011'"]


def test_unknown_ids_are_listed_and_refused_unless_allowed(made):
    path = made / "chair" / "captions" / "shikra.greedy.jsonl"
    before = rows(replay(path, made))
    change(path, lambda values: [*values, {"image_id": 7, "caption": "A cat."}])
    refused(path, made, "1 unknown ids: '7'", "--allow-missing")
    scored = replay(path, made, allow_missing=True)
    assert rows(scored) == before and scored.notes == ["1 unknown ids: '7'"]


def test_long_lists_of_ids_are_cut_and_counted(made):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    change(path, lambda values: values[:70])
    message = refused(path, made, "50 questions without an answer", "and 30 more")
    assert len(message) < 1500


@pytest.mark.parametrize("allowed", [False, True])
def test_an_id_that_comes_twice_is_refused_whatever_is_allowed(made, allowed):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    change(path, lambda values: [*values, values[2] | {"text": "Maybe"}])
    refused(path, made, "1 answers to what has one already", "line 121", allow_missing=allowed)


def test_a_sample_of_images_says_what_is_missing(made):
    path = made / "chair" / "captions" / "llava-1.5.greedy.jsonl"
    numbers = [json.loads(line)["image_id"] for line in path.read_text().splitlines()]
    write(made / "chair" / "image_ids.txt", "".join(f"{number}\n" for number in numbers))
    assert len(replay(path, made).items) == 20
    change(path, lambda values: values[1:])
    refused(path, made, f"1 questions without an answer: '{numbers[0]}'")


def test_the_mode_of_chair_is_in_the_title(made, monkeypatch):
    path = made / "chair" / "captions" / "llava-1.5.greedy.jsonl"
    for mode, best in (("approx", (chair.CHAIR, "approx")), ("exact", (chair.CHAIR_EXACT, "exact"))):
        monkeypatch.setattr(chair, "best", lambda best=best: best)
        monkeypatch.setattr(chair, "lemmas", lambda caption, mode: ["cat"])
        scored = replay(path, made)
        assert scored.title == f"CHAIR ({mode})"
        assert {item.reference.mode for item in scored.items} == {mode}


def test_llavas_textvqa_answers_are_told_apart_by_image_and_first_line(tmp_path):
    questions = ["what is written?", "Who made it?"]
    published = [
        {"image_id": "ab", "question_id": i, "question": question, "answers": [str(i)] * 10}
        for i, question in enumerate(questions)
    ]
    write(tmp_path / "textvqa" / "TextVQA_0.5.1_val.json", json.dumps({"data": published}))
    answers = [
        {
            "question_id": "ab",
            "prompt": f"{question.capitalize()}\nReference OCR token: x{SHORT_ANSWER}",
            "text": str(i),
        }
        for i, question in reversed(list(enumerate(questions)))
    ]
    write(tmp_path / "answers.jsonl", answers)
    scored = replay(tmp_path / "answers.jsonl", tmp_path)
    assert [part[0] for part in scored.parts["accuracy"][:, 0]] == [1, 1]
    assert scored.title == "TextVQA 2"


def test_answers_that_fit_two_benchmarks_are_not_guessed_at(tmp_path):
    row = {"image_id": "ab", "question_id": 1, "question": "Who?", "answers": ["x"] * 10}
    problem = {"question": "Who?", "choices": ["x", "y"], "answer": 1, "hint": "", "image": "image.png"}
    write(tmp_path / "textvqa" / "TextVQA_0.5.1_val.json", json.dumps({"data": [row]}))
    write(tmp_path / "scienceqa" / "problems.json", json.dumps({"1": problem}))
    write(tmp_path / "scienceqa" / "pid_splits.json", json.dumps({"test": ["1"]}))
    path = tmp_path / "answers.jsonl"
    write(path, [{"question_id": 1, "text": "x"}])
    refused(path, tmp_path, "alike", "--benchmark")
    assert replay(path, tmp_path, ["textvqa"]).parts["accuracy"].tolist() == [[[1, 1]]]
    assert replay(path, tmp_path, ["scienceqa"]).parts["accuracy"].tolist() == [[[0, 1]]]


def test_without_their_questions_answers_are_not_scored(made, tmp_path):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    refused(path, made, "no questions found", "--data", names=["textvqa"])
    refused(path, made, "no answer belongs to any questions found", "ScienceQA 30", names=["scienceqa"])
    refused(made / "chair" / "captions" / "shikra.greedy.jsonl", made / "pope", "no questions found")
    change(path, lambda values: [value | {"question_id": "x"} for value in values])
    refused(path, made, "no answer belongs to any questions found", "POPE 120", allow_missing=True)


ROW = {"question_id": 1, "prompt": "Is it?", "text": "Yes"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps(ROW) + "\n" + json.dumps(ROW)[:-9], ["line 2", "not JSON", "cut short"]),
        ("\n", ["no rows"]),
        ("[1]", ["line 1", "list"]),
        (json.dumps({"id": 1, "answer": "Yes"}), ["line 1", "'answer', 'id'", "'question_id' and 'text'"]),
        (json.dumps({"question_id": 1, "image": "a.jpg", "text": "Is it?"}), ["line 1", "question file"]),
        (json.dumps(ROW) + "\n" + json.dumps({"image_id": 1, "caption": ""}), ["line 2", "'question_id'"]),
        (json.dumps(ROW | {"question_id": None}), ["line 1", "None", "int or str"]),
        (json.dumps(ROW | {"text": None}), ["line 1", "'text'", "expected str"]),
        (json.dumps(ROW | {"prompt": 3}), ["line 1", "'prompt'"]),
        (json.dumps(ROW | {"text": "x" * 10_000_000}), ["line 1", "10000000 characters", "100000"]),
        (json.dumps({"item": "1", "layer": -1, "answer": ""}), ["line 1", "layer is -1"]),
        (json.dumps({"item": "1", "layer": True, "answer": ""}), ["line 1", "True"]),
    ],
)
def test_a_file_that_holds_no_recorded_answers_is_refused(tmp_path, content, said):
    path = tmp_path / "answers.jsonl"
    path.write_text(content)
    message = refused(path, tmp_path, *said)
    assert len(message) < 1000


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-8-sig"])
def test_another_encoding_is_refused(tmp_path, encoding):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(json.dumps(ROW | {"text": "né"}, ensure_ascii=False).encode(encoding))
    refused(path, tmp_path, "UTF-8" if encoding != "utf-8-sig" else "BOM")


@pytest.mark.parametrize("odd", ["<b>No</b>", "No\x00", "\x1b[31mNo", "\u202eNo", "\ud800", "No\u2028no", ""])
def test_markup_and_control_characters_are_answers_like_others(made, odd):
    """They are read as the official rules read them, take no row of the file apart, and reach no terminal."""
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    change(path, lambda values: [value | {"text": odd} for value in values])
    scored = replay(path, made)
    assert len(scored.items) == 120
    # None of them has the word No between blanks, so all read as yes.
    right = np.array([item.reference for item in scored.items])
    np.testing.assert_array_equal(scored.parts["accuracy"][:, 0, 0], right)
    assert all(cell.isprintable() for row in rows(scored) for cell in row)


def test_odd_ids_are_spelled_out(made):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    change(path, lambda values: [*values, values[0] | {"question_id": "\x1b[31m\u202e"}])
    assert refused(path, made, r"'\x1b[31m\u202e'").isprintable()


#: Questions of category random that an own file below gets wrong where the image is seen by one layer, and by two.
WRONG = {1: (7, 47), 2: (63,)}


@pytest.fixture
def own(made):
    """An own file over POPE at L = 0, 1, 2: two questions an image and category, every second image wrong at 0."""
    answers = []
    for category in OFFSETS:
        label = {i: ("no", "yes")[i % 2] for i in range(160)}
        asked = [
            {"question_id": i, "image": f"{i // 2}.jpg", "text": f"{category} {i}?", "label": label[i]}
            for i in label
        ]
        write(made / "pope" / f"coco_pope_{category}.json", asked)
        for i, layer in itertools.product(label, range(3)):
            wrong = i % 4 < 2 if layer == 0 else category == "random" and i in WRONG[layer]
            said = {"no": "yes", "yes": "no"}[label[i]] if wrong else label[i]
            answers.append({"item": f"{category}-{i}", "layer": layer, "answer": said.capitalize()})
    random.Random(2).shuffle(answers)
    write(made / "llava-1.5-pope-official.jsonl", answers)
    return made, made / "llava-1.5-pope-official.jsonl"


def test_an_own_file_gets_the_cliff_layer_and_what_truncation_changes(own):
    data, path = own
    scored = replay(path, data)
    strata = np.array([item.stratum for item in scored.items])
    expected = [0.5, 1 - 2 / 160 / 3, 1 - 1 / 160 / 3]
    assert aggregate(scored.parts["accuracy"], strata) == pytest.approx(expected)
    table = [dict(zip(HEADER + PAIRED, row, strict=False)) for row in rows(scored)]
    assert [row["of"] for row in table[::2]] == [*OFFSETS, "mean of 3"]
    # The images of the wrong answers are among the half that reports.
    mean, f1 = table[-2:]
    assert (mean["metric"], mean["n"], mean["cliff layer"]) == ("accuracy ↑", "240", "1 of 2")
    assert (mean["score"], mean["at the cliff"]) == ("99.58", "99.17")
    assert mean["difference"].startswith("−0.4 [")
    assert (mean["better, worse"], mean["McNemar p"]) == ("1, 2", "1")
    assert f1["metric"] == "F1 ↑" and "better, worse" not in f1


def test_an_own_answer_missing_at_a_layer_leaves_its_item_out(own):
    data, path = own
    change(path, lambda values: [row for row in values if (row["item"], row["layer"]) != ("popular-7", 1)])
    refused(path, data, "1 questions without an answer: 'popular-7'")
    assert len(replay(path, data, allow_missing=True).items) == 479


def test_an_own_file_has_a_layer_that_was_not_measured(own):
    data, path = own
    change(path, lambda values: [*values, values[0] | {"layer": 10**12}])
    refused(path, data, "answers at 4 layers, but not at 0 to 3")
    change(
        path,
        lambda values: [row for row in values if row["layer"] != 10**12 and row["item"] == "random-1"][:1],
    )
    change(
        path,
        lambda values: [row | {"layer": 0} for row in values] + [{"item": "x", "layer": 1, "answer": ""}],
    )
    refused(path, data, "no question has an answer", allow_missing=True)


def test_own_answers_are_read_as_the_model_words_them(own):
    data, path = own
    change(
        path, lambda values: [row | {"answer": f"The answer is {row['answer'].lower()} ."} for row in values]
    )
    path = path.rename(path.with_name("shikra-pope-official.jsonl"))
    strata = np.repeat(sorted(OFFSETS), 160)
    expected = [0.5, 1 - 2 / 160 / 3, 1 - 1 / 160 / 3]
    assert aggregate(replay(path, data).parts["accuracy"], strata) == pytest.approx(expected)


@pytest.mark.parametrize(
    "name", ["blip-pope-official", "llava-1.5-vqa-official", "shikra-pope-lmms-eval", "a"]
)
def test_an_own_file_carries_model_benchmark_and_protocol_in_its_name(own, name):
    data, path = own
    refused(path.rename(path.with_name(f"{name}.jsonl")), data, "MODEL-BENCHMARK-PROTOCOL.jsonl", "lmms-eval")


def test_own_answers_are_scored_by_the_protocol_in_their_name(own):
    """With a full stop lmms-eval reads no answer; its metrics are of all categories at once."""
    data, path = own
    path = path.rename(path.with_name("llava-1.5-pope-lmms-eval.jsonl"))
    scored = replay(path, data, protocol="opera")
    assert scored.protocol == "lmms-eval"
    table = [dict(zip(HEADER, row, strict=False)) for row in rows(scored)]
    assert {row["protocol"] for row in table} == {"lmms-eval"}
    assert [row["of"] for row in table[::2]] == [*OFFSETS, "all"]
    assert table[-2]["by"] == "Wilson"  # a share of all answers, no mean of three
    right = np.array([0.5, 1 - 2 / 480, 1 - 1 / 480])
    assert aggregate(scored.parts["accuracy"], np.zeros(480)) == pytest.approx(right)
    change(path, lambda values: [row | {"answer": f"{row['answer']}."} for row in values])
    assert not replay(path, data).parts["accuracy"][..., 0].any()


@pytest.mark.parametrize(
    ("protocol", "said", "expected"),
    [
        ("official", "It isn't", "yes"),
        ("opera", "It isn't", "no"),
        ("lmms-eval", "It isn't", None),
        ("official", "Yes ### no", "no"),
        ("opera", "Yes ### no", "yes"),
    ],
)
def test_others_answers_are_read_and_scored_by_the_protocol_asked_for(made, protocol, said, expected):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    change(path, lambda values: [row | {"text": said} for row in values])
    scored = replay(path, made, protocol=protocol)
    assert [part[0, 0] for part in scored.parts["accuracy"]] == [
        float(expected == ("yes" if item.reference else "no")) for item in scored.items
    ]
    assert {row[HEADER.index("of")] for row in rows(scored)} == {
        *OFFSETS,
        "all" if protocol == "lmms-eval" else "mean of 3",
    }


def test_a_protocol_that_does_not_define_what_was_asked_scores_nothing(made):
    path = made / "llava-1.5-13b" / "scienceqa_answers.jsonl"
    with pytest.raises(ProtocolError, match="opera does not define scienceqa"):
        replay(path, made, protocol="opera")


def test_intervals_are_wilsons_for_shares_and_resample_images_otherwise(made):
    scored = replay(made / "llava-1.5-13b" / "pope_answers.jsonl", made)
    table = {(row[3], row[4]): dict(zip(HEADER, row, strict=True)) for row in rows(scored)}
    share = table["popular", "accuracy ↑"]
    right = round(float(share["score"]) / 100 * 40)
    assert (share["by"], share["95 % interval"]) == ("Wilson", percent_interval(wilson(right, 40), 2))
    strata = [item.stratum for item in scored.items]
    twice = np.repeat(scored.parts["accuracy"], 2, axis=1)
    by_image, by_item = (
        percent_interval((float(seen.score_low[0]), float(seen.score_high[0])), 2)
        for seen in (compare(twice, strata, clusters=image_names(scored.items)), compare(twice, strata))
    )
    mean = table["mean of 3", "accuracy ↑"]
    assert mean["by"] == table["popular", "F1 ↑"]["by"] == "images resampled"
    assert mean["95 % interval"] == by_image != by_item


@pytest.fixture
def run(pytester):
    """Run the suite's own Table 1 in this process, in an empty directory."""

    def run(*arguments):
        fixed = ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "no:cacheprovider", "-m", "table1"]
        return pytester.runpytest_inprocess(*map(str, [*fixed, *arguments, ROOT / "tests" / "table1"]))

    return run


def test_the_option_scores_every_file_of_a_directory_and_runs_no_model(run, made):
    done = run("--answers", made / "llava-1.5-13b", "--data", made)
    done.stdout.fnmatch_lines(
        ["*Table 1, recorded answers*", "*pope_answers.jsonl*POPE 120*", "*ScienceQA 30*"]
    )
    assert done.parseoutcomes()["passed"] == 2 and "failed" not in done.parseoutcomes()
    done = run("--answers", made / "llava-1.5-13b", "--data", made, "--protocol", "opera")
    done.stdout.fnmatch_lines(["*opera does not define scienceqa*", "*pope_answers.jsonl*POPE 120*opera*"])
    assert done.parseoutcomes()["passed"] == done.parseoutcomes()["failed"] == 1


def test_the_option_fails_and_says_why_unless_missing_ids_are_allowed(run, made):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    change(path, lambda values: values[1:])
    done = run("--answers", path, "--data", made)
    assert done.parseoutcomes()["failed"] == 1 and "1 questions without an answer" in done.stdout.str()
    done = run("--answers", path, "--data", made, "--allow-missing")
    assert done.parseoutcomes()["passed"] == 1 and "left out 1 questions" in done.stdout.str()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--answers", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--answers", "."], "*.jsonl"),
        (["--allow-missing"], "--answers"),
        (["--answers", __file__, "--model", "llava-1.5"], "--model"),
        (["--answers", __file__, "--limit", "8"], "--limit"),
        (["--answers", __file__, "--snapshot-update"], "--snapshot-update"),
    ],
)
def test_what_cannot_be_replayed_is_a_usage_error(run, arguments, said):
    done = run(*arguments)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert said in "\n".join([*done.outlines, *done.errlines])


def test_without_the_option_nothing_is_replayed(run):
    assert "test_replay" not in run("--collect-only", "-q").stdout.str()
