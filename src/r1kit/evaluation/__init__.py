"""Measuring a policy on problems it never saw: samples, verdicts, pass@k, intervals, behaviour, examples.

`sampling` asks and judges (in shards that add up), `summary` turns rows into an Evaluation, `metrics` holds
the statistics, `evaluate` is the whole in one call, `rollouts` makes records of an engine's samples.
"""

from r1kit.evaluation.evaluate import Peers, evaluate
from r1kit.evaluation.sampling import EvaluationError, Scored, Shard, sample_and_score, select_problems
from r1kit.evaluation.summary import Evaluation, summarise

__all__ = [
    "Evaluation",
    "EvaluationError",
    "Peers",
    "Scored",
    "Shard",
    "evaluate",
    "sample_and_score",
    "select_problems",
    "summarise",
]
