"""What smol-llava shows beyond Table 1 and the audit: whether its decoder still speaks, what it knows, and where.

    python -m tests.smol.measure OUT [DIR]

measures the shipped one, or one in DIR, and writes what it finds to OUT, a file of JSON, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from repro.audit.claims import PAPER
from repro.audit.experiments import heat, shares
from repro.audit.experiments.no_image import answer_without_image
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.miniworld import DIRECTORY
from repro.cliff import cliff_layer, compare
from repro.evaluation.flow import spread
from repro.evaluation.run import evaluate
from repro.models import load_model
from repro.models.card import FIXTURES, PRETRAINED
from repro.models.loading import read_json
from repro.models.lvlm import Lvlm
from repro.models.smol_llava import SmolLM2
from repro.protocols import find_task
from repro.protocols.official import STYLES
from repro.statistics import mean_interval, wilson
from repro.sweep import sweep

#: Without captions: 31 answers of up to 512 tokens to each picture take an hour for 40 of them. See ``captioned``.
ALONE = replace(
    PAPER, models=(PRETRAINED,), benchmarks=tuple(name for name in PAPER.benchmarks if name != "chair")
)
SENTENCES = Path(__file__).with_name("sentences.txt").read_text(encoding="utf-8").splitlines()
#: Enough for the longest of the answers.
NEW_TOKENS = 8
BATCH = 10
#: Captions: of how many pictures, evenly spaced, and of how many tokens at most; a right one has about 20.
PICTURES, CAPTION_TOKENS = 24, 60


def published_decoder() -> LlamaForCausalLM:
    """SmolLM2 as published, float32."""
    weights = SmolLM2().weights
    settings = read_json(FIXTURES / PRETRAINED / "config.json")["text_config"]
    decoder = LlamaForCausalLM(LlamaConfig(**settings)).float()
    decoder.load_state_dict(weights)
    return decoder.eval()


@torch.inference_mode()
def surprise(logits_of, tokenizer) -> np.ndarray:
    """Mean negative log-likelihood per token of each sentence, in nats: [sentences]."""
    means, start = [], tokenizer.convert_tokens_to_ids("<|endoftext|>")  # between texts, in its training
    for sentence in SENTENCES:
        ids = torch.tensor([[start, *tokenizer(sentence).input_ids]])
        logits = logits_of(ids)[0, :-1].float()
        means.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:]).item())
    return np.array(means)


def perplexities(lvlm: Lvlm) -> dict[str, float]:
    """Perplexity of the sentences before and after, and the ratio with its interval over sentences."""
    published = published_decoder()
    before = surprise(lambda ids: published(ids).logits, lvlm.tokenizer)
    after = surprise(lvlm.text_logits, lvlm.tokenizer)
    ratio, low, high = map(float, np.exp(mean_interval(after - before)))
    both = {"before": float(np.exp(before.mean())), "after": float(np.exp(after.mean()))}
    return {"sentences": len(SENTENCES), **both, "ratio": ratio, "low": low, "high": high}


def knowledge() -> list[dict[str, str]]:
    """Questions about the world, which no picture of the benchmarks helps to answer: kind, question, answers."""
    with (FIXTURES / "knowledge.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def knows(row: dict[str, str], answer: str) -> bool:
    """Whether a right answer stands in a text as a word; symbols of elements in their own letters."""
    flags = 0 if row["kind"] == "elements" else re.IGNORECASE
    return any(re.search(rf"\b{re.escape(right)}\b", answer, flags) for right in row["answers"].split("|"))


def known(
    lvlm: Lvlm, rows: list[dict[str, str]], numbers: Sequence[int]
) -> tuple[list[list[bool]], list[bool]]:
    """Which questions are answered right beside an irrelevant picture at L = 0...N, and without a picture.

    Args:
        numbers: of the questions among all, which choose their pictures.
    """
    images = sorted({item.image for item in BENCHMARKS["textvqa"].load(DIRECTORY)})
    textvqa = BENCHMARKS["textvqa"].load(DIRECTORY)[0]
    prompts = []
    for i, row in zip(numbers, rows, strict=True):
        turn = STYLES["llava"]["textvqa"].ask(replace(textvqa, question=row["question"]))
        prompts.append(lvlm.prompt(images[i % len(images)], turn))
    at: list[list[bool]] = []
    for start in tqdm(range(0, len(rows), BATCH), desc="knowledge"):
        swept = sweep(lvlm, prompts[start : start + BATCH], NEW_TOKENS)
        for row, result in zip(rows[start : start + BATCH], swept, strict=True):
            at.append([knows(row, answer.text) for answer in result.answers])
    alone = [
        knows(row, answer_without_image(lvlm, prompt, NEW_TOKENS).text)
        for row, prompt in zip(rows, prompts, strict=True)
    ]
    return at, alone


def captioned(lvlm: Lvlm) -> dict[str, object]:
    """Scores of short captions at L = 0...N, and where they no longer need the image; greedy."""
    task = replace(find_task("official", PRETRAINED, BENCHMARKS["chair"]), max_new_tokens=CAPTION_TOKENS)
    items = spread(task.benchmark.load(DIRECTORY), PICTURES)
    evaluation = evaluate(lvlm, task, items, batch_size=4)
    found: dict[str, object] = {"pictures": len(items), "tokens": CAPTION_TOKENS}
    for name in (metric.name for metric in task.benchmark.metrics):
        scores = evaluation.scores(name)
        cliff, curve = cliff_layer(scores), compare(scores)
        ends = np.stack([curve.score, curve.score_low, curve.score_high], axis=1)
        found[name] = {
            "by layer": np.where(
                np.isfinite(ends), ends, None
            ).tolist(),  # None: nothing named, nothing made up
            "cliff layer": [cliff.layer, *cliff.interval],
        }
    return found


def share(right: list[bool]) -> list[float]:
    """A share of right answers, and Wilson's interval."""
    return [float(np.mean(right)), *map(float, wilson(sum(right), len(right)))]


def by_layer(values: np.ndarray) -> list[list[float]]:
    """Mean and interval [N, 3] over items [n, N]."""
    return [list(map(float, mean_interval(layer[~np.isnan(layer)]))) for layer in values.T]


def measured(lvlm: Lvlm) -> dict[str, object]:
    """Everything, for JSON."""

    def load(name: str) -> Lvlm:
        return lvlm

    found: dict[str, object] = {"perplexity": perplexities(lvlm)}
    rows = knowledge()
    at, alone = known(lvlm, rows, range(len(rows)))
    found["knowledge"] = {
        "questions": len(at),
        "right": ["".join("01"[right] for right in row) for row in at],
        "without a picture": share(alone),
        **{f"L = {after}": share([row[after] for row in at]) for after in range(lvlm.n_layers + 1)},
    }
    found["captions"] = captioned(lvlm)
    cells = shares.measure(ALONE, load)
    every = np.concatenate([cell.shares for cell in cells])
    first = np.concatenate([cell.first for cell in cells])
    parts = {"system": every[..., 0], "image": every[..., 1], "user": every[..., 2], "first token": first}
    parts["system without the first token"] = every[..., 0] - first
    found["shares"] = {name: by_layer(values) for name, values in parts.items()}
    found["image tokens among all"] = [cell.tokens for cell in cells]
    gains = [
        heat.gains(heat.maps(load, PRETRAINED, name), heat.questions_of(load, PRETRAINED, name))
        for name in heat.ASKED
    ]
    found["heat in the boxes beyond their area"] = by_layer(np.concatenate(gains)[:, :-1])
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("directory", type=Path, nargs="?")
    given = parser.parse_args()
    content = json.dumps(measured(load_model(PRETRAINED, given.directory)), indent=1, allow_nan=False)
    given.out.write_text(content + "\n")
