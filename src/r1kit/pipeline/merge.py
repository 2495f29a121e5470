"""The merge stage: every candidate of the grid is merged, measured and thrown away again; the best is merged to stay.

The rule: the highest pass@1 on the problems that `evaluate.split` names; of equal ones, the first in the grid's order.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.config.merge import MergeSettings
from r1kit.pipeline.files import plain, write_json
from r1kit.pipeline.measure import open_engine

if TYPE_CHECKING:
    from r1kit.models.merge_methods import Recipe
    from r1kit.pipeline.kinds import StageContext
    from r1kit.training.recorder import StageOutcome

MEASURED = "measured.json"


def run_merge(context: StageContext) -> StageOutcome:
    """Merge `context.settings.models`, of a grid the best."""
    from r1kit.models.merge_methods import Recipe
    from r1kit.models.merging import merge_checkpoints
    from r1kit.training.checkpoints import latest_checkpoint, save_checkpoint
    from r1kit.training.recorder import StageOutcome

    settings = context.settings
    assert isinstance(settings, MergeSettings)
    recipes = [Recipe(**candidate) for candidate in settings.candidates()]
    stage = _Grid(context, settings)
    measured = [stage.measure(i, recipe) for i, recipe in enumerate(recipes)] if settings.grid else []
    values = [row["pass@1"]["value"] for row in measured]
    best = values.index(max(values)) if values else 0
    if values:
        stage.compare(values[best])
    if context.world.is_main and latest_checkpoint(context.checkpoints) is None:

        def write(target: Path) -> None:
            for note in merge_checkpoints(stage.models, target, recipes[best], base=stage.base):
                context.recorder.note(context.name, note)

        state = {"merged": [str(m) for m in settings.models], **plain(vars(recipes[best]))}
        save_checkpoint(context.checkpoints, 0, write_model=write, tensors={}, state=state, keep=1)
    context.world.barrier("merge")
    metrics = {"candidates": float(len(recipes))}
    if values:
        metrics |= {"best": float(best), "best_pass@1": values[best], "worst_pass@1": min(values)}
        metrics |= {f"input_{i}_pass@1": value for i, value in enumerate(stage.inputs())}
    tokens = {"sampled": stage.tokens, "trained": 0, "discarded": 0}
    return StageOutcome(model=context.checkpoints / "step-000000", tokens=tokens, metrics=metrics)


class _Grid:
    """Candidates measured so far; a stage that goes on measures only the others."""

    def __init__(self, context: StageContext, settings: MergeSettings) -> None:
        from r1kit.tasks import make_task

        self.context, self.settings = context, settings
        self.models = [context.inputs[f"models[{i}]"] for i in range(len(settings.models))]
        self.base = context.inputs.get("base")
        self.task = make_task(context.task) if settings.grid else None
        path = context.checkpoints / MEASURED
        text = path.read_text() if context.world.is_main and path.is_file() else "{}"
        self.done: dict[str, Any] = context.world.broadcast(json.loads(text), "measured")
        # A row whose result was not kept is measured again.
        context.recorder.truncate(context.name, len(self.done))

    @property
    def tokens(self) -> int:
        return sum(int(row["tokens_sampled"]) for row in self.done.values())

    def measure(self, index: int, recipe: Recipe) -> dict[str, Any]:
        """The evaluation of one candidate."""
        from r1kit.models.merge_methods import describe
        from r1kit.models.merging import merge_checkpoints

        folder = self.context.checkpoints / f".candidate-{index}"

        def make() -> Path:
            if self.context.world.is_main:
                shutil.rmtree(folder, ignore_errors=True)
                merge_checkpoints(self.models, folder, recipe, base=self.base)
            self.context.world.barrier("candidate")
            return folder

        try:
            return self._measured(f"candidate-{index}", index, make, dict(describe(recipe)))
        finally:
            self.context.world.barrier("candidate measured")
            if self.context.world.is_main:
                shutil.rmtree(folder, ignore_errors=True)

    def inputs(self) -> list[float]:
        """pass@1 of the models that are merged, where they are to be measured."""
        if not self.settings.measure_inputs:
            return []
        count = sum(1 for _ in self.settings.candidates())
        rows = [
            self._measured(f"input-{i}", count + i, partial(Path, m), {"input": i}) for i, m in enumerate(self.models)
        ]
        return [row["pass@1"]["value"] for row in rows]

    def compare(self, best: float) -> None:
        """Say so where merging did not pay."""
        better = [i for i, value in enumerate(self.inputs()) if value > best]
        for i in better:
            self.context.recorder.note(
                self.context.name,
                f"models[{i}] has a higher pass@1 than the best merge ({self.inputs()[i]:.3f} against {best:.3f})",
            )

    def _measured(self, name: str, place: int, make: Any, about: dict[str, Any]) -> dict[str, Any]:
        if name not in self.done:
            result = self._evaluate(make(), place)
            value, low, high = (result["pass@1"][key] for key in ("value", "low", "high"))
            row = {"pass@1": value, "pass@1_low": low, "pass@1_high": high}
            self.context.recorder.metrics(self.context.name, place + 1, row, {}, kind="candidate")
            self.context.recorder.note(self.context.name, f"{name} {about}: pass@1 {value:.3f} [{low:.3f}, {high:.3f}]")
            self.done[name] = {key: value for key, value in result.items() if key != "examples"} | {"about": about}
            if self.context.world.is_main:
                self.context.checkpoints.mkdir(parents=True, exist_ok=True)
                write_json(self.context.checkpoints / MEASURED, self.done)
        found: dict[str, Any] = self.done[name]
        return found

    def _evaluate(self, model: Path, place: int) -> dict[str, Any]:
        from r1kit.evaluation import evaluate
        from r1kit.models.loading import load_tokenizer
        from r1kit.training.recorder import Interrupted

        context, s = self.context, self.settings.evaluate

        def progress(done: int, total: int) -> None:
            context.recorder.progress(context.name, done, total, model=float(place))
            if context.recorder.should_stop():
                raise Interrupted(f"{context.name}: stopped while a candidate was measured; the same command goes on")

        assert self.task is not None
        engine = open_engine(
            model,
            dtype=context.dtype,
            device=context.world.device,
            slots=s.slots,
            deterministic=False,
            native=s.native,
        )
        found = evaluate(
            engine,
            load_tokenizer(model),
            self.task,
            self.task.problems(s.split),
            s,
            seed=context.seed,
            peers=context.world,
            progress=progress,
        )
        result: dict[str, Any] = plain(found.to_json())
        return result
