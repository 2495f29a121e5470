"""Settings of the sandbox that runs programs of a model: which tier, how many at a time, what a program may use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from r1kit.config.fields import Count, Positive, Settings

Tier = Literal["auto", "bubblewrap", "unshare", "bubblewrap-single", "landlock", "rlimits"]
LibraryName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
MIB = 1 << 20


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class SandboxLimits(Settings):
    """What one program may use, in place of what its problem says. Unset: the problem's own."""

    cpu_seconds: Positive | None = Field(None, description="CPU time of all its processes")
    wall_seconds: Positive | None = Field(None, description="time it may sleep; unset: 10 x cpu_seconds + 10")
    memory_mb: Count | None = Field(None, description="memory of all its processes, in MiB")
    output_mb: Count | None = Field(None, description="standard output, in MiB")
    disk_mb: Count | None = Field(None, description="its temporary file system, in MiB")
    processes: Count | None = Field(None, description="processes and threads at a time")

    def changes(self) -> dict[str, float | int]:
        """The limits that are set, in the words of `r1kit.sandbox.Limits`, which counts bytes."""
        stated = self.model_dump(exclude_none=True)
        return {
            name.replace("_mb", "_bytes"): value * MIB if "_mb" in name else value for name, value in stated.items()
        }


class SandboxSettings(Settings):
    """Where programs of a model run. Read only where a task runs some."""

    tier: Tier = Field("auto", description="auto: the best that a probe proves here; a name: that one or nothing")
    allow_unsafe: bool = Field(
        False, description="accept the tier rlimits, in which programs read your files and use the network"
    )
    isolation: Literal["private", "shared"] = Field(
        "private", description="shared: the programs of one worker share its namespaces; faster, two defences thinner"
    )
    workers: Count | None = Field(None, description="programs at a time; unset: the cores this process may use")
    libraries: Annotated[tuple[LibraryName, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="installed Python libraries that programs may import beside the standard one, such as numpy"
    )
    limits: SandboxLimits = Field(default_factory=SandboxLimits)

    @model_validator(mode="after")
    def _unsafe_by_name(self) -> SandboxSettings:
        if self.tier == "rlimits" and not self.allow_unsafe:
            raise ValueError("tier is rlimits, which isolates nothing: set allow_unsafe: true as well to accept that")
        return self
