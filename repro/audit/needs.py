"""What measuring a claim on the published models would take: command, checkpoints, memory and time of a GPU.

The time is a lower estimate for the sweep of all truncation layers: the token-layers of reading the prompts and
giving the answers at ``PEAK`` of an A100, and one read of the weights for each token of an answer, one item after
the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from repro.audit.paper import ITEMS, N_LAYERS, PRINTED
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


@dataclass(frozen=True)
class Need:
    """What it takes.

    Attributes:
        text: a sentence for people.
        figures: the numbers in it.
    """

    text: str
    figures: dict[str, float]


def token_layers(model: str, benchmark: str) -> int:
    """Of one item at every truncation: the prompt once, its text again past each layer, and the answers."""
    n, user = N_LAYERS, USER[benchmark]
    prompt = SYSTEM + IMAGE_TOKENS[model] + user
    return n * prompt + user * n * (n + 1) // 2 + ANSWER[benchmark] * n * (n + 1)


def cache_gb(model: str, benchmark: str) -> float:
    """GB of keys and values of one item at all truncations: text in all layers, the image in those that see it."""
    n = N_LAYERS
    text = (n + 1) * n * (SYSTEM + USER[benchmark] + ANSWER[benchmark])
    return CACHED * (text + IMAGE_TOKENS[model] * n * (n + 1) // 2) / 1e9


def need(models: Sequence[str], benchmarks: Sequence[str] = tuple(ITEMS)) -> Need:
    """Of the sweep of some models on some benchmarks, the published ones in full.

    The same command measures attention shares and heat maps beside the scores.
    """
    pairs = [(model, benchmark) for model in models for benchmark in benchmarks]
    work = sum(ITEMS[benchmark] * token_layers(model, benchmark) for model, benchmark in pairs)
    reads = sum(ITEMS[name] * ANSWER[name] * WEIGHTS[model] * 1e9 / BANDWIDTH for model, name in pairs)
    hours = (work * OPERATIONS / PEAK + reads) / 3600
    memory = max(WEIGHTS[model] + cache_gb(model, name) for model, name in pairs)
    command = " ".join(
        [
            'python -m pytest -m "gpu and table1"',
            *(f"--model {model}=DIR" for model in models),
            *(f"--benchmark {name}" for name in benchmarks if len(benchmarks) < len(ITEMS)),
            "--data DATA",
        ]
    )
    checkpoints = ", ".join(REGISTRY[model].hub_id for model in models)
    data = ", ".join(f"{PRINTED[name]} ({ITEMS[name]} items)" for name in benchmarks)
    text = (
        f"To measure it: {command}, with {checkpoints} and {data}; {memory:.0f} GB of GPU memory and, by the "
        f"{work:.1e} token-layers, at least {hours:.1f} hours of an A100."
    )
    return Need(text, {"token-layers": work, "GPU memory, GB": memory, "A100 hours": hours})
