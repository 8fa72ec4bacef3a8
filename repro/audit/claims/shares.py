"""Attention shares: what the text says of them, and the equations that define them."""

from __future__ import annotations

from repro.audit import structure
from repro.audit.experiments import rankings
from repro.audit.experiments import shares as share_experiments
from repro.audit.ledger import Claim, Finding, listed
from repro.audit.paper import TEXT, Text

AFTER, LIMIT = TEXT.share_after, TEXT.share_limit
LEVEL = "{}-{}".format(*TEXT.figure_2_level)
NO_CODE = "No code for shares was released."
IF_LLAVA = "They can be measured if LLaVA-1.5 is meant."


@Claim(
    id="share-range",
    where="Section 1, Figure 2",
    statement=f"After layer {AFTER} image tokens have less than {LIMIT:.0f} %, with weights of "
    f"{TEXT.weights[0] / 100:.0f} to {TEXT.weights[1] / 100:.1f}.",
    quantity="the numbers of one sentence against each other, Eq. 7 and Figure 2",
    verdict="undefined",
    evidence="One sentence has image tokens below {percent of image tokens:.0f} % and weights of up to "
    "{weight:.1f}. If these are their shares, {highest weight, percent:.0f} % is more than "
    "{percent of image tokens:.0f}; if they are shares of system and prompt tokens, both together have at "
    "most {both:.0f} %, where Eq. 7 leaves them {percent left to the others:.0f}. Missing: whose weights, "
    "of one token or of all, and their unit. In Figure 2 the drop lasts until layer "
    "{paper.figure_2_drops[1]}, {late} layers longer, the share is level over "
    "{paper.figure_2_level[0]}-{paper.figure_2_level[1]}, and rises at {paper.figure_2_rises}.",
    figure="figure-2",
)
def share_range(paper: Text) -> Finding:
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


@Claim(
    id="equation-7",
    where="Section 3.3, Eq. 7",
    statement="The attention of a query token on system, image and user tokens sums to 1.",
    quantity="that sum, for the last prompt row and for answer rows, which see answer tokens too",
    verdict="undefined",
    evidence="Softmax gives every earlier token some attention, so an answer token leaves less than 1 to "
    "system, image and user tokens once the answer has begun: in the miniature's description of a scene "
    "({tokens} tokens, {layers} layers) {least sum of an answer row:.2f} to "
    "{greatest sum of an answer row:.4f}, mean {mean:.2f}. It holds for the last prompt row "
    "({least sum of the last prompt row:.4f} to {greatest:.4f}), and by construction once the three are "
    "divided by their sum. Missing: whether Eq. 7 is of the attention as it is, as the words before it say, "
    "or after the normalisation that the words behind it ask for.",
    figure="figure-2",
)
def equation_7(paper: Text) -> Finding:
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


@Claim(
    id="equation-8",
    where="Section 3.3, Eq. 8",
    statement="The share of the image is a sum over its tokens.",
    quantity="indices left against indices right",
    verdict="undefined",
    evidence="The right-hand side sums over {summed} and depends on {free}; the left-hand side depends on "
    "{left}. Missing: the row, and whether rows of an answer are averaged. (Here: the last prompt row and "
    "every answer row, each for itself.)",
)
def equation_8(paper: Text) -> Finding:
    left, right, summed = paper.equation_8
    free = tuple(index for index in right if index != summed)
    words = {"summed": summed, "free": listed(free), "left": listed(left)}
    return Finding("holds" if left == free else "undefined", {}, words)


@Claim(
    id="equation-10",
    where="Section 3.4, Eqs. 9-12, Figure 6",
    statement="The answer token's attention ranks the image tokens by what they contribute.",
    quantity="the row of Eq. 10 against the index sets of Eq. 6; scores with the top k tokens kept",
    verdict="contradicted",
    evidence="By Eq. 6 image tokens are N_sys + 1 to N_sys + N_img, so row N_sys + N_img is the last of "
    "them (LLaVA-1.5: row {row} of {first image token} to {last image token}). It stands before the "
    "question and sees none of it. Figure 6 has the row of the answer token, the released code the last row.",
    outcome="inconclusive",
    experiment=rankings.fastv,
)
def equation_10(paper: Text) -> Finding:
    system, tokens = paper.image_ids[0], paper.image_tokens["llava-1.5"]
    row, first, last = system + tokens, system + 1, system + tokens
    return Finding(
        "contradicted" if first <= row <= last else "holds",
        {"row": row, "first image token": first, "last image token": last},
    )


CLAIMS = (
    Claim(
        id="share-below-2",
        where="Section 1, Figure 2",
        statement=f"After layer {AFTER} the image gets less than {LIMIT:.0f} % of the attention.",
        quantity="mean share of image tokens by layer, last prompt row and answer rows",
        verdict="undefined",
        evidence=f"{{reading}} {NO_CODE} {IF_LLAVA}",
        stated={
            "row": "Figure 2, the answer's",
            "mean over heads": "Eq. 9, for the ranking",
            "the model": None,
            "the items": None,
        },
        numbers={"percent": LIMIT, "after layer": AFTER},
        takes=("llava-1.5",),
        outcome="in part not",
        experiment=share_experiments.image_share,
        figure="figure-2",
    ),
    share_range,
    Claim(
        id="share-shape",
        where="Figure 2, Section 3.3",
        statement="The share of image tokens drops over layers {}-{}, is level over ".format(
            *TEXT.figure_2_drops
        )
        + f"{LEVEL} and rises at {TEXT.figure_2_rises}.",
        quantity="slope of the share by layer, and the change at the last",
        verdict="undefined",
        evidence=f"{{reading}} {NO_CODE} {IF_LLAVA}",
        stated={"layers": "Figure 2", "the model": None, "the items": None, "a spread over them": None},
        numbers={"rises at layer": TEXT.figure_2_rises, "drops until layer": TEXT.figure_2_drops[1]},
        takes=("llava-1.5",),
        outcome="not as claimed",
        experiment=share_experiments.share_shape,
        figure="figure-2",
    ),
    Claim(
        id="share-ordering",
        where="Figure 2, Section 3.3",
        statement="System tokens get most of the attention, image tokens far less than system and user tokens.",
        quantity="order of the three shares by layer, with the first token apart",
        verdict="undefined",
        evidence=f"{{reading}} {NO_CODE} The first token of the prompt draws attention as a sink, which the "
        f"share of the system tokens includes. {IF_LLAVA}",
        stated={"layers": "Figure 2", "the model": None, "the items": None},
        takes=("llava-1.5",),
        outcome="in part not",
        experiment=share_experiments.share_ordering,
        figure="figure-2",
    ),
    equation_7,
    equation_8,
    equation_10,
)
