"""Rejection sampling: a model answers training problems, the task's verifier judges, right answers become traces, or
pairs of answers of which one is preferred.

Every answer that is not kept is counted by its reason (curation/selection.py): nothing is left out in silence. Waves of
problems are saved as they are done, so a stage that was stopped goes on behind the last; randomness is keyed by problem
and sample, so neither that nor the number of processes changes what is sampled.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1kit.atomic import write_atomic
from r1kit.curation.selection import REASONS, select, select_pairs
from r1kit.engines.local import LocalEngine
from r1kit.models.checkpoint import CheckpointError, weights_checksum
from r1kit.models.loading import load_model, load_tokenizer
from r1kit.models.vocabulary import sampling_warnings
from r1kit.records import Group, Message, PreferencePair, Problem, Rollout, Trace
from r1kit.tasks import Task
from r1kit.tasks.conversations import assistant
from r1kit.tasks.traces import write_jsonl
from r1kit.training.exchange import SampledGroup, interleave, pack_groups, unpack_groups
from r1kit.training.parallel import World
from r1kit.training.recorder import Interrupted, Recorder, StageOutcome
from r1kit.training.sampling import GroupSampler, derived_seed

TRACES, PAIRS, COUNTS = "traces", "pairs", "counts"
WHY = {"verdict": "right against wrong", "length": "short against long, both right"}
Record = Trace | PreferencePair


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
    """Traces of right answers under `directory`/traces, or pairs under `directory`/pairs, one file a wave.

    The outcome's `data` is that directory.
    """
    tokenizer = load_tokenizer(model_path)
    model = load_model(model_path, dtype=dtype, device=world.device, tokenizer=tokenizer)
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
    for line in sampling_warnings(model, tokenizer, problems, model_path):
        recorder.note(stage, line)
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
        data=directory / (PAIRS if settings.pairs else TRACES),
        tokens={"sampled": totals["tokens_sampled"], "trained": 0, "discarded": totals["tokens_discarded"]},
        metrics={name: float(value) for name, value in totals.items()},
    )


def make_trace(problem: Problem, rollout: Rollout, teacher: Mapping[str, Any]) -> Trace:
    """An answer as a conversation."""
    prompt, response = turns(problem, rollout.text)
    provenance = {
        **teacher,
        "sample": rollout.sample,
        "tokens": rollout.response_length,
        "verdicts": _verdicts(rollout),
    }
    return Trace(rollout.id, (*prompt, response), problem.id, provenance)


def make_pair(
    problem: Problem, chosen: Rollout, rejected: Rollout, teacher: Mapping[str, Any], why: str
) -> PreferencePair:
    """Two answers to one problem, the first preferred."""
    (prompt, better), (_, worse) = turns(problem, chosen.text), turns(problem, rejected.text)
    sides = {"chosen": chosen, "rejected": rejected}
    provenance = {
        **teacher,
        "problem": problem.id,
        "samples": {side: r.sample for side, r in sides.items()},
        "tokens": {side: r.response_length for side, r in sides.items()},
        "verdicts": {side: _verdicts(r) for side, r in sides.items()},
    }
    return PreferencePair(f"{chosen.id}-{rejected.sample}", prompt, better, worse, why, provenance)


def turns(problem: Problem, text: str) -> tuple[tuple[Message, ...], Message]:
    """Prompt and answer as turns. A base model's text stays as it is; in a chat the thought is set apart.

    ValueError where no conversation can hold the answer.
    """
    if problem.prompt[0].role == "text":
        return (Message("text", problem.prompt[0].content + problem.prefill),), Message("assistant", text)
    return problem.prompt, assistant(problem.prefill + text, "", "auto")


def _verdicts(rollout: Rollout) -> dict[str, Any]:
    return {name: verdict.to_json() | {"seconds": 0.0} for name, verdict in rollout.verdicts.items()}


def describe(counts: Mapping[str, int]) -> list[str]:
    """What became of the answers, in words."""
    share = counts.get("kept", 0) / max(1, counts.get("answers", 0))
    pairs = f", in {counts['pairs']} pairs" if "pairs" in counts else ""
    lines = [f"{counts.get('kept', 0)} of {counts.get('answers', 0)} answers kept ({100 * share:.1f} %){pairs}"]
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
    """Write a wave's traces or pairs, then its counts, which say that they are whole."""
    counts: Counter[str] = Counter(dict.fromkeys(("problems", "answers", "kept", *REASONS, "unsolved"), 0))
    # Problems whose prompt leaves no room for an answer have no group.
    counts.update(problems=asked, unsolved=asked - len(groups))
    records: list[Record] = []
    for group in (sampled.group for sampled in groups):
        made, used, left = _records(group, settings, teacher)
        sampled_tokens = sum(r.response_length for r in group)
        counts.update(left)
        counts.update(
            answers=len(group),
            kept=len(used),
            unsolved=int(not made),
            tokens_sampled=sampled_tokens,
            tokens_discarded=sampled_tokens - sum(r.response_length for r in used),
        )
        records += made
    if settings.pairs:
        counts["pairs"] = len(records)
    if world.is_main:
        write_jsonl(directory / (PAIRS if settings.pairs else TRACES) / f"wave-{number:06d}.jsonl.zst", records)
        write_atomic(directory / COUNTS / f"wave-{number:06d}.json", json.dumps(counts))
    world.barrier("wave")
    return dict(counts)


def _records(
    group: Group, settings: Any, teacher: Mapping[str, Any]
) -> tuple[list[Record], list[Rollout], Counter[str]]:
    """What is made of one problem's answers, those answers, and how many were not kept, by reason.

    No conversation can hold an empty answer or a thought that never ends: it is unfit, and its pair with it.
    """
    problem, made, used = group.problem, list[Record](), list[Rollout]()
    kept: Sequence[Sequence[Rollout]]
    if settings.pairs:
        kept, counts = select_pairs(group, settings)
    else:
        alone, counts = select(group, settings)
        kept = [[rollout] for rollout in alone]
    for answers in kept:
        try:
            if settings.pairs:
                made.append(make_pair(problem, answers[0], answers[1], teacher, WHY[settings.pairs]))
            else:
                made.append(make_trace(problem, answers[0], teacher))
        except ValueError:
            counts["unfit"] += len(answers)
        else:
            used += answers
    return made, used, counts


def _saved_counts(directory: Path, number: int) -> dict[str, int] | None:
    path = directory / COUNTS / f"wave-{number:06d}.json"
    if not path.is_file():
        return None
    try:
        counts: dict[str, int] = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}). Delete it: its wave is then answered again") from None
    return counts


def _no_reward(problem: Problem, rollouts: Sequence[Rollout], *, max_tokens: int, step: int) -> list[dict[str, float]]:
    """Nothing is trained here: every judged answer has the same reward."""
    return [{"judged": 0.0} for _ in rollouts]
