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
from r1kit.config.schema import Recipe
from r1kit.config.supervised import SFTSettings
from r1kit.pipeline.lengths import root_model

if TYPE_CHECKING:
    from r1kit.models.conversation import ConversationEncoder

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
    from r1kit.tasks.traces import data_files, read_traces

    if not isinstance(stage, SFTSettings):
        files = data_files(data.path)
        return f"{data.path}: {len(files)} file{'s' if len(files) > 1 else ''}"
    reading = read_traces(data)
    traces = list(islice(reading, ROWS))
    reading.require_rows()
    found = f"{data.path}: {len(traces)} of its first {reading.read} rows can be used"
    encoder = _encoder(root_model(recipe, name), stage)
    if encoder is None:
        return found
    lengths = [len(stream) for trace in traces for stream in encoder.streams(trace.messages)]
    longer = sum(length > stage.max_tokens for length in lengths)
    if longer == len(lengths) and stage.too_long == "drop":
        raise ValueError(f"{found}, but all are longer than max_tokens {stage.max_tokens}: raise it, or too_long: cut")
    shown = f"; {longer} longer than max_tokens {stage.max_tokens}, {stage.too_long}" if longer else ""
    return f"{found}, to {max(lengths)} tokens{shown}"


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
