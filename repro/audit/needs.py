"""What measuring a claim on the published models would take: command, checkpoints, memory and time of a GPU.

The time is a lower estimate for the sweep of all truncation layers: the token-layers of reading the prompts and
giving the answers at ``PEAK`` of an A100, and one read of the weights for each token of an answer, one item after
the other.
"""

from collections.abc import Sequence
from typing import NamedTuple

from repro.audit.ledger import Paper
from repro.audit.released import IMAGE_TOKENS
from repro.models.card import REGISTRY

#: GB of the weights in half precision, the vision tower included.
WEIGHTS = {"llava-1.5": 14, "llava-1.6": 14, "instructblip": 16, "qwen-vl": 19, "shikra": 14, "intern-vl": 26}
#: Tokens around the image, and of an answer: typical ones.
SYSTEM = 35
USER = {"pope": 30, "scienceqa": 100, "textvqa": 30, "chair": 20}
ANSWER = {"pope": 2, "scienceqa": 2, "textvqa": 5, "chair": 100}
#: Floating-point operations of one token in one layer of LLaMA-7B: two for each weight of its attention and MLP.
OPERATIONS = 2 * (4 * 4096**2 + 3 * 4096 * 11_008)
#: Operations a second that are reached (40 % of an A100's 312 x 10^12), and bytes a second of its memory.
PEAK, BANDWIDTH = 0.4 * 312e12, 1.5e12
#: Bytes of the key and value of one token in one layer.
CACHED = 2 * 4096 * 2


class Need(NamedTuple):
    """What it takes, in a sentence for people and in numbers."""

    text: str
    token_layers: int
    memory_gb: float
    a100_hours: float


def token_layers(n: int, model: str, benchmark: str) -> int:
    """Of one item at every truncation: the prompt once, its text again past each of n layers, and the answers."""
    user = USER[benchmark]
    prompt = SYSTEM + IMAGE_TOKENS[model] + user
    return n * prompt + user * n * (n + 1) // 2 + ANSWER[benchmark] * n * (n + 1)


def cache_gb(n: int, model: str, benchmark: str) -> float:
    """GB of keys and values of one item at all truncations: text in n layers, the image in those that see it."""
    text = (n + 1) * n * (SYSTEM + USER[benchmark] + ANSWER[benchmark])
    return CACHED * (text + IMAGE_TOKENS[model] * n * (n + 1) // 2) / 1e9


def need(paper: Paper, models: Sequence[str]) -> Need:
    """Of the sweep of some models on all benchmarks of a paper, the published ones in full.

    The same command measures attention shares and heat maps beside the scores.
    """
    pairs = [(model, benchmark) for model in models for benchmark in paper.benchmarks]
    n = paper.n_layers
    work = sum(paper.items[name] * token_layers(n, model, name) for model, name in pairs)
    reads = sum(paper.items[name] * ANSWER[name] * WEIGHTS[model] * 1e9 / BANDWIDTH for model, name in pairs)
    hours = (work * OPERATIONS / PEAK + reads) / 3600
    memory = max(WEIGHTS[model] + cache_gb(n, model, name) for model, name in pairs)
    weights = " ".join(f"--model {model}=DIR" for model in models)
    checkpoints = ", ".join(REGISTRY[model].hub_id for model in models)
    data = ", ".join(f"{paper.names[name]} ({paper.items[name]} items)" for name in paper.benchmarks)
    text = (
        f'python -m pytest -m "gpu and table1" {weights} --data DATA, with {checkpoints} and {data}; '
        f"{memory:.0f} GB of GPU memory and, by the {work:.1e} token-layers, at least {hours:.1f} hours of "
        "an A100."
    )
    return Need(text, work, memory, hours)
