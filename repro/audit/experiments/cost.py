"""What truncating at the cliff layer saves: keys and values exactly, time as measured.

Cost depends neither on what the weights say nor on what the image shows: the first of the models reads a prompt of
LLaVA-1.5's lengths as published, with the placeholder's embedding for every image token.
"""

import time
from statistics import median

import torch

from repro.audit.experiments.common import record_of, shown
from repro.audit.ledger import Finding, Load, Paper
from repro.benchmarks import BENCHMARKS
from repro.cliff import cliff_layer
from repro.models.anatomy import cache_in
from repro.models.lvlm import Lvlm
from repro.truncation import Mode, truncated

#: Tokens of LLaVA-1.5's prompt: system, image, and a short question behind it.
SYSTEM, IMAGE, USER = 35, 576, 30
#: Tokens of the answer, and runs of which the median time counts.
ANSWER, TURNS = 8, 5
MODES: tuple[Mode, ...] = ("drop", "mask")


def token_layers(n_layers: int, after: int) -> int:
    """Token-layers that prompt and answer take, which are also the keys and the values that they leave."""
    return n_layers * (SYSTEM + USER + ANSWER) + after * IMAGE


def answered(lvlm: Lvlm, after: int, mode: Mode) -> tuple[int, float]:
    """Bytes of all keys and values after prompt and answer, and the CPU seconds of computing them."""
    ids = torch.full((1, SYSTEM + IMAGE + USER), 5)
    ids[0, SYSTEM : SYSTEM + IMAGE] = lvlm.image_token_id
    cache = None
    with torch.inference_mode(), truncated(lvlm, after, mode=mode):
        start = time.process_time()
        for step in [ids, *ids[:, -1:].expand(ANSWER, 1, 1)]:
            out = lvlm.decoder(
                inputs_embeds=lvlm.embeddings(step), **{lvlm.cache_argument: cache}, use_cache=True
            )
            cache = cache_in(out)
        seconds = time.process_time() - start
    assert cache is not None
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors), seconds


def ratios(lvlm: Lvlm, after: int, mode: Mode) -> tuple[float, float]:
    """Bytes and seconds of a truncated model over the untouched one's, turn by turn; the median of the seconds."""
    turns = [(answered(lvlm, after, mode), answered(lvlm, lvlm.n_layers, "drop")) for _ in range(TURNS)]
    return turns[0][0][0] / turns[0][1][0], median(own[1] / other[1] for own, other in turns)


def cost(paper: Paper, load: Load) -> Finding:
    """Section 1: image tokens are redundant behind the cliff layer; so what does leaving them out save?

    Measure: bytes of keys and values, and CPU time of prompt and answer on one thread, truncated at the
    miniature's cliff layer of each benchmark, over the untouched model's in the same run. A case, a
    benchmark, holds where dropping the tokens leaves as many bytes as the count of token-layers says, fewer than
    all, and takes less time. Masking them, as the released code does, is measured too. Times are medians of
    ``TURNS``; how much they gain says little, as small layers spend much of it outside arithmetic.
    """
    model = paper.models[0]
    lvlm = load(model)
    cases, lines = [], []
    numbers: dict[str, float] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        answered(lvlm, lvlm.n_layers, "drop")  # untimed
        for name in paper.benchmarks:
            after = cliff_layer(record_of(model, name).scores()).layer
            (dropped, time_dropped), (masked, time_masked) = (ratios(lvlm, after, mode) for mode in MODES)
            counted = token_layers(lvlm.n_layers, after) / token_layers(lvlm.n_layers, lvlm.n_layers)
            cases.append(abs(dropped - counted) < 1e-12 and dropped < 1 and time_dropped < 1)
            numbers |= {f"{name}, cliff": after, f"{name}, bytes when masked": masked}
            lines.append(
                f"{BENCHMARKS[name].title} ({after}) {dropped:.3f} of the bytes ({counted:.3f} counted) in "
                f"{time_dropped:.2f} of the time, masked {masked:.3f} in {time_masked:.2f}"
            )
    finally:
        torch.set_num_threads(threads)
    return shown(
        cases,
        numbers,
        system=SYSTEM,
        image=IMAGE,
        user=USER,
        answer=ANSWER,
        layers=lvlm.n_layers,
        model=model if len(paper.models) == 1 else f"{model}'s miniature",
        lines="; ".join(lines),
    )
