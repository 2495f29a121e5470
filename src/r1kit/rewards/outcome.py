"""Parts made of a verdict: right and wrong in the shapes that were published, and the controls."""

from __future__ import annotations

import hashlib

from r1kit.records import Verdict


def score_of(verdict: Verdict) -> float:
    """The score of a verdict that is one; asking a skip or an error for its value is a mistake, never a 0."""
    if verdict.score is None:
        raise ValueError(f"the verdict is {verdict.outcome} ({verdict.reason}): it has no value")
    return verdict.score


def accuracy(verdict: Verdict, *, right: float = 1.0, wrong: float = 0.0, no_answer: float | None = None) -> float:
    """wrong + score * (right - wrong); `no_answer`, where given, if no answer was found.

    R1-Zero (arXiv 2501.12948): 1 / 0. simpleRL v0 (hkust-nlp/simpleRL-reason): +1 right, -0.5 wrong, -1 without a
    boxed answer. DAPO (arXiv 2503.14476, eq. 7): +1 / -1. Range: between the least and the largest of the three.
    """
    score = score_of(verdict)
    if no_answer is not None and verdict.reason == "no_answer":
        return no_answer
    return wrong + score * (right - wrong)


def consolation(form: Verdict, verdict: Verdict) -> float:
    """form * (1 - score): a right answer is worth the same whatever its form (TinyZero: 1 / 0.1 / 0). In [0, 1]."""
    return score_of(form) * (1.0 - score_of(verdict))


def binary_code(verdict: Verdict, *, above: float = 0.99) -> float:
    """1 where the share of tests passed exceeds `above`, or is all of them, else 0 (Open-R1, binary_code). {0, 1}."""
    score = score_of(verdict)
    return float(score > above or score == 1.0)


def codeforces(
    verdict: Verdict,
    *,
    mode: str = "weighted_sum",
    bonus: float = 0.1,
    no_code: float = -1.0,
    not_compiled: float = -0.1,
) -> float:
    """Open-R1's cf_code, of the share s of tests passed.

    `no_code` without a program, `not_compiled` where it does not compile; else by mode: pass_fail [s = 1],
    partial s, weighted_sum [s = 1] + bonus * s. Range with the defaults: [-1, 1.1]. A problem without tests is a skip
    and reaches no reward.
    """
    score = score_of(verdict)
    if verdict.reason in ("no_answer", "unparsable"):
        return no_code if verdict.reason == "no_answer" else not_compiled
    passed = float(score == 1.0)
    return {"pass_fail": passed, "partial": score, "weighted_sum": passed + bonus * score}[mode]


def inverted(verdict: Verdict) -> float:
    """1 - score, a control: wrong answers are paid ("Spurious Rewards", arXiv 2506.10947). In [0, 1]."""
    return 1.0 - score_of(verdict)


def coin(probability: float, *key: object) -> float:
    """1 with `probability`, else 0, a control that looks at no response ("Spurious Rewards", arXiv 2506.10947).

    The toss is a hash of `key` alone: the same on every machine, in any order, after any resume.
    """
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return float((int.from_bytes(digest, "little") >> 11) / 2**53 < probability)
