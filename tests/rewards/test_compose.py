"""Why this matters: what a recipe writes has to become the sum that is trained, part by part and step by step. A part
that is lost, weighted twice or paid in the wrong steps changes the objective without a sign.

Not exercised: the equations (test_outcome, test_length, test_text), the settings' refusals (tests/config).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit.config.errors import ConfigError
from r1kit.config.reward_parts import PARTS, PRESETS
from r1kit.config.rewards import RewardSettings
from r1kit.records import Problem, Rollout, Verdict
from r1kit.rewards import make_reward

from .helpers import LOST, NO_ANSWER, PROBLEM, RIGHT, WRONG, parts, reward_of, rollout

TAGS = "<think>hello there my friend</think><answer>7</answer>"
PROGRAM = "<think>a</think><answer>```python\n1\n```</answer>"


@pytest.mark.parametrize(
    ("kind", "accuracy", "form", "expected"),
    [
        ("tinyzero", RIGHT, RIGHT, {"accuracy": 1.0, "format": 0.0}),
        ("tinyzero", RIGHT, WRONG, {"accuracy": 1.0, "format": 0.0}),
        ("tinyzero", WRONG, RIGHT, {"accuracy": 0.0, "format": 0.1}),
        ("tinyzero", WRONG, WRONG, {"accuracy": 0.0, "format": 0.0}),
        ("r1_zero", RIGHT, RIGHT, {"accuracy": 1.0, "format": 1.0}),
        ("r1_zero", RIGHT, WRONG, {"accuracy": 1.0, "format": 0.0}),
        ("r1_zero", WRONG, RIGHT, {"accuracy": 0.0, "format": 1.0}),
        ("r1_zero", WRONG, WRONG, {"accuracy": 0.0, "format": 0.0}),
        ("simplerl", RIGHT, WRONG, {"accuracy": 1.0}),
        ("simplerl", WRONG, RIGHT, {"accuracy": -0.5}),
        ("simplerl", NO_ANSWER, RIGHT, {"accuracy": -1.0}),
        ("dapo", RIGHT, WRONG, {"accuracy": 1.0, "overlong": 0.0}),
        ("dapo", NO_ANSWER, WRONG, {"accuracy": -1.0, "overlong": 0.0}),
        ("open_r1", RIGHT, RIGHT, {"accuracy": 1.0, "format": 1.0, "tag_count": 1.0}),
        ("open_r1_codeforces", NO_ANSWER, RIGHT, {"cf": -1.0, "code_format": 0.0}),
        ("kimi", RIGHT, RIGHT, {"accuracy": 1.0, "kimi_length": 0.0}),
        ("inverted", RIGHT, RIGHT, {"inverted": 0.0}),
        ("r1", RIGHT, RIGHT, {"accuracy": 1.0, "language": 1.0}),
    ],
)
def test_presets(kind: str, accuracy: Verdict, form: Verdict, expected: dict[str, float]) -> None:
    (found,) = parts({"kind": kind}, rollout(accuracy, form, text=TAGS))
    assert found == pytest.approx(expected)
    assert list(found) == list(expected)


def test_dapo_starts_its_punishment_a_fifth_below_the_cap() -> None:
    """As its 4,096 of 20,480 tokens."""
    found = parts({"kind": "dapo"}, *(rollout(length=n) for n in (192, 216, 240)))
    assert [row["overlong"] for row in found] == pytest.approx([0.0, -0.5, -1.0])


def test_every_part_has_a_reward_and_every_preset_is_made_of_parts() -> None:
    """With the settings that a part needs, one rollout gets one finite number of it."""
    needed = {"user": {"function": "math:isclose"}, "reward_model": {"source": "m"}, "lcpo_exact": {"target": 5}}
    for name in PARTS:
        part: dict[str, Any] = {"target": 5} if name == "lcpo_max" else needed.get(name, {})
        reward = reward_of({"parts": {name: part}}, sources={"m": lambda _, group: [0.5] * len(group)})
        if name != "user":
            (row,) = reward(PROBLEM, [rollout(text=PROGRAM)], max_tokens=240, step=1)
            assert abs(row[name]) <= 1.1
    assert {name for preset in PRESETS.values() for name in preset} <= set(PARTS)


def test_weights_overlong_and_parts_change_what_the_kind_brings() -> None:
    assert parts({"kind": "r1_zero", "weights": {"format": 0.5}}, rollout()) == [{"accuracy": 1.0, "format": 0.5}]
    (row,) = parts({"overlong": {"buffer": 60, "penalty": 0.5}}, rollout(length=210))
    assert row == pytest.approx({"accuracy": 1.0, "format": 0.0, "overlong": -0.25})
    (row,) = parts({"kind": "dapo", "parts": {"accuracy": {"weight": 2}, "format": 0.1}}, rollout(WRONG))
    # The kind's own -1 for a wrong answer stays.
    assert row == {"accuracy": -2.0, "overlong": 0.0, "format": 0.1}
    assert parts({"parts": {"accuracy": 1, "cosine": 0.5}}, rollout(length=120)) == [
        pytest.approx({"accuracy": 1.0, "cosine": 0.375})
    ]


def test_lengths_are_tokens_and_compared_within_the_group() -> None:
    group = [rollout(length=10, text="x" * 900), rollout(length=20, text="x"), rollout(WRONG, length=30)]
    assert [row["kimi_length"] for row in parts({"parts": {"kimi_length": 2}}, *group)] == [1.0, 0.0, -1.0]
    assert [row["length"] for row in parts({"parts": {"length": {}}}, *group)] == [0.5, 0.0, -0.5]


def test_a_part_of_one_rollout_alone() -> None:
    reward = reward_of({"kind": "kimi"})
    assert reward.one(PROBLEM, rollout(), max_tokens=9, step=1) == {"accuracy": 1.0, "kimi_length": 0.0}


@pytest.mark.parametrize(
    ("schedule", "paid"),
    [
        ({}, range(1, 11)),
        ({"from_step": 4}, range(4, 11)),
        ({"to_step": 4}, range(1, 5)),
        ({"from_step": 2, "to_step": 3}, range(2, 4)),
        ({"last_steps": 3}, range(8, 11)),
    ],
)
def test_schedules(schedule: dict[str, int], paid: range) -> None:
    settings = {"parts": {"accuracy": {}, "format": schedule}}
    rows = {step: parts(settings, rollout(), step=step)[0] for step in range(1, 11)}
    assert [step for step, row in rows.items() if "format" in row] == list(paid)
    assert all("accuracy" in row for row in rows.values())


def test_a_part_out_of_its_steps_needs_no_verdict() -> None:
    """Preference scores of the last K steps cost nothing before."""
    settings = {"parts": {"accuracy": {}, "format": {"last_steps": 1}}}
    bare = rollout().scored({"accuracy": RIGHT}, {})
    assert parts(settings, bare, step=9) == [{"accuracy": 1.0}]
    with pytest.raises(ValueError, match="has no verdict format: verify it first; it has accuracy"):
        parts(settings, bare, step=10)


@pytest.mark.parametrize("verdict", [LOST, Verdict("skip", None, "gold_invalid")])
@pytest.mark.parametrize("kind", ["tinyzero", "r1_zero", "simplerl", "dapo", "open_r1", "kimi", "inverted"])
def test_a_group_with_an_unscored_verdict_has_no_reward(kind: str, verdict: Verdict) -> None:
    assert parts({"kind": kind}, rollout(), rollout(verdict)) == [{}, {}]


def test_language_and_repetition_and_codes() -> None:
    found = parts({"parts": {"language": {"target": "zh"}}}, rollout(text="因此答案是七</think>7"), rollout(text=TAGS))
    assert [row["language"] for row in found] == [1.0, 0.0]
    (row,) = parts({"parts": {"repetition": {"penalty": 0.6}}}, rollout(text="a b a b a"))
    assert row == pytest.approx({"repetition": -0.2})
    # Ten different tokens; the same word ten times.
    (row,) = parts({"parts": {"repetition": {"unit": "tokens"}}}, rollout(text="a " * 10))
    assert row == {"repetition": 0.0}
    half = Verdict.scored(0.5, "wrong")
    assert parts({"parts": {"code": 1, "binary_code": 1, "ioi": 2}}, rollout(half)) == [
        {"code": 0.5, "binary_code": 0.0, "ioi": 1.0}
    ]
    cpp = replace(PROBLEM, payload={"language": "cpp"})
    reward = reward_of({"parts": {"code_format": {}}})
    assert reward(cpp, [rollout(text=PROGRAM)], max_tokens=9, step=1) == [{"code_format": 0.0}]


def test_an_opened_thought_is_seen_in_the_prompt() -> None:
    opened = replace(PROBLEM, prefill="<think>")
    reward = reward_of({"parts": {"tag_count": {}}})
    text = TAGS.removeprefix("<think>")
    assert reward(opened, [rollout(text=text)], max_tokens=9, step=1) == [{"tag_count": 1.0}]
    assert reward(PROBLEM, [rollout(text=text)], max_tokens=9, step=1) == [{"tag_count": 0.75}]


def test_an_unknown_language_is_refused_before_the_run() -> None:
    with pytest.raises(ConfigError, match=r"reward.parts.language.target: language is 'xx'"):
        reward_of({"parts": {"language": {"target": "xx"}}})


def test_lcpo_reads_its_target_from_the_recipe_or_the_problem() -> None:
    told = replace(PROBLEM, metadata={"target_tokens": 310})
    reward = reward_of({"kind": "l1_exact"})
    assert reward.one(told, rollout(length=10), max_tokens=400, step=1) == pytest.approx({"lcpo_exact": 0.9})
    reward = reward_of({"kind": "l1_max", "parts": {"lcpo_max": {"target": 110}}})
    assert reward.one(told, rollout(length=10), max_tokens=400, step=1) == pytest.approx({"lcpo_max": 0.6})
    with pytest.raises(ConfigError, match="problem p names no target_tokens"):
        parts({"kind": "l1_exact"}, rollout())


def test_a_reward_models_score_is_fed_by_name_and_two_may_stand_side_by_side() -> None:
    settings = {
        "parts": {
            "helpful": {"part": "reward_model", "source": "helpful", "weight": 0.5},
            "safe": {"part": "reward_model", "source": "safety"},
        }
    }

    def helpful(problem: Problem, rollouts: Sequence[Rollout]) -> list[float]:
        return [3.0 * r.response_length for r in rollouts]

    reward = reward_of(settings, sources={"helpful": helpful, "safety": lambda _, group: [-7.25] * len(group)})
    assert reward.one(PROBLEM, rollout(), max_tokens=9, step=1) == {"helpful": 15.0, "safe": -7.25}
    with pytest.raises(ConfigError, match=r"'safety': no such source of scores; this run has helpful"):
        reward_of(settings, sources={"helpful": helpful})


@pytest.mark.parametrize("scores", [[1.0, None], [1.0, float("nan")], [1.0]])
def test_an_absent_score_is_an_error_and_never_a_0(
    scores: list[float | None], caplog: pytest.LogCaptureFixture
) -> None:
    reward = reward_of({"parts": {"accuracy": {}, "reward_model": {"source": "m"}}}, sources={"m": lambda *_: scores})
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            found = reward(PROBLEM, [rollout(), rollout(sample=1)], max_tokens=9, step=1)
            assert found == [{}, {}]
    assert reward.failures == {"reward_model": 3}
    assert len(caplog.records) == 1
    assert "source m" in caplog.text


def test_coins_are_keyed_by_seed_step_problem_and_sample() -> None:
    group = [rollout(WRONG, sample=g) for g in range(64)]

    def tosses(seed: int, step: int, order: list[int]) -> list[float]:
        reward = reward_of({"kind": "random"}, seed=seed)
        found = reward(PROBLEM, [group[g] for g in order], max_tokens=9, step=step)
        return [found[order.index(g)]["random"] for g in range(64)]

    straight = list(range(64))
    assert tosses(1, 1, straight) == tosses(1, 1, straight[::-1])
    assert set(tosses(1, 1, straight)) == {0.0, 1.0}
    assert tosses(1, 1, straight) != tosses(2, 1, straight)
    assert tosses(1, 1, straight) != tosses(1, 2, straight)


@given(
    st.dictionaries(st.sampled_from(["accuracy", "format", "kimi_length", "cosine"]), st.floats(-3, 3), min_size=1),
    st.lists(st.tuples(st.booleans(), st.integers(1, 240)), min_size=1, max_size=6),
)
def test_weights_scale_their_parts_and_nothing_else(weights: dict[str, float], members: list[tuple[bool, int]]) -> None:
    group = [rollout(RIGHT if right else WRONG, length=n, sample=i) for i, (right, n) in enumerate(members)]
    plain = parts({"parts": dict.fromkeys(weights, 1.0)}, *group)
    weighted = parts({"parts": weights}, *group)
    watched = reward_of({"parts": weights}).monitored(PROBLEM, group, max_tokens=240, step=1)
    for before, after, unpaid in zip(plain, weighted, watched, strict=True):
        assert after == {name: weights[name] * value for name, value in before.items() if weights[name]}
        assert unpaid == {name: value for name, value in before.items() if not weights[name]}


def test_a_part_of_weight_0_is_watched_and_costs_no_group() -> None:
    """It is valued apart, in its steps only, and what it cannot value is missing: the group is trained all the same."""
    scores: list[float | None] = [3.0, 5.0]
    unpaid = {"part": "reward_model", "source": "m", "weight": 0, "last_steps": 4}
    settings = {"parts": {"accuracy": {}, "helpful": unpaid, "format": {"weight": 0.0, "monitor": False}}}
    reward = reward_of(settings, sources={"m": lambda *_: scores})
    group = [rollout(), rollout(WRONG, sample=1)]

    def found(step: int) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
        return tuple(f(PROBLEM, group, max_tokens=9, step=step) for f in (reward, reward.monitored))  # type: ignore[return-value]

    paid = [{"accuracy": 1.0}, {"accuracy": 0.0}]
    assert found(6) == (paid, [{}, {}])
    assert found(7) == (paid, [{"helpful": 3.0}, {"helpful": 5.0}])
    scores[1] = None
    assert found(7) == (paid, [{}, {}])
    assert reward.failures == {"helpful": 1}
    described = RewardSettings.model_validate(settings).described()
    watched = "monitored, not paid: helpful (weight 0; monitor: false saves computing it)"
    assert described == f"reward: 1 x accuracy; {watched}; not computed: format"


def test_what_is_neither_paid_nor_monitored_needs_no_source() -> None:
    idle = {"part": "reward_model", "source": "nowhere", "weight": 0.0, "monitor": False}
    reward = reward_of({"parts": {"accuracy": 1.0, "helpful": idle}})
    assert reward.one(PROBLEM, rollout(), max_tokens=9, step=1) == {"accuracy": 1.0}
    with pytest.raises(ConfigError, match="no such source of scores"):
        reward_of({"parts": {"accuracy": 1.0, "helpful": {**idle, "monitor": True}}})


def test_a_weight_that_changes_keeps_parts_and_counts() -> None:
    """A ramp makes the reward anew in every step; the user's file is not loaded, nor a failure told, each time."""
    first = reward_of(
        {"parts": {"accuracy": 1.0, "m": {"part": "reward_model", "source": "m"}}}, sources={"m": no_score}
    )
    assert first(PROBLEM, [rollout()], max_tokens=9, step=1) == [{}]
    later = RewardSettings.model_validate({"parts": {"accuracy": 0.5, "m": {"part": "reward_model", "source": "m"}}})
    second = make_reward(later, steps=10, before=first)  # without sources: nothing is made again
    assert second(PROBLEM, [rollout()], max_tokens=9, step=1) == [{}]
    assert first.failures == second.failures == {"m": 2}


def no_score(problem: Problem, rollouts: Sequence[Rollout]) -> list[float | None]:
    return [None] * len(rollouts)


def test_what_the_recipe_of_the_quick_start_pays() -> None:
    reward = make_reward(RewardSettings(kind="r1_zero", weights={"format": 0.2}), steps=1)
    rows = [reward.one(PROBLEM, rollout(a, f), max_tokens=240, step=1) for a in (RIGHT, WRONG) for f in (RIGHT, WRONG)]
    assert [sum(row.values()) for row in rows] == [1.2, 1.0, 0.2, 0.0]
