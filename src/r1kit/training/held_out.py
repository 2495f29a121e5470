"""Evaluation on held-out problems while training goes on: the curve that counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from r1kit.engines.protocol import Engine
from r1kit.evaluation import evaluate
from r1kit.evaluation.summary import STATISTICS
from r1kit.tasks import Task
from r1kit.training.parallel import World
from r1kit.training.recorder import Recorder
from r1kit.training.sampling import derived_seed


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
        self.settings, self.stage, self.task = settings, stage, task
        self.engine, self.tokenizer, self.seed = engine, tokenizer, seed
        self.world, self.recorder = world, recorder
        self.last: dict[str, Any] | None = (state or {}).get("last")
        self.tokens_sampled = int((state or {}).get("tokens_sampled", 0))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"last": self.last, "tokens_sampled": self.tokens_sampled}

    def maybe_run(self, step: int, total: int, extra: Mapping[str, float] | None = None) -> None:
        """Measure where the recipe says so: every `every` steps, and after the last."""
        if self.settings.every and (step % self.settings.every == 0 or step == total):
            self.run(step, extra)

    def run(self, step: int, extra: Mapping[str, float] | None = None) -> None:
        """Measure now and record it; does nothing where evaluation is off."""
        if not self.settings.every:
            return
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
        self.recorder.metrics(self.stage, step, eval_row(result) | dict(extra or {}), {}, kind="eval")
        self.last = {name: value for name, value in result.items() if name != "examples"}
        self.tokens_sampled += int(result["tokens_sampled"])


def eval_row(result: Mapping[str, Any]) -> dict[str, float]:
    """The row of metrics.jsonl for one evaluation."""
    row = {
        "pass@1": result["pass@1"]["value"],
        "pass@1_low": result["pass@1"]["low"],
        "pass@1_high": result["pass@1"]["high"],
        "response_tokens": result["tokens_mean"],
    }
    row |= {f"pass@{k}": value for k, value in result["pass@k"].items() if k != "1"}
    names = ("truncated", "format_finished", *STATISTICS)
    return row | {name: result[name] for name in names if result.get(name) is not None}
