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
    found = [(p.sampling.max_tokens, p.samples_per_problem, p.algorithm.kl_coef) for p in phases_of(s)]
    assert found == [(300, 4, 0.0), (600, 4, 0.0), (600, 4, 0.1)]
    assert phases_of(s)[2].reward.resolved()["format"].weight == 0.0
    assert phases_of(stage()) == [stage()]


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
    ],
)
def test_a_phase_that_cannot_work_is_named(phases: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stage(*phases)


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
