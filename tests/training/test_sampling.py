"""From problems to judged groups, with an engine that answers from a script.

Why this matters: what is trained must be what was sampled, token by token. A shifted mask trains on the prompt, a
forced token trained as if chosen teaches the policy our own words, and an unstable seed makes no run repeatable.

Not exercised here: real sampling (tests/engines); verdicts and rewards themselves (tests/tasks, tests/rewards).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from r1kit.config.parts import SamplingSettings
from r1kit.engines.protocol import Request, Sample
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.records import Problem, Rollout, Verdict
from r1kit.training import rl
from r1kit.training.sampling import GroupSampler, derived_seed, problem_at

from .helpers import problem

PROBLEMS = [problem(f"p{i}", f"Q:{i}>1\n") for i in range(7)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tiny_tokenizer()


class ScriptedEngine:
    """Answers every request with the same response; keeps what it was asked."""

    policy_version = 5

    def __init__(self, tokens: Sequence[int], finish: Any = "stopped", forced: int = 0) -> None:
        self.tokens, self.finish, self.forced = tuple(tokens), finish, forced
        self.requests: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        self.requests += requests
        n = len(self.tokens)
        logprobs = tuple(-0.1 * (i + 1) for i in range(n))
        forced = tuple(i < self.forced for i in range(n))
        return [Sample(r.id, self.tokens, logprobs, forced, self.finish, self.policy_version) for r in requests]


class ScriptedTask:
    """Judges by the text alone; problem p3 cannot be judged."""

    name = "scripted"

    def problems(self, split: str) -> Sequence[Problem]:
        return PROBLEMS

    def verify(self, problem: Problem, response: str) -> dict[str, Verdict]:
        if problem.id == "p3":
            return {"accuracy": Verdict("error", None, "worker_lost"), "format": Verdict.scored(1.0, "correct")}
        right = response.endswith("</answer>")
        return {
            "accuracy": Verdict.scored(float(right), "correct" if right else "wrong"),
            "format": Verdict.scored(1.0, "correct"),
        }

    def statistics(self, problem: Problem, response: str) -> dict[str, float]:
        return {"characters": float(len(response))}

    def blind_rate(self, problem: Problem) -> float:
        return 0.0


def reward(problem: Problem, rollouts: Sequence[Rollout], *, max_tokens: int, step: int) -> list[dict[str, float]]:
    """Of problem p5 it can say nothing."""
    return [
        {"accuracy": r.verdicts["accuracy"].score or 0.0, "cap": float(max_tokens), "step": float(step)}
        if problem.id != "p5"
        else {}
        for r in rollouts
    ]


def sampled(
    engine: ScriptedEngine, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], **settings: Any
) -> list[Any]:
    options = SamplingSettings.model_validate({"max_tokens": 12, "temperature": 0.7, **settings})
    sampler = GroupSampler(engine, tokenizer, ScriptedTask(), reward, options, 2)  # type: ignore[arg-type]
    return sampler.sample(problems, seed=99, step=7)


def test_requests_carry_problem_sample_seed_and_stop(tokenizer: PreTrainedTokenizerFast) -> None:
    engine = ScriptedEngine([tokenizer.eos_token_id])
    sampled(engine, tokenizer, PROBLEMS[:2], top_p=0.9, top_k=5, min_p=0.1)
    assert [r.id for r in engine.requests] == ["p0/0", "p0/1", "p1/0", "p1/1"]
    assert [(r.problem, r.sample) for r in engine.requests] == [("p0", 0), ("p0", 1), ("p1", 0), ("p1", 1)]
    assert tokenizer.decode(engine.requests[2].prompt_ids) == "<bos>Q:1>1\n"
    params = engine.requests[0].params
    assert (params.seed, params.max_tokens, params.temperature) == (99, 12, 0.7)
    assert (params.top_p, params.top_k, params.min_p) == (0.9, 5, 0.1)
    assert params.stop_token_ids == (tokenizer.eos_token_id,)


def test_a_sample_becomes_one_stream(tokenizer: PreTrainedTokenizerFast) -> None:
    response = tokenizer.encode("<answer>7</answer>", add_special_tokens=False)
    engine = ScriptedEngine([*response, tokenizer.eos_token_id], forced=1)
    (group,) = sampled(engine, tokenizer, PROBLEMS[:1])
    rollout = group.group.rollouts[1]
    prompt = list(engine.requests[0].prompt_ids)
    assert rollout.token_ids.tolist() == [*prompt, *response, tokenizer.eos_token_id]
    assert rollout.prompt_length == len(prompt)
    before, after = len(prompt), len(response) + 1
    # The forced token is given, not chosen; the stop token is chosen and trained.
    chosen = [False] * (before + 1) + [True] * (after - 1)
    assert rollout.loss_mask.tolist() == chosen
    assert rollout.logprobs[before:][1:].tolist() == pytest.approx([-0.1 * (i + 2) for i in range(after - 1)])
    assert not rollout.logprobs[:before].any()
    assert rollout.policy_versions.tolist() == [5 if c else -1 for c in chosen]
    assert rollout.temperatures.tolist() == pytest.approx([0.7 if c else 0.0 for c in chosen])
    assert (rollout.sample, rollout.finish) == (1, "stopped")


def test_text_verdicts_and_rewards_are_of_the_response(tokenizer: PreTrainedTokenizerFast) -> None:
    """The text has no stop token and no prompt; tags stay in it."""
    response = tokenizer.encode("<answer>7</answer>", add_special_tokens=False)
    (group,) = sampled(ScriptedEngine([*response, tokenizer.eos_token_id]), tokenizer, PROBLEMS[:1])
    rollout = group.group.rollouts[0]
    assert rollout.text == "<answer>7</answer>"
    assert rollout.verdicts["accuracy"].correct
    assert rollout.rewards == {"accuracy": 1.0, "cap": 12.0, "step": 7.0}
    assert group.statistics == ({"characters": 18.0},) * 2
    assert not group.group.failed


def test_a_truncated_response_keeps_its_last_token(tokenizer: PreTrainedTokenizerFast) -> None:
    response = tokenizer.encode("7<answer>", add_special_tokens=False)
    (group,) = sampled(ScriptedEngine(response, "length"), tokenizer, PROBLEMS[:1])
    rollout = group.group.rollouts[0]
    assert rollout.truncated
    assert rollout.text == "7<answer>"
    assert rollout.rewards["accuracy"] == 0.0


def test_what_could_not_be_judged_has_no_reward_and_fails_its_group(tokenizer: PreTrainedTokenizerFast) -> None:
    groups = sampled(ScriptedEngine([tokenizer.eos_token_id]), tokenizer, PROBLEMS[2:4])
    assert [g.group.failed for g in groups] == [False, True]
    assert [dict(r.rewards) for r in groups[1].group] == [{}, {}]


def test_a_group_that_the_reward_cannot_value_fails(tokenizer: PreTrainedTokenizerFast) -> None:
    """An empty reward must not be trained as a 0."""
    (group,) = sampled(ScriptedEngine([tokenizer.eos_token_id]), tokenizer, PROBLEMS[5:6])
    assert group.group.failed
    assert [dict(r.rewards) for r in group.group] == [{}, {}]
    assert {r.verdicts["reward"].outcome for r in group.group} == {"error"}
    assert rl.summary([group])["tokens_sampled"] > 0
    assert "reward" not in rl.summary([group])


def test_nothing_to_sample(tokenizer: PreTrainedTokenizerFast) -> None:
    assert sampled(ScriptedEngine([1]), tokenizer, []) == []


def test_every_problem_comes_once_in_each_round() -> None:
    rounds = [[problem_at(PROBLEMS, 7 * e + i, seed=3).id for i in range(7)] for e in range(4)]
    for order in rounds:
        assert Counter(order) == Counter(p.id for p in PROBLEMS)
    assert len({tuple(order) for order in rounds}) > 1


def test_the_stream_of_problems_depends_on_seed_and_cursor_only() -> None:
    """Not on what was asked before: a resumed run goes on where it was."""

    def stream(seed: int, cursors: Sequence[int]) -> Mapping[int, str]:
        return {c: problem_at(PROBLEMS, c, seed).id for c in cursors}

    forward = stream(3, range(21))
    assert stream(3, range(20, -1, -1)) == dict(sorted(forward.items(), reverse=True))
    assert list(stream(4, range(7)).values()) != list(stream(3, range(7)).values())
    assert stream(3, [20, 0]) == {20: forward[20], 0: forward[0]}


def test_derived_seeds_are_the_same_everywhere() -> None:
    """Fixed numbers: a change here changes what every recipe samples."""
    assert derived_seed("problems", 0) == 8833055168432147797
    assert derived_seed(0, "rl", 3) == 185025590342160787
    seeds = {derived_seed(seed, stage, step) for seed in range(3) for stage in ("rl", "base") for step in range(50)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
    # Parts are kept apart.
    assert derived_seed(1, 11) != derived_seed(11, 1)


def test_seeds_fit_numpys_generator() -> None:
    np.random.Philox(key=[derived_seed("x"), 0])
