"""The data sets of an sft stage as token streams, with a count of everything that was left out or cut.

They are held in memory, five bytes a token, in every process; what a step learns from is made of them when it comes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from r1kit.config.errors import UserError
from r1kit.models.chat import PromptError
from r1kit.models.conversation import ANSWER, THOUGHT, ConversationEncoder, TokenStream
from r1kit.records import Message, Trace
from r1kit.tasks.traces import BadRow, BadRowError, Reading, read_traces
from r1kit.training.token_step import TokenSequence

SHOWN = 3


@dataclass
class EncodedData:
    """Streams to learn from by data set, those held out, and what became of the rows."""

    sets: list[list[TokenStream]] = field(default_factory=list)
    held_out: list[TokenStream] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    bad: list[BadRow] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Lines for a person: what is trained, and every kind of row that is not, by name."""
        c = self.counts
        lines = [
            f"{c['conversations']} conversations, {c['sequences']} sequences of {c['tokens']} tokens, "
            f"{c['learned']} of them learned; {c['held_out']} sequences held out"
        ]
        if c["skipped"]:
            first = "; ".join(f"{b.place}: {b.reason}" for b in self.bad[:SHOWN])
            lines.append(f"{c['skipped']} bad rows skipped, such as {first}")
        if c["dropped"]:
            lines.append(f"{c['dropped']} sequences longer than max_tokens left out")
        if c["cut"]:
            lines.append(f"{c['cut']} sequences cut to max_tokens, {c['tokens_cut']} tokens lost")
        return lines


def encode_data(settings: Any, paths: Mapping[int, Path], encoder: ConversationEncoder) -> EncodedData:
    """Read and encode every data set; `paths` replaces those that are `${stage}`, by index.

    Raises UserError where a data set has nothing to train on, or a bad row where these are fatal.
    """
    found = EncodedData()
    for index, data in enumerate(settings.data):
        reading = read_traces(data, paths.get(index))
        found.sets.append(_encode_set(settings, data, reading, encoder, found))
        reading.require_rows()
        found.counts["skipped"] += reading.skipped
        found.bad += reading.bad
        if not found.sets[-1]:
            raise UserError(
                f"{data.path}: no sequence is left to train on: {found.counts['dropped']} are longer than max_tokens "
                f"{settings.max_tokens}, {found.counts['held_out']} are held out"
            )
    for stream in (s for one in found.sets for s in one):
        found.counts["sequences"] += 1
        found.counts["tokens"] += len(stream)
        found.counts["learned"] += as_sequence(stream, 0, settings).predicted
    return found


def _encode_set(
    settings: Any, data: Any, reading: Reading[Trace], encoder: ConversationEncoder, found: EncodedData
) -> list[TokenStream]:
    learned: list[TokenStream] = []
    for trace in reading:
        try:
            streams = encoder.streams(_with_system(trace.messages, data.system or settings.system))
        except PromptError as error:
            if data.bad_rows == "fatal":
                raise BadRowError(f"{_place(trace)}: {error}") from None
            found.counts["skipped"] += 1
            found.bad.append(BadRow(_place(trace), str(error)))
            continue
        found.counts["conversations"] += 1
        kept = found.held_out if _is_held_out(trace, settings.held_out_share) else learned
        for stream in streams:
            fitting = _fit(stream, settings, found.counts)
            if fitting is not None and as_sequence(fitting, 0, settings).predicted:
                kept.append(fitting)
                found.counts["held_out"] += kept is found.held_out
    return learned


def _fit(stream: TokenStream, settings: Any, counts: Counter[str]) -> TokenStream | None:
    """The stream where it is short enough, cut or None where it is not; the counts say which."""
    if len(stream) <= settings.max_tokens:
        return stream
    cut = stream.cut(settings.max_tokens)
    if settings.too_long == "drop" or not len(cut):
        counts["dropped"] += 1
        return None
    counts["cut"] += 1
    counts["tokens_cut"] += len(stream) - len(cut)
    return cut


def as_sequence(stream: TokenStream, key: int, settings: Any) -> TokenSequence:
    """The stream with the weight of every token in the loss: 0 for context, the stage's for thought and answer."""
    table = np.zeros(3, dtype=np.float32)
    table[THOUGHT], table[ANSWER] = settings.thought_weight, settings.answer_weight
    return TokenSequence(stream.token_ids.astype(np.int64), table[stream.parts], key)


def _with_system(messages: Sequence[Message], system: str | None) -> Sequence[Message]:
    if not system or messages[0].role in ("system", "text"):
        return messages
    return (Message("system", system), *messages)


def _is_held_out(trace: Trace, share: float) -> bool:
    """Chosen by the first question, not by the row: answers to one question all lie on one side."""
    if not share:
        return False
    asked = next(m.content for m in trace.messages if m.role != "system")
    digest = hashlib.blake2b(asked.encode(), digest_size=8, person=b"r1kit-held-out"[:16]).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def _place(trace: Trace) -> str:
    return str(trace.provenance.get("source") or trace.id)
