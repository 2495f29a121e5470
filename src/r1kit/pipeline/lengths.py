"""Pre-flight of lengths: prompts in the tokens of the model that will read them, held to every limit of a stage.

A stage's own limits are its cap and token budget; the model adds the positions it knows. The tokenizer and the
positions are those of the model at the root of the stage's edges: a base that is made here, or a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from r1kit.config.data_path import expand
from r1kit.config.graph import main_model
from r1kit.config.schema import EvaluateSettings, PretrainSettings, Recipe, RLSettings, StageSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from r1kit.records import Problem

WITNESSES = 256


@dataclass(frozen=True)
class Lengths:
    """Of one root model: tokens of the longest prompt, of the longest bare right answer, and positions it knows.

    `unknown` counts prompts with a token the tokenizer does not have, `opened` those whose chat template opens a
    thought that the task does not know of, of `prompts` looked at.
    """

    prompt: int
    answer: int
    positions: int
    prompts: int
    unknown: int
    opened: int


def root_model(recipe: Recipe, name: str) -> Path | None:
    """The checkpoint that stage `name` goes back to; None where a pretrain stage makes its base."""
    upstream, path = main_model(recipe.stages[name])
    if upstream is not None:
        return root_model(recipe, upstream)
    return expand(path) if path is not None else None


def measured_lengths(
    model: Path | None, train: Sequence[Problem], test: Sequence[Problem], answers: Sequence[str]
) -> Lengths:
    """Lengths under the tokenizer of `model` (None: the tiny one); `answers` are bare right responses.

    The first problems of both splits and those with the longest text are looked at. Raises CheckpointError and
    PromptError as the run would.
    """
    from r1kit.models.chat import encode_prompt, stop_token_ids
    from r1kit.records import prompt_text
    from r1kit.tasks.templates import thinking_opened

    tokenizer, positions = _tokenizer(model)
    stop_token_ids(tokenizer)
    longest = nlargest(WITNESSES, chain(train, test), key=lambda p: len(prompt_text(p.prompt)) + len(p.prefill))
    looked_at = {p.id: p for p in (*islice(train, WITNESSES), *islice(test, WITNESSES), *longest)}
    prompts = [encode_prompt(tokenizer, problem) for problem in looked_at.values()]
    endings = [str(tokenizer.decode(prompt[-8:])).rstrip() for prompt in prompts]
    missing = tokenizer.unk_token_id
    return Lengths(
        prompt=max(map(len, prompts)),
        answer=max((len(tokenizer.encode(text, add_special_tokens=False)) for text in answers), default=0),
        positions=positions,
        prompts=len(prompts),
        unknown=sum(missing in prompt for prompt in prompts) if missing is not None else 0,
        opened=sum(
            ending.endswith("<think>") and not thinking_opened(problem)
            for ending, problem in zip(endings, looked_at.values(), strict=True)
        ),
    )


def _tokenizer(model: Path | None) -> tuple[PreTrainedTokenizerBase, int]:
    """The tokenizer of a checkpoint and the positions its model knows; of a tiny base for None."""
    from r1kit.models.checkpoint import read_config
    from r1kit.models.loading import load_tokenizer
    from r1kit.models.tiny import MAX_POSITIONS
    from r1kit.models.tiny_tokenizer import build_tiny_tokenizer

    if model is None:
        return build_tiny_tokenizer(), MAX_POSITIONS
    raw = read_config(model)
    positions = raw.get("max_position_embeddings") or raw.get("n_positions") or MAX_POSITIONS
    return load_tokenizer(model), int(positions)


def stage_lengths(name: str, stage: StageSettings, lengths: Lengths) -> Iterator[tuple[str, bool, str]]:
    """(what was looked at, whether it fits, what was found) for each length a stage asks for."""
    prompt, positions = lengths.prompt, lengths.positions
    if isinstance(stage, PretrainSettings) and stage.document_length > positions:
        yield (
            f"{name}: lengths",
            False,
            f"document_length {stage.document_length}, but a tiny base knows {positions} positions: lower it",
        )
    if isinstance(stage, RLSettings):
        cap, budget = stage.sampling.max_tokens, stage.token_budget
        yield (
            f"{name}: lengths",
            lengths.answer < cap and prompt + cap <= min(budget, positions),
            f"prompts to {prompt} tokens, a bare right response to {lengths.answer}, cap {cap}, "
            f"token_budget {budget}, positions {positions}"
            + _remedy(prompt + cap, {"token_budget": budget, "positions the model knows": positions}),
        )
    if isinstance(stage, EvaluateSettings):
        yield _evaluated(f"{name}: lengths", stage.max_tokens, lengths)
    if isinstance(stage, (PretrainSettings, RLSettings)) and stage.evaluate.every:
        yield _evaluated(f"{name}.evaluate: lengths", stage.evaluate.max_tokens, lengths)


def _evaluated(what: str, cap: int, lengths: Lengths) -> tuple[str, bool, str]:
    found = f"prompts to {lengths.prompt} tokens, cap {cap}, positions {lengths.positions}"
    needed = lengths.prompt + cap
    return (
        what,
        needed <= lengths.positions,
        found + _remedy(needed, {"positions the model knows": lengths.positions}),
    )


def _remedy(needed: int, limits: dict[str, int]) -> str:
    """`; prompt + cap is 700, over the 640 positions the model knows: ...`, or nothing where all limits hold."""
    over = [f"the {limit} {name}" for name, limit in limits.items() if needed > limit]
    return f"; prompt + cap is {needed}, over {' and '.join(over)}: lower the cap" if over else ""
