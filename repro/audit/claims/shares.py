"""Attention shares: what the text says of them, and the equations that define them."""

from __future__ import annotations

from repro.audit import structure
from repro.audit.claims.text import listed
from repro.audit.experiments import rankings
from repro.audit.experiments import shares as share_experiments
from repro.audit.ledger import Claim, Finding
from repro.audit.needs import need
from repro.audit.paper import (
    EQUATION_8,
    FIGURE_2_DROPS,
    FIGURE_2_LEVEL,
    FIGURE_2_RISES,
    IMAGE_IDS,
    IMAGE_TOKENS,
    SHARE_AFTER,
    SHARE_LIMIT,
    WEIGHTS,
)
from repro.audit.stated import standing


def _span(layers: tuple[int, int]) -> str:
    return "{}-{}".format(*layers)


def _of_figure_2(claim: str, figures: dict[str, float], said: str = "") -> Finding:
    """A claim about attention shares, for which no code was released."""
    takes, left = need(["llava-1.5"]), standing(claim)
    return Finding(
        left.verdict,
        f"{left.text} No code for shares was released. {said}If LLaVA-1.5 is meant: {takes.text}",
        figures | takes.figures | left.figures,
    )


def below() -> Finding:
    return _of_figure_2("share-below-2", {"percent": SHARE_LIMIT, "after layer": SHARE_AFTER})


def shape() -> Finding:
    return _of_figure_2(
        "share-shape", {"rises at layer": FIGURE_2_RISES, "drops until layer": FIGURE_2_DROPS[1]}
    )


def ordering() -> Finding:
    return _of_figure_2(
        "share-ordering",
        {},
        "The first token of the prompt draws attention as a sink, which the share of the system tokens includes. ",
    )


def range_of_weights() -> Finding:
    high, rest = WEIGHTS[1], 100 - SHARE_LIMIT
    late = FIGURE_2_DROPS[1] - SHARE_AFTER
    return Finding(
        "undefined" if high > SHARE_LIMIT and late > 0 else "holds",
        f"One sentence has image tokens below {SHARE_LIMIT:.0f} % and weights of up to {high / 100:.1f}. If "
        f"these are their shares, {high:.0f} % is more than {SHARE_LIMIT:.0f}; if they are shares of system and "
        f"prompt tokens, both together have at most {2 * high:.0f} %, where Eq. 7 leaves them {rest:.0f}. "
        "Missing: whose weights, of one token or of all, and their unit. In Figure "
        f"2 the drop lasts until layer {FIGURE_2_DROPS[1]}, {late} layers longer, the share is level "
        f"over {_span(FIGURE_2_LEVEL)}, and rises at {FIGURE_2_RISES}.",
        {
            "percent of image tokens": SHARE_LIMIT,
            "highest weight, percent": high,
            "percent left to the others": rest,
        },
    )


def equation_7() -> Finding:
    sums = structure.answer_sums()
    prompt, answer = sums[:, 0], sums[:, 1:]
    return Finding(
        "undefined" if answer.max() < 1 - 1e-6 else "holds",
        "Softmax gives every earlier token some attention, so an answer token leaves less than 1 to system, image "
        f"and user tokens once the answer has begun: in the miniature's description of a scene "
        f"({sums.shape[1] - 1} tokens, {len(sums)} layers) {answer.min():.2f} to {answer.max():.4f}, mean "
        f"{answer.mean():.2f}. It holds for the last prompt row ({prompt.min():.4f} to {prompt.max():.4f}), and "
        "by construction once the three are divided by their sum. Missing: whether Eq. 7 is of the attention as "
        "it is, as the words before it say, or after the normalisation that the words behind it ask for.",
        {
            "least sum of an answer row": float(answer.min()),
            "greatest sum of an answer row": float(answer.max()),
            "mean": float(answer.mean()),
            "least sum of the last prompt row": float(prompt.min()),
        },
    )


def equation_8() -> Finding:
    left, right, summed = EQUATION_8
    free = [index for index in right if index != summed]
    return Finding(
        "holds" if list(left) == free else "undefined",
        f"The right-hand side sums over {summed} and depends on {listed(free)}; the left-hand side depends on "
        f"{listed(left)}. Missing: the row, and whether rows of an answer are averaged. (Here: the last prompt "
        "row and every answer row, each for itself.)",
        {},
    )


def equation_10() -> Finding:
    system, tokens = IMAGE_IDS[0], IMAGE_TOKENS["llava-1.5"]
    row = system + tokens
    image = range(system + 1, system + tokens + 1)
    return Finding(
        "contradicted" if row in image else "holds",
        "By Eq. 6 image tokens are N_sys + 1 to N_sys + N_img, so row N_sys + N_img is the last of them "
        f"(LLaVA-1.5: row {row} of {image.start} to {image.stop - 1}). It stands before the question and sees "
        "none of it. Figure 6 has the row of the answer token, the released code the last row.",
        {"row": row, "first image token": image.start, "last image token": image.stop - 1},
    )


CLAIMS = (
    Claim(
        id="share-below-2",
        where="Section 1, Figure 2",
        statement=f"After layer {SHARE_AFTER} the image gets less than {SHARE_LIMIT:.0f} % of the attention.",
        quantity="mean share of image tokens by layer, last prompt row and answer rows",
        verdict="undefined",
        check=below,
        outcome="not as claimed",
        experiment=share_experiments.image_share,
        figure="figure-2",
    ),
    Claim(
        id="share-range",
        where="Section 1, Figure 2",
        statement=f"After layer {SHARE_AFTER} image tokens have less than {SHARE_LIMIT:.0f} %, with weights of "
        f"{WEIGHTS[0] / 100:.0f} to {WEIGHTS[1] / 100:.1f}.",
        quantity="the figures of one sentence against each other, Eq. 7 and Figure 2",
        verdict="undefined",
        check=range_of_weights,
        figure="figure-2",
    ),
    Claim(
        id="share-shape",
        where="Figure 2, Section 3.3",
        statement=f"The share of image tokens drops over layers {_span(FIGURE_2_DROPS)}, is level over "
        f"{_span(FIGURE_2_LEVEL)} and rises at {FIGURE_2_RISES}.",
        quantity="slope of the share by layer, and the change at the last",
        verdict="undefined",
        check=shape,
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
        check=ordering,
        outcome="not as claimed",
        experiment=share_experiments.share_ordering,
        figure="figure-2",
    ),
    Claim(
        id="equation-7",
        where="Section 3.3, Eq. 7",
        statement="The attention of a query token on system, image and user tokens sums to 1.",
        quantity="that sum, for the last prompt row and for answer rows, which see answer tokens too",
        verdict="undefined",
        check=equation_7,
        figure="figure-2",
    ),
    Claim(
        id="equation-8",
        where="Section 3.3, Eq. 8",
        statement="The share of the image is a sum over its tokens.",
        quantity="indices left against indices right",
        verdict="undefined",
        check=equation_8,
    ),
    Claim(
        id="equation-10",
        where="Section 3.4, Eqs. 9-12, Figure 6",
        statement="The answer token's attention ranks the image tokens by what they contribute.",
        quantity="the row of Eq. 10 against the index sets of Eq. 6; scores with the top k tokens kept",
        verdict="contradicted",
        check=equation_10,
        outcome="inconclusive",
        experiment=rankings.fastv,
    ),
)
