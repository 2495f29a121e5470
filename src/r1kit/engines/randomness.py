"""Counter-based randomness: one uniform number per (seed, problem, sample, position), whoever asks and
whenever.

A request's key is hashed once; the uniform of a position is SplitMix64 (Steele, Lea & Flood 2014) of key and
position. Nothing is drawn in sequence, so the order, the batching and the number of workers cannot change
what is sampled.
"""

from __future__ import annotations

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = (np.uint64(bits) for bits in (30, 27, 31, 11))


def request_key(seed: int, problem: str, sample: int) -> int:
    """The 64-bit key of one response. `problem` may hold any text: its length is hashed too, so nothing
    collides.
    """
    text = f"{seed}:{sample}:{len(problem)}:{problem}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def uniforms(keys: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1) with 53 random bits, float64 [B], of keys uint64 [B] and positions int64
    [B].
    """
    z = keys + (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN  # unsigned arithmetic wraps, as intended
    z = (z ^ (z >> _30)) * _MIX_1
    z = (z ^ (z >> _27)) * _MIX_2
    z ^= z >> _31
    return (z >> _11).astype(np.float64) * 2.0**-53
