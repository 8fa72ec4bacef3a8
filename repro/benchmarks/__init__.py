"""The benchmarks of Table 1: what is asked, and the official score of an answer."""

from __future__ import annotations

from repro.benchmarks.benchmark import Benchmark
from repro.benchmarks.chair import BY_MODE, CHAIR
from repro.benchmarks.pope import POPE
from repro.benchmarks.scienceqa import SCIENCEQA
from repro.benchmarks.textvqa import TEXTVQA

#: Benchmarks by the name that ``--benchmark`` takes, in the order of the paper's Table 1.
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark for benchmark in (POPE, SCIENCEQA, TEXTVQA, CHAIR)
}


def find_benchmark(name: str, mode: str = "") -> Benchmark:
    """The benchmark of a name, in one of its modes (by default its first); KeyError for what there is not."""
    if mode and mode != BENCHMARKS[name].mode:
        return {variant.mode: variant for variant in BY_MODE.values() if variant.name == name}[mode]
    return BENCHMARKS[name]
