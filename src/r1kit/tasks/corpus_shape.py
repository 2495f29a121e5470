"""The parts of a corpus document that do not depend on the task: prompt, number of attempts, tags."""

from __future__ import annotations

import random
from typing import Any

from r1kit.tasks.templates import Prompt


class Shape:
    """Draws the outer shape of documents from the shares of a CorpusSettings (see `tasks.corpus`)."""

    def __init__(self, corpus: Any, template: str, rng: random.Random) -> None:
        self.corpus, self.rng = corpus, rng
        self.chat_share = 1.0 if template == "chat" else float(corpus.chat_share)

    def question(self, prompt: Prompt) -> str:
        """The compact prompt, now and then as a chat turn."""
        question = prompt.messages[-1].content
        return f"<|user|>{question}<|assistant|>" if self.rng.random() < self.chat_share else question

    def budget(self) -> int:
        """How many attempts a trace may make."""
        rng, corpus = self.rng, self.corpus
        if rng.random() < corpus.long_share:
            return rng.randint(*corpus.long_attempts)
        attempts = 1
        while rng.random() < corpus.continue_rate:
            attempts += 1
        return attempts

    def guess(self, answer: str) -> str:
        """A guess as it stands after the question."""
        return f"<answer>{answer}</answer>" if self.rng.random() < self.corpus.guess_tagged else f"A:{answer}"

    def close(self, thinking: str, answer: str) -> str:
        """Thinking and answer in tags, whole or broken, or without tags."""
        rng, corpus = self.rng, self.corpus
        if rng.random() >= corpus.tagged:
            return f"{thinking}A:{answer}" if thinking.endswith("\n") else f"{thinking}\nA:{answer}"
        draw = rng.random()
        if draw < corpus.well_formed:
            return f"<think>{thinking}</think><answer>{answer}</answer>"
        if draw < corpus.well_formed + corpus.missing_think_end:
            return f"<think>{thinking}<answer>{answer}</answer>"
        return f"<think>{thinking}</think>{answer}</answer>"

    def verdict(self, truth: bool) -> bool:
        """What the trace says about a true or false comparison: honest most of the time."""
        return truth if self.rng.random() < self.corpus.honest else not truth

    def retry(self) -> str:
        """What stands before an attempt that is not the first."""
        return "wait " if self.rng.random() < self.corpus.wait else ""
