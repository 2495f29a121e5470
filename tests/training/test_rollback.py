"""Stages made to go wrong: an alarm warns, pauses or rolls back as the recipe says.

Why this matters: a rollback rewrites a run's past; done wrongly it loses what was good or trains on what was not, and
an alarm that cannot stop itself rolls back for ever.

Not exercised here: when an alarm fires (test_alarms.py); kill -9 in the middle (test_sigkill.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1kit.dashboard.glossary import entry_of
from r1kit.training import rl
from r1kit.training.checkpoints import CheckpointError, complete_checkpoints, latest_checkpoint, load_state
from r1kit.training.parallel import World
from r1kit.training.recorder import Paused, StageOutcome
from r1kit.training.rollback import GoodSteps, roll_back

from .stage import TASK, ListRecorder, even_tokens, stage_settings, write_base


class NotingRecorder(ListRecorder):
    """Also keeps what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, stage: str, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def no_reward_from(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From a step on nothing is ever rewarded: no group is useful any more."""

    def ruin(first: int) -> None:
        def reward(problem: Any, rollouts: Any, *, max_tokens: int, step: int) -> list[dict[str, float]]:
            good = even_tokens(problem, rollouts, max_tokens=max_tokens, step=step)
            return [{"accuracy": 0.0} for _ in good] if step >= first else good

        monkeypatch.setattr(rl, "make_reward", lambda settings, **_: reward)

    return ruin


def train(base: Path, directory: Path, recorder: ListRecorder, alarms: dict[str, Any], **changes: Any) -> StageOutcome:
    small: dict[str, Any] = {"steps": 5, "evaluate": {"every": 0}, "algorithm": {}, "samples_per_problem": 4}
    return rl.train_rl(
        stage_settings(**{**small, **changes}, alarms=alarms),
        stage="rl", model_path=base, task=TASK, seed=5, world=World.single(), recorder=recorder,
        directory=directory, dtype="float32",
    )  # fmt: skip


def short(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["step"], row["kind"]) + ((row["action"],) if row["kind"] == "alarm" else ())


def test_a_warning_changes_nothing(base: Path, tmp_path: Path, no_reward_from: Callable[[int], None]) -> None:
    no_reward_from(3)
    recorder = NotingRecorder()
    train(base, tmp_path / "warned", recorder, {})
    assert [short(row) for row in recorder.rows if row["step"] == 3] == [(3, "train"), (3, "alarm", "warn")]
    silent = ListRecorder()
    train(base, tmp_path / "silent", silent, {"no_useful_group": {"action": "off"}})
    assert silent.rows == [row for row in recorder.rows if row["kind"] != "alarm"]
    (said,) = [note for note in recorder.notes if note.startswith("alarm")]
    assert said.startswith("alarm: no_useful_group after step 3: no sampled group had different rewards in this step")
    assert said.endswith("(warn)")


def test_a_pause_stops_once_and_the_same_command_goes_on(
    base: Path, tmp_path: Path, no_reward_from: Callable[[int], None]
) -> None:
    no_reward_from(3)
    recorder, alarms = ListRecorder(), {"no_useful_group": {"action": "pause"}}
    with pytest.raises(Paused, match=r"rl: paused by no_useful_group after step 3: .* The same command goes on"):
        train(base, tmp_path, recorder, alarms, checkpoint_every=10)
    assert complete_checkpoints(tmp_path)[-1][0] == 3
    train(base, tmp_path, recorder, alarms, checkpoint_every=10)
    assert [short(row) for row in recorder.rows][-4:] == [
        (3, "train"),
        (3, "alarm", "pause"),
        (4, "train"),
        (5, "train"),
    ]


def test_rollbacks_are_counted_and_bounded(base: Path, tmp_path: Path, no_reward_from: Callable[[int], None]) -> None:
    """Twice back to step 1 with half the rate and other samples, then a pause; what it cost is in the ledger.

    Not to step 2: its policy is the one that sampled what the alarm saw in step 3.
    """
    no_reward_from(3)
    recorder, alarms = NotingRecorder(), {"no_useful_group": {"action": "rollback"}, "rollback": {"limit": 2}}
    with pytest.raises(Paused, match="2 rollbacks did not help"):
        train(base, tmp_path, recorder, alarms)
    later = [row for row in recorder.rows if row["step"] > 1]
    assert [short(row) for row in later] == [
        (2, "alarm", "rollback"), (2, "alarm", "rollback"), (2, "train"), (3, "train"), (3, "alarm", "pause")
    ]  # fmt: skip
    assert [(row["fired_at"], row["back_to"], row["lr_factor"]) for row in later[:2]] == [(3, 1, 0.5), (3, 1, 0.25)]
    words = ("stage", "kind", "step", "action", "message")
    assert [key for key in later[0] if key not in words and entry_of(key) is None] == []
    # Two steps of warm-up, then the full rate, a quarter of it now.
    assert later[3]["lr"] == pytest.approx(0.25 * 0.05)
    assert [note for note in recorder.notes if "rolls back" in note] == [
        f"rolls back from step 3 to step 1 ({n} of at most 2; learning rate x {f:g}, new seed)"
        for n, f in ((1, 0.5), (2, 0.25))
    ]
    _, state = load_state(complete_checkpoints(tmp_path)[-1][1])
    per_step = {row["step"]: row for row in recorder.rows if row["kind"] == "train"}
    kept = sum(per_step[n]["tokens_sampled"] for n in (1, 2, 3))
    assert state["tokens"]["sampled"] > kept  # two attempts at steps 2 and 3 were taken back
    assert state["tokens"]["sampled"] == state["tokens"]["trained"] + state["tokens"]["discarded"]


def test_new_noise_or_the_same(base: Path, tmp_path: Path, no_reward_from: Callable[[int], None]) -> None:
    no_reward_from(3)

    def third_step(name: str, alarms: dict[str, Any]) -> dict[str, Any]:
        recorder = ListRecorder()
        with pytest.raises(Paused):
            train(base, tmp_path / name, recorder, alarms)
        return next(row for row in recorder.rows if (row["step"], row["kind"]) == (3, "train"))

    never = third_step("never", {"no_useful_group": {"action": "pause"}})
    back: dict[str, Any] = {"action": "rollback"}
    same = third_step("same", {"no_useful_group": back, "rollback": {"limit": 1, "new_seed": False, "lr_factor": 1}})
    other = third_step("other", {"no_useful_group": back, "rollback": {"limit": 1, "lr_factor": 1}})
    assert same == never
    assert other["lr"] == never["lr"]
    assert other != never


def test_a_stage_can_go_back_to_its_start(base: Path, tmp_path: Path, no_reward_from: Callable[[int], None]) -> None:
    no_reward_from(1)
    recorder = ListRecorder()
    alarms = {"no_useful_group": {"action": "rollback"}, "rollback": {"limit": 1}}
    with pytest.raises(Paused):
        train(base, tmp_path, recorder, alarms, evaluate={"every": 5, "problems": 2, "samples": 1, "max_tokens": 6})
    # Evaluated once before the first step, although the first step was done twice.
    assert [short(row) for row in recorder.rows] == [
        (0, "eval"), (1, "alarm", "rollback"), (1, "train"), (1, "alarm", "pause")
    ]  # fmt: skip


def test_a_good_checkpoint_stays_however_old(base: Path, tmp_path: Path, no_reward_from: Callable[[int], None]) -> None:
    no_reward_from(99)
    alarms = {"all_zero_rewards": {"action": "rollback", "window": 3}}
    train(base, tmp_path, ListRecorder(), alarms, keep_checkpoints=1)
    # An alarm with a window of 3 steps that fires after step 5 needs step 1, one after step 6 needs step 2.
    assert [step for step, _ in complete_checkpoints(tmp_path)] == [1, 2, 3, 4, 5]
    assert load_state(complete_checkpoints(tmp_path)[-1][1])[1]["good"] == [1, 2, 3, 4, 5]


def test_the_edited_checkpoint_is_whole(base: Path, tmp_path: Path, no_reward_from: Callable[[int], None]) -> None:
    no_reward_from(99)
    train(base, tmp_path, ListRecorder(), {}, keep_checkpoints=9)
    before = {p.name: p.read_bytes() for p in (tmp_path / "step-000003").iterdir()}
    roll_back(tmp_path, 3, lambda state: {**state, "lr_factor": 0.125})
    assert [step for step, _ in complete_checkpoints(tmp_path)] == [1, 2, 3]
    newest = latest_checkpoint(tmp_path)  # its manifest is checked
    assert newest is not None
    after = {p.name: p.read_bytes() for p in newest.iterdir()}
    assert {n for n in before if before[n] != after[n]} == {"trainer.json", "COMPLETE"}
    assert load_state(newest)[1] == {**json.loads(before["trainer.json"]), "lr_factor": 0.125}
    (newest / "trainer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"trainer\.json"):
        latest_checkpoint(tmp_path)


def test_which_step_is_good() -> None:
    good = GoodSteps(window=5)
    assert good.before(3) is None
    for step, quiet in ((0, True), (2, True), (4, True), (6, False), (8, True), (10, True)):
        good.saved(step, quiet=quiet)
    assert good.steps == [4, 8, 10]
    assert (good.before(11), good.before(13), good.before(14), good.before(30)) == (4, 4, 8, 10)
    # Nothing is old enough: the oldest there is.
    assert GoodSteps(5, [7, 8]).before(9) == 7
