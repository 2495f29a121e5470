"""Why this matters: a reward is composed in the recipe, so the recipe has to refuse what it cannot mean: a part that
does not exist, a schedule in which nothing is paid, a setting that would silently be another's.

Not exercised: what the parts compute (tests/rewards).
"""

from __future__ import annotations

from typing import get_args

import pytest

from r1kit.config import ConfigError, OverlongSettings, Recipe, RewardSettings, dump_recipe, parse_recipe
from r1kit.config.reward_parts import PARTS, PRESETS, AccuracyPart, CosinePart, Kind, OverlongPart, UserPart

RECIPE = """\
name: small
task: countdown
stages:
  base: {kind: pretrain, tokens: 4096, warmup_steps: 0}
  rl:
    kind: rl
    model: "${base}"
    steps: 20
    reward:
      parts:
        accuracy: 1
        cosine: {weight: 0.5}
        mine: {function: "mine.py:f"}
"""


def load(*overrides: str) -> Recipe:
    return parse_recipe(RECIPE, "small.yaml", overrides)


def reward(*overrides: str) -> RewardSettings:
    settings = load(*overrides).stages["rl"].reward
    assert isinstance(settings, RewardSettings)
    return settings


def test_parts_alone_are_all_there_is() -> None:
    parts = reward().resolved()
    assert reward().kind == "custom"
    assert list(parts) == ["accuracy", "cosine", "mine"]
    assert parts["accuracy"] == AccuracyPart(part="accuracy", weight=1.0)
    assert parts["cosine"] == CosinePart(part="cosine", weight=0.5)
    assert parts["mine"] == UserPart(part="user", function="mine.py:f")
    assert reward().functions == ["mine.py:f"]


def test_nothing_said_is_tinyzero_and_the_old_forms_hold() -> None:
    parts = RewardSettings().resolved()
    assert {name: part.weight for name, part in parts.items()} == {"accuracy": 1.0, "format": 0.1}
    parts = RewardSettings(kind="r1_zero", weights={"format": 0.2, "overlong": 3}).resolved()
    assert {name: part.weight for name, part in parts.items()} == {"accuracy": 1.0, "format": 0.2}
    parts = RewardSettings(overlong=OverlongSettings(buffer=9), weights={"overlong": 3}).resolved()
    assert parts["overlong"] == OverlongPart(part="overlong", weight=3, buffer=9)


def test_a_part_named_again_keeps_what_its_kind_set() -> None:
    """Whatever was said, once or read back from the resolved recipe."""
    first = load("rl.reward={kind: dapo, parts: {accuracy: {weight: 2}, cosine: 0.1}}")
    again = parse_recipe(dump_recipe(first), "resolved.yaml")
    for recipe in (first, again):
        parts = recipe.stages["rl"].reward.resolved()
        assert list(parts) == ["accuracy", "overlong", "cosine"]
        assert (parts["accuracy"].weight, parts["accuracy"].wrong) == (2.0, -1.0)


def test_a_name_of_the_kind_may_be_given_to_another_part() -> None:
    """Its settings are then not the kind's."""
    parts = reward(
        "rl.reward={kind: dapo, parts: {accuracy: {part: cosine}, overlong: {function: 'a.py:f'}}}"
    ).resolved()
    assert parts["accuracy"] == CosinePart(part="cosine")
    assert parts["overlong"] == UserPart(part="user", function="a.py:f")


@pytest.mark.parametrize("kind", get_args(Kind)[:-1])
def test_every_kind_reads_back_as_it_was(kind: str) -> None:
    recipe = load(f"rl.reward={{kind: {kind}}}", "rl.steps=400")
    assert parse_recipe(dump_recipe(recipe), "resolved.yaml") == recipe
    assert list(recipe.stages["rl"].reward.resolved()) == list(PRESETS[kind])


def test_kinds_and_presets_are_the_same_names() -> None:
    assert set(get_args(Kind)) == set(PRESETS)
    assert all(model.model_fields["part"].is_required() for model in PARTS.values())


@pytest.mark.parametrize(
    ("override", "place", "told"),
    [
        ("rl.reward.parts.cosin={}", ".parts.cosin:", "no part 'cosin' (did you mean \"cosine\"?)"),
        ("rl.reward.parts.cosine.wieght=1", ".parts.cosine.wieght:", 'such setting (did you mean "weight"?)'),
        ("rl.reward.parts.x={part: overlonk}", ".parts.x:", 'did you mean "overlong"?'),
        ("rl.reward.parts.x={part: [format]}", ".parts.x:", "no part ['format']"),
        ("rl.reward.parts.cosine.weight=much", ".parts.cosine.weight is 'much'", "expected a valid number"),
        ("rl.reward.parts.cosine.weight=.inf", ".parts.cosine.weight is inf", "finite"),
        ("rl.reward.parts.cosine=true", ".parts.cosine:", "expected a weight, or settings"),
        ("rl.reward.parts.a-b={part: format}", ".parts.a-b:", "letters, digits and _"),
        ("rl.reward.parts.x={part: reward_model}", ".parts.x.source is missing", ""),
        ("rl.reward.parts.random={probability: 2}", ".parts.random.probability is 2", "less than or equal to 1"),
        ("rl.reward.parts.format={to_step: 3, last_steps: 4}", ".parts.format:", "give one or the other"),
        ("rl.reward.parts.format={from_step: 5, to_step: 4}", ".parts.format:", "never paid"),
        ("rl.reward.kind=dappo", ".kind is 'dappo'", 'did you mean "dapo"?'),
        ("rl.reward.weights.acuracy=1", ".reward:", 'did you mean "accuracy"?'),
        ("rl.reward={kind: custom}", ".reward:", "name at least one part"),
        ("rl.reward={kind: dapo, overlong: {buffer: 9}}", ".reward:", "set parts.overlong instead"),
        ("rl.reward.parts.format={from_step: 21}", "stages.rl:", "paid in steps 21 to 20, but the stage has 20"),
        ("rl.reward.parts.format={last_steps: 21}", "stages.rl:", "paid in steps 0 to 20"),
        ("rl.reward.parts={accuracy: {from_step: 9}, format: {to_step: 7}}", "stages.rl:", "paid in step 8"),
        ("rl.reward.parts.overlong={buffer: 241}", "stages.rl:", "longer than the cap of 240 tokens"),
    ],
)
def test_refusals_say_where_and_what(override: str, place: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(override)
    message = str(caught.value)
    assert place in message
    assert told in message
    assert len(message.splitlines()) == 1


def test_phases_are_the_steps_at_which_something_changes() -> None:
    assert reward().phases(20) == [1]
    changing = reward("rl.reward.parts.format={last_steps: 5}", "rl.reward.parts.tag_count={from_step: 2, to_step: 3}")
    assert changing.phases(20) == [1, 2, 4, 16]
