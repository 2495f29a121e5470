"""Rejection sampling: what is kept is right, whole and traceable, and what is not kept is counted by why.

Why this matters: distilled data teach whatever slips through. An answer nobody could judge that counts as wrong, a
response cut at the cap, one text ten times: each is in published data sets.

Not exercised here: sampling and verifiers themselves (tests/engines, tests/tasks); learning from the traces
(tests/test_recipes.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from r1kit.config import CountdownSettings, parse_recipe
from r1kit.config.data import DataSettings
from r1kit.config.errors import ConfigError
from r1kit.config.generate import GenerateSettings
from r1kit.curation.generate import describe, generate, make_pair, make_trace
from r1kit.curation.selection import REASONS, select, select_pairs
from r1kit.models.decoder import Decoder, DecoderConfig, initialise
from r1kit.models.loading import write_model
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.records import Group, Message, Problem, Rollout, Verdict
from r1kit.tasks import make_task
from r1kit.tasks.traces import read_pairs, read_traces
from r1kit.training.parallel import World
from r1kit.training.recorder import Interrupted, NullRecorder

TASK = make_task(CountdownSettings(high=6, test_share=0.3))
BASE = Problem("p", (Message("text", "Q:1,2>3\n"),), "countdown", {}, prefill="<think>")
CHAT = Problem("c", (Message("user", "1+2?"),), "countdown", {})
RIGHT, WRONG = Verdict.scored(1, "correct"), Verdict.scored(0, "wrong")
LOST = Verdict("error", None, "worker_lost")


def rollout(sample: int, text: str = "", *, verdict: Verdict | None = RIGHT, **changes: Any) -> Rollout:
    length = 1 + len(text)
    zeros = np.zeros(length)
    values: dict[str, Any] = {
        "problem_id": "p",
        "sample": sample,
        "prompt_length": 1,
        "token_ids": zeros,
        "loss_mask": zeros,
        "logprobs": zeros,
        "policy_versions": zeros,
        "temperatures": zeros,
        "finish": "stopped",
        "text": text,
        "verdicts": {"accuracy": verdict} if verdict else {},
    }
    return Rollout(**{**values, **changes})


def settings(**changes: Any) -> GenerateSettings:
    return GenerateSettings.model_validate({"model": "base", "samples": 8, **changes})


def chosen(rollouts: list[Rollout], **changes: Any) -> tuple[list[int], dict[str, int]]:
    kept, counts = select(Group(BASE, tuple(rollouts)), settings(**changes))
    return [r.sample for r in kept], {name: n for name, n in counts.items() if n}


MIXED = [
    rollout(0, "wrong", verdict=WRONG),
    rollout(1, "right, long"),
    rollout(2, "cut", finish="length"),
    rollout(3, "right"),
    rollout(4, "right"),
    rollout(5, "unjudged", verdict=LOST),
    rollout(6, "failed", finish="failed", verdict=None),
    rollout(7, "right, middle"[:9]),
]


def test_every_answer_that_is_not_kept_has_its_reason() -> None:
    kept, counts = chosen(MIXED, per_problem=None)
    assert kept == [1, 3, 7]
    assert counts == {"rejected": 1, "unfinished": 1, "duplicate": 1, "not_judged": 2}
    assert set(counts) < set(REASONS)


@pytest.mark.parametrize(("prefer", "kept"), [("first", [1, 3]), ("shortest", [3, 7]), ("longest", [1, 7])])
def test_of_several_right_answers_those_preferred_are_kept(prefer: str, kept: list[int]) -> None:
    assert chosen(MIXED, per_problem=2, prefer=prefer)[0] == kept
    assert chosen(MIXED, per_problem=2, prefer=prefer)[1]["surplus"] == 1


def test_without_required_verdicts_every_finished_answer_is_kept() -> None:
    kept, counts = chosen(MIXED, per_problem=None, require=())
    assert kept == [0, 1, 3, 5, 7]
    assert counts == {"unfinished": 1, "duplicate": 1, "not_judged": 1}


def test_a_required_verdict_that_the_task_does_not_give_judges_nothing() -> None:
    assert chosen(MIXED[:2], require=("accuracy", "style")) == ([], {"not_judged": 2})


def paired(rollouts: list[Rollout], **changes: Any) -> tuple[list[tuple[int, int]], dict[str, int]]:
    kept, counts = select_pairs(Group(BASE, tuple(rollouts)), settings(**{"pairs": "verdict", **changes}))
    return [(a.sample, b.sample) for a, b in kept], {name: n for name, n in counts.items() if n}


def test_a_right_answer_stands_beside_a_wrong_one_and_every_other_has_its_reason() -> None:
    # Right and whole: 1, 3, 7. Wrong and whole: 0 alone; what nobody judged is no wrong answer.
    assert paired(MIXED) == ([(1, 0)], {"duplicate": 1, "unfinished": 1, "not_judged": 2, "unpaired": 2})
    assert paired(MIXED, prefer="shortest")[0] == [(3, 0)]


def test_no_answer_is_in_two_pairs_and_pairs_beyond_those_asked_for_are_counted() -> None:
    answers = [rollout(i, f"{i}", verdict=RIGHT if i < 3 else WRONG) for i in range(5)]
    assert paired(answers, per_problem=None) == ([(0, 3), (1, 4)], {"unpaired": 1})
    assert paired(answers, per_problem=1) == ([(0, 3)], {"unpaired": 1, "surplus": 2})


def test_a_problem_with_answers_of_one_sort_gives_no_pair() -> None:
    assert paired([rollout(0, "a"), rollout(1, "b")]) == ([], {"unpaired": 2})
    assert paired([rollout(0, "a", verdict=WRONG)]) == ([], {"unpaired": 1})


def test_pairs_by_length_set_the_shortest_right_answer_beside_the_longest() -> None:
    lengths = [
        rollout(0, "four"),
        rollout(1, "a"),
        rollout(2, "sevennn"),
        rollout(3, "bc"),
        rollout(4, "w", verdict=WRONG),
    ]
    assert paired(lengths, pairs="length", per_problem=None) == ([(1, 2), (3, 0)], {"rejected": 1})
    equal = [rollout(0, "ab"), rollout(1, "cd"), rollout(2, "ef")]
    assert paired(equal, pairs="length") == ([], {"unpaired": 3})


@pytest.mark.parametrize(("rate", "kept"), [([0, 0.5], [0]), ([0.5, 1], [0]), ([0.51, 1], []), ([0.01, 0.49], [])])
def test_problems_are_kept_by_the_share_of_their_answers_that_are_right(rate: list[float], kept: list[int]) -> None:
    # One of two judged answers is right; the third was not judged and counts on neither side.
    answers = [rollout(0, "right"), rollout(1, "wrong", verdict=WRONG), rollout(2, "?", verdict=LOST)]
    found, counts = chosen(answers, pass_rate=rate)
    assert found == kept
    assert counts == {"rejected": 1, "not_judged": 1, **({} if kept else {"difficulty": 1})}


def test_a_pair_is_two_answers_to_one_prompt_with_where_they_come_from() -> None:
    pair = make_pair(BASE, rollout(1, "a</think>"), rollout(4, "b", verdict=WRONG), {"teacher": "t"}, "right")
    assert pair.prompt == (Message("text", "Q:1,2>3\n<think>"),)
    assert (pair.chosen.content, pair.rejected.content, pair.id) == ("a</think>", "b", "p/1-4")
    assert pair.provenance["samples"] == {"chosen": 1, "rejected": 4}
    assert pair.provenance["verdicts"]["rejected"]["accuracy"]["reason"] == "wrong"


def test_a_base_models_answer_stays_as_it_is_behind_its_whole_prompt() -> None:
    trace = make_trace(BASE, rollout(1, "1+2=3</think><answer>1+2</answer>"), {"teacher": "t"})
    assert trace.messages == (
        Message("text", "Q:1,2>3\n<think>"),
        Message("assistant", "1+2=3</think><answer>1+2</answer>"),
    )
    assert (trace.id, trace.problem_id, trace.provenance["teacher"]) == ("p/1", "p", "t")
    assert trace.provenance["verdicts"]["accuracy"]["reason"] == "correct"


def test_the_thought_of_a_chat_answer_is_set_apart() -> None:
    trace = make_trace(CHAT, rollout(0, "<think>\none and two\n</think>\n\n3", problem_id="c"), {})
    assert trace.messages == (Message("user", "1+2?"), Message("assistant", "3", "one and two"))


def test_what_became_of_the_answers_is_told() -> None:
    lines = describe({"kept": 1, "answers": 4, "rejected": 3, "problems": 2, "unsolved": 1})
    assert lines == [
        "1 of 4 answers kept (25.0 %)",
        "3 rejected: a required verdict is below full marks",
        "1 of 2 problems without a kept answer",
    ]


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """An untrained model whose answers stop now and then."""
    tokenizer = build_tiny_tokenizer()
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8}
    config = DecoderConfig(len(tokenizer), **sizes, intermediate_size=16, model_type="llama", max_positions=64)
    model = Decoder(config)
    initialise(model, 0, std=0.3)
    write_model(model, tokenizer, tmp_path / "teacher")
    return tmp_path / "teacher"


class Stopping(NullRecorder):
    def __init__(self, after: int | None = None) -> None:
        self.after, self.rows, self.notes = after, [], []  # type: ignore[var-annotated]

    def metrics(self, stage: str, step: int, values: Any, clock: Any, kind: str = "train") -> None:
        self.rows.append({"step": step, **values})

    def note(self, stage: str, text: str) -> None:
        self.notes.append(text)

    def should_stop(self) -> bool:
        return bool(self.rows) and self.rows[-1]["step"] == self.after

    def truncate(self, stage: str, step: int) -> None:
        self.rows = [row for row in self.rows if row["step"] <= step]


def run(teacher: Path, directory: Path, recorder: Stopping, wave: int = 8, **changes: Any) -> Any:
    # An untrained model is never right, so every finished answer is kept.
    kept_all = {"problems": 24, "samples": 4, "per_problem": None, "require": (), "sampling": {"max_tokens": 40}}
    stage = settings(**kept_all, wave=wave, **changes)
    return generate(
        stage,
        stage="answers",
        model_path=teacher,
        task=TASK,
        seed=3,
        world=World.single(),
        recorder=recorder,
        directory=directory,
        dtype="float32",
    )


def test_a_stopped_stage_goes_on_and_ends_as_one_that_was_not(teacher: Path, tmp_path: Path) -> None:
    whole, stopped = Stopping(), Stopping(after=2)
    want = run(teacher, tmp_path / "whole", whole)
    with pytest.raises(Interrupted, match="after wave 2 of 3"):
        run(teacher, tmp_path / "stopped", stopped)
    stopped.after = None
    got = run(teacher, tmp_path / "stopped", stopped)
    assert stopped.rows == whole.rows
    assert got.metrics == want.metrics
    assert got.tokens == want.tokens
    files = sorted((tmp_path / "whole" / "traces").iterdir())
    assert [f.read_bytes() for f in files] == [f.read_bytes() for f in sorted(got.data.iterdir())]
    assert len(files) == 3
    # What is sampled does not depend on the size of the waves.
    traces = list(read_traces(DataSettings(path=str(want.data))))
    assert [t.id for t in traces] == [t.id for t in read_traces(DataSettings(path=str(_one_wave(teacher, tmp_path))))]
    assert len(traces) == want.metrics["kept"] > 0
    assert want.metrics["answers"] == 96
    assert sum(want.metrics[name] for name in ("kept", *REASONS)) == 96
    assert want.tokens["sampled"] == want.tokens["discarded"] + sum(t.provenance["tokens"] for t in traces)
    assert whole.notes[0] == f"{len(traces)} of 96 answers kept ({len(traces) / 0.96:.1f} %)"


def _one_wave(teacher: Path, tmp_path: Path) -> Path:
    data: Path = run(teacher, tmp_path / "one", Stopping(), wave=24).data
    return data


def test_a_stage_of_pairs_writes_what_preference_training_reads(teacher: Path, tmp_path: Path) -> None:
    recorder = Stopping()
    got = run(teacher, tmp_path, recorder, pairs="length")
    pairs = list(read_pairs(DataSettings(path=str(got.data))))
    assert got.metrics["pairs"] == len(pairs) > 0
    assert got.metrics["kept"] == 2 * len(pairs)
    assert got.metrics["answers"] == 96 == sum(got.metrics[name] for name in ("kept", *REASONS))
    tokens = sum(sum(pair.provenance["tokens"].values()) for pair in pairs)
    assert got.tokens["sampled"] == got.tokens["discarded"] + tokens
    assert recorder.notes[0].endswith(f"in {len(pairs)} pairs")
    assert not (tmp_path / "traces").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 2, "per_problem": 3}, "per_problem is 3, but samples is 2"),
        (
            {"samples": 5, "per_problem": 3, "pairs": "verdict"},
            "per_problem is 3 and a pair has two answers, but samples is 5",
        ),
        ({"samples": 1, "per_problem": None, "pairs": "length"}, "a pair has two answers, but samples is 1"),
        ({"pairs": "verdict", "require": ()}, "pairs needs to know which answers are right"),
        ({"pass_rate": (0, 0.5), "require": ()}, "pass_rate needs to know which answers are right"),
        ({"pass_rate": (0.6, 0.5)}, "expected \\[lowest, highest\\]"),
        ({"pass_rate": (0, 0)}, "without a right answer gives nothing"),
        ({"sampling": {"temperature": 0}}, "all answers to a problem would be one"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**changes)


EDGE = """
name: x
task: countdown
stages:
  base: {kind: pretrain}
  made: {kind: generate, model: "${base}", MADE}
  after: {kind: AFTER, model: "${base}", data: [{path: "${made}"}]}
"""


@pytest.mark.parametrize(
    ("made", "after", "message"),
    [
        ("samples: 4", "sft", ""),
        ("pairs: verdict", "preference", ""),
        ("pairs: verdict", "preference, method: kto, labelled: false", ""),
        ("pairs: verdict", "sft", "makes pairs, and sft learns answers"),
        ("samples: 4", "preference", "makes no pairs: name a stage of kind generate with pairs: verdict"),
        ("pairs: verdict", "preference, method: kto", "has no labelled responses, as kto reads them"),
    ],
)
def test_pairs_go_where_pairs_are_read(made: str, after: str, message: str) -> None:
    text = EDGE.replace("MADE", made).replace("AFTER", after)
    if not message:
        parse_recipe(text, "x.yaml")
        return
    with pytest.raises(ConfigError, match=rf"x.yaml:7: stages.after.data\[0\].path is \$\{{made\}}, which {message}"):
        parse_recipe(text, "x.yaml")
