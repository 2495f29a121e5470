"""Evaluation on held-out problems while training goes on: the curve that counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from r1kit.engines.protocol import Engine
from r1kit.evaluation import evaluate
from r1kit.evaluation.summary import STATISTICS
from r1kit.records import Problem, Verdict
from r1kit.tasks import Task
from r1kit.tasks.own_verifier import OwnVerifier
from r1kit.training.parallel import World
from r1kit.training.recorder import Recorder
from r1kit.training.sampling import derived_seed
from r1kit.verifiers.user import UserVerifier

# Name of the second verifier's mean in an evaluation.
SECOND = "right_second"


class JudgedTwice:
    """A task whose responses a second verifier judges too; its mean is that of a statistic. No reward is made of it."""

    def __init__(self, task: Task, second: Callable[[Problem, str], Verdict]) -> None:
        self.task, self.second, self.name = task, second, task.name

    def problems(self, split: str) -> Sequence[Problem]:
        return self.task.problems(split)

    def verify(self, problem: Problem, response: str) -> dict[str, Verdict]:
        return self.task.verify(problem, response)

    def statistics(self, problem: Problem, response: str) -> dict[str, float]:
        verdict = self.second(problem, response)
        found = {SECOND: float(verdict.correct)} if verdict.outcome == "score" else {}
        return {**self.task.statistics(problem, response), **found}

    def blind_rate(self, problem: Problem) -> float:
        return self.task.blind_rate(problem)


def with_second_verifier(task: Task, verifier: str) -> Task:
    """`task` judged a second time by what `verifier` names.

    "auto": the task's own rule, where a verifier of the user's took its place in training; "off": by nothing; else a
    function of the user's, `module:function` or `path/to/file.py:function`.
    """
    if verifier == "auto" and isinstance(task, OwnVerifier):
        own = task.task
        return JudgedTwice(task, lambda problem, response: own.verify(problem, response)["accuracy"])
    return task if verifier in ("auto", "off") else JudgedTwice(task, UserVerifier(verifier))


class HeldOut:
    """Measures the policy every `settings.every` steps and at the end, on the same problems each time.

    The noise is keyed by stage and step, so two measurements never share it. `last` is the newest result without its
    examples; `tokens_sampled` counts what measuring cost.
    """

    def __init__(
        self,
        settings: Any,
        stage: str,
        task: Task,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        world: World,
        recorder: Recorder,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings, self.stage, self.task = settings, stage, with_second_verifier(task, settings.verifier)
        self.engine, self.tokenizer, self.seed = engine, tokenizer, seed
        self.world, self.recorder = world, recorder
        self.last: dict[str, Any] | None = (state or {}).get("last")
        self.tokens_sampled = int((state or {}).get("tokens_sampled", 0))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"last": self.last, "tokens_sampled": self.tokens_sampled}

    def maybe_run(self, step: int, total: int, extra: Mapping[str, float] | None = None) -> dict[str, float] | None:
        """Measure where the recipe says so: every `every` steps, and after the last. The row, None elsewhere."""
        if self.settings.every and (step % self.settings.every == 0 or step == total):
            return self.run(step, extra)
        return None

    def run(self, step: int, extra: Mapping[str, float] | None = None) -> dict[str, float] | None:
        """Measure now and record it; the recorded row, None where evaluation is off."""
        if not self.settings.every:
            return None
        seed = derived_seed(self.seed, self.stage, "held-out", step)
        evaluation = evaluate(
            self.engine,
            self.tokenizer,
            self.task,
            self.task.problems("test"),
            self.settings,
            seed=seed,
            peers=self.world,
        )
        result = evaluation.to_json()
        self.recorder.evaluation(self.stage, step, result)
        row = eval_row(result) | dict(extra or {})
        self.recorder.metrics(self.stage, step, row, {}, kind="eval")
        self.last = {name: value for name, value in result.items() if name != "examples"}
        self.tokens_sampled += int(result["tokens_sampled"])
        return row


def eval_row(result: Mapping[str, Any]) -> dict[str, float]:
    """The row of metrics.jsonl for one evaluation."""
    row = {
        "pass@1": result["pass@1"]["value"],
        "pass@1_low": result["pass@1"]["low"],
        "pass@1_high": result["pass@1"]["high"],
        "response_tokens": result["tokens_mean"],
    }
    row |= {f"pass@{k}": value for k, value in result["pass@k"].items() if k != "1"}
    if result.get(SECOND) is not None:
        row["pass@1_second"] = result[SECOND]
    names = ("truncated", "format_finished", *STATISTICS)
    return row | {name: result[name] for name in names if result.get(name) is not None}
