"""Table 1: can the scores be what they say, and of how many items?"""

from __future__ import annotations

from functools import partial

from repro.audit import arithmetic as a
from repro.audit.ledger import Claim, Finding, Paper, listed
from repro.audit.paper import TEXT, Text
from repro.audit.released import CAPTION_TOKENS, CAPTIONS, INTERN_VL_F1
from repro.audit.replayed import MODELS as REPLAYED
from repro.audit.replayed import longest, replayed

COLUMNS = ("baseline", "at the cliff layer")
IMPOSSIBLE = "intern-vl"


def pope(paper: Paper, model: str) -> dict[str, tuple[float, float]]:
    """Accuracy and F1 by column."""
    both = zip(paper.pairs("pope", "accuracy")[model], paper.pairs("pope", "F1")[model], strict=True)
    return dict(zip(COLUMNS, both, strict=True))


table_1 = Claim(
    id="table-1",
    where="Table 1",
    statement=f"{len(TEXT.table_models)} models have these scores on {len(TEXT.items)} benchmarks, whole "
    "and truncated.",
    quantity="each printed score against a measured one, within the error of both",
    verdict="not measured here",
    evidence="Table 1 prints {numbers} numbers of {models} models. No published checkpoint was run. {reading}",
    stated={"models": "Table 1", "benchmarks": "Table 1", "metrics": "Table 1", "decoding": "Section 4.1"},
    numbers={
        "numbers": sum(x is not None for cell in TEXT.table for x in (cell.baseline, cell.at_cliff)),
        "models": len(TEXT.table_models),
    },
    takes=TEXT.table_models,
    figure="table-1",
)


@Claim(
    id="pope-intern-vl",
    where="Table 1, Intern-VL, POPE",
    statement="Intern-VL has these accuracies and F1 scores on POPE.",
    quantity="the printed F1 against those that the printed accuracy leaves possible",
    verdict="contradicted",
    evidence="Half of POPE's answers are yes. A share E of wrong answers then leaves F1 between (1 - 2E) / "
    "(1 - E) and 1 / (1 + E): {by_column}. No table of answers to {sizes} questions prints such a pair, nor "
    "do three tables whose scores are averaged, rounded or cut off. The authors of InternVL-Chat published "
    "F1 {published F1}, so it is the {nearer} that seems wrong.",
)
def intern_vl(paper: Paper) -> Finding:
    """F1 = 2 TP / (2 TP + E) with TP = 1/2 - FN and 0 <= FN <= E, on a balanced set."""
    numbers: dict[str, float] = {}
    by_column = []
    for column, (accuracy, f1) in pope(paper, IMPOSSIBLE).items():
        if not a.contradict(accuracy, f1):
            continue
        low, high = a.f1_range(accuracy)
        means = a.mean_f1_at_least(accuracy, 3)
        numbers |= {
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
            numbers |= {
                f"{column}: percent of yes needed, least": least,
                f"{column}: percent of yes needed, most": most,
            }
        by_column.append(
            f"{column}, accuracy {accuracy:.2f} leaves {low:.2f} to {high:.2f} (a mean of three categories "
            f"at least {means:.2f}), printed is {f1:.2f}, {takes}"
        )
    pairs = pope(paper, IMPOSSIBLE).values()
    possible = all(a.fits(*pair) for pair in pairs)
    near = min(abs(f1 - INTERN_VL_F1) for _, f1 in pairs) < 1
    return Finding(
        "contradicted" if by_column else "holds" if possible else "undefined",
        {"columns": len(by_column), "published F1": INTERN_VL_F1, **numbers},
        {
            "by_column": "; ".join(by_column) or "no pair lies outside",
            "sizes": " or ".join(map(str, a.POPE)),
            "nearer": "accuracy" if near else "F1",
        },
    )


@Claim(
    id="pope-others",
    where="Table 1, POPE, all but Intern-VL",
    statement="Accuracy and F1 are possible together: some table of answers has both.",
    quantity="the printed F1 against those that the printed accuracy leaves possible",
    verdict="holds",
    evidence="{inside} pairs lie in the range that a balanced set leaves to F1, and tables of answers to "
    "{sizes} questions print every one of them.",
)
def other_pope(paper: Paper) -> Finding:
    models = [model for model in paper.pairs("pope", "F1") if model != IMPOSSIBLE]
    pairs = {(model, column): pair for model in models for column, pair in pope(paper, model).items()}
    ranges = {key: a.f1_range(accuracy) for key, (accuracy, _) in pairs.items()}
    inside = sum(low <= pairs[key][1] <= high for key, (low, high) in ranges.items())
    common = set.intersection(*(set(a.fits(*pair)) for pair in pairs.values()))
    impossible = any(a.contradict(*pair) for pair in pairs.values())
    possible = inside == len(pairs) and common
    return Finding(
        "contradicted" if impossible else "holds" if possible else "undefined",
        {"pairs": len(pairs)}
        | {f"{paper.names[m]}, {column}: lowest F1": low for (m, column), (low, _) in ranges.items()}
        | {f"{paper.names[m]}, {column}: highest F1": high for (m, column), (_, high) in ranges.items()},
        {
            "inside": f"All {inside}" if inside == len(pairs) else f"{inside} of {len(pairs)}",
            "sizes": listed(sorted(common)) or "no number of",
        },
    )


#: Evidence on the granularity of a benchmark's scores.
POSSIBLE = (
    "Rounded, all scores can be shares of {sizes} {subject}.{otherwise} Of {distinct numbers:.0f} distinct "
    "scores these are impossible as rounded shares of n (and however read), beside the percentage of all "
    "numbers that pass rounded: {by_size}.{missing}"
)


def possible(paper: Text, benchmark: str, metric: str, subject: str) -> Finding:
    """Whether all scores on a benchmark can be rounded shares of one of its usual numbers of items.

    Undefined where they cannot: the text states no number of items, nor that it is the same for all.
    """
    rows, usual = paper.pairs(benchmark, metric), a.SIZES.get(benchmark, (10 * paper.items[benchmark],))
    printed = sorted({score for pair in rows.values() for score in pair})
    numbers = {"distinct numbers": float(len(printed))}
    by_size = []
    for n in usual:
        rounded, never = len(a.impossible(printed, n, ["rounded"])), len(a.impossible(printed, n))
        numbers |= {
            f"of {n}: impossible if rounded": rounded,
            f"of {n}: impossible however read": never,
            f"of {n}: percent that pass by chance": a.power(n),
        }
        by_size.append(f"{n}: {rounded} ({never}), {a.power(n):.0f} %")
    fit, anyhow = a.sizes(printed, usual, ["rounded"]), a.sizes(printed, usual)
    by_row = listed(
        f"{paper.names[model]}'s {' or '.join(map(str, a.sizes(pair, usual))) or 'none'}"
        for model, pair in rows.items()
    )
    otherwise = "" if anyhow else f" However read, row by row they fit: {by_row}."
    if anyhow and not fit:
        otherwise = f" Cut off or padded, they can of {' or '.join(map(str, anyhow))}."
    words = {
        "sizes": " or ".join(map(str, fit)) or "no one of these numbers of",
        "subject": subject,
        "otherwise": otherwise,
        "by_size": "; ".join(by_size),
        "missing": "" if fit else " Missing: the number of items of each row.",
        "questions": f"{paper.scienceqa_questions} for the whole benchmark",
        "pass": f"{a.power(paper.scienceqa_questions):.0f} % pass",
    }
    return Finding("holds" if fit else "undefined", numbers, words)


GRANULARITY = (
    Claim(
        id="granularity-pope",
        where="Table 1, POPE",
        statement="All accuracies on POPE are possible together: as shares of one usual number of questions.",
        quantity=f"whether k of n questions can give each score, n = {listed(a.SIZES['pope'])}",
        verdict="holds",
        evidence=POSSIBLE,
        compute=partial(possible, benchmark="pope", metric="accuracy", subject="questions"),
    ),
    Claim(
        id="granularity-scienceqa",
        where="Table 1, SQA",
        statement="All accuracies on ScienceQA are possible together: as shares of one usual number of questions.",
        quantity=f"whether k of n questions can give each score, n = {listed(a.SIZES['scienceqa'])}",
        verdict="undefined",
        evidence=POSSIBLE + " The only number stated, {questions}, excludes nothing ({pass}).",
        compute=partial(possible, benchmark="scienceqa", metric="accuracy", subject="questions"),
    ),
    Claim(
        id="granularity-textvqa",
        where="Table 1, TextVQA",
        statement=f"All accuracies on TextVQA are possible together: as means over {TEXT.items['textvqa']} "
        "questions.",
        quantity="whether a sum of tenths over n gives each score",
        verdict="holds",
        evidence=POSSIBLE + " A soft score counts tenths: granularity excludes nothing here.",
        compute=partial(possible, benchmark="textvqa", metric="accuracy", subject="tenths"),
    ),
    Claim(
        id="granularity-chair",
        where="Table 1, CHAIR",
        statement="All scores of CHAIR are possible together: as shares of one usual number of captions.",
        quantity=f"whether k of n captions can give each score, n = {listed(a.SIZES['chair'])}",
        verdict="holds",
        evidence=POSSIBLE + f" The released script writes {CAPTIONS}; the text gives no number.",
        compute=partial(possible, benchmark="chair", metric="CHAIR_i", subject="captions"),
    ),
)


@Claim(
    id="chair-label",
    where="Table 1, CHAIR; Section 4.1",
    statement="CHAIR's rows are CHAIR_s for four models and CHAIR_i for Qwen-VL.",
    quantity="the printed scores against CHAIR_s and CHAIR_i of published greedy captions of the same models",
    verdict="undefined",
    evidence=f"OPERA published greedy captions of up to {CAPTION_TOKENS} tokens, as many as the released "
    "script asks for, of three models. Printed as CHAIR_s, against CHAIR_s / CHAIR_i of these captions by "
    "the script's own rules: {by_model}. So the printed scores have the size of CHAIR_i, as Qwen-VL's row "
    "is labelled, unless captions were much shorter: cut off after {cut} words and marks, CHAIR_s is "
    "{left}. Missing: how long captions were.",
)
def chair_label(paper: Paper) -> Finding:
    numbers: dict[str, float] = {}
    above, by_model, cut, left = [], [], [], []
    for model in REPLAYED:
        name, (printed, _) = paper.names[model], paper.pairs("chair", "CHAIR_i")[model]
        chair, words = replayed(model), longest(model, printed)
        above.append(a.unpaired_z(printed, chair.sentences, CAPTIONS) > 1.96)
        cut.append(words)
        left.append(f"{replayed(model, words).sentences:.1f}")
        numbers |= {
            f"{name}: printed": printed,
            f"{name}: CHAIR_s replayed": chair.sentences,
            f"{name}: CHAIR_i replayed": chair.instances,
            f"{name}: words at which CHAIR_s is as printed": words,
        }
        by_model.append(f"{name} {printed:.2f}, replayed {chair.sentences:.1f} / {chair.instances:.2f}")
    return Finding(
        "holds" if not any(above) else "undefined" if all(cut) else "contradicted",
        numbers,
        {"by_model": "; ".join(by_model), "cut": listed(cut), "left": listed(left)},
    )


CLAIMS = (table_1, intern_vl, other_pope, *GRANULARITY, chair_label)
