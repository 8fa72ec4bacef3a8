"""Table 1: can the figures be what they say, and of how many items?"""

from __future__ import annotations

from repro.audit import arithmetic as a
from repro.audit.claims.text import listed
from repro.audit.ledger import Claim, Finding
from repro.audit.needs import need
from repro.audit.paper import ITEMS, PRINTED, SCIENCEQA_QUESTIONS, TABLE_1, pairs
from repro.audit.released import CAPTION_TOKENS, CAPTIONS, INTERN_VL_F1, REPLAYED, REPLAYED_64
from repro.audit.stated import standing

COLUMNS = ("baseline", "at the cliff layer")
MODELS = tuple(dict.fromkeys(cell.model for cell in TABLE_1))
IMPOSSIBLE = "intern-vl"


def pope(model: str) -> dict[str, tuple[float, float]]:
    """Accuracy and F1 by column."""
    both = zip(pairs("pope", "accuracy")[model], pairs("pope", "F1")[model], strict=True)
    return dict(zip(COLUMNS, both, strict=True))


def fits(accuracy: float, f1: float) -> list[int]:
    """The sizes of POPE at which a table of answers, or three whose figures are averaged, prints both figures."""
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
    said, possible = [], False
    for column, (accuracy, f1) in pope(IMPOSSIBLE).items():
        low, high = a.f1_range(accuracy)
        means = a.mean_f1_at_least(accuracy, 3)
        yes = a.yes_needed(accuracy, f1)
        possible = possible or low <= f1 <= high or f1 >= means or bool(fits(accuracy, f1))
        figures |= {
            f"{column}: accuracy": accuracy,
            f"{column}: F1": f1,
            f"{column}: lowest F1": low,
            f"{column}: highest F1": high,
            f"{column}: lowest mean F1 of three categories": means,
            f"{column}: percent of yes needed, least": yes[0],
            f"{column}: percent of yes needed, most": yes[1],
        }
        said.append(
            f"{column}, accuracy {accuracy:.2f} leaves {low:.2f} to {high:.2f} (a mean of three categories at "
            f"least {means:.2f}), printed is {f1:.2f}, which takes {yes[0]:.1f} to {yes[1]:.1f} % of questions "
            "with answer yes"
        )
    figures["published F1"] = INTERN_VL_F1
    return Finding(
        "holds" if possible else "contradicted",
        "Half of POPE's answers are yes. A share E of wrong answers then leaves F1 between "
        f"(1 - 2E) / (1 - E) and 1 / (1 + E): {'; '.join(said)}. No table of answers to "
        f"{' or '.join(map(str, a.POPE_POOLED))} questions prints such a pair, nor do three tables whose "
        "figures are averaged, rounded or cut off. The authors of InternVL-Chat published "
        f"F1 {INTERN_VL_F1}, so it is the accuracy that seems wrong.",
        figures,
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


def _sizes(name: str, metric: str) -> tuple[str, dict[str, float]]:
    """How many figures each candidate number of items leaves impossible, and how many pass there by chance."""
    printed = sorted({figure for pair in pairs(name, metric).values() for figure in pair})
    said, figures = [], {"distinct figures": float(len(printed))}
    for n in a.SIZES[name]:
        rounded, never = len(_impossible(printed, n, "rounded")), len(_impossible(printed, n))
        chance = a.power(n)
        figures |= {
            f"of {n}: impossible if rounded": rounded,
            f"of {n}: impossible however read": never,
            f"of {n}: percent that pass by chance": chance,
        }
        said.append(f"{n}: {rounded} ({never}), {chance:.0f} %")
    return (
        f"Of {len(printed)} distinct figures these are impossible as rounded shares of n items (and however "
        f"read), beside the percentage of all figures that pass: {'; '.join(said)}.",
        figures,
    )


def pope_size() -> Finding:
    said, figures = _sizes("pope", "accuracy")
    printed = [figure for pair in pairs("pope", "accuracy").values() for figure in pair]
    fit = a.sizes(printed, a.SIZES["pope"], ["rounded"])
    return Finding(
        "holds" if fit else "contradicted",
        f"All accuracies can be shares of {' or '.join(map(str, fit)) or 'no one number of'} questions. {said}",
        figures,
    )


def scienceqa_size() -> Finding:
    said, figures = _sizes("scienceqa", "accuracy")
    rows = pairs("scienceqa", "accuracy")
    fit = {model: a.sizes(pair, a.SIZES["scienceqa"]) for model, pair in rows.items()}
    each = [f"{PRINTED[model]}'s fits {' or '.join(map(str, n)) or 'neither'}" for model, n in fit.items()]
    return Finding(
        "holds" if set.intersection(*map(set, fit.values())) else "undefined",
        "Read as rounded, cut off, or of one decimal and padded with 0, the rows fit these numbers of "
        f"questions: {listed(each)}. {said} Missing: the number. The only one stated, {SCIENCEQA_QUESTIONS} for "
        f"the whole data set, excludes nothing ({a.power(SCIENCEQA_QUESTIONS):.0f} % of all figures pass).",
        figures,
    )


def textvqa_size() -> Finding:
    printed = [figure for pair in pairs("textvqa", "accuracy").values() for figure in pair]
    items = ITEMS["textvqa"]
    chance = a.power(10 * items)
    return Finding(
        "undefined" if a.sizes(printed, [10 * items], ["rounded"]) else "contradicted",
        f"A soft score counts tenths, so a mean of {items} is a multiple of 1 / {10 * items}, as "
        f"{chance:.0f} % of all figures of two decimals are: granularity says nothing here. Missing: the "
        "answers.",
        {"items": items, "percent that pass by chance": chance},
    )


def chair_size() -> Finding:
    said, figures = _sizes("chair", "CHAIR_i")
    wrong = []
    for cell in TABLE_1:
        if cell.label.startswith("CHAIR_s"):
            never = _impossible(sorted(set(pairs("chair", "CHAIR_i")[cell.model])), CAPTIONS)
            wrong += [f"{PRINTED[cell.model]}'s {figure:.2f}" for figure in never]
    return Finding(
        "undefined" if wrong else "holds",
        f"CHAIR_s is a share of captions, and the released script writes {CAPTIONS}: {listed(wrong)} cannot "
        f"be such shares. The paper states no number. {said}",
        {"captions of the released script": CAPTIONS, "impossible": len(wrong), **figures},
    )


def chair_label() -> Finding:
    figures: dict[str, float] = {}
    nearer, said, short = [], [], []
    for model, replayed in REPLAYED.items():
        printed, _ = pairs("chair", "CHAIR_i")[model]
        z = a.unpaired_z(printed, replayed.sentences, CAPTIONS)
        nearer.append(z > 1.96 and abs(printed - replayed.instances) < abs(printed - replayed.sentences))
        figures |= {
            f"{PRINTED[model]}: printed": printed,
            f"{PRINTED[model]}: CHAIR_s replayed": replayed.sentences,
            f"{PRINTED[model]}: CHAIR_i replayed": replayed.instances,
            f"{PRINTED[model]}: CHAIR_s at 64 tokens": REPLAYED_64[model].sentences,
        }
        said.append(
            f"{PRINTED[model]} {printed:.2f}, replayed {replayed.sentences:.1f} / {replayed.instances:.2f}"
        )
        short.append(f"{REPLAYED_64[model].sentences:.1f}")
    return Finding(
        "contradicted" if all(nearer) else "holds",
        f"OPERA published greedy captions of up to {CAPTION_TOKENS} tokens, as many as the released script "
        "asks for. Printed as CHAIR_s, against CHAIR_s / CHAIR_i of these captions by the script's own rules: "
        f"{'; '.join(said)}. The printed figures have the size of CHAIR_i, as Qwen-VL's row is labelled; or "
        f"captions were cut short, of which the text says nothing (at 64 tokens CHAIR_s is {listed(short)}).",
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
        statement="All accuracies on POPE are possible together: as shares of one number of questions.",
        quantity=f"whether k of n questions can give each figure, n = {listed(a.SIZES['pope'])}",
        verdict="holds",
        check=pope_size,
    ),
    Claim(
        id="granularity-scienceqa",
        where="Table 1, SQA",
        statement="All accuracies on ScienceQA are possible together: as shares of one number of questions.",
        quantity=f"whether k of n questions can give each figure, n = {listed(a.SIZES['scienceqa'])}",
        verdict="undefined",
        check=scienceqa_size,
    ),
    Claim(
        id="granularity-textvqa",
        where="Table 1, TextVQA",
        statement=f"The figures of TextVQA are means over its {ITEMS['textvqa']} questions.",
        quantity="whether a sum of tenths over n gives each figure",
        verdict="undefined",
        check=textvqa_size,
    ),
    Claim(
        id="granularity-chair",
        where="Table 1, CHAIR",
        statement="The figures labelled CHAIR_s are shares of captions.",
        quantity="whether k of n captions can give each figure, at the released script's n",
        verdict="undefined",
        check=chair_size,
    ),
    Claim(
        id="chair-label",
        where="Table 1, CHAIR; Section 4.1",
        statement="CHAIR's rows are CHAIR_s for four models and CHAIR_i for Qwen-VL.",
        quantity="the printed figures against CHAIR_s and CHAIR_i of published greedy captions of the same models",
        verdict="contradicted",
        check=chair_label,
    ),
)
