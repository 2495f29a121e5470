"""Losses of reward models: pairs, single judged responses, and steps of a response.

Nothing here averages: the caller divides by the pairs, responses or steps of the whole global step, so micro-batches
and ranks add. A model's value is a logit: sigma(value) is read as a probability. Functions raise ValueError on unequal
shapes and on labels outside [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

MonteCarlo = Literal["soft", "hard"]
Neutral = Literal["good", "bad", "skip"]


def pairwise_loss(
    chosen_N: Tensor, rejected_N: Tensor, *, margin_N: Tensor | None = None, centre: float = 0.0
) -> Tensor:
    """Bradley-Terry loss of N pairs (Ouyang et al. 2022, arXiv:2203.02155, eq. 1), float [N].

        L = -log sigma(s_w - s_l - margin) + centre (s_w + s_l)^2

    `margin_N`: by how much the chosen one is to win (Touvron et al. 2023, arXiv:2307.09288, eq. 2). `centre` holds the
    scores around 0, which pairs alone leave free (Eisenstein et al. 2023, arXiv:2312.09244).
    """
    _check("pairwise_loss", chosen_N, rejected_N, *(() if margin_N is None else (margin_N,)))
    if centre < 0:
        raise ValueError(f"pairwise_loss: centre is {centre}, expected 0 or more")
    gap_N = chosen_N - rejected_N
    loss_N = -F.logsigmoid(gap_N if margin_N is None else gap_N - margin_N)
    return loss_N + centre * (chosen_N + rejected_N).square() if centre else loss_N


def pointwise_loss(values_N: Tensor, labels_N: Tensor) -> Tensor:
    """Cross-entropy of N values, each a logit, with labels in [0, 1], float [N].

        L = -l log sigma(v) - (1 - l) log sigma(-v)

    For whole responses it is DeepSeek-R1's safety reward model (safe 1, unsafe 0); for the values at the ends of steps
    the process reward model of Lightman et al. 2023 (arXiv:2305.20050, there with classes of its own) and of
    Math-Shepherd (Wang et al. 2023, arXiv:2312.08935), whose soft labels are shares of right continuations.
    """
    _check("pointwise_loss", values_N, labels_N)
    if not bool(((labels_N >= 0) & (labels_N <= 1)).all()):
        raise ValueError("pointwise_loss: a label lies outside [0, 1]; give probabilities or 0 and 1")
    return F.binary_cross_entropy_with_logits(values_N, labels_N.to(values_N), reduction="none")


def prm800k_labels(ratings: Sequence[int | None], *, neutral: Neutral = "good") -> list[float | None]:
    """Step labels of PRM800K's ratings 1 (good), 0 (neutral), -1 (bad); None where a step is not trained on.

    Its labellers stopped at the first bad step, so what follows one is left out even where it is rated (Lightman et al.
    2023, arXiv:2305.20050). `neutral`: what 0 counts as. ValueError on another rating.
    """
    value = {1: 1.0, 0: {"good": 1.0, "bad": 0.0, "skip": None}[neutral], -1: 0.0, None: None}
    for step, rating in enumerate(ratings):
        if rating not in value:
            raise ValueError(f"prm800k_labels: step {step} is rated {rating!r}, expected 1, 0, -1 or nothing")
    first_bad = list(ratings).index(-1) if -1 in ratings else len(ratings)
    return [value[rating] if step <= first_bad else None for step, rating in enumerate(ratings)]


def monte_carlo_labels(shares: Sequence[float], *, mode: MonteCarlo = "soft") -> list[float]:
    """Step labels from the share of sampled continuations that end right (Math-Shepherd, arXiv:2312.08935).

    "soft": the share itself; "hard": 1 where any continuation ends right. ValueError on a share outside [0, 1].
    """
    for step, share in enumerate(shares):
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"monte_carlo_labels: step {step} has share {share}, expected a number in [0, 1]")
    return [float(share) if mode == "soft" else float(share > 0) for share in shares]


def _check(name: str, *arrays_N: Tensor) -> None:
    shapes = {tuple(x.shape) for x in arrays_N}
    if len(shapes) != 1 or arrays_N[0].ndim != 1:
        raise ValueError(f"{name}: arrays have shapes {sorted(shapes)}, expected one flat shape [N] for all")
