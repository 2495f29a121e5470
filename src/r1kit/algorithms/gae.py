"""Advantages and returns per token: rewards to go, generalised advantage estimation, whitening.

Arrays are flat over the trained tokens of N responses, one response after another; `lengths_N` says how many tokens
each has. Nothing flows across responses. A response ends its episode, also where the cap cut it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    rewards_T: Tensor, values_T: Tensor, lengths_N: Tensor, *, gamma: float = 1.0, lam: float | Tensor = 1.0
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, eq. 16), float32 [T], no gradient.

        delta_t = r_t + gamma * V_{t+1} - V_t          with V = 0 after the last token
        A_t     = delta_t + gamma * lambda * A_{t+1}

    `values_T`: V_t, the critic's value of the state in which token t was chosen. `lam`: one number, or one for each
    response, [N] (VAPO's length-adaptive lambda). The critic's target is A_t + V_t with a lambda of its own; with
    lambda 1 it is the discounted sum of the rewards to come, whatever the values are (decoupled GAE: VC-PPO, Yuan et
    al. 2025, arXiv:2503.01491). Sums run in float64. Raises ValueError on shapes or numbers that do not fit.
    """
    _check(rewards_T, values_T, lengths_N, gamma, lam)
    lengths = lengths_N.long()
    present_NL = torch.arange(int(lengths.max()) if len(lengths) else 0) < lengths[:, None]

    def padded(x_T: Tensor) -> Tensor:
        return x_T.new_zeros(present_NL.shape, dtype=torch.float64).masked_scatter_(present_NL, x_T.detach().double())

    rewards_NL, values_NL = padded(rewards_T), padded(values_T)
    after_NL = torch.nn.functional.pad(values_NL[:, 1:], (0, 1))
    delta_NL = rewards_NL + gamma * after_NL - values_NL
    factor = gamma * (lam.double() if isinstance(lam, Tensor) else lam)
    advantages_NL = torch.zeros_like(delta_NL)
    running = delta_NL.new_zeros(len(lengths))
    for t in range(present_NL.shape[1] - 1, -1, -1):
        # Padding stands behind a response, where rewards and values are 0 and nothing has run up yet.
        running = delta_NL[:, t] + factor * running
        advantages_NL[:, t] = running
    return advantages_NL[present_NL].float()


def rewards_to_go(rewards_T: Tensor, lengths_N: Tensor, *, gamma: float = 1.0) -> Tensor:
    """sum_{s >= t} gamma^(s - t) r_s within each response, float32 [T]: GAE without values and with lambda 1."""
    return gae(rewards_T, torch.zeros_like(rewards_T), lengths_N, gamma=gamma, lam=1.0)


def length_adaptive_lambda(lengths_N: Tensor, alpha: float) -> Tensor:
    """lambda = 1 - 1 / (alpha * length) for each response, at least 0, float64 [N].

    VAPO (Yue et al. 2025, arXiv:2504.05118, eq. 8; alpha = 0.05): the weights of the TD errors then add up to
    alpha * length, so that a long response's reward reaches its beginning and a short one's variance stays low. A
    response of 1 / alpha tokens and fewer gets 0. Raises ValueError where alpha is not positive.
    """
    if not alpha > 0:
        raise ValueError(f"length_adaptive_lambda: alpha is {alpha}, expected a positive number (0.05 is usual)")
    return (1.0 - 1.0 / (alpha * lengths_N.double().clamp(min=1))).clamp(min=0.0)


def whiten(values_T: Tensor, *, eps: float = 1e-8) -> Tensor:
    """(x - mean) / (std + eps) over everything given, float32; all equal gives exactly 0.

    Global batch normalisation of REINFORCE++ (Hu 2025, arXiv:2501.03262) and PPO's advantage normalisation: pass all
    trained tokens of the whole step, every rank's. Sample standard deviation, in float64.
    """
    x = values_T.detach().double()
    if x.numel() < 2 or bool(x.amax() == x.amin()):
        return torch.zeros_like(x).float()
    return ((x - x.mean()) / (x.std() + eps)).float()


def explained_variance(values_T: Tensor, returns_T: Tensor) -> float:
    """1 - var(returns - values) / var(returns): 1 is a perfect critic, 0 one that knows the mean only.

    0 where the returns do not vary.
    """
    spread = returns_T.double().var(unbiased=False).item() if returns_T.numel() else 0.0
    if spread == 0.0:
        return 0.0
    return 1.0 - (returns_T.double() - values_T.double()).var(unbiased=False).item() / spread


def _check(rewards_T: Tensor, values_T: Tensor, lengths_N: Tensor, gamma: float, lam: float | Tensor) -> None:
    if rewards_T.ndim != 1 or rewards_T.shape != values_T.shape or int(lengths_N.sum()) != len(rewards_T):
        raise ValueError(
            f"gae: rewards {tuple(rewards_T.shape)}, values {tuple(values_T.shape)}, lengths that add up to "
            f"{int(lengths_N.sum())}: expected [T], [T] and a sum of T"
        )
    if not 0.0 < gamma <= 1.0:
        raise ValueError(f"gae: gamma is {gamma}, expected a number in (0, 1]")
    inside = bool(((lam >= 0) & (lam <= 1)).all()) if isinstance(lam, Tensor) else 0.0 <= lam <= 1.0
    if not inside or (isinstance(lam, Tensor) and lam.shape != lengths_N.shape):
        raise ValueError(f"gae: lambda is {lam}, expected a number in [0, 1], or one for each response")
