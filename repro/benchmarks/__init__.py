"""The benchmarks of Table 1: their questions, and the official score of an answer."""

from repro.benchmarks.benchmark import Benchmark
from repro.benchmarks.chair import BY_MODE, CHAIR
from repro.benchmarks.pope import POPE
from repro.benchmarks.scienceqa import SCIENCEQA
from repro.benchmarks.textvqa import TEXTVQA

#: Benchmarks by the name that ``--benchmark`` takes, in the order of the paper's Table 1.
BENCHMARKS = {benchmark.name: benchmark for benchmark in (POPE, SCIENCEQA, TEXTVQA, CHAIR)}


def find_benchmark(name: str, mode: str = "") -> Benchmark:
    """The benchmark of a name, in one of its modes (by default its first); KeyError for an unknown one."""
    variants = {
        (variant.name, variant.mode): variant for variant in (*BENCHMARKS.values(), *BY_MODE.values())
    }
    return variants[name, mode or BENCHMARKS[name].mode]
