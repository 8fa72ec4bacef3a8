"""The benchmarks of Table 1 under LLaVA's own protocol."""

from __future__ import annotations

from repro.benchmarks.benchmark import Benchmark
from repro.benchmarks.chair import CHAIR
from repro.benchmarks.pope import POPE
from repro.benchmarks.scienceqa import SCIENCEQA
from repro.benchmarks.textvqa import TEXTVQA

#: Benchmarks by the name that ``--benchmark`` takes, in the order of the paper's Table 1.
BENCHMARKS: dict[str, Benchmark] = {one.name: one for one in (POPE, SCIENCEQA, TEXTVQA, CHAIR)}
