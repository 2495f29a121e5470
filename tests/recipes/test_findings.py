"""The published findings in miniature, from nothing to their last measurement, made as small as they can be.

Why this matters: the arms of a finding may differ in the one thing that it is about; another setting that differs would
be taken for its effect.

Not exercised here: what the findings show (docs/results.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from r1kit.config import load_recipe
from r1kit.pipeline.catalog import find_recipe
from r1kit.pipeline.run import Options, run_recipe

ARMS: dict[str, dict[str, set[str]]] = {  # recipe -> arm -> settings in which it differs from the first
    "controls": {
        "truth": set(),
        "random": {"reward"},
        "inverted": {"reward"},
        "form": {"reward"},
        "one_example": {"problems", "problems_per_step", "samples_per_problem", "dynamic_sampling"},
    },
    "sizes": {"large_rl": set(), "medium_rl": {"model"}, "small_rl": {"model"}},
    "instruct": {"from_base": set(), "from_tuned": {"model"}},
    # prime asks for groups of which some are right: its dynamic sampling is the preset's own.
    "algorithms": {"grpo": set(), "ppo": {"algorithm"}, "prime": {"algorithm", "dynamic_sampling"}},
}
SLOW = ("sizes", "algorithms")  # no kind of stage that the others do not have
SMALLER = ["scale=smoke", "processes=1"]


def stages(name: str, *overrides: str) -> dict[str, Any]:
    return dict(load_recipe(find_recipe(f"findings/{name}"), list(overrides)).stages)


@pytest.mark.parametrize("name", ARMS)
def test_arms_differ_in_what_the_finding_is_about(name: str) -> None:
    arms = {arm: stages(name)[arm].model_dump() for arm in ARMS[name]}
    first = next(iter(arms.values()))
    found = {arm: {key for key, value in settings.items() if value != first[key]} for arm, settings in arms.items()}
    assert found == ARMS[name]


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_samples_as_much_and_is_measured_alike(name: str) -> None:
    rl = [stages(name)[arm] for arm in ARMS[name]]
    assert len({arm.problems_per_step * arm.samples_per_problem for arm in rl}) == 1
    measured = {
        stage.model: stage.model_dump(exclude={"model"}) for stage in stages(name).values() if stage.kind == "evaluate"
    }
    assert {f"${{{arm}}}" for arm in ARMS[name]} < set(measured)
    assert len({str(settings) for settings in measured.values()}) == 1


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in ARMS])
def test_the_whole_path(name: str, tmp_path: Path) -> None:
    bases = [stage for stage, settings in stages(name).items() if settings.kind == "pretrain"]
    smaller = [text for base in bases for text in (f"{base}.tokens=6000", f"{base}.warmup_steps=0")]
    recipe = load_recipe(find_recipe(f"findings/{name}"), [*SMALLER, *smaller])
    root = run_recipe(recipe, tmp_path / "run", Options(check=False, console=Console(quiet=True))).root
    for stage, settings in recipe.stages.items():
        if settings.kind == "evaluate":
            assert (root / "evaluations" / stage / "final.json").is_file()
