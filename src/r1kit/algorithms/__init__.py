"""Algorithms as pure functions over flat token arrays, one family per file.

`advantages` (what was better than usual, per response), `gae` (and per token), `implicit_prm` (process rewards from
outcomes), `policy_loss` (how far to move), `kl` (how far from the reference), `value_loss` (the critic), `aggregation`
(how tokens add up to one loss), `mismatch` (engine against trainer), `dynamic_sampling` (which groups are worth
training on), `pass_rates` (which problems), `group_filters` (which responses of a group), `entropy` (log-probs and
entropy without the whole array of logits), `entropy_control` (what is done about entropy), `preference_loss` (pairs and
judged responses), `reward_model_loss` (pairs, labels, steps). Nothing here knows of models, engines, processes or
files.
"""

from r1kit.algorithms.advantages import group_advantages
from r1kit.algorithms.aggregation import denominator, token_weights
from r1kit.algorithms.dynamic_sampling import UsefulShare, problems_to_sample, take_groups, useful_groups
from r1kit.algorithms.entropy import chunked_logprobs
from r1kit.algorithms.kl import kl_estimate
from r1kit.algorithms.mismatch import correction_weights, gap_statistics
from r1kit.algorithms.pass_rates import PassRate, preference
from r1kit.algorithms.policy_loss import policy_loss

__all__ = [
    "PassRate",
    "UsefulShare",
    "chunked_logprobs",
    "correction_weights",
    "denominator",
    "gap_statistics",
    "group_advantages",
    "kl_estimate",
    "policy_loss",
    "preference",
    "problems_to_sample",
    "take_groups",
    "token_weights",
    "useful_groups",
]
