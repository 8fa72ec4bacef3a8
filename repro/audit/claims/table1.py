"""Table 1: can the figures be what they say, and of how many items?"""

from __future__ import annotations

from dataclasses import replace

from repro.audit import arithmetic as a
from repro.audit.claims.text import listed
from repro.audit.ledger import Claim, Finding
from repro.audit.needs import need
from repro.audit.paper import ITEMS, PRINTED, SCIENCEQA_QUESTIONS, TABLE_1, pairs
from repro.audit.released import CAPTION_TOKENS, CAPTIONS, INTERN_VL_F1
from repro.audit.replayed import MODELS as REPLAYED
from repro.audit.replayed import longest, replayed
from repro.audit.stated import standing

COLUMNS = ("baseline", "at the cliff layer")
MODELS = tuple(dict.fromkeys(cell.model for cell in TABLE_1))
IMPOSSIBLE = "intern-vl"


def pope(model: str) -> dict[str, tuple[float, float]]:
    """Accuracy and F1 by column."""
    both = zip(pairs("pope", "accuracy")[model], pairs("pope", "F1")[model], strict=True)
    return dict(zip(COLUMNS, both, strict=True))


def fits(accuracy: float, f1: float) -> list[int]:
    """The sizes of POPE at which a table of answers, or the mean of three tables' figures, prints both figures."""
    return [
        n
        for n, asked in a.POPE_POOLED.items()
        if any(
            a.table_with(accuracy, f1, asked, reading)
            or (n in a.POPE_MEANS and a.tables_with(accuracy, f1, a.POPE_MEANS[n], reading))
            for reading in a.READINGS
        )
    ]


def all_figures() -> Finding:
    printed = [x for cell in TABLE_1 for x in (cell.baseline, cell.at_cliff) if x is not None]
    takes, left = need(MODELS), standing("table-1")
    return Finding(
        left.verdict,
        f"Table 1 prints {len(printed)} figures of {len(MODELS)} models. No published checkpoint was run. "
        f"{left.text} {takes.text}",
        {"figures": len(printed), **takes.figures, **left.figures},
    )


def intern_vl() -> Finding:
    """F1 = 2 TP / (2 TP + E) with TP = 1/2 - FN and 0 <= FN <= E, on a balanced set."""
    figures: dict[str, float] = {}
    said, impossible = [], []
    for column, (accuracy, f1) in pope(IMPOSSIBLE).items():
        if fits(accuracy, f1):
            continue
        impossible.append(column)
        low, high = a.f1_range(accuracy)
        means = a.mean_f1_at_least(accuracy, 3)
        figures |= {
            f"{column}: accuracy": accuracy,
            f"{column}: F1": f1,
            f"{column}: lowest F1": low,
            f"{column}: highest F1": high,
            f"{column}: lowest mean F1 of three categories": means,
        }
        try:
            least, most = a.yes_needed(accuracy, f1)
        except ValueError:
            takes = "which no set of questions has"
        else:
            takes = f"which takes {least:.1f} to {most:.1f} % of questions with answer yes"
            figures |= {
                f"{column}: percent of yes needed, least": least,
                f"{column}: percent of yes needed, most": most,
            }
        said.append(
            f"{column}, accuracy {accuracy:.2f} leaves {low:.2f} to {high:.2f} (a mean of three categories at "
            f"least {means:.2f}), printed is {f1:.2f}, {takes}"
        )
    n = " or ".join(map(str, a.POPE_POOLED))
    if not impossible:
        return Finding("holds", f"Tables of answers to {n} questions print every pair.", {})
    printed = [f1 for _, f1 in pope(IMPOSSIBLE).values()]
    nearer = "accuracy" if min(abs(f1 - INTERN_VL_F1) for f1 in printed) < 1 else "F1"
    return Finding(
        "contradicted",
        "Half of POPE's answers are yes. A share E of wrong answers then leaves F1 between (1 - 2E) / (1 - E) "
        f"and 1 / (1 + E): {'; '.join(said)}. No table of answers to {n} questions prints such a pair, nor do "
        "three tables whose figures are averaged, rounded or cut off. The authors of InternVL-Chat published F1 "
        f"{INTERN_VL_F1}, so it is the {nearer} that seems wrong.",
        {"columns": len(impossible), "published F1": INTERN_VL_F1, **figures},
    )


def other_pope() -> Finding:
    common = set(a.POPE_POOLED)
    figures: dict[str, float] = {}
    inside = True
    for model in pairs("pope", "F1"):
        if model == IMPOSSIBLE:
            continue
        for column, (accuracy, f1) in pope(model).items():
            low, high = a.f1_range(accuracy)
            inside = inside and low <= f1 <= high
            common &= set(fits(accuracy, f1))
            figures |= {
                f"{PRINTED[model]}, {column}: lowest F1": low,
                f"{PRINTED[model]}, {column}: highest F1": high,
            }
    pairs_of = len(figures) // 2
    return Finding(
        "holds" if inside and common else "contradicted",
        f"All {pairs_of} pairs lie in the range that a balanced set leaves to F1, and tables of answers to "
        f"{listed(sorted(common))} questions print every one of them.",
        {"pairs": pairs_of, **figures},
    )


def _impossible(figures, n: int, reading: str | None = None) -> list[float]:
    """The figures that no n items can have, rounded, or in any reading."""
    ways = [reading] if reading else a.READINGS
    return [one for one in figures if not any(a.counts(one, n, way) for way in ways)]


def _possible(name: str, metric: str, subject: str) -> Finding:
    """Whether all figures of a benchmark can be rounded shares of one of its usual numbers of items.

    Undefined where they cannot: the text states no number of items, nor that it is the same for all.
    """
    rows, usual = pairs(name, metric), a.SIZES.get(name, (10 * ITEMS[name],))
    printed = [figure for pair in rows.values() for figure in pair]
    distinct = sorted(set(printed))
    said, figures = [], {"distinct figures": float(len(distinct))}
    for n in usual:
        rounded, never = len(_impossible(distinct, n, "rounded")), len(_impossible(distinct, n))
        chance = a.power(n)
        figures |= {
            f"of {n}: impossible if rounded": rounded,
            f"of {n}: impossible however read": never,
            f"of {n}: percent that pass by chance": chance,
        }
        said.append(f"{n}: {rounded} ({never}), {chance:.0f} %")
    fit, anyhow = a.sizes(printed, usual, ["rounded"]), a.sizes(printed, usual)
    by_row = [
        f"{PRINTED[model]}'s {' or '.join(map(str, a.sizes(pair, usual))) or 'none'}"
        for model, pair in rows.items()
    ]
    numbers = " or ".join(map(str, fit)) or "no one of these numbers of"
    read = f" Cut off or padded, they can of {' or '.join(map(str, anyhow))}." if anyhow and not fit else ""
    alone = "" if anyhow else f" However read, row by row they fit: {listed(by_row)}."
    missing = "" if fit else " Missing: the number of items of each row."
    return Finding(
        "holds" if fit else "undefined",
        f"Rounded, all figures can be shares of {numbers} {subject}.{read}{alone} Of {len(distinct)} distinct "
        "figures these are impossible as rounded shares of n (and however read), beside the percentage of all "
        f"figures that pass rounded: {'; '.join(said)}.{missing}",
        figures,
    )


def pope_size() -> Finding:
    return _possible("pope", "accuracy", "questions")


def scienceqa_size() -> Finding:
    found = _possible("scienceqa", "accuracy", "questions")
    return replace(
        found,
        evidence=f"{found.evidence} The only number stated, {SCIENCEQA_QUESTIONS} for the whole data set, "
        f"excludes nothing ({a.power(SCIENCEQA_QUESTIONS):.0f} % pass).",
    )


def textvqa_size() -> Finding:
    found = _possible("textvqa", "accuracy", "tenths")
    return replace(
        found, evidence=f"{found.evidence} A soft score counts tenths: granularity excludes nothing here."
    )


def chair_size() -> Finding:
    found = _possible("chair", "CHAIR_i", "captions")
    said = f"The released script writes {CAPTIONS}; the text gives no number."
    return replace(found, evidence=f"{found.evidence} {said}")


def chair_label() -> Finding:
    figures: dict[str, float] = {}
    above, said, cut, left = [], [], [], []
    for model in REPLAYED:
        printed, _ = pairs("chair", "CHAIR_i")[model]
        whole, words = replayed(model), longest(model, printed)
        above.append(a.unpaired_z(printed, whole.sentences, CAPTIONS) > 1.96)
        cut.append(words)
        left.append(f"{replayed(model, words).sentences:.1f}")
        figures |= {
            f"{PRINTED[model]}: printed": printed,
            f"{PRINTED[model]}: CHAIR_s replayed": whole.sentences,
            f"{PRINTED[model]}: CHAIR_i replayed": whole.instances,
            f"{PRINTED[model]}: words at which CHAIR_s is as printed": words,
        }
        said.append(f"{PRINTED[model]} {printed:.2f}, replayed {whole.sentences:.1f} / {whole.instances:.2f}")
    return Finding(
        "holds" if not any(above) else "undefined" if all(cut) else "contradicted",
        f"OPERA published greedy captions of up to {CAPTION_TOKENS} tokens, as many as the released script asks "
        "for, of three models. Printed as CHAIR_s, against CHAIR_s / CHAIR_i of these captions by the script's "
        f"own rules: {'; '.join(said)}. So the printed figures have the size of CHAIR_i, as Qwen-VL's row is "
        f"labelled, unless captions were much shorter: cut off after {listed(cut)} words and marks, CHAIR_s is "
        f"{listed(left)}. Missing: how long captions were.",
        figures,
    )


CLAIMS = (
    Claim(
        id="table-1",
        where="Table 1",
        statement=f"{len(MODELS)} models have these scores on {len(ITEMS)} benchmarks, whole and truncated.",
        quantity="each printed figure against a measured one, within the error of both",
        verdict="not measured here",
        check=all_figures,
        figure="table-1",
    ),
    Claim(
        id="pope-intern-vl",
        where="Table 1, Intern-VL, POPE",
        statement="Intern-VL has these accuracies and F1 scores on POPE.",
        quantity="the printed F1 against those that the printed accuracy leaves possible",
        verdict="contradicted",
        check=intern_vl,
    ),
    Claim(
        id="pope-others",
        where="Table 1, POPE, all but Intern-VL",
        statement="Accuracy and F1 are possible together: some table of answers has both.",
        quantity="the printed F1 against those that the printed accuracy leaves possible",
        verdict="holds",
        check=other_pope,
    ),
    Claim(
        id="granularity-pope",
        where="Table 1, POPE",
        statement="All accuracies on POPE are possible together: as shares of one usual number of questions.",
        quantity=f"whether k of n questions can give each figure, n = {listed(a.SIZES['pope'])}",
        verdict="holds",
        check=pope_size,
    ),
    Claim(
        id="granularity-scienceqa",
        where="Table 1, SQA",
        statement="All accuracies on ScienceQA are possible together: as shares of one usual number of questions.",
        quantity=f"whether k of n questions can give each figure, n = {listed(a.SIZES['scienceqa'])}",
        verdict="undefined",
        check=scienceqa_size,
    ),
    Claim(
        id="granularity-textvqa",
        where="Table 1, TextVQA",
        statement=f"All accuracies on TextVQA are possible together: as means over {ITEMS['textvqa']} questions.",
        quantity="whether a sum of tenths over n gives each figure",
        verdict="holds",
        check=textvqa_size,
    ),
    Claim(
        id="granularity-chair",
        where="Table 1, CHAIR",
        statement="All figures of CHAIR are possible together: as shares of one usual number of captions.",
        quantity=f"whether k of n captions can give each figure, n = {listed(a.SIZES['chair'])}",
        verdict="holds",
        check=chair_size,
    ),
    Claim(
        id="chair-label",
        where="Table 1, CHAIR; Section 4.1",
        statement="CHAIR's rows are CHAIR_s for four models and CHAIR_i for Qwen-VL.",
        quantity="the printed figures against CHAIR_s and CHAIR_i of published greedy captions of the same models",
        verdict="undefined",
        check=chair_label,
    ),
)
