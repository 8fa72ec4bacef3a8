"""How each official evaluator is run on one case of ``vectors/*.json``, from a checkout of its repository.

Each function takes a case and the directory of the checkout, and returns outputs by their recorded names.
"""

import ast
import contextlib
import io
import json
import runpy
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest import mock

import nltk

from repro.benchmarks.chair import require_nltk_data

#: What lmms_eval/tasks/scienceqa/scienceqa.yaml passes by default.
PROMPT = {
    "pre_prompt": "",
    "post_prompt": "\nAnswer with the option's letter from the given choices directly.",
}
IMAGES = json.loads(Path(__file__).with_name("vectors").joinpath("chair.json").read_text())["images"]
Json = dict[str, Any]


def official(file: Path, *names: str, **given: Any) -> Any:
    """Definitions of a module, executed from its source with all they refer to in it and without the rest.

    Args:
        given: values of names that the module imports from packages that need not be installed, or reads files by.
    """
    tree = ast.parse(file.read_text())
    binding: dict[str, list[ast.stmt]] = defaultdict(list)
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            binding[statement.name].append(statement)
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.alias):
                binding[node.asname or node.name].append(statement)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                binding[node.id].append(statement)
    needed, queue = set(), list(names)
    while queue:
        name = queue.pop()
        for statement in [] if name in given else binding.pop(name, []):
            needed.add(statement)
            queue += [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
    tree.body = [statement for statement in tree.body if statement in needed]
    namespace = {"__name__": file.stem, **given}
    exec(compile(tree, str(file), "exec"), namespace)
    return SimpleNamespace(**{name: namespace[name] for name in names})


def printed(run: Callable[..., object], *arguments: object) -> Json:
    """What POPE's scripts print: four counts and five ratios; or the error they end with."""
    try:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            run(*arguments)
    except ZeroDivisionError as error:
        return {"error": type(error).__name__}
    _, counts, *ratios = output.getvalue().splitlines()
    metrics: Json = dict(zip(("TP", "FP", "TN", "FN"), map(int, counts.split()), strict=True))
    for name, line in zip(("accuracy", "precision", "recall", "f1", "yes_ratio"), ratios, strict=False):
        metrics[name] = float(line.split(": ")[1])
    return metrics


def pope_llava(case: Json, root: Path) -> Json:
    script = official(root / "llava/eval/eval_pope.py", "eval_pope", open=lambda lines, mode: lines)
    answers = [{"text": text} for text in case.get("texts") or [case["text"]]]
    labels = [json.dumps({"label": label}) for label in case.get("labels", ["yes"])]
    metrics = printed(script.eval_pope, answers, labels)
    return {"pope_llava": metrics if "labels" in case else answers[0]["text"]}


def pope_averaging(case: Json, root: Path) -> Json:
    texts: list[str] = []
    labels: list[str] = []
    categories, mean = {}, {}
    for name, count in case["spec"].items():
        missed, invented = count["false_negatives"], count["false_positives"]
        own = ["Yes"] * (count["positives"] - missed) + ["No"] * missed
        own += ["Yes"] * invented + ["No"] * (count["negatives"] - invented)
        right = ["yes"] * count["positives"] + ["no"] * count["negatives"]
        categories[name] = pope_llava({"texts": own, "labels": right}, root)["pope_llava"]
        texts, labels = texts + own, labels + right
    for key in case["mean_of_categories"]:
        mean[key] = sum(metrics[key] for metrics in categories.values()) / len(categories)
    pooled = pope_llava({"texts": texts, "labels": labels}, root)["pope_llava"]
    return {"per_category": categories, "mean_of_categories": mean, "pooled": pooled}


def pope_opera(case: Json, root: Path) -> Json:
    script = official(root / "pope_eval.py", "recorder", "print_acc")
    answers = script.recorder(case.get("texts") or [case["text"]], [])
    if "labels" not in case:
        return {"opera_paper": ("no", "yes")[answers[0]]}
    labels = [int(label == "yes") for label in case["labels"]]
    return {"opera_paper": printed(script.print_acc, answers, labels)}


def pope_lmms_eval(case: Json, root: Path) -> Json:
    metrics = [
        f"pope_aggregate_{name}" for name in ("accuracy", "precision", "recall", "f1_score", "yes_ratio")
    ]
    task = official(root / "lmms_eval/tasks/pope/utils.py", "pope_process_results", *metrics)

    def read(text: str, label: str) -> Any:
        return task.pope_process_results({"answer": label, "question_id": 0}, [text])["pope_accuracy"]

    if "labels" in case:
        answers = list(map(read, case["texts"], case["labels"]))
        values = [getattr(task, metric)(answers) for metric in metrics]
        return {"lmms_eval": dict(zip(case["expected"]["lmms_eval"], values, strict=True))}
    scores = {f"lmms_eval_correct_if_{label}": read(case["text"], label)["score"] for label in ("yes", "no")}
    return {"lmms_eval_prediction": read(case["text"], "yes")["prediction"], **scores}


def pope_vlmevalkit(case: Json, root: Path) -> Json:
    given = vars(official(root / "vlmeval/smp/misc.py", "process_punctuation"))
    script = official(root / "vlmeval/dataset/utils/yorn.py", "YOrN_Extraction", **given)
    return {"vlmevalkit": script.YOrN_Extraction(case["text"])}


def scienceqa_llava(case: Json, root: Path) -> Json:
    """The script from end to end, as it parses in its main block."""
    contents = {
        "problems.json": {"1": {"choices": case["choices"], "answer": case["gold_index"]}},
        "pid_splits.json": {"test": ["1"]},
        "answers": {"question_id": "1", "text": case["text"], "prompt": "<image>"},
    }
    with TemporaryDirectory() as work, contextlib.redirect_stdout(io.StringIO()):
        for name, content in contents.items():
            Path(work, name).write_text(json.dumps(content))
        arguments = [f"--base-dir={work}", f"--result-file={work}/answers"]
        arguments += [f"--output-file={work}/output", f"--output-result={work}/result"]
        with mock.patch.object(sys, "argv", ["", *arguments]):
            runpy.run_path(str(root / "llava/eval/eval_science_qa.py"), run_name="__main__")
        output, result = (json.loads(Path(work, name).read_text()) for name in ("output", "result"))
    [row] = output["correct"] + output["incorrect"]
    index, correct = result["results"]["1"], bool(output["correct"])
    return {"llava_parsed": row["parsed_ans"], "llava_pred_index": index, "llava_correct": correct}


def scienceqa_lmms_eval(case: Json, root: Path) -> Json:
    task = official(root / "lmms_eval/tasks/scienceqa/utils.py", "sqa_process_results", "sqa_doc_to_text")
    if "text" not in case:
        formats = ("default", "qwen_vl")
        return {
            f"expected_{name}": task.sqa_doc_to_text(case, {"format": name, **PROMPT}) for name in formats
        }
    document = {"choices": case["choices"], "answer": case["gold_index"]}
    return {"lmms_eval_exact_match": task.sqa_process_results(document, [case["text"]])["exact_match"]}


def scienceqa_internvl(case: Json, root: Path) -> Json:
    script = official(root / "internvl_chat/eval/scienceqa/evaluate_scienceqa.py", "post_process")
    parsed = script.post_process(case["text"], dict(zip("ABCDE", case["choices"], strict=False)))
    return {"internvl_parsed": parsed, "internvl_correct": parsed == case["gold_letter"]}


def textvqa_m4c(case: Json, root: Path) -> Json:
    script = official(root / "llava/eval/m4c_evaluator.py", "TextVQAAccuracyEvaluator", tqdm=iter)
    evaluator = script.TextVQAAccuracyEvaluator()
    entry = {"pred_answer": case["prediction"], "gt_answers": case["answers"]}
    return {
        "normalized_prediction": evaluator.answer_processor(case["prediction"]),
        "normalized_answers": list(map(evaluator.answer_processor, case["answers"])),
        "m4c_score": evaluator.eval_pred_list([entry]),
    }


def textvqa_lmms_eval(case: Json, root: Path) -> Json:
    tasks = root / "lmms_eval/tasks"
    given = vars(official(tasks / "_task_utils/vqa_eval_metric.py", "EvalAIAnswerProcessor"))
    task = official(tasks / "textvqa/utils.py", "textvqa_process_results", **given)
    document = {"answers": list(case["answers"]), "question_id": 0}
    # It gives the integer 1 for 1.0.
    score = float(task.textvqa_process_results(document, [case["prediction"]])["exact_match"])
    return {"lmms_eval_score": score}


def textvqa_qwen(case: Json, root: Path) -> Json:
    # Without distinct ids the script would take equal answers for one and the same.
    answers = [{"answer": answer, "answer_id": i} for i, answer in enumerate(case["answers"], 1)]
    evaluator = official(root / "eval_mm/vqa_eval.py", "VQAEval").VQAEval()
    evaluator.vqa = SimpleNamespace(qa={0: {"answers": answers, "question_type": "", "answer_type": ""}})
    evaluator.vqaRes = SimpleNamespace(qa={0: {"answer": case["prediction"]}})
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate([0])
    return {"qwen_vqaeval_score": evaluator.evalQA[0] / 100}


def chair(images: list[Json], root: Path, pattern: Path | None) -> Any:
    """A script's ``CHAIR`` object for images numbered from 0."""
    names, instances, captions = set(), [], []
    for number, image in enumerate(images):
        names |= set(image["instances"])
        instances += [{"image_id": number, "category_id": name} for name in image["instances"]]
        captions += [{"image_id": number, "caption": caption} for caption in image["captions"]]
    annotations = {"categories": [{"id": name, "name": name} for name in names], "annotations": instances}
    given: Json = vars(official(pattern / "pattern/text/en/inflect.py", "singularize")) if pattern else {}
    given["combine_coco_instances"] = lambda path: annotations
    given["combine_coco_captions"] = lambda path: {"annotations": captions}
    given["load_generated_captions"] = lambda texts, *keys: (texts, list(range(len(texts))))
    require_nltk_data()
    with contextlib.redirect_stdout(io.StringIO()):
        return official(root / "chair.py", "CHAIR", **given).CHAIR("")


def chair_objects(image: Json, root: Path, pattern: Path | None = None) -> Json:
    objects = {**image["expected_objects"]}
    sources = {
        "original_pattern" if pattern else "opera_nltk": image,
        "instances_only": {**image, "captions": []},
    }
    for name, source in sources.items():
        objects[name] = sorted(chair([source], root, pattern).imid_to_objects[0])
    return {"expected_objects": objects}


def chair_mentions(case: Json, root: Path, pattern: Path | None = None) -> Json:
    # The script divides by the number of objects and of mentions: a second image and caption have one each.
    empty: Json = {"instances": [], "captions": []}
    images = [IMAGES.get(str(case["image_id"]), empty), {**empty, "instances": ["dog"]}]
    evaluator = chair(images, root, pattern)
    with contextlib.redirect_stderr(io.StringIO()):
        sentence, _ = evaluator.compute_chair([case["caption"], "a dog"], "", "")["sentences"]
    words, nodes, indices, raw_words = evaluator.caption_to_words(case["caption"])
    outputs = {
        "raw_words": raw_words,
        "mscoco_words": words,
        "node_words": nodes,
        "indices": indices,
        "hallucinated": list(map(list, sentence["mscoco_hallucinated_words"])),
        "hallucination_indices": sentence["hallucination_idxs"],
    }
    outputs |= {metric: sentence["metrics"][metric] for metric in ("CHAIRs", "CHAIRi", "Recall")}
    if pattern:
        return {"original_pattern": outputs}
    # The script keeps these to itself; they are recorded beside its outputs.
    case["tokens"] = nltk.word_tokenize(case["caption"].lower())
    case["pos_tags"] = [tag for _, tag in nltk.pos_tag(case["tokens"])]
    return {"opera_nltk": outputs}


#: Evaluator, as its JSON file names it -> section of the file -> function.
EVALUATORS: dict[str, dict[str, Callable[..., Json]]] = {
    "pope_llava": {
        "parse_cases": pope_llava,
        "metric_cases": pope_llava,
        "averaging_case": pope_averaging,
    },
    "opera_paper": {"parse_cases": pope_opera, "metric_cases": pope_opera},
    "lmms_eval": {"parse_cases": pope_lmms_eval, "metric_cases": pope_lmms_eval},
    "vlmevalkit": {"parse_cases": pope_vlmevalkit},
    "llava_*": {"parse_cases": scienceqa_llava},
    "lmms_eval_exact_match": {"parse_cases": scienceqa_lmms_eval, "prompt_cases": scienceqa_lmms_eval},
    "internvl_*": {"parse_cases": scienceqa_internvl},
    "m4c_score": {"cases": textvqa_m4c},
    "lmms_eval_score": {"cases": textvqa_lmms_eval},
    "qwen_vqaeval_score": {"cases": textvqa_qwen},
    "opera_nltk": {"images": chair_objects, "cases": chair_mentions},
    "original_pattern": {"images": chair_objects, "cases": chair_mentions},
}
