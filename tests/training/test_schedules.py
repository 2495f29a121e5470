"""Published schedules on a fake clock: rows are made up, steps pass in no time.

Why this matters: these runs take days; a phase that begins a step early, late or never is found out when the money is
spent.

Not exercised here: training under the changed settings (test_rl.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1kit.config.rl import RLSettings
from r1kit.training.schedules import PhaseWalk

DOCS = Path(__file__).parents[2] / "docs" / "schedules.md"
Row = dict[str, float]


def documented(name: str) -> RLSettings:
    """The example of docs/schedules.md whose first line is `# name`, as a stage."""
    blocks = DOCS.read_text(encoding="utf-8").split("```yaml\n")[1:]
    (text,) = [block.split("```")[0] for block in blocks if block.startswith(f"# {name}")]
    return RLSettings.model_validate({"model": "base", "warmup_steps": 0, **yaml.safe_load(text)})


def walk(
    s: RLSettings, row: Callable[[int], Row], evaluations: Callable[[int], Row | None] = lambda step: None
) -> Iterator[tuple[int, Any]]:
    """(step, settings that step is trained under); the run is stopped and resumed now and then."""
    phases = PhaseWalk(s, {})
    phases.settle(0)
    for step in range(1, s.steps + 1):
        yield step, phases.now
        phases.observe(row(step), evaluations(step))
        phases.settle(step)
        if step % (s.steps // 7) == 0:
            phases = PhaseWalk(s, json.loads(json.dumps(phases.state())))


def runs(values: Iterator[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """(first step, value) of each run of equal values."""
    found: list[tuple[int, Any]] = []
    for step, value in values:
        if not found or found[-1][1] != value:
            found.append((step, value))
    return found


def nothing(step: int) -> Row:
    return {"truncated": 0.5}


def test_deepscaler_by_its_steps() -> None:
    found = runs(
        (step, (s.sampling.max_tokens, s.samples_per_problem)) for step, s in walk(documented("DeepScaleR:"), nothing)
    )
    assert found == [(1, (8192, 8)), (1041, (16384, 16)), (1521, (24576, 16))]


def test_deepscaler_by_what_is_measured() -> None:
    """Hand-over once few responses are truncated, or held-out results stop rising; never before 100 steps."""

    def row(step: int) -> Row:
        return {"truncated": max(0.02, 0.4 - step / 1000)}  # at 5 % after 350 steps

    def evaluation(step: int) -> Row | None:
        return {"pass@1": min(0.3 + step / 2000, 0.55)} if step % 20 == 0 else None  # flat after 500 steps

    by_measure = documented("DeepScaleR, handed over")
    found = runs((step, s.sampling.max_tokens) for step, s in walk(by_measure, row, evaluation))
    caps = [cap for _, cap in found]
    assert caps == [8192, 16384, 24576]
    # Mean of 20 steps at or below 5 %: steps 341..360, whose mean is 0.0495, end the first phase.
    assert found[1][0] == 361
    # Truncated stays low, so the second phase ends as soon as it may: after 100 steps.
    assert found[2][0] == 461
    high = {"truncated": 0.5}
    plateau = runs((step, s.sampling.max_tokens) for step, s in walk(by_measure, lambda step: high, evaluation))
    # pass@1 is 0.55 from step 500 on; of the evaluations 500, 520, ... the last five without a gain end at 600.
    assert plateau[1] == (601, 16384)


def test_polaris_temperatures_and_lengths() -> None:
    found = runs(
        (step, (s.sampling.temperature, s.sampling.max_tokens)) for step, s in walk(documented("POLARIS"), nothing)
    )
    assert [value for _, value in found] == [(0.7, 16384), (1.0, 24576), (1.1, 32768)]


def test_r1_zero_doubles_its_length_once() -> None:
    s = documented("R1-Zero")
    found = runs((step, now.sampling.max_tokens) for step, now in walk(s, nothing))
    assert found == [(1, 32768), (8201, 65536)]
    assert s.steps == 10_400


def test_r1_pays_the_preference_reward_in_the_last_400_steps() -> None:
    s = documented("R1, all scenarios")
    found = runs((step, now.reward.resolved()["preference"].weight) for step, now in walk(s, nothing))
    assert found == [(1, 0.0), (1301, 1.0)]
    assert s.steps == 1700


def test_a_rule_by_clipped_tokens_and_by_accuracy() -> None:
    phases = [
        {"set": {"algorithm.kl_coef": 0.0}, "until": {"clipped": 0.05, "window": 2}},
        {"set": {"algorithm.kl_coef": 0.1}, "until": {"accuracy": 0.9, "window": 1, "at_least": 3}},
        {"set": {"algorithm.kl_coef": 0.2}},
    ]
    s = RLSettings.model_validate({"model": "base", "steps": 14, "schedule": phases})

    def row(step: int) -> Row:
        return {"clip_low": 0.01, "clip_high": 0.05 if step >= 4 else 0.0, "accuracy": 1.0}

    found = runs((step, now.algorithm.kl_coef) for step, now in walk(s, row))
    # 0.06 in step 4 only makes a mean of 0.035; with step 5 it is 0.06. Then accuracy is high, but for 3 steps.
    assert found == [(1, 0.0), (6, 0.1), (9, 0.2)]


def test_phases_that_are_over_before_they_begin_are_passed() -> None:
    phases = [
        {"set": {"samples_per_problem": 4}, "until": {"remaining": 50}},
        {"set": {"samples_per_problem": 8}, "until": {"step": 2}},
        {"set": {"samples_per_problem": 16}},
    ]
    s = RLSettings.model_validate({"model": "base", "steps": 14, "schedule": phases})
    assert runs((step, now.samples_per_problem) for step, now in walk(s, nothing)) == [(1, 8), (3, 16)]


def test_what_ended_a_phase_is_told() -> None:
    phases = [{"until": {"truncated": 0.1, "window": 1}}, {"name": "long", "set": {"sampling.max_tokens": 300}}]
    walked = PhaseWalk(RLSettings.model_validate({"model": "base", "schedule": phases}), {})
    assert walked.metrics() == {"phase": 1}
    walked.observe({"truncated": 0.05})
    (line,) = walked.settle(7)
    assert line == (
        "phase 2 (long) begins after step 7: truncated has come down to 0.05 (limit 0.1, mean of 1 steps); "
        "sampling.max_tokens: 300"
    )
    assert walked.metrics() == {"phase": 2}


def test_without_a_schedule_nothing_is_watched() -> None:
    walked = PhaseWalk(RLSettings.model_validate({"model": "base"}), {})
    walked.observe({"truncated": 0.0})
    assert (walked.settle(5), walked.metrics()) == ([], {})


@pytest.mark.parametrize("missing", [{}, {"truncated": None}])
def test_a_step_that_sampled_nothing_does_not_count(missing: dict[str, Any]) -> None:
    phases = [{"until": {"truncated": 0.1, "window": 2}}, {"set": {"samples_per_problem": 4}}]
    walked = PhaseWalk(RLSettings.model_validate({"model": "base", "schedule": phases}), {})
    for row in ({"truncated": 0.0}, missing, {"truncated": 0.0}):
        assert walked.settle(1) == []
        walked.observe(row)
    assert walked.settle(2) != []
