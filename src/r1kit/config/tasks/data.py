"""Settings of the tasks whose questions and answers lie in files.

What each verifier reads and refuses is in docs/verifiers*.md, what the templates say in docs/tasks.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from r1kit.config.data_path import DataPath
from r1kit.config.fields import Number, Positive, Settings
from r1kit.config.suggest import nearest
from r1kit.config.tasks.questions import QuestionSettings

Kind = Literal["exact", "regex", "integer", "math", "choice", "code", "instructions", "countdown", "knights_knaves"]


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Paths = Annotated[tuple[DataPath, ...], BeforeValidator(_as_list)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


class QuestionColumns(Settings):
    """Names of a file's columns, where they are not those of published sets."""

    problem: Names = Field((), description="the question; several columns are joined by line breaks")
    answer: str | None = Field(None, description="the right answer; of code without a published form: the tests")
    options: Names = Field((), description="choice: a column of lists, or one column for each option")
    reference: str | None = Field(None, description="code: a right solution, or a list of them")
    id: str | None = Field(
        None, description="name of the problem; none: id, problem_id, unique_id, task_id or the line"
    )
    split: str | None = Field(None, description="train, test (or validation, dev, eval)")
    difficulty: str | None = Field(None, description="a number, or a text with one in it such as Level 5")
    family: str | None = Field(None, description="problems of one family are on one side of the split")

    @property
    def named(self) -> tuple[str, ...]:
        """Every column that is named here."""
        single = (self.answer, self.reference, self.id, self.split, self.difficulty, self.family)
        return (*self.problem, *self.options, *(name for name in single if name is not None))


class DataTaskSettings(QuestionSettings):
    """Questions and answers from files."""

    data: Paths = Field((), description="one file or several: .jsonl, .json, .csv, .tsv (also .gz, .zst), .parquet")
    test_data: Paths = Field((), description="held-out questions; none: by columns.split, or test_share of data")
    columns: QuestionColumns = Field(default_factory=QuestionColumns)
    policy: dict[str, Any] = Field(default_factory=dict, description="rules of the verifier, such as {units: drop}")
    bad_rows: Literal["fatal", "skip"] = Field(
        "fatal", description="a row that cannot be read or whose answer does not verify: stop, or leave it out, counted"
    )
    train_difficulty: tuple[Number, Number] | None = Field(
        None, description="train only on problems whose difficulty lies in [least, most]"
    )

    @property
    def data_files(self) -> tuple[str, ...]:
        return (*self.data, *self.test_data)

    @model_validator(mode="after")
    def _some_data(self) -> DataTaskSettings:
        if not self.data_files:
            raise ValueError("data is empty: name a file of questions and answers, or test_data to only evaluate")
        if self.test_data and self.columns.split:
            raise ValueError("test_data and columns.split are both set: one of them says what is held out; leave one")
        if self.train_difficulty and self.train_difficulty[0] > self.train_difficulty[1]:
            raise ValueError(f"train_difficulty is {list(self.train_difficulty)}: expected [least, most]")
        return self


class ChoiceOptions(Settings):
    """How options are shown."""

    permute: bool = Field(True, description="choice: options in an order drawn for each problem from seed and its id")


class CodeOptions(Settings):
    """How programs are judged. Where they run, and what they may use, says the recipe's `sandbox`."""

    language: str = Field("python", description="of the programs asked for: python, cpp or c; functions are Python")
    scoring: Literal["pass_fail", "partial", "weighted"] | None = Field(
        None, description="how tests become a score; none: as the data says, else pass_fail"
    )
    check_references: bool = Field(
        False, description="run every reference solution at the start; without it r1kit check runs a sample"
    )


class JudgeModelSettings(Settings):
    """A model behind an OpenAI-compatible endpoint. It is asked last, what the tiers before it leave open."""

    url: str = Field(description="base of the endpoint, such as http://localhost:8000/v1")
    model: str = Field(min_length=1, description="name of the model at the endpoint")
    key_variable: str = Field("OPENAI_API_KEY", description="environment variable that holds the key")
    seconds: Positive = Field(30.0, description="without an answer after these the model has no say")

    @field_validator("url")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r}: expected http:// or https://, such as http://localhost:8000/v1")
        return value


class MathSettings(DataTaskSettings):
    """Questions with a mathematical answer."""

    name: Literal["math"] = "math"
    judge_model: JudgeModelSettings | None = Field(None, description="a model to ask what other tiers leave open")


class ChoiceSettings(DataTaskSettings, ChoiceOptions):
    """Multiple choice."""

    name: Literal["choice"] = "choice"


class InstructionSettings(DataTaskSettings):
    """Instructions whose following can be checked (IFEval's kinds)."""

    name: Literal["instruction"] = "instruction"


class CodeSettings(DataTaskSettings, CodeOptions):
    """Programs judged by tests in the sandbox."""

    name: Literal["code"] = "code"


class FileSettings(DataTaskSettings, ChoiceOptions, CodeOptions):
    """Your own questions and answers, judged by the verifier you name."""

    name: Literal["file"] = "file"
    verifier: str = Field(
        description=f"{', '.join(get_args(Kind))}, or your own function, module:function or path/to/file.py:function"
    )

    @property
    def own_verifier(self) -> str | None:
        return self.verifier if ":" in self.verifier else None

    @field_validator("verifier")
    @classmethod
    def _known(cls, value: str) -> str:
        kinds = get_args(Kind)
        if ":" not in value and value not in kinds:
            raise ValueError(
                f"{value!r}{nearest(value, kinds)}: expected one of {', '.join(kinds)}, or a function of your own, "
                "module:function or path/to/file.py:function"
            )
        return value
