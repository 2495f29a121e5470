"""One recipe from start to end in one run directory: stages in order, each once, resumed where it stopped."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from r1kit.config.data_path import expand
from r1kit.config.graph import edge_output, stage_inputs, stage_order, stage_paths
from r1kit.config.load import dump_recipe
from r1kit.config.machine import require_gpus, resolve
from r1kit.config.schema import Recipe
from r1kit.pipeline.changes import (
    begun_machine,
    changed_stages,
    fingerprints,
    refuse_changes,
    refuse_new_code,
)
from r1kit.pipeline.expectations import Expectation, check_expectations
from r1kit.pipeline.files import (
    DiskFullError,
    RunError,
    is_disk_full,
    plain,
    read_json,
    write_atomic,
    write_json,
)
from r1kit.pipeline.interrupts import StopFlag
from r1kit.pipeline.kinds import StageContext, load_runners, run_stage
from r1kit.pipeline.launch import Team
from r1kit.pipeline.ledger import TOKENS, make_ledger
from r1kit.pipeline.metrics import MetricsLog, read_metrics
from r1kit.pipeline.preflight import refuse_unsound
from r1kit.pipeline.progress import StageProgress, duration
from r1kit.pipeline.recorder import RunRecorder
from r1kit.pipeline.run_directory import RunDirectory
from r1kit.pipeline.run_lineage import RunLineage
from r1kit.pipeline.stage_clock import StageClock, total_of
from r1kit.pipeline.summary import costs, make_summary
from r1kit.pipeline.trackers import open_trackers, require_trackers
from r1kit.sandbox import use_sandbox
from r1kit.training.recorder import Interrupted, Paused

DEFAULT_RUNNERS = "r1kit.pipeline.kinds"


class RunInterruptedError(RunError):
    """The user stopped the run; the same command goes on."""

    exit_code = 130


class RunPausedError(RunError):
    """An alarm of the recipe stopped the run; the same command goes on."""

    exit_code = 3


@dataclass(frozen=True)
class RunResult:
    """What a finished run left. `expect_ok` is False where a condition of the recipe does not hold."""

    root: Path
    summary: dict[str, Any]
    expectations: list[Expectation]

    @property
    def expect_ok(self) -> bool:
        return all(e.ok for e in self.expectations)


@dataclass
class Options:
    """How to run a recipe. `check`: prove first that it can work (`r1kit check`). `runners` names the module whose
    RUNNERS do the work of each stage kind. `redo_changed`: where settings differ, discard the stages that change and
    those behind them instead of refusing."""

    fresh: bool = False
    redo_changed: bool = False
    allow_new_code: bool = False
    check: bool = True
    source: str = ""
    overrides: Sequence[str] = ()
    runners: str = DEFAULT_RUNNERS
    console: Console = field(default_factory=Console)


def run_recipe(recipe: Recipe, out: str | Path, options: Options | None = None) -> RunResult:
    """Run `recipe` in the directory `out`, or go on there, or report what is finished there.

    Raises RunError (other settings in `out`, a peer lost), DiskFullError, RunInterruptedError; whatever was
    complete is kept.
    """
    options = options or Options()
    run = RunDirectory(out)
    run.refuse_foreign()
    with run.locked():
        begun = run.exists and not options.fresh
        if begun:
            recipe = begun_machine(run, recipe)
        return _Run(resolve(recipe, elsewhere=begun), run, options).execute()


class _Run:
    """The state of one invocation."""

    def __init__(self, recipe: Recipe, run: RunDirectory, options: Options) -> None:
        self.recipe, self.run, self.options = recipe, run, options
        self.order = stage_order(recipe)
        self.fingerprints = fingerprints(recipe)

    def execute(self) -> RunResult:
        run, console = self.run, self.options.console
        if self.options.fresh or not run.exists:
            self._check()
        if self.options.fresh:
            run.clear()
        self.lineage = RunLineage(run, self.recipe)
        changed = changed_stages(run, self.fingerprints) if run.exists else []
        if changed and not self.options.redo_changed:
            refuse_changes(run, self.recipe, changed)
        if run.exists and not changed and all(run.finished(name) for name in self.order):
            console.print(f"{run.root}: finished before; nothing to do", highlight=False, soft_wrap=True)
            return self._conclude()
        if self.recipe.device == "cuda":
            require_gpus(int(self.recipe.processes))
        new_code = refuse_new_code(run, self.lineage.kept, allow=self.options.allow_new_code)
        require_trackers(self.recipe.track)
        if changed:
            self._check()
            self._discard(changed)
        write_atomic(run.recipe, dump_recipe(self.recipe))
        self.lineage.begin(self.options.source, self.options.overrides)
        settings = self.recipe.model_dump(mode="json")
        rows = read_metrics(run.metrics)
        trackers = open_trackers(self.recipe.track, run.root, self.recipe.name, settings, rows)
        with StopFlag(_announce_stop) as stop, StageProgress(console) as progress:
            recorder = RunRecorder(run, progress, stop, trackers)
            if new_code:
                recorder.say(f"note: code changed since this run began: {', '.join(new_code)}")
            try:
                self._run_stages(recorder)
            finally:
                recorder.close()
        return self._conclude()

    def _check(self) -> None:
        """Refuse a recipe that cannot work, before anything is written or deleted."""
        if self.options.check:
            refuse_unsound(self.recipe)

    def _discard(self, changed: Sequence[str]) -> None:
        """Forget what the changed stages left, so that they begin anew; a fingerprint holds those of its inputs, so
        the stages behind a changed one are among them."""
        for name in changed:
            self.options.console.print(f"{name}: changed, done again", highlight=False, soft_wrap=True)
            self.run.discard(name)
            self.lineage.discard(name)
        MetricsLog(self.run.metrics).drop(changed)

    def _run_stages(self, recorder: RunRecorder) -> None:
        team: Team | None = None
        try:
            with Team(self.run.root, int(self.recipe.processes), self.recipe.device) as team:
                for name in self.order:
                    record = self.run.finished(name)
                    if record:
                        recorder.say(f"{name}: unchanged, not run again")
                        continue
                    self._run_stage(name, recorder, team)
                    if recorder.should_stop() and name != self.order[-1]:
                        raise KeyboardInterrupt
        except (Exception, KeyboardInterrupt) as error:
            self._fail(error, recorder, team)
            raise

    def _run_stage(self, name: str, recorder: RunRecorder, team: Team) -> None:
        settings, inputs = self.recipe.stages[name], self._inputs(name)
        runner = load_runners(self.options.runners)[settings.kind]
        previous = self.run.started(name) or {}
        recorder.say(f"{name}: {'goes on' if previous else 'begins'} ({settings.kind})")
        if not any(self.run.saved(name)):
            # An attempt that ended before its first checkpoint is done again from its first row.
            recorder.truncate(name, -1)
        clock = StageClock(previous.get("attempts", []), team.pids)

        def beat() -> None:
            self.run.start(name, {"fingerprint": self.fingerprints[name], "attempts": clock.attempts()})

        beat()
        recorder.heartbeat = beat
        self._announce(team, name, inputs)
        assert team.world is not None
        sandboxes: list[str] = []

        def tell(line: str) -> None:
            recorder.say(f"{name}: {line}")
            sandboxes.append(line.removeprefix("sandbox: "))

        use_sandbox(self.recipe.sandbox, tell)
        outcome = run_stage(
            runner,
            StageContext(
                name=name,
                settings=settings,
                task=self.recipe.task,
                seed=self.recipe.seed,
                dtype=self.recipe.dtype,
                root=self.run.root,
                inputs=inputs,
                world=team.world,
                recorder=recorder,
            ),
        )
        recorder.heartbeat = lambda: None
        recorder.show.end(name)
        measured = plain(outcome.eval) if outcome.eval else None
        if measured and settings.kind == "evaluate":
            write_json(self.run.evaluation(name), measured)
        record = {
            "name": name,
            "kind": settings.kind,
            "fingerprint": self.fingerprints[name],
            "outputs": {
                key: _relative(path, self.run.root)
                for key, path in (("model", outcome.model), ("data", outcome.data))
                if path
            },
            **clock.totals(),
            **({"sandbox": sandboxes[0]} if sandboxes else {}),
            "tokens": {key: int(outcome.tokens.get(key, 0)) for key in TOKENS},
            # The examples are in the evaluation's own file.
            **({"eval": {k: v for k, v in measured.items() if k != "examples"}} if measured else {}),
            "metrics": plain(outcome.metrics),
        }
        self.lineage.finish(name, self.fingerprints[name], inputs, outcome.model)
        self.run.finish(name, record)
        recorder.say(f"{name}: done in {duration(record['seconds'])}")

    def _announce(self, team: Team, name: str, inputs: Mapping[str, Path]) -> None:
        """Says to the other processes which stage it is."""
        team.announce(
            {
                "stage": name,
                "recipe": dump_recipe(self.recipe),
                "root": str(self.run.root),
                "inputs": {key: str(path) for key, path in inputs.items()},
                "runners": self.options.runners,
            }
        )

    def _inputs(self, name: str) -> dict[str, Path]:
        """Models and data a stage starts from, by setting. RunError where what an earlier stage made is gone,
        CheckpointError where it is not what that stage saved."""
        from r1kit.training.checkpoints import COMPLETE, verify_checkpoint

        stage = self.recipe.stages[name]
        paths = {key: expand(text) for key, text in stage_paths(stage).items()}
        for key, upstream in stage_inputs(stage).items():
            if key.startswith("after"):
                continue
            made = self.run.require_finished(upstream)["outputs"].get(edge_output(key))
            path = self.run.root / made if made else None
            if path is None or not path.exists():
                raise RunError(
                    f"{name} needs the {edge_output(key)} of stage {upstream}, which is finished, but {path} is gone: "
                    "restore it, or start over with --fresh"
                )
            if (path / COMPLETE).is_file():
                verify_checkpoint(path, f"{name} needs it: restore it, or start over with --fresh")
            paths[key] = path
        return paths

    def _fail(self, error: BaseException, recorder: RunRecorder, team: Team | None) -> None:
        """Say what happened in words where it is one of the foreseen ends; else log it and let it through."""
        if is_disk_full(error):
            # Nothing more is written: the log is on the same full disk.
            raise DiskFullError(
                f"no space left on the disk of {self.run.root} ({error}). Finished stages and the last "
                "checkpoint are kept: free some space and run the same command again."
            ) from error
        recorder.heartbeat()
        stage = team.stage if team else "start"
        if isinstance(error, (KeyboardInterrupt, Interrupted)):
            self._write_ledger()
            if isinstance(error, Paused):
                recorder.log(str(error))
                raise RunPausedError(str(error)) from None
            recorder.log(f"stopped by the user in stage {stage}")
            raise RunInterruptedError(
                f"stopped in stage {stage}; what was saved is kept in {self.run.root}. The same command "
                "goes on from there."
            ) from None
        recorder.log("".join(traceback.format_exception(error)))
        lost = team.explain(error) if team and team.workers else None
        if lost:
            raise lost from error

    def _write_ledger(self) -> None:
        records = {}
        for name in self.order:
            begun = self.run.started(name)
            record = self.run.finished(name) or (begun and total_of(begun["attempts"]))
            if record:
                records[name] = record
        write_json(self.run.ledger, make_ledger(records, self.recipe.rates))

    def _conclude(self) -> RunResult:
        """Ledger, expectations, summary, report; in this order, so that a failing report loses no number."""
        from r1kit.dashboard.report import write_report
        from r1kit.dashboard.terminal import terminal_table

        run = self.run
        write_atomic(run.recipe, dump_recipe(self.recipe))
        self._write_ledger()
        records = {name: run.require_finished(name) for name in self.order}
        expectations = check_expectations(self.recipe.expect, records)
        ok = all(e.ok for e in expectations)
        summary = make_summary(self.recipe.name, self.recipe.seed, ok, list(records.values()))
        if read_json(run.summary) != summary or not run.report.is_file():
            write_json(run.summary, summary)
            write_report(run.root)
        console = self.options.console
        console.print(terminal_table(run.root))
        console.print(costs(summary), highlight=False, soft_wrap=True)
        for expectation in expectations:
            console.print(expectation.sentence(), highlight=False, soft_wrap=True)
        console.print(f"report: {run.report}", highlight=False, soft_wrap=True)
        return RunResult(run.root, summary, expectations)


def _announce_stop() -> None:
    # os.write, because a signal handler must not touch the console's locks.
    os.write(2, b"\nstopping after this step; Ctrl-C again stops at once (the last checkpoint is kept)\n")


def _relative(path: Path, root: Path) -> str:
    return path.resolve().relative_to(root.resolve()).as_posix()
