"""The public face of the math verifier: bare answers and whole responses to a `Verdict`."""

from __future__ import annotations

import atexit
import os
import re
import time
from collections.abc import Sequence
from typing import Protocol

from r1kit.records import Verdict
from r1kit.verifiers.math.exact import Decision, decide
from r1kit.verifiers.math.extraction import MAX_RESPONSE, extract, without_subject
from r1kit.verifiers.math.limits import MAX_CHARS
from r1kit.verifiers.math.policy import DEFAULT_POLICY, MathPolicy
from r1kit.verifiers.math.voter_pool import PoolError, VoterPool

SHOWN = 400
_WRAPPED = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])|<answer>|####\s|</?think>")
_LEADING = re.compile(r"^\$?(?:therefore|thus|so|hence|then|所以|因此|综上所述|综上|故)[\s,，:：]+", re.IGNORECASE)
_ROUNDED = re.compile(r"\s*(?:=|≈|\\approx)\s*-?\d{0,20}\.\d{1,40}\s*(?:\.\.\.|…|\\[lc]?dots)\s*\$?$")  # 1/3 = 0.333...
_PROSE = re.compile(r"answer|solution|result|答案|故选|结果|取值范围|答\s*[:：]|选\s*[A-H]", re.IGNORECASE)
# A bare answer in one sentence: "The probability is 1/2.", x的值是2.
_STATEMENT = re.compile(
    r"\$?(?:the|its|their)\s+(?:(?!(?:wrong|incorrect|not|no|other)\b)[a-z-]+\s+){1,6}(?:is|are|equals?|was)\s+(?=[-\d$\\(])"
    r"|[A-Za-z]?\s*的?(?:值|概率)\s*(?:是|为|等于|:|：)\s*",
    re.IGNORECASE,
)
_MORE = re.compile(
    r"[.;]\s+[^\s$]|。\s*\S|\n|,\s*(?:so|where|and|but)\b"
)  # what a statement of one value does not go on with


class Voter(Protocol):
    """Tier (b) or (c): "yes", "no", "over_limit", or why it abstains: "failed", "lost", "gold_unread", "unparsable"."""

    def judge(self, gold: str, prediction: str) -> str: ...


class SymbolicVoter:
    """math-verify in the process-wide pool, started when first needed."""

    name = "math-verify"

    def judge(self, gold: str, prediction: str) -> str:
        try:
            return default_pool().judge(gold, prediction)
        except PoolError:
            return "failed"


_pool: tuple[int, VoterPool] | None = None


def default_pool() -> VoterPool:
    """The pool of this process: one worker for each core it may use, two at most."""
    global _pool
    if _pool is None or _pool[0] != os.getpid():
        _pool = (os.getpid(), VoterPool(min(2, len(os.sched_getaffinity(0)))))
    return _pool[1]


@atexit.register
def close_default_pool() -> None:
    """End the workers of this process; the next judgement starts others."""
    global _pool
    pool, _pool = _pool, None
    if pool is not None and pool[0] == os.getpid():
        pool[1].close()


SYMBOLIC: tuple[Voter, ...] = (SymbolicVoter(),)


def judge_math(
    prediction: str, gold: str, policy: MathPolicy = DEFAULT_POLICY, voters: Sequence[Voter] = SYMBOLIC
) -> Verdict:
    """Score 1 where the bare answer `prediction` is `gold` under `policy`, else 0.

    The exact tier decides where it can; what it leaves open goes to `voters` in turn. An answer that comes wrapped in
    `\\boxed{}`, an answer tag or an answer phrase is unwrapped. A gold that nobody can read is a skip; voters that all
    fail are an error, never a 0.
    """
    start = time.perf_counter()
    bare_gold = _unwrapped(gold, policy)
    if not bare_gold:
        return Verdict("skip", None, "gold_invalid", seconds=time.perf_counter() - start)
    if len(prediction) > MAX_CHARS and _WRAPPED.search(prediction) is None and prediction.strip() != gold.strip():
        text: str | None = prediction
    else:
        text = _unwrapped(prediction, policy)
    if not text:
        return Verdict.scored(0, "no_answer", seconds=time.perf_counter() - start)
    return _judged(text, bare_gold, policy, voters, start)


def verify_math(
    response: str,
    gold: str,
    policy: MathPolicy = DEFAULT_POLICY,
    *,
    opened: bool = False,
    voters: Sequence[Voter] = SYMBOLIC,
) -> Verdict:
    """Find the final answer of a whole response (see `extraction`) and judge it. `opened`: <think> was prefilled."""
    start = time.perf_counter()
    bare_gold = _unwrapped(gold, policy)
    if not bare_gold:
        return Verdict("skip", None, "gold_invalid", seconds=time.perf_counter() - start)
    found = extract(response, policy, opened=opened)
    if found is None:
        return Verdict.scored(0, "no_answer", seconds=time.perf_counter() - start)
    return _judged(_without_statement(found.text), bare_gold, policy, voters, start)


def _unwrapped(text: str, policy: MathPolicy) -> str:
    """A bare answer out of whatever holds it."""
    text = _LEADING.sub("", text.strip(), count=1)
    if "." in text[-60:] and (rounded := _ROUNDED.search(text, max(0, len(text) - 120))) is not None:
        text = text[: rounded.start()]
    if len(text) > MAX_RESPONSE:
        return text
    wrapped = _WRAPPED.search(text) is not None
    if wrapped:
        found = extract(text, policy)
        return _without_statement(found.text) if found is not None else ""
    if _PROSE.search(text):
        found = extract(text, policy)
        if found is not None and found.where in ("phrase", "line"):
            return found.text
    return _without_statement(text)


def _without_statement(text: str) -> str:
    """The value of a text that states one and nothing else; the text itself where it is anything else."""
    text = _LEADING.sub("", text, count=1)
    statement = _STATEMENT.match(text)
    if statement is not None and len(text) - statement.end() <= 80 and not _MORE.search(text, statement.end()):
        return text[statement.end() :]
    return text if text.isascii() else without_subject(text)


def _judged(text: str, gold: str, policy: MathPolicy, voters: Sequence[Voter], start: float) -> Verdict:
    decision = decide(text, gold, policy)
    shown = text if len(text) <= SHOWN else text[:SHOWN] + "..."

    def scored(reason: str, voter: str) -> Verdict:
        right = reason == "correct"
        seconds = time.perf_counter() - start
        return Verdict.scored(
            float(right), reason, extracted=shown, normal_form=decision.normal_form, voter=voter, seconds=seconds
        )

    if decision.kind in ("yes", "no") and (decision.final or not _judges(voters)):
        return scored("correct" if decision.kind == "yes" else "wrong", decision.voter)
    if decision.kind == "over_limit":
        return scored("over_limit", "exact")
    outcome, voter = _ask(decision, text, gold, voters)
    if outcome in ("yes", "no", "unparsable", "over_limit"):
        return scored({"yes": "correct", "no": "wrong"}.get(outcome, outcome), voter)
    seconds = time.perf_counter() - start
    if outcome == "gold_unread":
        return Verdict("skip", None, "gold_invalid", extracted=shown, voter=voter, seconds=seconds)
    reason = "worker_lost" if outcome == "lost" else "voter_failed"
    return Verdict("error", None, reason, extracted=shown, voter=voter, seconds=seconds)


def _judges(voters: Sequence[Voter]) -> list[Voter]:
    """The voters that understand words."""
    return [v for v in voters if not isinstance(v, SymbolicVoter)]


def _ask(decision: Decision, text: str, gold: str, voters: Sequence[Voter]) -> tuple[str, str]:
    """The first decisive voter. Where none is, why: what the candidate did counts before what failed."""
    outcome: str
    name: str
    outcome, name = decision.kind if decision.kind in ("unparsable", "gold_unread") else "failed", decision.voter
    if decision.kind == "no":  # words that differ, and judges that may know better
        outcome, voters = "no", _judges(voters)
    if decision.kind == "unparsable":
        voters = _judges(voters)
    for voter in voters:
        answer = voter.judge(gold, text)
        if answer in ("yes", "no", "over_limit"):
            return answer, getattr(voter, "name", type(voter).__name__)
        if outcome == "failed" or answer == "unparsable":
            outcome, name = answer, getattr(voter, "name", type(voter).__name__)
    return outcome, name
