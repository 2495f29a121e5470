"""Why this matters: an alarm that was meant to stop a run and only warns costs the run; the recipe has to say what it
means.

Not exercised: when alarms fire (tests/training/test_alarms.py).
"""

from __future__ import annotations

import pytest

from r1kit.config import parse_recipe
from r1kit.config.alarms import AlarmSettings
from r1kit.config.mismatch import MismatchSettings
from r1kit.config.rl import RLSettings

RECIPE = """\
name: s
task: countdown
stages:
  rl:
    kind: rl
    model: base
    mismatch: {correction: off}
    evaluate: {verifier: off}
    alarms: {entropy_collapse: {action: off}, no_useful_group: {action: rollback, window: 3}}
"""


def test_a_bare_off_is_the_word() -> None:
    stage = parse_recipe(RECIPE, "s.yaml").stages["rl"]
    assert isinstance(stage, RLSettings)
    assert (stage.mismatch.correction, stage.evaluate.verifier) == ("off", "off")
    assert "entropy_collapse" not in stage.alarms.by_name()
    assert stage.alarms.no_useful_group.window == 3
    assert stage.alarms.may_roll_back


def test_every_alarm_warns_by_default() -> None:
    assert {alarm.action for alarm in AlarmSettings().by_name().values()} == {"warn"}
    assert not AlarmSettings().may_roll_back


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"entropy_colapse": {}}, "Extra inputs"),
        ({"entropy_collapse": {"action": "stop"}}, "'off', 'warn', 'pause' or 'rollback'"),
        ({"rollback": {"lr_factor": 0}}, "greater than 0"),
        ({"no_useful_group": {"window": 0}}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AlarmSettings.model_validate(settings)


def test_waiting_groups_have_to_be_carried() -> None:
    with pytest.raises(ValueError, match="when_short is wait but carry is false"):
        RLSettings.model_validate({"model": "base", "dynamic_sampling": {"when_short": "wait", "carry": False}})


def test_a_masked_response_is_not_the_shortest() -> None:
    algorithm = {"group_filter": {"kind": "gfpo", "keep": 4}}
    with pytest.raises(ValueError, match="a masked one would count as the shortest"):
        RLSettings.model_validate({"model": "b", "algorithm": algorithm, "dynamic_sampling": {"truncated": "mask"}})


def test_sampling_that_would_bias_training_is_refused_in_every_phase() -> None:
    for name, value in (("top_p", 0.9), ("top_k", 5), ("min_p", 0.1)):
        with pytest.raises(ValueError, match=f"sampling.{name} is {value}: RL trains the full distribution"):
            RLSettings.model_validate({"model": "base", "sampling": {name: value}})
        with pytest.raises(ValueError, match="a schedule cannot change"):
            RLSettings.model_validate({"model": "base", "schedule": [{"set": {f"sampling.{name}": value}}]})


def test_a_correction_is_one_of_the_published() -> None:
    with pytest.raises(ValueError, match="token_tis"):
        MismatchSettings.model_validate({"correction": "tis"})
