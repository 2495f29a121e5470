"""What the settings of every task have: its name, the held-out split, caps, and a judge of the user's own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from r1kit.config.fields import Count, Natural, Settings


class TaskSettings(Settings):
    """What every task has."""

    name: str
    test_share: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="share of families held out for tests")
    seed: Natural = Field(0, description="salt of the split and of the order of problems")
    train_problems: Count | None = Field(None, description="cap on training problems; none: all, or the task's default")
    test_problems: Count | None = Field(None, description="cap on held-out problems; none: all, or the task's default")
    verifier: str | None = Field(
        None, description="your own judge of answers, module:function or path/to/file.py:function; none: the task's"
    )

    @property
    def own_verifier(self) -> str | None:
        """Import path of the user's own judge, where there is one."""
        return self.verifier

    @property
    def data_files(self) -> tuple[str, ...]:
        """The files problems are read from, as the recipe names them."""
        return ()
