"""Parts made of the length of a response. A length is a number of tokens, the stop token included."""

from __future__ import annotations

import math
from collections.abc import Sequence


def overlong_penalty(length: int, max_tokens: int, buffer: int) -> float:
    """DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13), in [-1, 0].

    0 up to `max_tokens - buffer` tokens, then falling linearly to -1 at `max_tokens`, and -1 beyond.
    """
    if not 0 < buffer <= max_tokens:
        raise ValueError(
            f"reward.overlong.buffer is {buffer}, the cap is {max_tokens} tokens: expected 1 <= buffer <= cap"
        )
    over = length - (max_tokens - buffer)
    return -min(1.0, over / buffer) if over > 0 else 0.0


def kimi_length(lengths: Sequence[int], right: Sequence[bool]) -> list[float]:
    """Kimi k1.5's length reward (arXiv 2501.12599) over the responses of one problem, in [-0.5, 0.5].

    l = 0.5 - (length - shortest) / (longest - shortest): l where right, min(0, l) where not; all 0 where all lengths
    are equal. Open-R1's `length` is the same, counted in characters and over a whole batch.
    """
    shortest, longest = min(lengths), max(lengths)
    if shortest == longest:
        return [0.0] * len(lengths)
    values = [0.5 - (length - shortest) / (longest - shortest) for length in lengths]
    return [value if good else min(0.0, value) for value, good in zip(values, right, strict=True)]


def cosine(
    length: int,
    right: bool,
    max_tokens: int,
    *,
    right_ends: tuple[float, float] = (1.0, 0.5),
    wrong_ends: tuple[float, float] = (0.0, -0.5),
) -> float:
    """The cosine reward (arXiv 2502.03373): from the first end at 0 tokens to the second at `max_tokens`.

    last + (first - last) / 2 * (1 + cos(pi * length / max_tokens)). Held at the second end beyond `max_tokens`: left
    alone the cosine would rise again. Range: between the ends. The defaults are those of Open-R1's scripts.
    """
    first, last = right_ends if right else wrong_ends
    progress = min(1.0, length / max_tokens)
    return last + 0.5 * (first - last) * (1.0 + math.cos(math.pi * progress))


def lcpo_exact(length: int, right: bool, target: int, *, alpha: float = 1 / 3000) -> float:
    """L1's LCPO-Exact (arXiv 2503.04697): [right] - alpha * |target - length|, in (-inf, 1]."""
    return float(right) - alpha * abs(target - length)


def lcpo_max(length: int, right: bool, target: int, *, alpha: float = 0.001, delta: float = 0.5) -> float:
    """L1's LCPO-Max (arXiv 2503.04697): [right] * clip(alpha * (target - length) + delta, 0, 1), in [0, 1].

    The authors' code writes (clip(0.002 * (target - length), -1, 1) + 1) / 2: the same with alpha 0.001, delta 0.5.
    """
    return float(right) * min(1.0, max(0.0, alpha * (target - length) + delta))
