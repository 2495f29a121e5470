"""Which tokens the model ranks first, straight from hidden states: the accuracy that is shown beside the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from r1kit.algorithms.entropy import CACHED_ELEMENTS, MIN_ROWS


@torch.no_grad()
def correct_tokens(hidden_TD: Tensor, head_weight_VD: Tensor, targets_T: Tensor, chunk: int | None = None) -> Tensor:
    """bool [T]: True where no token scores higher than the target (a tie counts: none of the tied is preferred).

    `hidden_TD`: hidden states at the positions that predict `targets_T`; `head_weight_VD`: the output matrix. The
    logits [T, V] exist `chunk` tokens at a time (by default as in `chunked_logprobs`).
    """
    rows = chunk if chunk is not None else max(MIN_ROWS, CACHED_ELEMENTS // head_weight_VD.shape[0])
    found = torch.empty_like(targets_T, dtype=torch.bool)
    for start in range(0, len(targets_T), rows):
        part = slice(start, start + rows)
        logits_CV = hidden_TD[part] @ head_weight_VD.t()
        found[part] = logits_CV.gather(1, targets_T[part, None])[:, 0] >= logits_CV.amax(dim=1)
    return found
