"""Pairs and judged responses as marked token sequences, with a count of everything that was left out or cut."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from r1kit.config.errors import UserError
from r1kit.models.chat import PromptError
from r1kit.models.conversation import CONTEXT, ConversationEncoder
from r1kit.models.marked import MarkedSequence
from r1kit.records import Message
from r1kit.tasks.traces import BadRow, BadRowError, GoodRows, read_labelled, read_pairs
from r1kit.training.units import Unit

SHOWN = 3


@dataclass(frozen=True, eq=False)
class Judged:
    """One unit: the chosen and the rejected response to a prompt, or one response and its labels."""

    unit: Unit
    prompt: MarkedSequence
    labels: tuple[float, ...] = ()


@dataclass
class JudgedData:
    """What is trained on, what is held out, and what became of the rows."""

    train: list[Judged] = field(default_factory=list)
    held_out: list[Judged] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    bad: list[BadRow] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Lines for a person: what is trained, and every kind of row that is not, by name."""
        c, what = self.counts, "pairs" if len(self.train[0].unit) == 2 else "responses"
        lines = [f"{len(self.train)} {what} to train on, {len(self.held_out)} held out"]
        if c["skipped"]:
            first = "; ".join(f"{b.place}: {b.reason}" for b in self.bad[:SHOWN])
            lines.append(f"{c['skipped']} bad rows skipped, such as {first}")
        if c["dropped"]:
            lines.append(f"{c['dropped']} {what} left out: longer than max_tokens")
        if c["cut"]:
            lines.append(f"{c['cut']} responses cut to max_tokens")
        return lines


class Collector:
    """Takes rows, one after the other, into a JudgedData."""

    def __init__(self, settings: Any, encoder: ConversationEncoder) -> None:
        self.settings, self.encoder, self.data = settings, encoder, JudgedData()

    def add(self, rules: Any, place: str, prompt: Sequence[Message], judge: Callable[[], Judged]) -> None:
        """The unit that `judge` makes of a row. A row that it refuses is skipped and counted, or ends the reading."""
        try:
            judged = self._fit(judge())
        except (PromptError, ValueError) as error:
            self._refuse(rules, place, str(error))
            return
        kept = self.data.held_out if is_held_out(prompt, self.settings.held_out_share) else self.data.train
        if judged is not None:
            kept.append(judged)

    def encode(self, prompt: Sequence[Message], response: Message) -> MarkedSequence:
        """Prompt and response, the response's tokens marked, its end among them."""
        stream = self.encoder.streams([*prompt, response], last_only=True)[0]
        return MarkedSequence(stream.token_ids.astype(np.int64), stream.parts != CONTEXT)

    def pair(self, prompt: Sequence[Message], chosen: Message, rejected: Message) -> Judged:
        """ValueError where both responses are the same tokens: such a pair says nothing."""
        better, worse = self.encode(prompt, chosen), self.encode(prompt, rejected)
        if np.array_equal(better.token_ids, worse.token_ids):
            raise ValueError("chosen and rejected are equal once they are written as tokens")
        return Judged((better, worse), prompt_of(better))

    def single(self, prompt: Sequence[Message], response: Message, label: float) -> Judged:
        """One response and its label."""
        sequence = self.encode(prompt, response)
        return Judged((sequence,), prompt_of(sequence), (label,))

    def _refuse(self, rules: Any, place: str, reason: str) -> None:
        if rules.bad_rows == "fatal":
            raise BadRowError(f"{place}: {reason}. Mend the row, or set bad_rows: skip to go on without such rows")
        self.data.counts["skipped"] += 1
        self.data.bad.append(BadRow(place, reason))

    def _fit(self, judged: Judged) -> Judged | None:
        longest = self.settings.max_tokens
        if all(len(s) <= longest for s in judged.unit):
            return judged
        cut = tuple(MarkedSequence(s.token_ids[:longest], s.marks[:longest]) for s in judged.unit)
        same = len(cut) == 2 and np.array_equal(cut[0].token_ids, cut[1].token_ids)
        if self.settings.too_long == "drop" or same or not all(s.marked for s in cut):
            self.data.counts["dropped"] += 1
            return None
        self.data.counts["cut"] += sum(len(s) > longest for s in judged.unit)
        return Judged(cut, judged.prompt, judged.labels)

    def finish(self, path: str, reading: GoodRows[Any]) -> None:
        """The counts of a data set that was read to its end. UserError where none of its rows can be used."""
        reading.require_rows()
        self.data.counts["skipped"] += reading.skipped
        self.data.bad += reading.bad
        if not self.data.train:
            c, held = self.data.counts, len(self.data.held_out)
            raise UserError(
                f"{path}: nothing is left to train on: {c['dropped']} rows are longer than max_tokens "
                f"{self.settings.max_tokens}, {held} are held out, {c['skipped']} are bad"
            )


def read_pair_data(settings: Any, paths: Mapping[str, Path], encoder: ConversationEncoder) -> JudgedData:
    """Pairs of every data set; `paths` by setting, such as `data[0].path`. UserError where nothing is left to train."""
    into = Collector(settings, encoder)
    for index, rules in enumerate(settings.data):
        reading = read_pairs(rules, paths.get(f"data[{index}].path"))
        for row in reading:
            place = str(row.provenance.get("source") or row.id)
            into.add(rules, place, row.prompt, partial(into.pair, row.prompt, row.chosen, row.rejected))
        into.finish(rules.path, reading)
    return into.data


def read_labelled_data(settings: Any, paths: Mapping[str, Path], encoder: ConversationEncoder) -> JudgedData:
    """Single responses of every data set, labelled 1 (wanted) or 0."""
    into = Collector(settings, encoder)
    for index, rules in enumerate(settings.data):
        reading = read_labelled(rules, paths.get(f"data[{index}].path"))
        for trace, wanted in reading:
            place = str(trace.provenance.get("source") or trace.id)
            into.add(rules, place, trace.prompt, partial(into.single, trace.prompt, trace.response, float(wanted)))
        into.finish(rules.path, reading)
    return into.data


def as_labelled(data: JudgedData) -> JudgedData:
    """Each pair as two judged responses, the chosen one wanted."""

    def split(pairs: Sequence[Judged]) -> list[Judged]:
        return [Judged((s,), p.prompt, (label,)) for p in pairs for s, label in zip(p.unit, (1.0, 0.0), strict=True)]

    return JudgedData(split(data.train), split(data.held_out), data.counts, data.bad)


def prompt_of(sequence: MarkedSequence) -> MarkedSequence:
    """What stands before the first marked token."""
    end = int(np.argmax(sequence.marks))
    return MarkedSequence(sequence.token_ids[:end], sequence.marks[:end])


def is_held_out(prompt: Sequence[Message], share: float) -> bool:
    """Chosen by the first question, as in supervised training: all responses to one question lie on one side."""
    if not share:
        return False
    asked = next((m.content for m in prompt if m.role != "system"), "")
    digest = hashlib.blake2b(asked.encode(), digest_size=8, person=b"r1kit-held-out").digest()
    return int.from_bytes(digest, "big") < share * 2**64
