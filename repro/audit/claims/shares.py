"""Attention shares: what the text says of them, and the equations that define them."""

from repro.audit import structure
from repro.audit.ledger import Finding, listed
from repro.audit.paper import Text


def share_range(paper: Text) -> Finding:
    """The numbers of one sentence against each other, Eq. 7 and Figure 2."""
    high, limit = paper.weights[1], paper.share_limit
    late = paper.figure_2_drops[1] - paper.share_after
    return Finding(
        "undefined" if high > limit and late > 0 else "holds",
        {
            "percent of image tokens": limit,
            "highest weight, percent": high,
            "percent left to the others": 100 - limit,
        },
        {"weight": high / 100, "both": 2 * high, "late": late},
    )


def equation_7(paper: Text) -> Finding:
    """What system, image and user tokens get together, of the last prompt row and of the answer's."""
    sums = structure.answer_sums()
    prompt, answer = sums[:, 0], sums[:, 1:]
    return Finding(
        "undefined" if answer.max() < 1 - 1e-6 else "holds",
        {
            "least sum of an answer row": float(answer.min()),
            "greatest sum of an answer row": float(answer.max()),
            "mean": float(answer.mean()),
            "least sum of the last prompt row": float(prompt.min()),
        },
        {"tokens": answer.shape[1], "layers": len(sums), "greatest": prompt.max()},
    )


def equation_8(paper: Text) -> Finding:
    """Indices left against indices right."""
    left, right, summed = paper.equation_8
    free = tuple(index for index in right if index != summed)
    return Finding("holds" if left == free else "undefined", {}, {"free": listed(free), "left": listed(left)})


def equation_10(paper: Text) -> Finding:
    """The row of Eq. 10 against the index sets of Eq. 6."""
    system, tokens = paper.image_ids[0], paper.image_tokens["llava-1.5"]
    row, first, last = system + tokens, system + 1, system + tokens
    return Finding(
        "contradicted" if first <= row <= last else "holds",
        {"row": row, "first image token": first, "last image token": last},
    )
