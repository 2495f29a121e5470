"""Losses that join whole sequences: packing, budgets and ranks leave them and their gradients alone.

Why this matters: a pair whose sides land in different micro-batches, or whose log-probs are added up in another order
than its labels, trains on nonsense without any error.

Not exercised here: the losses themselves (tests/algorithms); whole stages (test_preference.py, test_reward_model.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.heads import ValueModel
from r1kit.models.marked import MarkedSequence, marked_values, summed_logprobs
from r1kit.training.packing import plan
from r1kit.training.parallel import World
from r1kit.training.units import backward, plan_units, read_all

from .helpers import tiny_model
from .judged import pairs


def plain_logprob(model: torch.nn.Module, s: MarkedSequence) -> Tensor:
    """The log-prob of the marked tokens, one sequence at a time, from the whole array of logits."""
    ids = torch.from_numpy(s.token_ids)
    segments = [Segment(1, len(ids))]
    hidden = model(ids, positions(segments), packed_attention(segments))
    logprobs = F.log_softmax(model.logits(hidden), dim=-1)  # type: ignore[operator]
    return sum(logprobs[t - 1, ids[t]] for t in range(1, len(ids)) if s.marks[t])  # type: ignore[return-value]


def gradient(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def margin_loss(outputs: Tensor, units: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
    """A loss that joins both sides and depends on which unit it is."""
    weights = torch.tensor([1.0 + i for i in units])
    gaps = outputs.view(-1, 2)[:, 0] - outputs.view(-1, 2)[:, 1]
    return (weights * F.softplus(-0.3 * gaps)).sum(), {"gap": gaps.sum().item(), "units": float(len(units))}


def plain_step() -> tuple[float, Tensor]:
    model = tiny_model()
    units = [j.unit for j in pairs(7)]
    outputs = torch.stack([plain_logprob(model, s) for unit in units for s in unit])
    loss, _ = margin_loss(outputs, range(len(units)))
    loss.backward()
    return loss.item(), gradient(model)


@pytest.mark.parametrize("token_budget", [20, 41, 90, 10_000])
def test_any_budget_gives_the_plain_gradient(token_budget: int) -> None:
    """At 20 tokens many pairs are over the budget and run one response at a time; at 10,000 all are one pass."""
    want_loss, want = plain_step()
    units = [j.unit for j in pairs(7)]
    lengths = [tuple(map(len, unit)) for unit in units]
    split = [b for b in plan_units(lengths, token_budget) if b.micro is None]
    assert bool(split) == (token_budget == 20)
    model = tiny_model()
    sums = backward(model, units, summed_logprobs, margin_loss, token_budget, World.single())
    assert sums["loss"] == pytest.approx(want_loss, rel=1e-5)
    assert sums["units"] == 7
    assert (gradient(model) - want).norm() <= 1e-5 * want.norm()


def test_a_sequence_over_the_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="raise token_budget"):
        backward(tiny_model(), [j.unit for j in pairs(7)], summed_logprobs, margin_loss, 9, World.single())


@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=3), min_size=1, max_size=12),
    st.integers(30, 120),
)
def test_every_unit_stands_in_one_pass_whole(lengths: list[list[int]], token_budget: int) -> None:
    batches = plan_units(lengths, token_budget)
    assert sorted(i for b in batches for i in b.units) == list(range(len(lengths)))
    for batch in batches:
        sizes = [length for i in batch.units for length in lengths[i]]
        if batch.micro is None:
            assert len(batch.units) == 1
            assert len(plan(sizes, token_budget)) > 1
        else:
            assert batch.micro.tokens <= token_budget
            rows = {i: s.length for s, r in zip(batch.micro.segments, batch.micro.members, strict=True) for i in r}
            assert all(rows[i] >= size for i, size in enumerate(sizes))
            assert len(rows) == len(sizes)


@pytest.mark.parametrize("token_budget", [20, 10_000])
def test_reading_all_keeps_the_order_of_the_sequences(token_budget: int) -> None:
    sequences = [s for j in pairs(5) for s in j.unit]
    policy, values = tiny_model(), ValueModel(tiny_model(), bias=True).draw_head(1)
    sums = read_all(policy, sequences, summed_logprobs, token_budget)
    marks = read_all(values, sequences, marked_values, token_budget, per_mark=True)
    for s, total, per_mark in zip(sequences, sums, marks, strict=True):
        np.testing.assert_allclose(total, [plain_logprob(policy, s).item()], rtol=1e-5)
        segments = [Segment(1, len(s))]
        with torch.no_grad():
            want = values(torch.from_numpy(s.token_ids), positions(segments), packed_attention(segments))
        np.testing.assert_allclose(per_mark, want[torch.from_numpy(s.marks)], rtol=1e-4, atol=1e-6)


def test_values_at_marks_give_the_plain_gradient() -> None:
    sequences = [(s,) for j in pairs(5) for s in j.unit]

    def loss(outputs: Tensor, units: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        weights = torch.tensor(np.concatenate([100 * i + np.arange(sequences[i][0].marked) for i in units]))
        return (torch.sin(weights) * outputs).sum(), {}

    gradients = []
    for token_budget in (20, 10_000):
        model = ValueModel(tiny_model(), bias=True).draw_head(1)
        backward(model, sequences, marked_values, loss, token_budget, World.single())
        gradients.append(gradient(model))
    assert (gradients[0] - gradients[1]).norm() <= 1e-5 * gradients[1].norm()
    assert gradients[1].norm() > 0
