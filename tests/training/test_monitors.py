"""Why this matters: alarms, charts and hand-over rules read these numbers; a mean over the wrong responses looks just
as well.

Not exercised here: what the language, repetition and behaviour readers find (their own tests).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from r1kit.records import Group, Message, Problem, Verdict
from r1kit.training.exchange import SampledGroup
from r1kit.training.monitors import of_text, summary

from .helpers import random_group, random_groups


def test_the_summary_counts_dropped_groups_too() -> None:
    group = random_groups(1)[0]
    rollouts = []
    for i, rollout in enumerate(group):
        verdicts = {"accuracy": Verdict.scored(float(i == 0), "correct" if i == 0 else "wrong")}
        finish: Any = "length" if i == 2 else "stopped"
        rollouts.append(replace(rollout, finish=finish).scored(verdicts, {"accuracy": float(i == 0), "format": 0.1}))
    statistics = ({"attempts": 2.0, "verdict_right": 0.5}, {"attempts": 4.0}, {"attempts": 0.0})
    sampled = SampledGroup(replace(group, rollouts=tuple(rollouts)), statistics)
    means = summary([sampled])
    lengths = [r.response_length for r in rollouts]
    assert means["accuracy"] == pytest.approx(1 / 3)
    assert means["reward"] == pytest.approx(1 / 3 + 0.1)
    assert (means["reward_accuracy"], means["reward_format"]) == (pytest.approx(1 / 3), pytest.approx(0.1))
    assert means["truncated"] == pytest.approx(1 / 3)
    assert means["response_tokens"] == pytest.approx(sum(lengths) / 3)
    assert means["response_tokens_right"] == lengths[0]
    assert means["response_tokens_wrong"] == pytest.approx(sum(lengths[1:]) / 2)
    assert means["tokens_sampled"] == sum(lengths)
    # Where a statistic is absent it is not counted as 0.
    assert (means["attempts"], means["verdict_right"]) == (pytest.approx(2.0), 0.5)


def test_failed_responses_are_in_no_mean_and_their_tokens_are_counted() -> None:
    good, bad = random_groups(2)
    right = Verdict.scored(1, "correct")
    good = replace(good, rollouts=tuple(r.scored({"accuracy": right}, {"accuracy": 1.0}) for r in good))
    aborted = replace(bad.rollouts[0], finish="aborted").scored({}, {})
    lost = bad.rollouts[1].scored({"accuracy": Verdict("error", None, "worker_lost")}, {})
    bad = replace(bad, rollouts=(aborted, lost, bad.rollouts[2].scored({"accuracy": right}, {})))
    means = summary([SampledGroup(good), SampledGroup(bad)])
    assert (means["accuracy"], means["reward"]) == (1.0, 1.0)
    counted = [*good.rollouts, bad.rollouts[2]]
    assert means["response_tokens"] == pytest.approx(np.mean([r.response_length for r in counted]))
    assert means["tokens_sampled"] == sum(r.response_length for g in (good, bad) for r in g)


def test_nothing_sampled_has_no_means() -> None:
    assert summary([]) == {"tokens_sampled": 0.0}


def read(text: str, ids: list[int] | None = None, prompt: str = "What is the sum of one and two?") -> dict[str, float]:
    ids = ids if ids is not None else list(range(len(text.split())))
    group = random_group("p", np.random.default_rng(0), samples=1)
    ones = np.ones(len(ids) + 1)
    rollout = replace(
        group.rollouts[0], prompt_length=1, token_ids=np.array([0, *ids]), loss_mask=np.arange(len(ids) + 1) > 0,
        logprobs=-ones, policy_versions=ones, temperatures=ones, text=text,
    )  # fmt: skip
    rollout = rollout.scored({"accuracy": Verdict.scored(0, "wrong")}, {"accuracy": 0.0})
    problem = Problem("p", (Message("user", prompt),), "countdown", {})
    sampled = SampledGroup(Group(problem, (rollout,)))
    means = summary([sampled])
    assert not ids or of_text(rollout, prompt).items() <= means.items()
    return means


def test_repetition_and_one_token() -> None:
    looping = read("!" * 12, [7] * 12)
    assert looping["one_token"] == 1.0
    assert looping["repetition"] == pytest.approx(1 - 1 / 9)  # nine 4-grams, one of them distinct
    varied = read("a b c d e f g h", list(range(8)))
    assert (varied["one_token"], varied["repetition"]) == (pytest.approx(1 / 8), 0.0)


def test_reflection_words_per_thousand_tokens() -> None:
    text = "Wait, that is wrong. However, let me check it again: rebuttal and butter do not count."
    assert read(text, list(range(20)))["reflection_words"] == pytest.approx(1000 * 4 / 20)
    assert read("It is three.")["reflection_words"] == 0.0


def test_code_share_of_characters() -> None:
    text = "so\n```python\nprint(3)\n```\nthree"
    assert read(text)["code_share"] == pytest.approx(len("```python\nprint(3)\n```") / len(text))
    # A fence that is never closed is code to the end.
    assert read("a ```b")["code_share"] == pytest.approx(4 / 6)


def test_language_share_is_of_the_language_of_the_prompt() -> None:
    english = "First we add the two numbers and then we look at what the sum of them is."
    assert read(english)["language_share"] == 1.0
    mixed = read(english + " Jetzt addieren wir noch die beiden Zahlen und dann ist das die Summe.")
    assert 0.3 < mixed["language_share"] < 0.8
    assert "language_share" not in read("1 + 2 = 3")
    assert "language_share" not in read(english, prompt="Q:1,2>3")


def test_an_empty_response_is_no_trouble() -> None:
    found = read("", [])
    assert found["response_tokens"] == 0.0
    assert "one_token" not in found
