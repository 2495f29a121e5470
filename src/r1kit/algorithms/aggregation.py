"""From per-token losses to one number whose gradient does not depend on how the step is cut up.

A step's loss is a sum over tokens, (1 / Z) * sum_t m_t w_t loss_t. The denominator Z and the weights w come
from the whole global step (every rank, every micro-batch) before the first micro-batch runs, so each piece
adds its own sum and the pieces' gradients add up to exactly the step's:

    aggregation      Z                 w_t           from, and what counts
    token_mean       sum_i |o_i|       1             DAPO (arXiv:2503.14476, eq. 8): each token
    sequence_mean    N                 1 / |o_i|     GRPO (arXiv:2402.03300, eq. 3): each response
    constant         N * max_tokens    1             Dr. GRPO (arXiv:2503.20783): each token, at a fixed scale

where o_i is a response, |o_i| its trained tokens, N the responses of the step. With data parallelism that
*sums* gradients over ranks nothing else is needed; one that averages them has to multiply the loss by the
number of ranks.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Aggregation = Literal["token_mean", "sequence_mean", "constant"]


def _check(aggregation: str) -> None:
    if aggregation not in get_args(Aggregation):
        raise ValueError(f"aggregation is {aggregation!r}, expected one of {list(get_args(Aggregation))}")


def denominator(aggregation: Aggregation, *, tokens: int, sequences: int, max_tokens: int) -> float:
    """Z of the table: `tokens` and `sequences` are trained tokens and responses of the whole global step.

    Both are sums, so each rank counts its own and one all-reduce makes them global. `max_tokens` is the
    response cap of the recipe (used by "constant"). Raises ValueError where the step has nothing to train on.
    """
    _check(aggregation)
    if tokens < 1 or sequences < 1 or max_tokens < 1:
        raise ValueError(
            f"denominator: tokens={tokens}, sequences={sequences}, max_tokens={max_tokens}: each must be at "
            "least 1; skip a step that has nothing to train on"
        )
    by_name = {"token_mean": tokens, "sequence_mean": sequences, "constant": sequences * max_tokens}
    return float(by_name[aggregation])


def token_weights(aggregation: Aggregation, response_lengths_N: Tensor, sequence_T: Tensor) -> Tensor:
    """w of the table for each token of a packed stream: float32 [T].

    `response_lengths_N`: trained tokens of each of the N responses in this stream (a response's own full
    count, also where only a part of it is in the stream). `sequence_T`: for each token the index 0..N-1 of
    its response; entries at prompt or padding tokens may be any valid index, since the loss mask removes
    them.
    """
    _check(aggregation)
    if aggregation != "sequence_mean":
        return torch.ones(sequence_T.shape, dtype=torch.float32, device=sequence_T.device)
    # A response without a trained token has no weight to hand out; 1 keeps the masked entries finite.
    return response_lengths_N.clamp(min=1).float().reciprocal()[sequence_T.long()]
