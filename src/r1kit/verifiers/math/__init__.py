"""Mathematical answers: extraction, exact comparison, math-verify behind killable workers, an optional model judge."""

from r1kit.verifiers.math.exact import Decision, decide
from r1kit.verifiers.math.extraction import Extracted, extract
from r1kit.verifiers.math.judge_model import JudgeModel
from r1kit.verifiers.math.policy import DEFAULT_POLICY, MathPolicy, PolicyError
from r1kit.verifiers.math.verify import SYMBOLIC, SymbolicVoter, Voter, judge_math, verify_math
from r1kit.verifiers.math.voter_pool import VoterLimits, VoterPool

__all__ = [
    "DEFAULT_POLICY",
    "SYMBOLIC",
    "Decision",
    "Extracted",
    "JudgeModel",
    "MathPolicy",
    "PolicyError",
    "SymbolicVoter",
    "Voter",
    "VoterLimits",
    "VoterPool",
    "decide",
    "extract",
    "judge_math",
    "verify_math",
]
