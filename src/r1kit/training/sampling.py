"""From problems to judged groups: the policy answers each problem G times, task and reward judge every answer.

One poisoned sample costs its group, never the run: a verifier or reward that crashes on it, log-probs that are no
numbers, a response longer than was asked for. Each is an error verdict (never a 0), told once and counted after.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from r1kit.config.errors import UserError
from r1kit.engines.protocol import Engine, Request, Sample, SamplingParams
from r1kit.evaluation.rollouts import make_rollout, response_texts
from r1kit.models.chat import encode_prompt, stop_token_ids
from r1kit.records import Group, Problem, Rollout, Verdict
from r1kit.rewards import RewardFunction
from r1kit.tasks import Task, verify_many
from r1kit.training.exchange import SampledGroup

_log = logging.getLogger(__name__)
Value = TypeVar("Value")


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
    """Samples and judges groups with one engine, one task and one reward.

    `sampling`, `group_size` and `reward` may change between two calls. `longest`: prompt and response together may not
    be longer; a problem whose prompt leaves no room is passed over. `seconds` counts what sampling and judging took,
    `troubles` what went wrong, by kind.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        task: Task,
        reward: RewardFunction,
        sampling: Any,
        group_size: int,
        longest: int | None = None,
    ) -> None:
        self.engine, self.tokenizer, self.task, self.reward = engine, tokenizer, task, reward
        self.sampling, self.group_size, self.longest = sampling, group_size, longest
        self.stops = stop_token_ids(tokenizer)
        self.seconds = {"sample": 0.0, "judge": 0.0}
        self.troubles: Counter[str] = Counter()

    def sample(self, problems: Sequence[Problem], seed: int, step: int) -> list[SampledGroup]:
        """One judged group per problem, in order. Problems must be distinct; `seed` keys all randomness.

        Problems whose prompt is too long have none. `step`, counted from 1, is the step of the stage that the groups
        are sampled for: rewards may go by it.
        """
        started = time.perf_counter()
        params = SamplingParams(
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            top_k=self.sampling.top_k,
            min_p=self.sampling.min_p,
            max_tokens=self.sampling.max_tokens,
            stop_token_ids=self.stops,
            seed=seed,
        )
        problems, prompts = self._that_fit(problems)
        requests = [
            Request(f"{problem.id}/{g}", prompt, params, problem.id, g)
            for problem, prompt in zip(problems, prompts, strict=True)
            for g in range(self.group_size)
        ]
        samples = [self._sound(sample) for sample in self.engine.generate(requests)]
        texts = [writable(text) for text in response_texts(self.tokenizer, samples, self.stops)]
        sampled = time.perf_counter()
        verdicts = self._verdicts(problems, samples, texts)
        groups = []
        for p, problem in enumerate(problems):
            rows = range(p * self.group_size, (p + 1) * self.group_size)
            rollouts = [
                make_rollout(
                    problem.id, g, prompts[p], samples[i], temperature=self.sampling.temperature, text=texts[i]
                ).scored(verdicts[i], {})
                for g, i in enumerate(rows)
            ]
            judged = self._judge(problem, rollouts, step)
            monitored = self._monitored(judged, step)
            statistics = tuple(
                {**self._statistics(problem, rollout), **watched}
                for rollout, watched in zip(judged, monitored, strict=True)
            )
            groups.append(SampledGroup(judged, statistics))
        self.seconds["sample"] += sampled - started
        self.seconds["judge"] += time.perf_counter() - sampled
        return groups

    def _that_fit(self, problems: Sequence[Problem]) -> tuple[list[Problem], list[tuple[int, ...]]]:
        """Problems with their prompts, without those that leave no room for a full response."""
        fitting, prompts = [], []
        for problem in problems:
            prompt = tuple(encode_prompt(self.tokenizer, problem))
            if self.longest is not None and len(prompt) + self.sampling.max_tokens > self.longest:
                self._tell("prompt", f"problem {problem.id}: {len(prompt)} tokens, over {self.longest} with a response")
                continue
            fitting.append(problem)
            prompts.append(prompt)
        return fitting, prompts

    def _sound(self, sample: Sample) -> Sample:
        """The sample as it came, or emptied and marked as failed where it cannot be trained on."""
        limit = self.sampling.max_tokens
        if len(sample.token_ids) > limit:
            why = f"{len(sample.token_ids)} tokens came back where at most {limit} were asked for"
        elif not all(map(math.isfinite, sample.logprobs)):
            why = "a log-prob is not finite"
        elif not len(sample.token_ids) == len(sample.logprobs) == len(sample.forced):
            why = f"{len(sample.token_ids)} tokens with {len(sample.logprobs)} log-probs"
        else:
            return sample
        self._tell("engine", f"response {sample.request_id}: {why}")
        return replace(sample, token_ids=(), logprobs=(), forced=(), finish="failed", stop_reason=why)

    def _judge(self, problem: Problem, judged: Sequence[Rollout], step: int) -> Group:
        """The group of rollouts with verdicts, and with its rewards where every verdict is a score."""
        group = Group(problem, tuple(judged))
        if group.failed:
            return group
        none: list[dict[str, float]] = [{} for _ in judged]
        cap = self.sampling.max_tokens
        rewards = self._guarded(
            "reward", problem, lambda: self.reward(problem, judged, max_tokens=cap, step=step), none
        )
        # A group without a reward is as lost as one without a verdict, and has to say so.
        whole = all(parts and all(map(math.isfinite, parts.values())) for parts in rewards)
        lost = {} if whole else {"reward": Verdict("error", None, "voter_failed", voter="reward")}
        return Group(
            problem,
            tuple(
                r.scored({**r.verdicts, **lost}, parts if whole else {})
                for r, parts in zip(judged, rewards, strict=True)
            ),
        )

    def _verdicts(
        self, problems: Sequence[Problem], samples: Sequence[Sample], texts: Sequence[str]
    ) -> list[Mapping[str, Verdict]]:
        """The verdicts of every response, those of a step judged together; none for one that the engine lost."""
        crashed = {"accuracy": Verdict("error", None, "voter_failed", voter=self.task.name)}

        def verify(problem: Problem, text: str) -> dict[str, Verdict]:
            return self._guarded("verifier", problem, lambda: self.task.verify(problem, text), crashed)

        whole = [i for i, sample in enumerate(samples) if sample.finish not in ("aborted", "failed")]
        asked = [problems[i // self.group_size] for i in whole]
        judged = dict(zip(whole, verify_many(self.task, asked, [texts[i] for i in whole], verify), strict=True))
        return [judged.get(i, {}) for i in range(len(samples))]

    def _monitored(self, group: Group, step: int) -> list[dict[str, float]]:
        """What the reward watches of a judged group without paying it, under `monitored_<name>`."""
        none: list[dict[str, float]] = [{} for _ in group]
        watch = getattr(self.reward, "monitored", None)
        if watch is None or group.failed:
            return none
        cap = self.sampling.max_tokens
        rows = self._guarded(
            "monitor", group.problem, lambda: watch(group.problem, group.rollouts, max_tokens=cap, step=step), none
        )
        return [{f"monitored_{n}": v for n, v in row.items() if math.isfinite(v)} for row in rows]

    def _statistics(self, problem: Problem, rollout: Rollout) -> Mapping[str, float]:
        if rollout.finish in ("aborted", "failed"):
            return {}
        return self._guarded("statistics", problem, lambda: self.task.statistics(problem, rollout.text), {})

    def _guarded(self, kind: str, problem: Problem, call: Callable[[], Value], otherwise: Value) -> Value:
        """What `call` gives; `otherwise` where it crashes on this sample. A recipe that cannot work is no such case."""
        try:
            return call()
        except UserError:
            raise
        except Exception as error:
            self._tell(kind, f"problem {problem.id}: {type(error).__name__}: {error}", trace=True)
            return otherwise

    def _tell(self, kind: str, what: str, *, trace: bool = False) -> None:
        self.troubles[kind] += 1
        if self.troubles[kind] == 1:
            lost = "what is only watched is missing" if kind in ("monitor", "statistics") else "its group is dropped"
            _log.error("%s: %s: %s; more are only counted", kind, what, lost, exc_info=trace)


def writable(text: str) -> str:
    """`text` as UTF-8 can hold it: half a surrogate pair, which some decoders make of broken bytes, becomes "?"."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
