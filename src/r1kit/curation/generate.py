"""Rejection sampling: a model answers training problems, the task's verifier judges, right answers become traces.

Every answer that is not kept is counted by the first reason that holds (REASONS): nothing is left out in silence, and
an answer that could not be judged is never taken for a wrong one. Waves of problems are saved as they are done, so a
stage that was stopped goes on behind the last; randomness is keyed by problem and sample, so neither that nor the
number of processes changes what is sampled.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1kit.engines.local import LocalEngine
from r1kit.models.checkpoint import weights_checksum
from r1kit.models.loading import load_model, load_tokenizer
from r1kit.records import Group, Message, Problem, Rollout, Trace
from r1kit.tasks import Task
from r1kit.tasks.conversations import assistant
from r1kit.tasks.traces import write_jsonl
from r1kit.training.exchange import SampledGroup, interleave, pack_groups, unpack_groups
from r1kit.training.parallel import World
from r1kit.training.recorder import Interrupted, Recorder, StageOutcome
from r1kit.training.sampling import GroupSampler, derived_seed

REASONS = {
    "not_judged": "the engine or the verifier failed on it, or the problem cannot be judged",
    "unfit": "no conversation can hold it: it is empty, or its thought never ends",
    "unfinished": "it ran into the cap",
    "rejected": "a required verdict is below full marks",
    "duplicate": "the same text as another answer to its problem",
    "surplus": "per_problem answers to its problem were kept already",
}
TRACES, COUNTS = "traces", "counts"


def generate(
    settings: Any,
    *,
    stage: str,
    model_path: Path,
    task: Task,
    seed: int,
    world: World,
    recorder: Recorder,
    directory: Path,
    dtype: str,
) -> StageOutcome:
    """Traces of right answers under `directory`/traces, one file a wave; the outcome's `data` is that directory."""
    tokenizer = load_tokenizer(model_path)
    model = load_model(model_path, dtype=dtype)
    engine = LocalEngine(
        model,
        tokenizer=tokenizer,
        slots=settings.engine.slots,
        deterministic=settings.engine.deterministic,
        native=settings.engine.native,
    )
    sampler = GroupSampler(
        engine, tokenizer, task, _no_reward, settings.sampling, settings.samples, longest=engine.max_length
    )
    teacher = {
        "teacher": model_path.name,
        "weights": weights_checksum(model),
        "stage": stage,
        "seed": seed,
        "sampling": settings.sampling.model_dump(mode="json"),
    }
    problems = task.problems("train")[: settings.problems]
    waves = [problems[i : i + settings.wave] for i in range(0, len(problems), settings.wave)]
    recorder.truncate(stage, -1)
    totals: Counter[str] = Counter()
    for number, wave in enumerate(waves):
        counts, clock = _saved_counts(directory, number), {}
        if counts is None:
            started = time.perf_counter()
            mine = sampler.sample(world.shard(wave), derived_seed(seed, stage, "answers"), number + 1)
            shards = [unpack_groups(part) for part in world.gather_bytes(pack_groups(mine), "answers")]
            counts = _keep_wave(directory, number, len(wave), interleave(shards), settings, teacher, world)
            seconds = time.perf_counter() - started
            clock = {"step_s": seconds, "tokens_per_s": counts["tokens_sampled"] / seconds}
        totals.update(counts)
        recorder.metrics(stage, number + 1, {**counts, "kept_share": counts["kept"] / max(1, counts["answers"])}, clock)
        recorder.progress(stage, number + 1, len(waves), kept=totals["kept"], answers=totals["answers"])
        stop = world.broadcast(recorder.should_stop(), "stop")
        if stop and number + 1 < len(waves):
            raise Interrupted(f"{stage}: stopped after wave {number + 1} of {len(waves)}; the same command goes on")
    for line in describe(totals):
        recorder.note(stage, line)
    return StageOutcome(
        model=None,
        data=directory / TRACES,
        tokens={"sampled": totals["tokens_sampled"], "trained": 0, "discarded": totals["tokens_discarded"]},
        metrics={name: float(value) for name, value in totals.items()},
    )


def select(group: Group, settings: Any) -> tuple[list[Rollout], Counter[str]]:
    """The answers of one problem that are kept, in the order of sampling, and how many were not, by reason."""
    counts: Counter[str] = Counter()
    fitting: list[Rollout] = []
    seen: set[str] = set()
    for rollout in group:
        reason = _reason(rollout, settings.require) or ("duplicate" if rollout.text in seen else "")
        if reason:
            counts[reason] += 1
            continue
        seen.add(rollout.text)
        fitting.append(rollout)
    order = {"first": 0, "shortest": 1, "longest": -1}[settings.prefer]
    ranked = sorted(fitting, key=lambda r: (order * r.response_length, r.sample))
    kept = ranked[: settings.per_problem]
    counts["surplus"] += len(fitting) - len(kept)
    return sorted(kept, key=lambda r: r.sample), counts


def _reason(rollout: Rollout, require: Sequence[str]) -> str:
    """Why an answer cannot be kept; "" where it can."""
    verdicts = [rollout.verdicts.get(name) for name in require]
    if rollout.finish in ("aborted", "failed") or any(v is None or v.outcome != "score" for v in verdicts):
        return "not_judged"
    if rollout.truncated:
        return "unfinished"
    return "rejected" if any(v is not None and v.score != 1.0 for v in verdicts) else ""


def make_trace(problem: Problem, rollout: Rollout, teacher: Mapping[str, Any]) -> Trace:
    """An answer as a conversation. A base model's text stays as it is; in a chat the thought is set apart."""
    if problem.prompt[0].role == "text":
        prompt: tuple[Message, ...] = (Message("text", problem.prompt[0].content + problem.prefill),)
        response = Message("assistant", rollout.text)
    else:
        prompt, response = problem.prompt, assistant(problem.prefill + rollout.text, "", "auto")
    verdicts = {name: verdict.to_json() | {"seconds": 0.0} for name, verdict in rollout.verdicts.items()}
    provenance = {**teacher, "sample": rollout.sample, "tokens": rollout.response_length, "verdicts": verdicts}
    return Trace(rollout.id, (*prompt, response), problem.id, provenance)


def describe(counts: Mapping[str, int]) -> list[str]:
    """What became of the answers, in words."""
    share = counts.get("kept", 0) / max(1, counts.get("answers", 0))
    lines = [f"{counts.get('kept', 0)} of {counts.get('answers', 0)} answers kept ({100 * share:.1f} %)"]
    lines += [f"{counts[name]} {name}: {why}" for name, why in REASONS.items() if counts.get(name)]
    if counts.get("unsolved"):
        lines.append(f"{counts['unsolved']} of {counts['problems']} problems without a kept answer")
    return lines


def _keep_wave(
    directory: Path,
    number: int,
    asked: int,
    groups: Sequence[SampledGroup],
    settings: Any,
    teacher: Mapping[str, Any],
    world: World,
) -> dict[str, int]:
    """Write a wave's traces, then its counts, which say that the traces are whole."""
    counts: Counter[str] = Counter(dict.fromkeys(("problems", "answers", "kept", *REASONS, "unsolved"), 0))
    # Problems whose prompt leaves no room for an answer have no group.
    counts.update(problems=asked, unsolved=asked - len(groups))
    traces: list[Trace] = []
    for group in (sampled.group for sampled in groups):
        kept, left = select(group, settings)
        made = [trace for r in kept if (trace := _trace_or_none(group.problem, r, teacher)) is not None]
        counts.update(left)
        counts.update(
            answers=len(group),
            kept=len(made),
            unfit=len(kept) - len(made),
            unsolved=int(not made),
            tokens_sampled=sum(r.response_length for r in group),
            tokens_discarded=sum(r.response_length for r in group) - sum(t.provenance["tokens"] for t in made),
        )
        traces += made
    if world.is_main:
        write_jsonl(directory / TRACES / f"wave-{number:06d}.jsonl.zst", traces)
        path = directory / COUNTS / f"wave-{number:06d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(counts))
        temporary.replace(path)
    world.barrier("wave")
    return dict(counts)


def _trace_or_none(problem: Problem, rollout: Rollout, teacher: Mapping[str, Any]) -> Trace | None:
    """None for an answer that no conversation can hold: an empty one, or a thought that never ends."""
    try:
        return make_trace(problem, rollout, teacher)
    except ValueError:
        return None


def _saved_counts(directory: Path, number: int) -> dict[str, int] | None:
    path = directory / COUNTS / f"wave-{number:06d}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _no_reward(problem: Problem, rollouts: Sequence[Rollout], *, max_tokens: int, step: int) -> list[dict[str, float]]:
    """Nothing is trained here: every judged answer has the same reward."""
    return [{"judged": 0.0} for _ in rollouts]
