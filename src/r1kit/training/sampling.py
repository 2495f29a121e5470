"""From problems to judged groups: the policy answers each problem G times, task and reward judge every answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from r1kit.engines.protocol import Engine, Request, SamplingParams
from r1kit.evaluation.rollouts import make_rollout, response_texts
from r1kit.models.chat import encode_prompt, stop_token_ids
from r1kit.records import Group, Problem, Rollout, Verdict
from r1kit.rewards import RewardFunction
from r1kit.tasks import Task
from r1kit.training.exchange import SampledGroup


def derived_seed(*parts: object) -> int:
    """A 63-bit seed from any plain values, equal on every machine."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def problem_at(problems: Sequence[Problem], cursor: int, seed: int) -> Problem:
    """The `cursor`-th problem of an endless stream: all problems in random order, then again in another order."""
    epoch, place = divmod(cursor, len(problems))
    key = (seed, epoch, len(problems))
    if _order_cache.get("key") != key:
        generator = np.random.Generator(np.random.Philox(key=[derived_seed("problems", seed), epoch]))
        _order_cache.update(key=key, order=generator.permutation(len(problems)))
    return problems[int(_order_cache["order"][place])]


_order_cache: dict[str, Any] = {}


class GroupSampler:
    """Samples and judges groups with one engine, one task and one reward."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        task: Task,
        reward: RewardFunction,
        sampling: Any,
        group_size: int,
    ) -> None:
        self.engine, self.tokenizer, self.task, self.reward = engine, tokenizer, task, reward
        self.sampling, self.group_size = sampling, group_size
        self.stops = stop_token_ids(tokenizer)

    def sample(self, problems: Sequence[Problem], seed: int, step: int) -> list[SampledGroup]:
        """One judged group per problem, in order. Problems must be distinct; `seed` keys all randomness.

        `step`, counted from 1, is the step of the stage that the groups are sampled for: rewards may go by it.
        """
        params = SamplingParams(
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            top_k=self.sampling.top_k,
            min_p=self.sampling.min_p,
            max_tokens=self.sampling.max_tokens,
            stop_token_ids=self.stops,
            seed=seed,
        )
        prompts = [tuple(encode_prompt(self.tokenizer, problem)) for problem in problems]
        requests = [
            Request(f"{problem.id}/{g}", prompt, params, problem.id, g)
            for problem, prompt in zip(problems, prompts, strict=True)
            for g in range(self.group_size)
        ]
        samples = self.engine.generate(requests)
        texts = response_texts(self.tokenizer, samples, self.stops)
        groups = []
        for p, problem in enumerate(problems):
            rows = range(p * self.group_size, (p + 1) * self.group_size)
            rollouts = [
                make_rollout(
                    problem.id, g, prompts[p], samples[i], temperature=self.sampling.temperature, text=texts[i]
                )
                for g, i in enumerate(rows)
            ]
            judged = self._judge(problem, rollouts, step)
            statistics = tuple(self.task.statistics(problem, rollout.text) for rollout in judged)
            groups.append(SampledGroup(judged, statistics))
        return groups

    def _judge(self, problem: Problem, rollouts: Sequence[Rollout], step: int) -> Group:
        """The group with its verdicts, and with its rewards where every verdict is a score."""
        judged = [rollout.scored(self.task.verify(problem, rollout.text), {}) for rollout in rollouts]
        group = Group(problem, tuple(judged))
        if group.failed:
            return group
        rewards = self.reward(problem, judged, max_tokens=self.sampling.max_tokens, step=step)
        # A group without a reward is as lost as one without a verdict, and has to say so.
        lost = {} if all(rewards) else {"reward": Verdict("error", None, "voter_failed", voter="reward")}
        return Group(
            problem,
            tuple(r.scored({**r.verdicts, **lost}, parts) for r, parts in zip(judged, rewards, strict=True)),
        )
