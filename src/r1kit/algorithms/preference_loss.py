"""Preference losses: from log-probs of whole responses to one loss for each pair, or for each judged response.

Nothing here averages: the caller divides by the pairs of the whole global step, so micro-batches and ranks add.
Two inputs occur, both natural logs in nats over a response's own tokens (its end token included, the prompt not):

    log-ratio    r(y) = log policy(y|x) - log reference(y|x), sums over tokens    dpo, ipo, nca, kto
    mean log-prob m(y) = log policy(y|x) / |y|, no reference                       simpo, orpo

N pairs (or responses); the first argument is the chosen (wished) response. All functions return float tensors [N] with
gradient and raise ValueError on unequal shapes and on constants that make no sense.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# A mean log-prob nearer to 0 than this is a response of certainty, whose odds are infinite.
LEAST_DOUBT = 1e-6


def dpo_loss(chosen_ratio_N: Tensor, rejected_ratio_N: Tensor, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290, eq. 7).

        L = -(1 - s) log sigma(beta (r_w - r_l)) - s log sigma(-beta (r_w - r_l))

    s = `label_smoothing` in [0, 0.5): the share of pairs thought to be labelled the wrong way round (conservative DPO;
    Mitchell 2023, "A note on DPO with noisy preferences & relationship to IPO"). s = 0 is DPO.
    """
    _check("dpo_loss", chosen_ratio_N, rejected_ratio_N, beta=beta)
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"dpo_loss: label_smoothing is {label_smoothing}, expected at least 0 and below 0.5")
    margin_N = beta * (chosen_ratio_N - rejected_ratio_N)
    loss_N = -F.logsigmoid(margin_N)
    if label_smoothing:
        loss_N = (1.0 - label_smoothing) * loss_N - label_smoothing * F.logsigmoid(-margin_N)
    return loss_N


def ipo_loss(
    chosen_ratio_N: Tensor,
    rejected_ratio_N: Tensor,
    *,
    tau: float,
    lengths_N: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Identity preference optimisation (Azar et al. 2023, arXiv:2310.12036, eq. 17).

        L = (r_w - r_l - 1 / (2 tau))^2

    `lengths_N`, tokens of the chosen and of the rejected responses, divides each log-ratio by its own length first; the
    paper does not say so, its authors did (public trainers take it so), and long responses need it: the target does not
    grow with length.
    """
    _check("ipo_loss", chosen_ratio_N, rejected_ratio_N, beta=tau)
    if lengths_N is not None:
        _check("ipo_loss", chosen_ratio_N, *lengths_N)
        chosen_ratio_N = chosen_ratio_N / lengths_N[0]
        rejected_ratio_N = rejected_ratio_N / lengths_N[1]
    return (chosen_ratio_N - rejected_ratio_N - 1.0 / (2.0 * tau)).square()


def nca_loss(chosen_ratio_N: Tensor, rejected_ratio_N: Tensor, *, beta: float) -> Tensor:
    """Noise contrastive alignment of pairs (Chen et al. 2024, arXiv:2402.05369); Light-R1 trains with it.

        L = -log sigma(R_w) - 1/2 log sigma(-R_w) - 1/2 log sigma(-R_l),   R = beta r

    Each response is pulled on its own, and the chosen one to a bounded reward (the loss is least at R_w = log 2), so
    that its likelihood does not sink together with that of the rejected one, as it may under DPO.
    """
    _check("nca_loss", chosen_ratio_N, rejected_ratio_N, beta=beta)
    chosen_N, rejected_N = beta * chosen_ratio_N, beta * rejected_ratio_N
    return -F.logsigmoid(chosen_N) - 0.5 * F.logsigmoid(-chosen_N) - 0.5 * F.logsigmoid(-rejected_N)


def simpo_loss(chosen_mean_N: Tensor, rejected_mean_N: Tensor, *, beta: float, gamma: float) -> Tensor:
    """Simple preference optimisation (Meng et al. 2024, arXiv:2405.14734, eq. 6); Sky-T1 Flash trains with it.

        L = -log sigma(beta m_w - beta m_l - gamma)

    `gamma` >= 0 is the margin by which the chosen response is to win.
    """
    _check("simpo_loss", chosen_mean_N, rejected_mean_N, beta=beta)
    if gamma < 0:
        raise ValueError(f"simpo_loss: gamma is {gamma}, expected 0 or more")
    return -F.logsigmoid(beta * (chosen_mean_N - rejected_mean_N) - gamma)


def orpo_loss(chosen_mean_N: Tensor, rejected_mean_N: Tensor) -> Tensor:
    """The odds-ratio term of ORPO (Hong et al. 2024, arXiv:2403.07691, eq. 4, 7).

        L_OR = -log sigma(log odds(y_w) - log odds(y_l)),   odds(y) = P / (1 - P),   P = exp(m)

    The whole loss is L_SFT + lambda L_OR (eq. 6), with L_SFT the mean next-token loss of the chosen response: the
    caller adds it. A mean log-prob above -1e-6 counts as -1e-6, beyond which it has no gradient.
    """
    _check("orpo_loss", chosen_mean_N, rejected_mean_N)
    return -F.logsigmoid(_log_odds(chosen_mean_N) - _log_odds(rejected_mean_N))


def _log_odds(mean_N: Tensor) -> Tensor:
    """m - log(1 - exp(m)) for m < 0; each branch where it is exact (Maechler 2012, "Accurately computing log1mexp")."""
    mean_N = mean_N.clamp(max=-LEAST_DOUBT)
    likely_N = mean_N > -math.log(2.0)
    # `where` inside, too: the branch not taken must have a finite gradient.
    near_N = torch.where(likely_N, mean_N, -1.0)
    far_N = torch.where(likely_N, -1.0, mean_N)
    return mean_N - torch.where(likely_N, torch.log(-torch.expm1(near_N)), torch.log1p(-far_N.exp()))


def kto_loss(
    ratio_N: Tensor,
    desirable_N: Tensor,
    reference_point: float,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimisation of single responses judged good or bad (Ethayarajh et al. 2024,
    arXiv:2402.01306, eq. 7).

        desirable:   L = w_D (1 - sigma(beta (r - z)))
        undesirable: L = w_U (1 - sigma(beta (z - r)))

    `desirable_N` bool. `reference_point` z from `kto_reference_point`. The paper asks for weights such that the two
    sums w * count are within a factor of 4/3 of one another.
    """
    _check("kto_loss", ratio_N, desirable_N, beta=beta)
    if desirable_weight < 0 or undesirable_weight < 0:
        raise ValueError(f"kto_loss: weights are {desirable_weight} and {undesirable_weight}: neither may be negative")
    desirable_N = desirable_N.bool()
    sign_N = torch.where(desirable_N, 1.0, -1.0).to(ratio_N)
    weight_N = torch.where(desirable_N, desirable_weight, undesirable_weight).to(ratio_N)
    # 1 - sigma(x) = sigma(-x), without the cancellation.
    return weight_N * torch.sigmoid(-sign_N * beta * (ratio_N - reference_point))


def kto_reference_point(mismatched_ratio_sum: float, count: int) -> float:
    """z of `kto_loss`: max(0, mean log-ratio of responses to other prompts), an estimate of KL(policy || reference).

    Both arguments count the whole global step (the paper takes the responses of a micro-batch, each after the next
    prompt). No gradient passes through.
    """
    if count < 1:
        raise ValueError(f"kto_reference_point: {count} mismatched responses, expected at least 1")
    return max(0.0, mismatched_ratio_sum / count)


def _check(name: str, *arrays_N: Tensor, beta: float = 1.0) -> None:
    shapes = {tuple(x.shape) for x in arrays_N}
    if len(shapes) != 1 or arrays_N[0].ndim != 1:
        raise ValueError(f"{name}: arrays have shapes {sorted(shapes)}, expected one flat shape [N] for all")
    if not (math.isfinite(beta) and beta > 0):
        raise ValueError(f"{name}: its coefficient is {beta}, expected a positive number")
