"""The text a tiny base model is pretrained on: mixed-quality notes about the task, never its best policy.

It teaches what a web-scale base brings to RL for free (arithmetic, the shape of a search, that a wrong
value is followed by another try, what the tags look like) and does it sloppily on purpose: short traces and
long ones, guesses, slips, false verdicts, broken tags, traces that give up and answer wrongly. No multiset
(countdown) or pair of factors (multiplication) of the test split appears anywhere in it, steps and facts
included.

Every rule is a share of the settings object (attributes of `CorpusSettings`; shares lie in [0, 1]):

  attribute         default  meaning
  fact_share        0.30     documents of arithmetic facts, a line each, as inside attempts (`9-5=4`)
  fact_lines        (3, 10)  fewest and most lines of such a document
  fact_small        0.50     countdown: facts about two given numbers; the rest have an intermediate
  guess_share       0.20     of the task's documents: a bare guess, no working
  guess_right       0.10     of the guesses: made right; the rest are random (an expression, a near product)
  guess_tagged      0.03     of the guesses: written `<answer>guess</answer>`; the rest `A:guess`
  continue_rate     0.60     attempts a trace may make: geometric, chance of one more
  long_share        0.15     traces whose number of attempts is drawn from `long_attempts` instead
  long_attempts     (4, 16)  fewest and most attempts a long trace may make
  near_share        0.30     countdown: traces that prefer values near the target
  near_scale        8.0      the weight of a candidate is 2 ** -(distance / near_scale)
  repeat_share      0.50     traces that may try the same again; the rest avoid what they tried
  honest            0.98     verdicts that are true of the written value
  slip              0.005    countdown: attempts with one arithmetic slip, carried on consistently
  route_slip        0.10     multiplication: attempts with one arithmetic slip
  check_share       0.50     multiplication: traces that work it out again and compare; the rest stop at once
  recheck           0.05     countdown: after a `yes`, the attempt is worked out once more after `check `
  wait              0.20     retries that begin with `wait `
  tagged            0.80     traces in think/answer tags; the rest end in `A:answer`
  well_formed       0.80     of the tagged: all four tags in place
  missing_think_end 0.10     of the tagged: no `</think>`; what is left has no `<answer>`
  chat_share        0.0      questions as a chat turn, `<|user|>...<|assistant|>` (all, with template chat)

A trace ends at its first `yes`; one that runs out of attempts answers with its last, wrong one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from r1kit.tasks.corpus_countdown import CountdownWriter
from r1kit.tasks.corpus_multiplication import MultiplicationWriter
from r1kit.tasks.countdown import Countdown
from r1kit.tasks.multiplication import Multiplication


def documents(settings: Any, corpus: Any, seed: int) -> Iterator[str]:
    """Endless documents for the task of `settings`, deterministic in (settings, corpus, seed).

    `settings` is a TaskSettings, `corpus` a CorpusSettings (the table above). Plain text without <bos> and
    <eos>: the trainer adds them.
    """
    rng = random.Random(f"r1kit corpus {seed}")
    facts, guess, trace = _writers(settings, corpus, rng)
    while True:
        if rng.random() < corpus.fact_share:
            yield facts()
        elif rng.random() < corpus.guess_share:
            yield guess()
        else:
            yield trace()


def _writers(settings: Any, corpus: Any, rng: random.Random) -> tuple[Callable[[], str], ...]:
    writer: CountdownWriter | MultiplicationWriter
    if settings.name == Countdown.name:
        writer = CountdownWriter(Countdown(settings), corpus, rng)
    elif settings.name == Multiplication.name:
        writer = MultiplicationWriter(Multiplication(settings), corpus, rng)
    else:
        raise ValueError(f"task.name is {settings.name!r}: a corpus can be written for countdown and multiplication")
    return writer.facts, writer.guess, writer.trace
