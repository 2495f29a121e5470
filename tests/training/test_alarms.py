"""Each alarm on series made up to go wrong, and on healthy ones.

Why this matters: an alarm that never fires is a comfort without cause; one that fires on every run is switched off.

Not exercised here: what the stage does about it (test_rollback.py), and where the numbers come from (test_monitors.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from r1kit.config.alarms import AlarmSettings
from r1kit.dashboard.glossary import entry_of
from r1kit.training.alarms import CONDITIONS, Alarm, Alarms

Row = dict[str, float]
HEALTHY: Row = {
    "entropy": 0.8,
    "one_token": 0.15,
    "response_tokens": 120.0,
    "accuracy": 0.3,
    "reward": 0.35,
    "format": 0.6,
    "truncated": 0.1,
    "groups_sampled": 32,
    "groups_failed": 0,
    "useful_groups": 0.6,
    "all_right": 0.1,
    "all_wrong": 0.3,
}


def rows(*parts: tuple[int, Mapping[str, float]]) -> list[Row]:
    return [{**HEALTHY, **changes} for count, changes in parts for _ in range(count)]


def raised(series: Iterable[Row], evaluations: Mapping[int, Row] | None = None, **settings: Any) -> list[Alarm]:
    """Alarms over a series, the state going through JSON after each step as if every step were resumed."""
    s = AlarmSettings.model_validate(settings)
    alarms, fired = Alarms(s, {}), []
    for step, row in enumerate(series, start=1):
        fired += alarms.observe(step, row, (evaluations or {}).get(step))
        alarms = Alarms(s, json.loads(json.dumps(alarms.state())))
    return fired


def only(name: str, series: Iterable[Row], evaluations: Mapping[int, Row] | None = None, **settings: Any) -> Alarm:
    (alarm,) = raised(series, evaluations, **settings)
    assert (alarm.name, alarm.action) == (name, "warn")
    assert alarm.message.startswith(f"{name} after step {alarm.step}: ")
    assert all(entry_of(number) for number in alarm.numbers)
    return alarm


def test_a_healthy_run_is_quiet() -> None:
    """Length grows, entropy halves, accuracy and format rise: what RL is meant to do."""
    series = [
        {**HEALTHY, "entropy": 0.8 - i / 100, "response_tokens": 60.0 + 4 * i, "accuracy": 0.05 + i / 60,
         "reward": 0.1 + i / 60, "format": 0.5 + i / 100}
        for i in range(40)
    ]  # fmt: skip
    evaluations = {10: {"pass@1": 0.2}, 20: {"pass@1": 0.35}, 30: {"pass@1": 0.33}, 40: {"pass@1": 0.5}}
    assert raised(series, evaluations) == []


def test_entropy_collapse() -> None:
    alarm = only("entropy_collapse", rows((10, {}), (20, {"entropy": 0.05})))
    assert alarm.step == 15  # the newest five steps are all of the collapsed ones
    assert dict(alarm.numbers) == pytest.approx({"entropy": 0.05, "entropy_start": 0.8})
    assert "entropy is 0.05 nats a token (mean of 5 steps), down from 0.8 at the start" in alarm.message


def test_one_token_repetition() -> None:
    alarm = only("one_token_repetition", rows((6, {}), (9, {"one_token": 0.97})))
    assert alarm.step == 9  # (2 x 0.15 + 3 x 0.97) / 5 = 0.64
    assert "64% of a response is one and the same token" in alarm.message


def test_length_collapse_unless_accuracy_rose() -> None:
    short = {"response_tokens": 20.0}
    alarm = only("length_collapse", rows((5, {}), (10, short)))
    assert (alarm.step, alarm.numbers["accuracy_rise"]) == (10, 0.0)
    assert raised(rows((5, {}), (10, {**short, "accuracy": 0.5}))) == []


def test_reward_hacking() -> None:
    """Train up, held-out down. The best evaluation is the one to compare with, and the second verifier counts."""
    series = rows((10, {}), (20, {"reward": 0.9}))
    evaluations = {5: {"pass@1": 0.3}, 10: {"pass@1": 0.4}, 20: {"pass@1": 0.38}, 30: {"pass@1": 0.2}}
    alarm = only("reward_hacking", series, evaluations)
    assert alarm.step == 30
    found = {"reward_rise": 0.55, "pass@1_fall": 0.2, "pass@1_best": 0.4}
    assert dict(alarm.numbers) == pytest.approx(found)
    second = {10: {"pass@1": 0.4, "pass@1_second": 0.4}, 20: {"pass@1": 0.9, "pass@1_second": 0.1}}
    assert only("reward_hacking", series, second).step == 20
    # Reward did not rise, or held-out results did not fall: nothing.
    assert raised(rows((30, {})), evaluations) == []
    assert raised(series, {10: {"pass@1": 0.4}, 30: {"pass@1": 0.39}}) == []


def test_all_zero_rewards() -> None:
    nothing = {"reward": 0.0, "accuracy": 0.0, "format": 0.0, "truncated": 1.0}
    alarm = only("all_zero_rewards", rows((12, nothing)))
    assert alarm.step == 10
    assert "(100% truncated, 0% well-formed)" in alarm.message
    # A step that carried groups filled has no reward; it is no zero.
    carried = {"groups_sampled": 0, "groups_failed": 0, "groups_trained": 4, "useful_groups": 0}
    assert [a.name for a in raised([*rows((9, nothing)), *[carried] * 5])] == []


@pytest.mark.parametrize("reward", [-1.0, -0.5])
def test_wrong_answers_that_cost_something_are_no_reward(reward: float) -> None:
    """Kinds dapo and simplerl: nothing is earned, and yet no reward is 0."""
    hopeless = {"reward": reward, "accuracy": 0.0}
    alarm = only("all_zero_rewards", rows((59, hopeless)))
    assert (alarm.step, alarm.numbers["reward"]) == (10, reward)
    assert f"no response was right and the mean reward never above 0, now {reward:g} " in alarm.message
    # A right one, or something earned by another part, is no such run.
    assert raised(rows((59, {"reward": reward, "accuracy": 0.01}))) == []
    assert raised([*rows((9, hopeless)), *rows((1, {"reward": 0.05, "accuracy": 0.0}))] * 5) == []
    # Where no verdict says what is right, costs are no sign of anything.
    unjudged = [{k: v for k, v in row.items() if k != "accuracy"} for row in rows((20, {"reward": reward}))]
    assert raised(unjudged) == []


def test_format_up_accuracy_down() -> None:
    hacked = {"format": 1.0, "accuracy": 0.02}
    alarm = only("format_up_accuracy_down", rows((6, {}), (14, hacked)))
    assert alarm.step == 10  # means over steps 6 to 10: 92 % well-formed, 7.6 % right
    assert alarm.numbers["accuracy_best"] == pytest.approx(0.3)
    # Where accuracy never was above the floor there was nothing to lose.
    assert raised(rows((6, {"accuracy": 0.03}), (14, {"format": 1.0, "accuracy": 0.01}))) == []


def test_no_useful_group() -> None:
    useless = {"useful_groups": 0.0, "all_right": 0.9, "all_wrong": 0.1}
    alarm = only("no_useful_group", rows((3, {}), (4, useless)))
    assert alarm.step == 4
    assert "in this step (90% all right, 10% all wrong)" in alarm.message
    patient = only("no_useful_group", rows((3, {}), (4, useless)), no_useful_group={"window": 3})
    assert patient.step == 6
    # Carried groups filled the step: no news about usefulness, and none that it is over.
    carried = {"groups_sampled": 0, "groups_trained": 4, "useful_groups": 0.0}
    assert raised(rows((5, carried))) == []
    later = rows((1, useless), (2, carried), (1, useless))
    assert only("no_useful_group", later, no_useful_group={"window": 2}).step == 4


UNJUDGED = {"groups_sampled": 8, "groups_failed": 8, "groups_trained": 0, "useful_groups": 0.0}
UNSAMPLED = {"groups_sampled": 0, "groups_failed": 0, "groups_trained": 0, "useful_groups": 0.0}


@pytest.mark.parametrize(
    ("row", "told"),
    [(UNJUDGED, "of the last 8 not one could be sampled and judged"), (UNSAMPLED, "nothing could be sampled in this")],
)
def test_a_run_that_trains_nothing_is_told(row: Row, told: str) -> None:
    """Its verifier is broken throughout, or every prompt too long: it would end as done, having learned nothing."""
    alone = [row] * 59
    alarm = only("no_useful_group", alone)
    assert alarm.step == 1
    assert told in alarm.message
    assert only("no_useful_group", alone, no_useful_group={"window": 4}).step == 4


def test_an_alarm_fires_again_only_after_it_was_over() -> None:
    useless = {"useful_groups": 0.0}
    assert [a.step for a in raised(rows((1, {}), (5, useless), (2, {}), (3, useless)))] == [2, 9]


def test_an_alarm_that_is_off_is_silent() -> None:
    assert raised(rows((5, {"useful_groups": 0.0})), no_useful_group={"action": "off"}) == []


def test_an_alarm_row_is_plain_json() -> None:
    (alarm,) = raised(rows((1, {"useful_groups": 0.0})))
    row = json.loads(json.dumps(alarm.row()))
    assert (row["alarm"], row["action"], row["useful_groups"]) == ("no_useful_group", "warn", 0.0)


def test_every_alarm_of_the_settings_has_a_condition() -> None:
    assert set(AlarmSettings().by_name()) == set(CONDITIONS)
