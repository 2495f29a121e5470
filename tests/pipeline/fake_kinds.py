"""Stage kinds that do nothing but behave: rows, checkpoints, exact resume, a stop between steps, failures.

Settings of the real schema steer them: `rl.steps` steps of FAKE_STEP_SECONDS each. The environment makes them
fail: FAKE_FAIL=`stage:step:how` with how in raise, disk, kill, peer, pause.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path

from r1kit.pipeline.kinds import Runner, StageContext, run_report
from r1kit.training.recorder import Interrupted, Paused, StageOutcome

EVAL = {
    "benchmark": "fake",
    "n": 4,
    "k": 2,
    "cap": 8,
    "pass@1": {"value": 0.5, "low": 0.4, "high": 0.6},
    "pass@k": {"1": 0.5, "2": 0.75},
    "tokens_mean": 5.0,
    "truncated": 0.0,
    "format_finished": 1.0,
    "attempts": 2.0,
    "backtracking": 0.5,
    "verdict_right": 1.0,
    "examples": [],
}


def fail_on_demand(context: StageContext, step: int) -> None:
    stage, _, rest = os.environ.get("FAKE_FAIL", "").partition(":")
    at, _, how = rest.partition(":")
    if stage != context.name or int(at) != step:
        return
    if how == "disk":
        raise OSError(errno.ENOSPC, "No space left on device", "model.safetensors")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "peer":
        if context.world.rank == 1:
            raise RuntimeError("the worker's own words")
        return
    if how == "pause":
        raise Paused("rl: paused by some_alarm after step 2: why")
    if how == "raise":
        raise RuntimeError("a defect")


def train(context: StageContext) -> StageOutcome:
    """Counts to `steps`; the state is the sum of the steps done, so a wrong resume shows."""
    settings, folder = context.settings, context.checkpoints
    saved = folder / "state.json"
    state = json.loads(saved.read_text()) if saved.is_file() else {"step": 0, "total": 0}
    context.recorder.truncate(context.name, state["step"])
    total = settings.steps
    while state["step"] < total:
        step = state["step"] + 1
        context.recorder.metrics(context.name, step, {"total": state["total"] + step}, {"seconds": time.perf_counter()})
        context.recorder.progress(context.name, step, total, tokens_per_s=1000.0)
        fail_on_demand(context, step)
        context.world.barrier("step")
        time.sleep(float(os.environ.get("FAKE_STEP_SECONDS", "0")))
        state = {"step": step, "total": state["total"] + step}
        stop = context.world.broadcast(context.recorder.should_stop(), "stop")
        if context.world.is_main and (step % settings.checkpoint_every == 0 or step == total or stop):
            folder.mkdir(parents=True, exist_ok=True)
            saved.write_text(json.dumps(state))
        if stop and step < total:
            raise Interrupted(f"stopped after step {step}")
    model = folder / f"step-{total:06d}"
    if context.world.is_main:
        model.mkdir(parents=True, exist_ok=True)
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_text(str(state["total"]))
    tokens = {"sampled": 10, "trained": 7, "masked": 1, "discarded": 2}
    return StageOutcome(model, tokens=tokens, metrics={"total": state["total"]})


def evaluate(context: StageContext) -> StageOutcome:
    assert context.model is not None
    assert (Path(context.model) / "model.safetensors").is_file()
    return StageOutcome(None, eval=EVAL)


RUNNERS: dict[str, Runner] = {"pretrain": train, "rl": train, "evaluate": evaluate, "report": run_report}
