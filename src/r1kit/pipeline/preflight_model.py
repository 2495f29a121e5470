"""Pre-flight of a checkpoint that an rl stage starts from: its tags were trained, and its responses can end.

New bases hold tokens that no training ever touched (`<think>` of some of them); RL from such a base yields nonsense.
And a chat model whose turns end with another token than the one sampling stops at runs every response into the cap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from r1kit.tasks.thinking import STYLES

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from r1kit.records import Problem

Finding = tuple[str, bool, str]
TAGS = tuple(dict.fromkeys(token for style in STYLES.values() for token in style.tokens))
EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight", "gpt_neox.embed_in.weight", "embed_tokens.weight")
HEADS = ("lm_head.weight", "embed_out.weight")
# A trained row has about the usual norm; rows that were never touched kept a far smaller one, or one common value.
NORM_SHARE, SAME = 0.3, 0.02
SAMPLED_ROWS = 512


def model_checks(model: Path, problems: Sequence[Problem], texts: Sequence[str]) -> Iterator[Finding]:
    """(what was looked at, whether it holds, what was found); `texts` are right responses, whose tags are wanted.

    CheckpointError where there is no tokenizer that can be read.
    """
    from r1kit.models.checkpoint import CheckpointError
    from r1kit.models.loading import load_tokenizer

    tokenizer = load_tokenizer(model)
    wanted = [tag for tag in TAGS if any(tag in text for text in texts) or any(tag in p.prefill for p in problems)]
    try:
        found = [_tags(model, tokenizer, wanted), _stop(model, tokenizer, problems[0])]
    except CheckpointError as error:
        found = [(f"weights of {model}", False, str(error))]
    yield from found


def _tags(model: Path, tokenizer: PreTrainedTokenizerBase, wanted: Sequence[str]) -> Finding:
    title = f"tags of {model}"
    single = {tag: ids[0] for tag in wanted if len(ids := tokenizer.encode(tag, add_special_tokens=False)) == 1}
    if not single:
        return title, True, "spelled with ordinary tokens" if wanted else "not looked at: no tag is asked for"
    bad: list[str] = []
    for names in (EMBEDDINGS, HEADS):
        rows = _rows(model, names, list(single.values()))
        if rows is not None:
            bad += [tag for tag, why in zip(single, _untrained(*rows), strict=True) if why]
    if bad:
        return (
            title,
            False,
            f"{', '.join(dict.fromkeys(bad))} was never trained (its vector is unlike the others): choose a template "
            "without these tags, or fine-tune on a few hundred traces that hold them first",
        )
    return title, True, f"{', '.join(single)} are single tokens with trained vectors"


def _stop(model: Path, tokenizer: PreTrainedTokenizerBase, problem: Problem) -> Finding:
    """The stop token exists for the model, and is what ends a turn where prompts are conversations."""
    from r1kit.models.chat import PromptError, render_turns, stop_token_ids

    title = f"stop token of {model}"
    stop = stop_token_ids(tokenizer)[0]
    name = str(tokenizer.convert_ids_to_tokens(stop))
    size = _rows(model, EMBEDDINGS, [])
    if size is not None and stop >= size[2]:
        return title, False, f"{name} has id {stop}, but the model knows {size[2]} tokens: it can never be sampled"
    if problem.prompt[0].role == "text" or tokenizer.chat_template is None:
        return title, True, f"{name} (id {stop}) ends a response; prompts are plain text"
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "ANSWER"}]
    try:
        after = render_turns(tokenizer, turns, open_turn=False).rpartition("ANSWER")[2]
    except PromptError as error:
        return title, True, f"{name} (id {stop}) ends a response; how a turn ends is not known: {error}"
    if name in after:
        return title, True, f"{name} (id {stop}) ends the assistant's turn in the chat template"
    found = after.strip().split("\n")[0] or "nothing"
    return (
        title,
        False,
        f"responses stop at {name}, but the chat template ends a turn with {found}: set eos_token to it in "
        "tokenizer_config.json, or use a template for base models",
    )


def _untrained(rows: Tensor, sample: Tensor, _: int) -> list[bool]:
    """True for each row that is far shorter than usual, or all but equal to another one of them."""
    usual = sample.norm(dim=1).median()
    short = rows.norm(dim=1) < NORM_SHARE * usual
    apart = (rows[:, None] - rows[None]).norm(dim=-1)
    apart.fill_diagonal_(float("inf"))
    return [bool(s) or bool(d.min() < SAME * usual) for s, d in zip(short, apart, strict=True)]


def _rows(model: Path, names: Sequence[str], ids: Sequence[int]) -> tuple[Tensor, Tensor, int] | None:
    """(rows `ids`, rows spread over the matrix, its number of rows), float32, of the first of `names` there is.

    Only these rows are read. None where there is no such matrix (a head tied to the embedding). CheckpointError where a
    file of weights is missing or damaged.
    """
    import torch

    from r1kit.models.checkpoint import Source

    with Source(model) as source:
        for name in names:
            if name not in source.files:
                continue
            matrix = source.files[name].get_slice(name)
            count = int(matrix.get_shape()[0])
            spread = range(0, count, max(1, count // SAMPLED_ROWS))
            pick = [torch.cat([matrix[i : i + 1] for i in rows]).float() for rows in (ids, spread) if len(rows)]
            return pick[0], pick[-1], count
    return None
