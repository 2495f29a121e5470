"""Settings of a data file that is trained on: where it lies, which columns hold what, and what a bad row means."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from r1kit.config.data_path import DataPath
from r1kit.config.fields import Count, Settings

ThinkingIn = Literal["auto", "think", "think_answer", "s1", "sky_t1", "as_is"]
ThinkingOut = Literal["think", "think_answer", "s1", "sky_t1", "drop"]


class ColumnSettings(Settings):
    """Names of a file's columns, where they are not those of a published form (docs/data-formats.md)."""

    messages: str | None = Field(None, description="a conversation: a list of turns")
    system: str | None = Field(None, description="system prompt")
    prompt: str | None = Field(None, description="question or instruction, or a list of turns")
    input: str | None = Field(None, description="a further part of the prompt (Alpaca); marked steps (Math-Shepherd)")
    reasoning: str | None = Field(None, description="the thought, where it stands apart from the answer")
    response: str | None = Field(None, description="what the assistant says")
    chosen: str | None = Field(None, description="the better response of a pair")
    rejected: str | None = Field(None, description="the worse response of a pair")
    label: str | None = Field(
        None, description="true where a single response is wanted (KTO); a labeller's work (PRM800K, Math-Shepherd)"
    )
    steps: str | None = Field(None, description="the steps of a solution: a list of texts")
    labels: str | None = Field(None, description="for each step a number in [0, 1], such as its share of right ends")
    ratings: str | None = Field(None, description="for each step a person's 1 (good), 0 (neutral) or -1 (bad)")
    id: str | None = Field(None, description="name of the row")


class DataSettings(Settings):
    """One data set: JSON, JSON lines, CSV, TSV or Parquet, or a directory of such files."""

    path: DataPath = Field(
        description="a file, a directory or ${stage}; relative to the recipe; ~ and $VARIABLE are replaced"
    )
    columns: ColumnSettings = Field(default_factory=ColumnSettings)
    system: str | None = Field(None, description="system prompt of the rows that have none")
    thinking: ThinkingIn = Field(
        "auto", description="how a thought is marked in the text; auto knows all, as_is leaves the text alone"
    )
    bad_rows: Literal["fatal", "skip"] = Field(
        "fatal", description="a row that cannot be used: stop, or go on, counted"
    )
    max_rows: Count | None = Field(None, description="read at most this many good rows; none: all")
