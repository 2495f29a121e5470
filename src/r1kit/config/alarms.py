"""What an RL stage watches for, and what it does when it sees it. `r1kit.training.alarms` holds the conditions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from r1kit.config.fields import Count, Natural, NonNegative, Off, Settings, Share

Action = Annotated[Literal["off", "warn", "pause", "rollback"], Off]
Factor = Annotated[float, Field(gt=0, le=1)]


class AlarmBase(Settings):
    """What every alarm has."""

    action: Action = Field("warn", description="off; warn; pause after the step; rollback to the last good checkpoint")
    window: Count = Field(5, description="steps whose mean is looked at")


class EntropyCollapse(AlarmBase):
    """Entropy has fallen to almost nothing: the policy says one thing and explores no more."""

    below: Share = Field(0.1, description="share of the entropy of the first steps")


class OneTokenRepetition(AlarmBase):
    """Responses are one token again and again ("!!!!")."""

    above: Share = Field(0.5, description="mean share of a response that is its commonest token")


class LengthCollapse(AlarmBase):
    """Responses have become much shorter, and no better."""

    below: Share = Field(0.3, description="share of the length of the first steps")
    gain: NonNegative = Field(0.05, description="a rise of training accuracy beyond this excuses it")


class RewardHacking(AlarmBase):
    """Reward in training rises while held-out accuracy falls."""

    gain: NonNegative = Field(0.05, description="rise of the training reward since the best evaluation")
    loss: NonNegative = Field(0.05, description="fall of held-out pass@1 below the best evaluation")


class AllZeroRewards(AlarmBase):
    """No right response and no mean reward above 0 for many steps: wrong template, broken verifier, or too hard."""

    window: Count = Field(10, description="steps in a row")


class FormatUpAccuracyDown(AlarmBase):
    """Well-formed and wrong: the policy lives on the format reward."""

    gain: NonNegative = Field(0.1, description="rise of the format share since the first steps")
    loss: Share = Field(0.5, description="fall of accuracy, as a share of its best window")
    floor: Share = Field(0.05, description="accuracy below this at its best is not looked at")


class NoUsefulGroup(AlarmBase):
    """No group whose rewards differ: all alike, all failed, or nothing could be sampled. Nothing to learn from."""

    window: Count = Field(1, description="steps in a row")


class RollbackSettings(Settings):
    """How a rolled-back stage goes on, so that it does not fall into the same hole."""

    limit: Natural = Field(2, description="rollbacks of a stage; the next alarm pauses instead")
    lr_factor: Factor = Field(0.5, description="the learning rate is multiplied by this at each rollback; 1 keeps it")
    new_seed: bool = Field(True, description="sample with other noise than the first time")


class AlarmSettings(Settings):
    """The alarms of a stage, by name."""

    entropy_collapse: EntropyCollapse = Field(default_factory=EntropyCollapse)
    one_token_repetition: OneTokenRepetition = Field(default_factory=OneTokenRepetition)
    length_collapse: LengthCollapse = Field(default_factory=LengthCollapse)
    reward_hacking: RewardHacking = Field(default_factory=RewardHacking)
    all_zero_rewards: AllZeroRewards = Field(default_factory=AllZeroRewards)
    format_up_accuracy_down: FormatUpAccuracyDown = Field(default_factory=FormatUpAccuracyDown)
    no_useful_group: NoUsefulGroup = Field(default_factory=NoUsefulGroup)
    rollback: RollbackSettings = Field(default_factory=RollbackSettings)

    def by_name(self) -> dict[str, AlarmBase]:
        """The alarms that are on."""
        every = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: alarm for name, alarm in every.items() if isinstance(alarm, AlarmBase) and alarm.action != "off"}

    @property
    def may_roll_back(self) -> bool:
        return any(alarm.action == "rollback" for alarm in self.by_name().values())
