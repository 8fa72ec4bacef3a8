"""Table 1: is the score at the cliff layer another than the baseline, and what makes it so?"""

from __future__ import annotations

from collections.abc import Iterator

from scipy.stats import binom

from repro.audit import arithmetic as a
from repro.audit.claims.text import listed
from repro.audit.ledger import Claim, Finding
from repro.audit.paper import ITEMS, METRICS, PRINTED, TABLE_1, pairs
from repro.audit.released import PUBLISHED
from repro.audit.stated import standing

#: Layers looked at and percent of the answers that flip in the simulation of the selection effect.
LAYERS, FLIPS = 10, 3.0
#: Metrics of which lower is better.
LOWER = {METRICS[label] for label in METRICS if label.endswith("↓")}
#: (benchmark, metric) of the rows that are shares of items, CHAIR as if it were one.
SHARES = (("pope", "accuracy"), ("scienceqa", "accuracy"), ("textvqa", "accuracy"), ("chair", "CHAIR_i"))


def changes() -> Iterator[tuple[str, str, float, float]]:
    """Model, benchmark, baseline and figure at the cliff layer of the rows that change."""
    for benchmark, metric in SHARES:
        for model, (before, after) in pairs(benchmark, metric).items():
            if before != after:
                yield model, benchmark, before, after


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


def equal_or_better() -> Finding:
    gains = [
        (after - before) * (-1 if metric in LOWER else 1)
        for benchmark, metric in (*SHARES, ("pope", "F1"))
        for before, after in pairs(benchmark, metric).values()
    ]
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    equal = len(gains) - better - worse
    return Finding(
        "contradicted" if worse else "holds",
        f"As printed: of {len(gains)} rows {better} are better at the cliff layer, {equal} equal and {worse} "
        "worse. Whether that is more than noise, and why none is worse, are other entries.",
        {"rows": len(gains), "better": better, "equal": equal, "worse": worse},
    )


def significance() -> Finding:
    z, paired, worst = {}, {}, []
    for model, benchmark, before, after in changes():
        for n in a.SIZES.get(benchmark, (ITEMS[benchmark],)):
            name = f"{PRINTED[model]}, {PRINTED[benchmark]}, n = {n}"
            z[name] = a.unpaired_z(before, after, n)
            paired[name], more = flips_at_most(before, after, n)
            worst.append(paired[name] > 0 and not more)
    beyond = [name for name, value in z.items() if abs(value) > 1.96]
    largest = max(abs(value) for name, value in z.items() if name not in beyond)
    count = len(list(changes()))
    return Finding(
        "holds" if any(worst) else "undefined",
        f"{count} rows change, F1 apart. As if of different items, at every published number of items, the "
        f"largest |z| is {largest:.2f}, below 1.96, but for {listed(beyond)} (|z| "
        f"{max(map(abs, z.values())):.2f}). Of the same items, a change is significant by McNemar's exact test "
        "if few answers flip both ways: in the best case (all flips one way) "
        f"{sum(flips > 0 for flips in paired.values())} of {len(paired)} combinations of row and number are, in "
        f"the worst {sum(worst)}. LLaVA1.5 on POPE: significant up to {paired['LLaVA1.5, POPE, n = 8910']} "
        "flips of 8910. Missing: the number of items, and answers by item.",
        {f"z: {name}": value for name, value in z.items()}
        | {f"most flips: {name}": flips for name, flips in paired.items()},
    )


def selection() -> Finding:
    figures: dict[str, float] = {}
    inside, count, said = 0, 0, []
    for name in ("pope", "scienceqa", "textvqa"):
        seen = a.selection_effect(ITEMS[name], LAYERS, FLIPS)
        gained = [after - before for _, of, before, after in changes() if of == name]
        inside += sum(gain <= seen.high for gain in gained)
        count += len(gained)
        figures |= {
            f"{PRINTED[name]}: mean gain": seen.gain,
            f"{PRINTED[name]}: low": seen.low,
            f"{PRINTED[name]}: high": seen.high,
        }
        said.append(
            f"{PRINTED[name]} {seen.gain:+.2f} [{seen.low:.2f}, {seen.high:.2f}], printed "
            f"{min(gained):+.2f} to {max(gained):+.2f}"
        )
    figures |= {"printed gains": count, "not above": inside}
    left = standing("selection")
    return Finding(
        left.verdict,
        "If the layer was chosen on the items it is reported on, scores rise without any effect: the best of "
        f"{LAYERS} layers at each of which {FLIPS:.0f} % of the answers flip either way gains, in points, "
        f"{'; '.join(said)}. {inside} of {count} printed gains are not above that 95 % range. {left.text}",
        figures | left.figures,
    )


def baselines() -> Finding:
    columns = [[getattr(cell, which) for cell in TABLE_1] for which in ("baseline", "at_cliff")]
    n = sum(figure is not None for figure in columns[0])
    zeros = [sum(f is not None and round(100 * f) % 10 == 0 for f in column) for column in columns]
    chance = float(binom.sf(zeros[0] - 1, n, 0.1))
    equal: list[str] = []
    near: list[str] = []
    for (model, benchmark), published in PUBLISHED.items():
        printed, _ = pairs(benchmark, "accuracy")[model]
        if round(printed, 1) == published:
            place = equal if printed == published else near
            place.append(f"{PRINTED[model]}'s {PRINTED[benchmark]} {printed:.2f}")
    left = standing("baselines")
    return Finding(
        left.verdict,
        f"Of {n} baselines {zeros[0]} end in 0 ({zeros[1]} at the cliff layer), where one in ten would by "
        f"chance (probability of as many {chance:.0e}). Of {len(PUBLISHED)} that the models' authors published "
        f"too, with one decimal, {len(equal)} are equal: {listed(equal)}; {listed(near) or 'none'} would round "
        f"to it. {left.text}",
        {
            "baselines that end in 0": zeros[0],
            "at the cliff layer": zeros[1],
            "rows": n,
            "probability of as many": chance,
            "published figures": len(PUBLISHED),
            "equal to published figures": len(equal),
            **left.figures,
        },
    )


CLAIMS = (
    Claim(
        id="equal-or-better",
        where="Section 4.3, Table 1",
        statement="No figure at the cliff layer is worse than its baseline: all are equal to it or surpass it.",
        quantity="sign of the printed change, row by row",
        verdict="holds",
        check=equal_or_better,
        figure="table-1",
    ),
    Claim(
        id="improvement",
        where="Sections 1 and 4.3, Table 1",
        statement="Truncation enhances the scores of some models on some benchmarks.",
        quantity="printed change against its error, of different items and of the same",
        verdict="undefined",
        check=significance,
        figure="table-1",
    ),
    Claim(
        id="selection",
        where="Sections 4.2 and 4.3, Table 1",
        statement="The score at the cliff layer is what truncation there gives on new items.",
        quantity="printed gains against those of the best of several layers when nothing changes",
        verdict="undefined",
        check=selection,
        figure="figure-5",
    ),
    Claim(
        id="baselines",
        where="Table 1",
        statement="Baselines were obtained as the figures at the cliff layer were.",
        quantity="last digits, and figures that others published",
        verdict="undefined",
        check=baselines,
    ),
)
