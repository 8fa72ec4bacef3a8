"""Table 1: can the scores be what they say, and of how many items?"""

from repro.audit import arithmetic as a
from repro.audit.ledger import Finding, Paper, listed
from repro.audit.paper import Text
from repro.audit.released import CAPTION_TOKENS, CAPTIONS, INTERN_VL_F1
from repro.audit.replayed import MODELS as REPLAYED
from repro.audit.replayed import longest, replayed

COLUMNS = ("baseline", "at the cliff layer")
IMPOSSIBLE = "intern-vl"


def pope(paper: Paper, model: str) -> dict[str, tuple[float, float]]:
    """Accuracy and F1 by column."""
    both = zip(paper.pairs("pope", "accuracy")[model], paper.pairs("pope", "F1")[model], strict=True)
    return dict(zip(COLUMNS, both, strict=True))


def table_1(paper: Text) -> Finding:
    """How many numbers there are to measure."""
    printed = [x for cell in paper.table for x in (cell.baseline, cell.at_cliff) if x is not None]
    return Finding(None, {"numbers": len(printed), "models": len(paper.table_models)})


def intern_vl(paper: Paper) -> Finding:
    """F1 = 2 TP / (2 TP + E) with TP = 1/2 - FN and 0 <= FN <= E, on a balanced set."""
    pairs = pope(paper, IMPOSSIBLE)
    by_column = []
    for column, (accuracy, f1) in pairs.items():
        if not a.contradict(accuracy, f1):
            continue
        low, high = a.f1_range(accuracy)
        try:
            least, most = a.yes_needed(accuracy, f1)
            takes = f"which takes {least:.1f} to {most:.1f} % of questions with answer yes"
        except ValueError:
            takes = "which no set of questions has"
        by_column.append(
            f"{column}, accuracy {accuracy:.2f} leaves {low:.2f} to {high:.2f} (a mean of three categories "
            f"at least {a.mean_f1_at_least(accuracy, 3):.2f}), printed is {f1:.2f}, {takes}"
        )
    possible = all(a.fits(*pair) for pair in pairs.values())
    near = min(abs(f1 - INTERN_VL_F1) for _, f1 in pairs.values()) < 1
    return Finding(
        "contradicted" if by_column else "holds" if possible else "undefined",
        {"columns": len(by_column), "published F1": INTERN_VL_F1},
        {
            "by_column": "; ".join(by_column) or "no pair lies outside",
            "sizes": " or ".join(map(str, a.POPE)),
            "nearer": "accuracy" if near else "F1",
        },
    )


def other_pope(paper: Paper) -> Finding:
    """The printed F1 of the other models against those that the printed accuracy leaves possible."""
    models = [model for model in paper.pairs("pope", "F1") if model != IMPOSSIBLE]
    pairs = [pair for model in models for pair in pope(paper, model).values()]
    inside = sum(low <= f1 <= high for accuracy, f1 in pairs for low, high in [a.f1_range(accuracy)])
    common = set.intersection(*(set(a.fits(*pair)) for pair in pairs))
    impossible = any(a.contradict(*pair) for pair in pairs)
    possible = inside == len(pairs) and common
    return Finding(
        "contradicted" if impossible else "holds" if possible else "undefined",
        {},
        {
            "inside": f"All {inside}" if inside == len(pairs) else f"{inside} of {len(pairs)}",
            "sizes": listed(sorted(common)) or "no number of",
        },
    )


def possible(paper: Text, benchmark: str, subject: str, metric: str = "accuracy") -> Finding:
    """Whether all scores on a benchmark can be rounded shares of one of its usual numbers of items.

    Undefined where they cannot: the text states no number of items, nor that it is the same for all.
    """
    rows, usual = paper.pairs(benchmark, metric), a.SIZES.get(benchmark, (10 * paper.items[benchmark],))
    printed = sorted({score for pair in rows.values() for score in pair})
    numbers: dict[str, float] = {}
    by_size = []
    for n in usual:
        rounded, never = len(a.impossible(printed, n, ["rounded"])), len(a.impossible(printed, n))
        numbers |= {f"of {n}: impossible if rounded": rounded, f"of {n}: impossible however read": never}
        by_size.append(f"{n}: {rounded} ({never}), {a.power(n):.0f} %")
    fit, anyhow = a.sizes(printed, usual, ["rounded"]), a.sizes(printed, usual)
    otherwise = ""
    if anyhow and not fit:
        otherwise = f" Cut off or padded, they can of {' or '.join(map(str, anyhow))}."
    elif not anyhow:
        by_row = listed(
            f"{paper.names[model]}'s {' or '.join(map(str, a.sizes(pair, usual))) or 'none'}"
            for model, pair in rows.items()
        )
        otherwise = f" However read, row by row they fit: {by_row}."
    granularity = (
        f"Rounded, all scores can be shares of {' or '.join(map(str, fit)) or 'no one of these numbers of'} "
        f"{subject}.{otherwise} Of {len(printed)} distinct scores these are impossible as rounded shares of n "
        "(and however read), beside the percentage of all numbers that pass rounded: "
        f"{'; '.join(by_size)}.{'' if fit else ' Missing: the number of items of each row.'}"
    )
    words = {
        "granularity": granularity,
        "captions": CAPTIONS,
        "questions": f"{paper.scienceqa_questions} for the whole benchmark",
        "pass": f"{a.power(paper.scienceqa_questions):.0f} % pass",
    }
    return Finding("holds" if fit else "undefined", numbers, words)


def chair_label(paper: Paper) -> Finding:
    """The printed scores against CHAIR_s and CHAIR_i of published captions, in full and cut off."""
    numbers: dict[str, float] = {}
    above, by_model, cut, left = [], [], [], []
    for model in REPLAYED:
        name, (printed, _) = paper.names[model], paper.pairs("chair", "CHAIR_i")[model]
        chair, words = replayed(model), longest(model, printed)
        above.append(a.unpaired_z(printed, chair.sentences, CAPTIONS) > 1.96)
        cut.append(words)
        left.append(f"{replayed(model, words).sentences:.1f}")
        numbers |= {
            f"{name}: CHAIR_s replayed": chair.sentences,
            f"{name}: CHAIR_i replayed": chair.instances,
            f"{name}: words at which CHAIR_s is as printed": words,
        }
        by_model.append(f"{name} {printed:.2f}, replayed {chair.sentences:.1f} / {chair.instances:.2f}")
    return Finding(
        "holds" if not any(above) else "undefined" if all(cut) else "contradicted",
        numbers,
        {"tokens": CAPTION_TOKENS, "by_model": "; ".join(by_model), "cut": listed(cut), "left": listed(left)},
    )
