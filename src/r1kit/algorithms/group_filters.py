"""Sample many, train on few: which K of a group's G responses are trained, the same number in every group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

FilterMeasure = Literal["length", "reward_per_token"]


def gfpo_keep(rewards_PG: Tensor, lengths_PG: Tensor, keep: int, *, by: FilterMeasure = "length") -> Tensor:
    """Indices [P, keep], ascending, of the responses that GFPO trains (Shrivastava et al. 2025, arXiv:2508.09726).

    by="length": the shortest; by="reward_per_token": those of the highest reward / length (token efficiency). Ties go
    to the lower index. Mean and standard deviation of the advantage are then those of the kept. The paper gives the
    others advantage 0; here they also leave the denominator, and cost nothing.
    """
    _check(rewards_PG, keep)
    if lengths_PG.shape != rewards_PG.shape:
        raise ValueError(f"gfpo_keep: lengths have shape {tuple(lengths_PG.shape)}, rewards {tuple(rewards_PG.shape)}")
    lengths = lengths_PG.double()
    measure = lengths if by == "length" else -rewards_PG.double() / lengths.clamp(min=1)
    order = measure.argsort(dim=1, stable=True)
    return order[:, :keep].sort(dim=1).values


def roc_keep(right_PG: Tensor, penalty_PG: Tensor, keep: int, draws_PG: Tensor) -> Tensor:
    """Indices [P, keep], ascending, of GRPO-RoC's resampling (rStar2-Agent, Shang et al. 2025, arXiv:2508.20722).

    Of the wrong responses a random half (varied failures), of the right ones those drawn with probability falling in
    their penalty (cleanest successes); here the shares are scaled to `keep` of G, and each kind keeps at least one
    where it has any. `right_PG` bool. `penalty_PG` >= 0: what is untidy about a response (format, truncation);
    `draws_PG` uniform in (0, 1), the only randomness, so that the choice can be repeated. Right responses are drawn
    without replacement with weight 1 / (penalty + 0.1): the largest draws ** (1 / weight) (Efraimidis & Spirakis 2006).
    """
    _check(penalty_PG, keep)
    if not right_PG.shape == penalty_PG.shape == draws_PG.shape:
        raise ValueError("roc_keep: right, penalty and draws must have one shape [problems, samples]")
    return torch.stack(
        [torch.from_numpy(_roc_row(r, p, d, keep)) for r, p, d in zip(right_PG, penalty_PG, draws_PG, strict=True)]
    )


def _roc_row(right_G: Tensor, penalty_G: Tensor, draws_G: Tensor, keep: int) -> np.ndarray:
    draws = draws_G.double().numpy()
    right = right_G.bool().numpy()
    good, bad = np.flatnonzero(right), np.flatnonzero(~right)
    wanted_bad = round(keep * len(bad) / len(right))
    if len(good) and len(bad):
        wanted_bad = min(max(wanted_bad, 1), keep - 1)
    wanted_bad = min(max(wanted_bad, keep - len(good)), len(bad))
    keys = np.log(draws) * (penalty_G.double().numpy() + 0.1)  # log of draws ** (1 / weight)
    kept: Sequence[int] = [
        *bad[np.argsort(-draws[bad], kind="stable")[:wanted_bad]],
        *good[np.argsort(-keys[good], kind="stable")[: keep - wanted_bad]],
    ]
    return np.sort(np.array(kept, dtype=np.int64))


def _check(x_PG: Tensor, keep: int) -> None:
    if x_PG.ndim != 2 or not 1 <= keep <= x_PG.shape[1]:
        raise ValueError(
            f"group filter: keep is {keep} of groups of shape {tuple(x_PG.shape)}: expected [problems, samples] and "
            "1 <= keep <= samples"
        )
