"""Why this matters: a value clip on the wrong side freezes the critic or lets it run, and PPO's advantages go with it.

Does not exercise: the critic itself, its targets (tests/training/test_critic.py).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1kit.algorithms.value_loss import value_loss

triples = st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=20)


def oracle(values, old, returns, denominator: float, clip: float | None) -> tuple[float, list[float]]:
    """Loss and gradient by cases, one token at a time."""
    loss, gradient = 0.0, []
    for v, o, r in zip(values, old, returns, strict=True):
        near = v if clip is None else min(max(v, o - clip), o + clip)
        worse = (near - r) ** 2 > (v - r) ** 2
        loss += 0.5 * max((v - r) ** 2, (near - r) ** 2) / denominator
        gradient.append(0.0 if worse and near != v else (v - r) / denominator)
    return loss, gradient


def test_by_hand() -> None:
    """Value 1 from 0 with clip 0.2, target 2: the clipped 0.2 is further off, (1.8)^2 / 2, and carries no gradient."""
    value = torch.tensor([1.0, 1.0], requires_grad=True)
    loss, metrics = value_loss(value, torch.tensor([0.0, 1.0]), torch.tensor([2.0, 0.0]), 2.0, clip=0.2)
    (gradient,) = torch.autograd.grad(loss, value)
    assert loss.item() == pytest.approx((1.8**2 / 2 + 1.0 / 2) / 2)
    assert gradient.tolist() == pytest.approx([0.0, 0.5])
    assert (metrics["value_clip"], metrics["value_error"]) == (1, 2)


@given(triples, st.sampled_from([None, 0.2, 1.0]))
def test_equals_the_oracle_and_adds_over_pieces(rows, clip: float | None) -> None:
    values, old, returns = (torch.tensor(x, dtype=torch.float64) for x in zip(*rows, strict=True))
    values.requires_grad_()
    loss, _ = value_loss(values, old, returns, 7.0, clip=clip)
    (gradient,) = torch.autograd.grad(loss, values)
    want, slopes = oracle(values.tolist(), old.tolist(), returns.tolist(), 7.0, clip)
    assert loss.item() == pytest.approx(want)
    # On the edge of the clip the two branches are equal and either slope is right.
    edge = np.zeros(len(rows), bool) if clip is None else np.isclose((values.detach() - old).abs().numpy(), clip)
    tie = np.isclose(
        ((old + (values - old).clamp(-(clip or 9), clip or 9) - returns) ** 2).detach(),
        (values.detach() - returns) ** 2,
    )
    plain = ~(edge | (tie & (np.abs(values.detach().numpy() - old.numpy()) > (clip or 9))))
    np.testing.assert_allclose(gradient.numpy()[plain], np.array(slopes)[plain], rtol=1e-9, atol=1e-12)
    cut = len(rows) // 2
    pieces = [value_loss(values[p], old[p], returns[p], 7.0, clip=clip)[0] for p in (slice(cut), slice(cut, None))]
    torch.testing.assert_close(sum(pieces), loss)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="one flat shape"):
        value_loss(torch.zeros(2), torch.zeros(1), torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match="clip -1"):
        value_loss(torch.zeros(1), torch.zeros(1), torch.zeros(1), 1.0, clip=-1)
