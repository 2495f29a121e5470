"""Published schedules on a fake clock: rows are made up, steps pass in no time.

Why this matters: these runs take days; a phase that begins a step early, late or never is found out when the money is
spent.

Not exercised here: training under the changed settings (test_rl.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

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


def ramped(schedule: list[dict[str, Any]], steps: int = 14, **changes: Any) -> RLSettings:
    values = {"model": "base", "steps": steps, "warmup_steps": 0, "schedule": schedule}
    return RLSettings.model_validate({**values, **changes})


def test_a_ramp_is_a_straight_line_from_its_first_step_to_its_last_and_stays_there() -> None:
    """Computed by hand: 0, 1/4, ... of the way in steps 3 to 7; whole numbers are rounded, halves up."""
    line = {"end": 250, "steps": 5}
    schedule = [
        {"until": {"step": 2}},
        {"ramp": {"sampling.max_tokens": line, "algorithm.kl_coef": {"start": 0.1, "end": 0.0, "steps": 3}}},
    ]
    values = [(s.sampling.max_tokens, s.algorithm.kl_coef) for _, s in walk(ramped(schedule), nothing)]
    assert [cap for cap, _ in values] == [240, 240, 240, 243, 245, 248, 250, *[250] * 7]
    assert [coef for _, coef in values] == [0.0, 0.0, 0.1, 0.05, *[0.0] * 10]


def test_dapo_is_warmed_up() -> None:
    s = documented("DAPO, warmed up")
    found = [(now.reward.resolved()["overlong"].weight, now.sampling.max_tokens) for _, now in walk(s, nothing)]
    assert found[0] == (0.0, 4096)
    assert found[49] == (0.0, 4096)
    assert found[50] == (0.0, 4096)
    assert found[249] == (1.0, 20480)
    assert found[-1] == (1.0, 20480)
    caps = [cap for _, cap in found]
    assert all(0 <= later - earlier <= 83 for earlier, later in pairwise(caps))  # 16,384 tokens in 199 steps


def test_a_ramp_that_is_cut_short_leaves_what_it_had_reached() -> None:
    schedule = [
        {"ramp": {"sampling.max_tokens": {"end": 340, "steps": 11}}, "until": {"accuracy": 0.9, "window": 1}},
        {"set": {"sampling.temperature": 0.7}, "until": {"steps": 2}},
        {"ramp": {"sampling.max_tokens": {"end": 100, "steps": 2}}},
    ]

    def row(step: int) -> Row:
        return {"accuracy": 1.0 if step >= 4 else 0.0}

    found = [(s.sampling.max_tokens, s.sampling.temperature) for _, s in walk(ramped(schedule, steps=14), row)]
    assert found[:8] == [(240, 1), (250, 1), (260, 1), (270, 1), (270, 0.7), (270, 0.7), (270, 0.7), (100, 0.7)]


def test_a_ramp_in_a_phase_that_is_passed_leaves_its_end() -> None:
    schedule = [
        {"ramp": {"sampling.max_tokens": {"end": 340, "steps": 11}}, "until": {"remaining": 400}},
        {"set": {"sampling.temperature": 0.7}},
    ]
    assert {s.sampling.max_tokens for _, s in walk(ramped(schedule), nothing)} == {340}


@given(
    start=st.integers(16, 4000),
    end=st.integers(16, 4000),
    steps=st.integers(2, 40),
    stop=st.integers(1, 39),
)
def test_a_ramp_stays_between_its_ends_never_turns_and_is_resumed_exactly(
    start: int, end: int, steps: int, stop: int
) -> None:
    path = {"sampling.max_tokens": {"start": start, "end": end, "steps": steps}}
    heat = {"sampling.temperature": {"end": 1.3, "steps": steps}}
    s = ramped([{"ramp": {**path, **heat}}], steps=40, token_budget=8192)

    def walked(stop: int | None) -> list[tuple[int, float]]:
        phases, found = PhaseWalk(s, {}), []
        for step in range(40):
            found.append((phases.now.sampling.max_tokens, phases.now.sampling.temperature))
            phases.settle(step + 1)
            if step == stop:
                phases = PhaseWalk(s, json.loads(json.dumps(phases.state())))
        return found

    alone = walked(None)
    assert walked(stop) == alone
    caps = [cap for cap, _ in alone]
    assert (caps[0], caps[steps - 1], caps[-1]) == (start, end, end)
    assert caps == sorted(caps, reverse=end < start)


def test_a_checkpoint_of_before_there_were_ramps_goes_on() -> None:
    schedule = [{"set": {"sampling.max_tokens": 300}, "until": {"step": 3}}, {"set": {"samples_per_problem": 4}}]
    old = {"number": 1, "began": 3, "recent": {}, "evaluations": []}
    now = PhaseWalk(ramped(schedule), old).now
    assert (now.sampling.max_tokens, now.samples_per_problem) == (300, 4)


def test_a_ramp_is_in_the_rows_and_told() -> None:
    line = {"end": 340, "steps": 11}
    schedule = [{"until": {"step": 1}}, {"name": "longer", "ramp": {"sampling.max_tokens": line}}]
    walked = PhaseWalk(ramped(schedule), {})
    (told,) = walked.settle(1)
    assert told == "phase 2 (longer) begins after step 1: step 1 is done; sampling.max_tokens: to 340 over 11 steps"
    assert walked.metrics() == {"phase": 2, "sampling.max_tokens": 240}
    walked.settle(2)
    assert walked.metrics() == {"phase": 2, "sampling.max_tokens": 250}


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
