"""Why this matters: a schedule is read hours before its last phase begins; what is wrong with that phase has to be said
now.

Not exercised: when a phase ends (tests/training/test_schedules.py).
"""

from __future__ import annotations

from typing import Any

import pytest

from r1kit.config import ConfigError, load_recipe, parse_recipe
from r1kit.config.load import dump_recipe
from r1kit.config.rl import RLSettings
from r1kit.config.schedules import phases_of


def stage(*phases: dict[str, Any], **changes: Any) -> RLSettings:
    return RLSettings.model_validate({"model": "base", "steps": 100, **changes, "schedule": list(phases)})


def test_a_phase_keeps_what_it_does_not_name() -> None:
    s = stage(
        {"set": {"sampling.max_tokens": 300, "samples_per_problem": 4}, "until": {"step": 10}},
        {"set": {"sampling.max_tokens": 600}, "until": {"step": 20}},
        {"set": {"reward.weights.format": 0.0, "algorithm.kl_coef": 0.1}},
    )
    found = [(p.sampling.max_tokens, p.samples_per_problem, p.algorithm.kl_coef) for _, p in phases_of(s)]
    assert found == [(300, 4, 0.0), (600, 4, 0.0), (600, 4, 0.1)]
    assert [name for name, _ in phases_of(s)] == ["phase 1", "phase 2", "phase 3"]
    assert phases_of(s)[2][1].reward.resolved()["format"].weight == 0.0
    assert phases_of(stage()) == [("", stage())]


def test_a_ramp_is_checked_at_both_of_its_ends_and_goes_on_from_what_was() -> None:
    cap, weight = {"end": 480, "steps": 5}, {"start": 0.5, "end": 0, "steps": 2}
    s = stage(
        {"set": {"sampling.temperature": 0.8}, "ramp": {"sampling.max_tokens": cap}, "until": {"step": 9}},
        {"ramp": {"sampling.max_tokens": {"end": 600, "steps": 3}, "reward.weights.format": weight}},
    )
    found = [
        (n, p.sampling.max_tokens, p.sampling.temperature, p.reward.resolved()["format"].weight)
        for n, p in phases_of(s)
    ]
    assert found == [
        ("phase 1", 240, 0.8, 0.1),
        ("phase 1, end of its ramps", 480, 0.8, 0.1),
        ("phase 2", 480, 0.8, 0.5),
        ("phase 2, end of its ramps", 600, 0.8, 0.0),
    ]
    # What a part's own weight is where no weight is written: the kind's 0.1.
    (_, first), _ = phases_of(stage({"ramp": {"reward.weights.format": {"end": 0.0, "steps": 9}}}))
    assert first.reward.resolved()["format"].weight == 0.1


def test_a_block_that_is_set_anew_takes_the_place_of_what_was_ramped_in_it() -> None:
    mix = {"a": 1.0, "b": 0.0}
    s = stage(
        {"ramp": {"pools.mix.b": {"end": 2.0, "steps": 3}}, "until": {"step": 5}},
        {"set": {"pools.mix": {"a": 5.0}}},
        pools={"mix": mix},
    )
    assert [p.pools.mix for _, p in phases_of(s)] == [mix, {"a": 1.0, "b": 2.0}, {"a": 5.0}]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([{"set": {"sampling.max_token": 1}}], r"cannot change 'sampling.max_token' \(did you mean \"sampling.max_tok"),
        ([{"set": {"optimizer.lr": 1e-3}}], "a schedule cannot change 'optimizer.lr'"),
        ([{"set": {"sampling.max_tokens": 9000}}], "phase 1: token_budget is 8192, smaller than one sequence"),
        ([{"set": {"samples_per_problem": 1}}], "phase 1: samples_per_problem is 1"),
        ([{"set": {"sampling.temperature": "hot"}}], "phase 1: sampling.temperature: .*valid number"),
        ([{"set": {"reward.weights.tone": 1.0}}], "phase 1: reward: weights has a part 'tone'"),
        ([{}, {"set": {"samples_per_problem": 4}}], "phase 1 has no `until`, so the phases after it never begin"),
        ([{"until": {"step": 20}}, {"until": {"step": 10}}, {}], r"until.step is \[20, 10\].*expected rising"),
        ([{"until": {"step": 101}}, {}], "phase 1: until.step is 101, but the stage has 100 steps: .* lower until"),
        ([{"until": {"steps": 101}}], "phase 1: until.steps is 101, but the stage has 100"),
        # Also beside a rule by measurement: the step itself never comes.
        ([{"until": {"step": 101, "accuracy": 0.5}}, {}], "until.step is 101"),
        ([{"until": {"step": 100}}, {}], "phase 2 never begins: .* the stage's 100 steps; shorten them"),
        ([{"until": {"steps": 60}}, {"until": {"steps": 40}}, {}], "phase 3 never begins"),
        ([{"until": {"accuracy": 0.5, "at_least": 100}}, {}], "phase 2 never begins"),
    ],
)
def test_a_phase_that_cannot_work_is_named(phases: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stage(*phases)


@pytest.mark.parametrize(
    "phases",
    [
        [{"until": {"step": 99}}, {}],
        [{"until": {"step": 100, "accuracy": 0.5}}, {}],  # accuracy may end it before
        [{"until": {"accuracy": 0.5, "at_least": 99}}, {}],
        [{"until": {"remaining": 100}}, {}],  # a short run begins with the second phase
    ],
)
def test_a_phase_that_may_begin_is_accepted(phases: list[dict[str, Any]]) -> None:
    assert len(stage(*phases).schedule) == 2


LINE = {"end": 300, "steps": 10}


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([{"ramp": {"optimizer.lr": LINE}}], "a schedule cannot change 'optimizer.lr'"),
        ([{"ramp": {"reward.weights": LINE}}], r"reward.weights is a block.*name one of it, reward.weights.<name>"),
        ([{"ramp": {"reward.weights.tone": LINE}}], "ramp.reward.weights.tone has no start"),
        ([{"ramp": {"pools.mix.gsm8k": LINE}}], "ramp.pools.mix.gsm8k has no start"),
        ([{"ramp": {"sampling.max_tokens": LINE}, "set": {"sampling.max_tokens": 9}}], "is in set and in ramp"),
        ([{"ramp": {"sampling.max_tokens": {"end": 300.5, "steps": 9}}}], "from 300.5: expected whole numbers"),
        ([{"ramp": {"sampling.max_tokens": {"end": 300, "steps": 1}}}], "greater than or equal to 2"),
        ([{"ramp": {"sampling.max_tokens": {"end": 300, "steps": True}}}], "found True: expected a number"),
        ([{"ramp": {"sampling.max_tokens": {"end": float("nan"), "steps": 9}}}], "finite"),
        ([{"ramp": {"sampling.max_tokens": {"to": 300, "steps": 9}}}], "[Ee]xtra inputs|end"),
        ([{"ramp": {"sampling.max_tokens": {"end": 9000, "steps": 9}}}], "phase 1, end of its ramps: token_budget is"),
        ([{"ramp": {"sampling.temperature": {"start": -1, "end": 1, "steps": 9}}}], "phase 1: sampling.temperature"),
        (
            [{"ramp": {"sampling.max_tokens": LINE}, "until": {"step": 9}}, {}],
            "phase 1: ramp.sampling.max_tokens takes 10 steps, but the phase has at most 9, so 300 is never reached",
        ),
        ([{"ramp": {"sampling.max_tokens": {"end": 300, "steps": 101}}}], "the phase has at most 100"),
    ],
)
def test_a_ramp_that_cannot_work_is_named(phases: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stage(*phases)


def test_a_ramp_of_the_batch_has_to_divide_in_every_step() -> None:
    ramp = {"ramp": {"problems_per_step": {"start": 8, "end": 64, "steps": 8}}}
    assert [p.problems_per_step for _, p in phases_of(stage(ramp))] == [8, 64]
    with pytest.raises(ValueError, match=r"ramps problems_per_step, whose values would not all divide into .* = 2"):
        stage(ramp, algorithm={"minibatches": 2})


def test_a_recipe_file_says_where(tmp_path) -> None:
    text = """\
name: s
task: countdown
stages:
  rl:
    kind: rl
    model: base
    schedule:
      - {set: {sampling.max_tokens: 300}, until: {stop: 3}}
"""
    with pytest.raises(ConfigError, match=r"s\.yaml:8.*stop"):
        parse_recipe(text, "s.yaml")
    fine = text.replace("stop", "step")
    recipe = parse_recipe(fine, "s.yaml")
    path = tmp_path / "again.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe
