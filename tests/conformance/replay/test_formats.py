"""Answers as other tools write them: POPE's script, lmms-eval's samples, VLMEvalKit's tables."""

import json
from xml.sax.saxutils import escape
from zipfile import ZipFile

import pytest

from repro.evaluation.answers import replay
from repro.evaluation.formats import answer_files
from repro.protocols.official import LETTER_ANSWER, SHORT_ANSWER

pytestmark = pytest.mark.conformance

CATEGORIES = ("adversarial", "popular", "random")


def sample(doc_id, question, answer, **metrics):
    """A line as lmms-eval's ``save_results_samples`` writes it, which drops the document."""
    row = {"doc_id": doc_id, "target": "", "filtered_resps": [answer], "doc_hash": "0" * 64, **metrics}
    return row | {"input": question}


def write_sheet(path, rows):
    """A workbook with shared strings and, for numbers, values, as pandas writes it."""
    strings, lines = [], []
    for number, row in enumerate(rows, 1):
        cells = ""
        for column, value in zip("ABCDEFGH", row, strict=False):
            if isinstance(value, int):
                cells += f'<c r="{column}{number}"><v>{value}</v></c>'
            elif value:
                cells += f'<c r="{column}{number}" t="s"><v>{len(strings)}</v></c>'
                strings.append(f"<si><t>{escape(value)}</t></si>")
        lines.append(f'<row r="{number}">{cells}</row>')
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    with ZipFile(path, "w") as book:
        book.writestr("xl/sharedStrings.xml", f"<sst {space}>{''.join(strings)}</sst>")
        book.writestr(
            "xl/worksheets/sheet1.xml",
            f"<worksheet {space}><sheetData>{''.join(lines)}</sheetData></worksheet>",
        )


@pytest.fixture
def data(tmp_path, write):
    """POPE, ScienceQA and TextVQA of a few questions each."""
    for start, category in enumerate(CATEGORIES):
        rows = [
            {
                "question_id": i,
                "image": f"{i}.jpg",
                "text": f"Is there a {'cat' if i % 2 else category} {i}?",
                "label": "no" if (i + start) % 3 else "yes",
            }
            for i in range(1, 9)
        ]
        write(tmp_path / "pope" / f"coco_pope_{category}.json", rows)
    problems = {
        str(i): {
            "question": f"Which is {i}?",
            "choices": ["x", f"y{i}"],
            "answer": i % 2,
            "hint": "",
            "image": "image.png" if i % 3 else None,
        }
        for i in range(100, 106)
    }
    write(tmp_path / "scienceqa" / "problems.json", json.dumps(problems))
    write(tmp_path / "scienceqa" / "pid_splits.json", json.dumps({"test": list(problems)}))
    texts = [
        {
            "image_id": f"im{i}",
            "question_id": 34602 + i,
            "question": f"what <{i}>?",
            "answers": [f"a{i}"] * 10,
        }
        for i in range(5)
    ]
    write(tmp_path / "textvqa" / "TextVQA_0.5.1_val.json", json.dumps({"data": texts}))
    return tmp_path


def pope_rows(data, *categories):
    for category in categories:
        for line in (data / "pope" / f"coco_pope_{category}.json").read_text().splitlines():
            yield json.loads(line)


def all_right(scored, title, count):
    assert scored.title == title and len(scored.items) == count and not scored.notes
    assert scored.parts["accuracy"][..., 0].all()


@pytest.mark.parametrize("category", CATEGORIES)
def test_popes_own_lines_are_in_the_order_of_a_category(data, write, change, refused, category):
    rows = [{"question": row["text"], "answer": row["label"]} for row in pope_rows(data, category)]
    write(data / "answers.json", rows)
    all_right(replay(data / "answers.json", data), f"POPE {category} 8", 8)
    change(data / "answers.json", lambda rows: [rows[1], rows[0], *rows[2:]])
    refused(data / "answers.json", data, "2 answers whose prompt asks something else")


def test_lmms_evals_samples_of_pope_have_ids_that_repeat(data, write):
    rows = [
        sample(
            i,
            row["text"] + SHORT_ANSWER,
            row["label"].capitalize(),
            pope_accuracy={"question_id": row["question_id"]},
        )
        for i, row in enumerate(pope_rows(data, *CATEGORIES))
    ]
    write(data / "samples_pope.jsonl", rows[::-1])
    all_right(replay(data / "samples_pope.jsonl", data, protocol="lmms-eval"), "POPE 24", 24)


def test_lmms_evals_samples_of_the_others(data, write, made):
    questions = [(i, f"Which is {i}?\nA. x\nB. y{i}") for i in range(100, 106) if i % 3]
    rows = [sample(n, text + LETTER_ANSWER, "AB"[i % 2]) for n, (i, text) in enumerate(questions)]
    write(data / "samples_scienceqa_img.jsonl", rows)
    all_right(replay(data / "samples_scienceqa_img.jsonl", data), "ScienceQA (IMG) 4", 4)
    rows = [
        sample(
            i, f"What <{i}>?" + SHORT_ANSWER, f"a{i}", submission={"question_id": 34602 + i, "answer": "-"}
        )
        for i in (3, 0, 1, 4, 2)
    ]
    write(data / "samples_textvqa.jsonl", rows)
    all_right(replay(data / "samples_textvqa.jsonl", data), "TextVQA 5", 5)
    captions = [
        json.loads(line) for line in (made / "chair/captions/shikra.greedy.jsonl").read_text().splitlines()
    ]
    rows = [
        sample(
            i,
            "Please describe this image in detail.",
            row["caption"],
            coco_cap_chair_i={"image_id": row["image_id"]},
        )
        for i, row in enumerate(captions)
    ]
    write(made / "samples.jsonl", rows)
    expected = replay(made / "chair/captions/shikra.greedy.jsonl", made).scores().values
    assert replay(made / "samples.jsonl", made).scores().values == expected


@pytest.mark.parametrize("suffix", ["tsv", "xlsx"])
def test_vlmevalkits_tables_are_in_the_order_of_the_questions(data, refused, suffix):
    header = ["index", "question", "A", "B", "answer", "prediction"]
    rows = [[i, f"Which is {i}?", "x", f"y{i}", "AB"[i % 2], "AB"[i % 2]] for i in range(100, 106) if i % 3]

    def store(name, rows):
        path = data / f"{name}.{suffix}"
        if suffix == "xlsx":
            write_sheet(path, rows)
        else:
            path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
        return path

    all_right(replay(store("ScienceQA", [header, *rows]), data), "ScienceQA (IMG) 4", 4)
    texts = [[i, f"what <{i}>?", f"a{i}"] for i in range(5)]
    all_right(replay(store("TextVQA", [["index", "question", "prediction"], *texts]), data), "TextVQA 5", 5)
    texts[2][2] = ""
    assert replay(store("empty", [["index", "question", "prediction"], *texts]), data).scores().values == 0.8
    refused(store("other", [["index", "question", "prediction"], *texts[::-1]]), data, "only 1 of 5 answers")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.xlsx", b"no zip"),
        ("a.xlsx", b""),
        ("a.tsv", b"\xff"),
        ("a.tsv", b'question\tprediction\n"a'),
        ("a.tsv", b""),
    ],
)
def test_a_damaged_table_is_refused(tmp_path, refused, name, content):
    (tmp_path / name).write_bytes(content)
    message = refused(tmp_path / name, tmp_path)
    assert "cut short" not in message and message.count(name) == 1


def test_a_workbook_that_grows_without_end_is_refused(tmp_path, refused):
    laughs = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    with ZipFile(tmp_path / "a.xlsx", "w") as book:
        book.writestr("xl/worksheets/sheet1.xml", laughs)
    refused(tmp_path / "a.xlsx", tmp_path, "document type", ".tsv")


def test_every_format_is_taken_from_a_directory(tmp_path):
    names = ["a.json", "a.jsonl", "a.sqlite", "a.tsv", "a.xlsx"]
    for name in [*names, "llava_pope_test.jsonl", "llava_test_CQM-A.json", "notes.txt"]:
        (tmp_path / name).touch()
    assert [path.name for path in answer_files(tmp_path)] == names
