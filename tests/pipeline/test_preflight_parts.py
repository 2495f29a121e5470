"""Why this matters: a weight of the wrong sign on one part of a reward trains for days towards what it was to prevent,
while the sum of all parts still looks right.

Not exercised: that a right response of the task itself earns the most (test_preflight.py); the parts' own equations.
"""

from __future__ import annotations

from typing import Any

import pytest

from r1kit.config.reward_parts import PARTS, PRESETS
from r1kit.config.rl import RLSettings
from r1kit.pipeline.preflight_parts import part_checks
from r1kit.verifiers.scripts import SCRIPTS_OF

from .test_preflight_rl import failed, rl, small

# What is scored by no rule that could be of the wrong sign.
NO_RULE = {"reward_model", "random", "inverted", "user"}
CAPPED = {"sampling": {"max_tokens": 240}}


def found(reward: dict[str, Any], **changes: Any) -> dict[str, tuple[bool, str]]:
    rows = list(part_checks("rl", rl(reward=reward, **changes)))
    assert len({name for name, _, _ in rows}) == len(rows)
    return {name.removeprefix("rl: sign of "): (ok, text) for name, ok, text in rows}


@pytest.mark.parametrize("kind", [kind for kind in PRESETS if kind not in {"random", "inverted", "custom"}])
def test_every_part_of_a_published_reward_pays_what_it_is_about(kind: str) -> None:
    parts = found({"kind": kind})
    assert list(parts) == list(PRESETS[kind])
    assert all(ok for ok, _ in parts.values()), parts


@pytest.mark.parametrize("part", [part for part in PARTS if part not in NO_RULE])
def test_every_part_by_rule_is_refused_with_its_sign_turned(part: str) -> None:
    assert found({"parts": {part: 1.0}})[part][0]
    assert not found({"parts": {"right": {"part": "accuracy"}, part: -1.0}})[part][0]
    assert part not in found({"parts": {"right": {"part": "accuracy"}, part: 0.0}})  # it is watched, and pulls nowhere


@pytest.mark.parametrize("part", ["random", "inverted"])
def test_controls_are_no_mistake(part: str) -> None:
    assert found({"parts": {part: 1.0}}) == {}


def test_a_format_that_costs_is_found_though_a_right_answer_still_earns_the_most() -> None:
    faults = failed(small("rl.reward={kind: r1_zero, weights: {format: -0.5}}"))
    assert faults == {"rl: sign of format": "a well-formed response earns -0.5, a broken one 0"}


def test_a_broken_answer_that_pays_by_its_reason_is_found() -> None:
    """A wrong answer costs, but to give none, or a program that does not compile, earns more than a right one."""
    silent = {"parts": {"accuracy": {"right": 0.5, "wrong": -0.5, "no_answer": 1.0}}}
    assert found(silent)["accuracy"] == (False, "a right response earns 0.5, a wrong one -0.5 to 1")
    broken = found({"parts": {"cf": {"not_compiled": 2.0}}})["cf"]
    assert broken == (False, "a right response earns 1.1, a wrong one -1 to 2")


def test_a_length_penalty_of_the_wrong_sign_is_found() -> None:
    faults = failed(small("rl.reward={kind: dapo, weights: {overlong: -1.0}}"))
    assert faults["rl: sign of overlong"] == "a right response of 60 tokens earns 0, one of 240 earns 1"


@pytest.mark.parametrize(
    ("ends", "ok"),
    [
        ({"right": (1.0, 0.5)}, True),
        ({"right": (1.0, 1.0)}, True),  # of right responses length is left alone
        ({"right": (0.5, 1.0)}, False),
        ({"right": (1.0, 0.5), "wrong": (2.0, 0.0)}, False),  # to be wrong and short would pay most
        ({"wrong": (-10.0, 0.0)}, True),  # arXiv 2502.03373: a wrong one may think on
    ],
)
def test_cosine_on_right_responses_by_length(ends: dict[str, Any], ok: bool) -> None:
    assert found({"parts": {"cosine": ends}}, **CAPPED)["cosine"][0] is ok


@pytest.mark.parametrize("target", [240, 1000])
def test_a_target_at_the_cap_leaves_right_and_wrong_to_compare(target: int) -> None:
    for weight, ok in ((1.0, True), (-1.0, False)):
        reward = {"parts": {"right": {"part": "accuracy"}, "lcpo_max": {"target": target, "weight": weight}}}
        assert found(reward, **CAPPED)["lcpo_max"][0] is ok


@pytest.mark.parametrize("target", SCRIPTS_OF)
def test_a_language_is_paid_and_another_is_not(target: str) -> None:
    for weight in (1, -1):
        reward = {"parts": {"right": {"part": "accuracy"}, "language": {"target": target, "weight": weight}}}
        expected = f"a response as it is to be earns {weight}, its contrary 0"
        assert found(reward)["language"] == (weight > 0, expected)


@pytest.mark.parametrize("unit", ["words", "tokens"])
def test_a_penalty_on_repetition_pays_less_for_more(unit: str) -> None:
    def repeating(weight: float) -> tuple[bool, str]:
        return found({"parts": {"accuracy": 1.0, "repetition": {"weight": weight, "unit": unit}}})["repetition"]

    assert repeating(1.0) == (True, "a response that repeats nothing earns 0, one word 12 times earns -0.9")
    assert repeating(-1.0) == (False, "a response that repeats nothing earns 0, one word 12 times earns 0.9")


def test_a_weight_that_turns_in_a_later_phase_is_looked_at() -> None:
    phases = [{"until": {"step": 5}}, {"ramp": {"reward.weights.overlong": {"end": -1.0, "steps": 9}}}]
    stage: RLSettings = rl(reward={"kind": "dapo"}, schedule=phases)
    rows = {(name, ok) for name, ok, _ in part_checks("rl", stage) if "overlong" in name}
    assert rows == {("rl: sign of overlong", True), ("rl: sign of overlong", False)}
