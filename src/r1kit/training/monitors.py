"""What the policy does now, as numbers: means over all rollouts sampled in a step, dropped groups included.

Cheap ones are taken over every response; those that read prose (reflection, code, language, repetition) over the first
response of each group, at most `TEXTS` a step: they are watched, not trained on.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from r1kit.records import Rollout, prompt_text
from r1kit.training.exchange import SampledGroup
from r1kit.verifiers.language import count_words, main_language, share_of
from r1kit.verifiers.repetition import ngram_repetition

TEXTS = 32
NGRAM = 4
# The words whose frequency DeepSeek-R1 follows (arXiv:2501.12948, its figure of reflective words), and "hmm".
_REFLECTION = re.compile(
    r"\b(?:wait|mistakes?|however|but|retry|errors?|verif(?:y|ying)|wrong|evaluate|check(?:ing)?|hmm)\b", re.I
)
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.S)
_WORD = re.compile(r"[^\W\d_]{2,}")


def summary(fresh: Sequence[SampledGroup]) -> dict[str, float]:
    """Means over what was sampled in a step; a quantity that no response has is missing."""
    rollouts = [r for f in fresh for r in f.group if sampled_and_judged(r)]
    values: dict[str, list[float]] = defaultdict(list)
    for rollout in rollouts:
        for name, value in of_rollout(rollout).items():
            values[name].append(value)
    for row in (statistics for f in fresh for statistics in f.statistics):
        for name, value in row.items():
            values[name].append(value)
    for row in of_texts(fresh):
        for name, value in row.items():
            values[name].append(value)
    means = {name: float(np.mean(column)) for name, column in sorted(values.items())}
    means["tokens_sampled"] = float(sum(r.response_length for f in fresh for r in f.group))
    return means


def sampled_and_judged(rollout: Rollout) -> bool:
    """True for a whole response whose verdicts are all scores."""
    return rollout.finish in ("stopped", "length") and all(v.outcome == "score" for v in rollout.verdicts.values())


def of_rollout(rollout: Rollout) -> dict[str, float]:
    """Reward, parts, verdicts and length of one response."""
    found: dict[str, float] = {}
    if rollout.rewards:  # none where another rollout of its group could not be judged
        found["reward"] = rollout.reward
    length = float(rollout.response_length)
    found |= {"response_tokens": length, "truncated": float(rollout.truncated)}
    if "accuracy" in rollout.verdicts:
        found["response_tokens_right" if rollout.verdicts["accuracy"].correct else "response_tokens_wrong"] = length
    if rollout.response_length:
        found["one_token"] = float(np.unique(rollout.response_ids, return_counts=True)[1].max()) / length
    found |= {name: float(verdict.score or 0.0) for name, verdict in rollout.verdicts.items()}
    return found | {f"reward_{name}": part for name, part in rollout.rewards.items()}


def of_texts(fresh: Sequence[SampledGroup]) -> Iterable[Mapping[str, float]]:
    """What the first responses of the first groups read like."""
    for sampled in fresh[:TEXTS]:
        rollout = sampled.group.rollouts[0]
        if sampled_and_judged(rollout) and rollout.response_length:
            yield of_text(rollout, prompt_text(sampled.group.problem.prompt))


def of_text(rollout: Rollout, prompt: str) -> dict[str, float]:
    """Repetition of token n-grams; and of the text, reflection words per 1,000 tokens, share of characters in code
    fences, share of words in the language of the prompt (where both have words)."""
    text = rollout.text
    found = {
        "repetition": ngram_repetition(rollout.response_ids.tolist(), NGRAM),
        "reflection_words": 1000.0 * len(_REFLECTION.findall(text)) / rollout.response_length,
    }
    if text:
        found["code_share"] = sum(len(block) for block in _FENCED.findall(text)) / len(text)
    # Telling languages apart takes a few words; the tiny formats have none.
    if len(_WORD.findall(text)) >= 5 and (language := main_language(prompt)) and (words := count_words(text)):
        found["language_share"] = share_of(words, language)
    return found
