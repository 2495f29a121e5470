"""Pre-flight of training data: the files are there, their first rows can be read, and they fit the model's tokens.

What the stage would find after the stages before it have run for hours is looked for in the first rows, in a moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.config.errors import UserError
from r1kit.config.graph import stage_paths
from r1kit.config.preference import PreferenceSettings
from r1kit.config.schema import Recipe
from r1kit.config.supervised import SFTSettings
from r1kit.pipeline.lengths import root_model

if TYPE_CHECKING:
    from r1kit.models.conversation import ConversationEncoder
    from r1kit.tasks.traces import GoodRows

ROWS = 256


def data_checks(recipe: Recipe) -> Iterator[tuple[str, bool, str]]:
    """(what was looked at, whether it holds, what was found) for every data set that no stage of the recipe makes."""
    for name, stage in recipe.stages.items():
        paths = stage_paths(stage)
        for index, data in enumerate(getattr(stage, "data", ())):
            if f"data[{index}].path" in paths:
                what = f"{name}: data[{index}]"
                try:
                    yield what, True, _looked_at(recipe, name, stage, data)
                except (UserError, ValueError) as error:
                    yield what, False, str(error)


def _looked_at(recipe: Recipe, name: str, stage: Any, data: Any) -> str:
    """The first rows of a data set, in words. UserError or ValueError where they cannot be trained on."""
    reading = _reading(stage, data)
    traces = list(islice(reading, ROWS))
    reading.require_rows()
    found = f"{data.path}: {len(traces)} of its first {reading.read} rows can be used"
    if not isinstance(stage, SFTSettings):
        return found
    encoder = _encoder(root_model(recipe, name), stage)
    if encoder is None:
        return found
    lengths = [len(stream) for trace in traces for stream in encoder.streams(trace.messages)]
    longer = sum(length > stage.max_tokens for length in lengths)
    if longer == len(lengths) and stage.too_long == "drop":
        raise ValueError(f"{found}, but all are longer than max_tokens {stage.max_tokens}: raise it, or too_long: cut")
    shown = f"; {longer} longer than max_tokens {stage.max_tokens}, {stage.too_long}" if longer else ""
    return f"{found}, to {max(lengths)} tokens{shown}"


def _reading(stage: Any, data: Any) -> GoodRows[Any]:
    """The rows of a data set in the form that the stage learns from."""
    from r1kit.tasks.step_labels import StepReading
    from r1kit.tasks.traces import read_labelled, read_pairs, read_traces

    if isinstance(stage, SFTSettings):
        return read_traces(data)
    if isinstance(stage, PreferenceSettings):
        return read_labelled(data) if stage.takes_labels else read_pairs(data)
    if stage.method == "process":
        return StepReading(data)
    return read_pairs(data) if stage.method == "pairwise" else read_labelled(data)


def _encoder(model: Path | None, stage: SFTSettings) -> ConversationEncoder | None:
    """What turns conversations into the tokens of this stage; None where the model is not on this machine yet."""
    from r1kit.models.conversation import ConversationEncoder
    from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
    from r1kit.training.supervised import prepared_tokenizer

    if model is None:
        return ConversationEncoder(build_tiny_tokenizer(), stage.thinking)
    if not (model / "config.json").is_file():
        return None
    return ConversationEncoder(prepared_tokenizer(model, stage)[0], stage.thinking)
