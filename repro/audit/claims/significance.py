"""Table 1: is the score at the cliff layer another than the baseline, and what makes it so?"""

from collections.abc import Iterator

from scipy.stats import binom

from repro.audit import arithmetic as a
from repro.audit.ledger import Finding, Paper, listed
from repro.audit.released import PUBLISHED

#: Layers looked at and percent of the answers that flip in the simulation of the selection effect.
LAYERS, FLIPS = 10, 3.0


def changes(paper: Paper) -> Iterator[tuple[str, str, float, float]]:
    """Model, benchmark, baseline and score at the cliff layer of the rows that change, F1 apart.

    CHAIR's are taken as if they were shares of items.
    """
    for cell in paper.table:
        if cell.baseline != cell.at_cliff and cell.metric != "F1":
            assert cell.baseline is not None and cell.at_cliff is not None
            yield cell.model, cell.benchmark, cell.baseline, cell.at_cliff


def flips_at_most(before: float, after: float, n: int) -> tuple[int, bool]:
    """Most flips that leave a change of n items significant, and whether more than those are possible.

    0 and False where no n items have such a change.
    """
    best, more = 0, False
    for net in a.net_changes(before, after, n):
        least = min(round(n * before / 100), n - round(n * after / 100))
        best = max(best, a.most_flips(net))
        more = more or abs(net) + 2 * least > a.most_flips(net)
    return best, more


def equal_or_better(paper: Paper) -> Finding:
    """The sign of the printed change, row by row."""
    gains = [
        (cell.at_cliff - cell.baseline) * (-1 if cell.label.endswith("↓") else 1)
        for cell in paper.table
        if cell.baseline is not None and cell.at_cliff is not None
    ]
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    equal = len(gains) - better - worse
    return Finding(
        "contradicted" if worse else "holds",
        {"rows": len(gains), "better": better, "equal": equal, "worse": worse},
    )


def improvement(paper: Paper) -> Finding:
    """The printed change against its error, of different items and of the same."""
    z, paired, worst = {}, {}, []
    for model, benchmark, before, after in changes(paper):
        for n in a.SIZES.get(benchmark, (paper.items[benchmark],)):
            name = f"{paper.names[model]}, {paper.names[benchmark]}, n = {n}"
            z[name] = a.unpaired_z(before, after, n)
            paired[name], more = flips_at_most(before, after, n)
            worst.append(paired[name] > 0 and not more)
    beyond = [name for name, value in z.items() if abs(value) > 1.96]
    return Finding(
        "holds" if any(worst) else "undefined",
        {f"z: {name}": value for name, value in z.items()}
        | {f"most flips: {name}": flips for name, flips in paired.items()},
        {
            "changed": len(list(changes(paper))),
            "below": max(abs(value) for name, value in z.items() if name not in beyond),
            "beyond": listed(beyond),
            "largest": max(map(abs, z.values())),
            "best": sum(flips > 0 for flips in paired.values()),
            "combinations": len(paired),
            "worst": sum(worst),
            "flips": paired["LLaVA1.5, POPE, n = 8910"],
        },
    )


def selection(paper: Paper) -> Finding:
    """Printed gains against those of the best of several layers when nothing changes."""
    numbers: dict[str, float] = {"printed gains": 0, "not above": 0}
    by_benchmark = []
    for benchmark in ("pope", "scienceqa", "textvqa"):
        name, best = paper.names[benchmark], a.selection_effect(paper.items[benchmark], LAYERS, FLIPS)
        gains = [after - before for _, of, before, after in changes(paper) if of == benchmark]
        numbers["printed gains"] += len(gains)
        numbers["not above"] += sum(gain <= best.high for gain in gains)
        numbers[f"{name}: mean gain"] = best.gain
        by_benchmark.append(
            f"{name} {best.gain:+.2f} [{best.low:.2f}, {best.high:.2f}], printed {min(gains):+.2f} to "
            f"{max(gains):+.2f}"
        )
    return Finding(None, numbers, {"layers": LAYERS, "flips": FLIPS, "gains": "; ".join(by_benchmark)})


def baselines(paper: Paper) -> Finding:
    """Last digits, and scores that others published."""
    columns = [[getattr(cell, which) for cell in paper.table] for which in ("baseline", "at_cliff")]
    n = sum(score is not None for score in columns[0])
    zeros = [sum(x is not None and round(100 * x) % 10 == 0 for x in column) for column in columns]
    places: dict[bool, list[str]] = {True: [], False: []}
    for (model, benchmark), published in PUBLISHED.items():
        printed, _ = paper.pairs(benchmark, "accuracy")[model]
        if round(printed, 1) == published:
            place = f"{paper.names[model]}'s {paper.names[benchmark]} {printed:.2f}"
            places[printed == published].append(place)
    numbers = {
        "baselines that end in 0": zeros[0],
        "at the cliff layer": zeros[1],
        "rows": n,
        "probability of as many": float(binom.sf(zeros[0] - 1, n, 0.1)),
        "published numbers": len(PUBLISHED),
        "equal to published numbers": len(places[True]),
    }
    return Finding(None, numbers, {"equal": listed(places[True]), "near": listed(places[False]) or "none"})
