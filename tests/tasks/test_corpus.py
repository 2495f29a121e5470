"""Why this matters: the corpus decides what RL can amplify, and a test family inside it would void every
result. Each share is measured against its setting on generated text, and every document of several thousand
is searched for held-out content.

Not exercised: what a model learns from it (training tests), and speed (printed by the benchmark, not
asserted).
"""

from __future__ import annotations

import itertools
import re

import pytest

from r1kit.config.corpus import CorpusSettings
from r1kit.config.tasks import CountdownSettings, MultiplicationSettings
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.tasks import Countdown, Multiplication
from r1kit.tasks.behaviour import find_attempts
from r1kit.tasks.corpus import documents
from r1kit.verifiers import judge_format, parse_expression

COUNTDOWN = CountdownSettings(high=10)
MULTIPLICATION = MultiplicationSettings(digits_a=2, digits_b=2)
QUESTION = re.compile(r"(?:<\|user\|>)?Q:([0-9,*]+)(?:>([0-9]+))?\n(?:<\|assistant\|>)?")


def sample(task: object, count: int, seed: int = 0, **shares: object) -> list[str]:
    corpus = CorpusSettings(**shares)  # type: ignore[arg-type]
    return list(itertools.islice(documents(task, corpus, seed), count))


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


@pytest.fixture(scope="module")
def countdown_documents() -> list[str]:
    return sample(COUNTDOWN, 6000)


@pytest.fixture(scope="module")
def traces() -> list[str]:
    """Countdown search traces only, long ones left out so that shares per attempt are easy to state."""
    return [d.split("\n", 1)[1] for d in sample(COUNTDOWN, 4000, fact_share=0.0, guess_share=0.0)]


def test_deterministic_in_the_seed() -> None:
    assert sample(COUNTDOWN, 50, 1) == sample(COUNTDOWN, 50, 1)
    assert sample(COUNTDOWN, 50, 1) != sample(COUNTDOWN, 50, 2)


def test_no_held_out_multiset(countdown_documents: list[str]) -> None:
    task = Countdown(COUNTDOWN)
    for document in countdown_documents:
        if match := QUESTION.match(document):
            numbers = tuple(map(int, match[1].split(",")))
            assert not task.holds_out(numbers)
            assert int(match[2]) in task.targets(numbers)
        for attempt in find_attempts(document):
            parsed = parse_expression(attempt.expression)
            assert len(parsed.numbers) < 3 or not task.holds_out(parsed.numbers)


@pytest.mark.parametrize("digits", [(2, 1), (2, 2), (3, 2)])
def test_no_held_out_product(digits: tuple[int, int]) -> None:
    settings = MultiplicationSettings(digits_a=digits[0], digits_b=digits[1])
    task = Multiplication(settings)
    found = 0
    for document in sample(settings, 3000):
        for a, b in re.findall(r"([0-9]+)\*([0-9]+)", document):
            assert not task.holds_out(int(a), int(b)), document
            found += 1
    assert found > 1000


def test_shares_of_documents(countdown_documents: list[str]) -> None:
    facts = [not d.startswith("Q:") for d in countdown_documents]
    assert share(facts) == pytest.approx(0.3, abs=0.02)
    asked = [d.split("\n", 1)[1] for d in countdown_documents if d.startswith("Q:")]
    # A bare guess has no working; an untagged trace ends in A: too, but after an attempt.
    guesses = [r for r in asked if "=" not in r]
    assert len(guesses) / len(asked) == pytest.approx(0.2, abs=0.02)
    assert share([r.startswith("<answer>") for r in guesses]) == pytest.approx(0.03, abs=0.02)


def test_guesses_are_right_as_often_as_the_setting_and_blind_luck_say() -> None:
    task = Countdown(COUNTDOWN)
    rights = []
    for document in sample(COUNTDOWN, 3000, fact_share=0.0, guess_share=1.0, guess_tagged=0.0):
        question, guess = document.split("\nA:")
        parsed, target = parse_expression(guess), int(question.split(">")[1])
        assert 1 <= target <= task.max_value
        rights.append(parsed.value == target)
    blind = [task.blind_rate(p) for p in task.problems("train")]
    expected = 0.1 + 0.9 * sum(blind) / len(blind)
    assert share(rights) == pytest.approx(expected, abs=0.025)


def test_facts_are_true_and_in_the_form_of_attempts(countdown_documents: list[str]) -> None:
    lines = [line for d in countdown_documents if not d.startswith("Q:") for line in d.splitlines()]
    counts = [len(d.splitlines()) for d in countdown_documents if not d.startswith("Q:")]
    assert (min(counts), max(counts)) == (3, 10)
    for line in set(lines):
        left, right = line.split("=")
        assert parse_expression(left).value == int(right) <= 99
    operators = [re.search(r"[-+*/]", line)[0] for line in lines]  # type: ignore[index]
    for operator in "+-*/":
        assert operators.count(operator) / len(operators) == pytest.approx(0.25, abs=0.02)


def test_shape_of_traces(traces: list[str]) -> None:
    tagged = [t for t in traces if t.startswith("<think>")]
    assert len(tagged) / len(traces) == pytest.approx(0.8, abs=0.02)
    assert share([judge_format(t).correct for t in tagged]) == pytest.approx(0.8, abs=0.02)
    assert share(["</think>" not in t for t in tagged]) == pytest.approx(0.1, abs=0.02)
    assert share(["<answer>" not in t for t in tagged]) == pytest.approx(0.1, abs=0.02)
    assert all("\nA:" in t for t in traces if not t.startswith("<think>"))


def test_verdicts_are_as_honest_as_set(traces: list[str]) -> None:
    attempts = [a for t in traces for a in find_attempts(t)]
    truths = [(a.verdict == "yes") == (a.value() == a.goal) for a in attempts]
    assert share(truths) == pytest.approx(0.98, abs=0.01)
    assert share([not a.arithmetic_right() for a in attempts]) == pytest.approx(0.005, abs=0.003)


def test_waits_rechecks_and_lengths(traces: list[str]) -> None:
    counts = [len(find_attempts(t)) for t in traces]
    assert max(counts) >= 12
    assert 1.8 < sum(counts) / len(counts) < 3.5
    retries = [r for t in traces for r in re.findall(r" no\n(wait )?\(?[0-9]", t)]
    assert share([bool(r) for r in retries]) == pytest.approx(0.2, abs=0.03)
    yes = sum(t.count(" yes") for t in traces)
    assert sum(t.count("check ") for t in traces) / yes == pytest.approx(0.05, abs=0.02)


def test_traces_stop_at_the_first_yes_and_answer_what_they_tried_last(traces: list[str]) -> None:
    for trace in traces:
        attempts = find_attempts(trace)
        answer = re.search(r"(?:A:|</think>|<answer>)([-+*/()0-9]+)(?:</answer>)?$", trace)
        assert answer is not None, trace
        assert answer[1] == attempts[-1].expression
        if "check " not in trace:
            assert all(a.verdict == "no" for a in attempts[:-1])


def test_switches() -> None:
    clean = {
        "fact_share": 0.0,
        "guess_share": 0.0,
        "tagged": 1.0,
        "well_formed": 1.0,
        "missing_think_end": 0.0,
    }
    honest = sample(COUNTDOWN, 300, **clean, honest=1.0, slip=0.0, wait=0.0, recheck=0.0, repeat_share=0.0)
    for document in honest:
        response = document.split("\n", 1)[1]
        attempts = find_attempts(response)
        assert judge_format(response).correct
        assert all(a.arithmetic_right() and (a.verdict == "yes") == (a.value() == a.goal) for a in attempts)
        assert len({a.expression for a in attempts}) == len(attempts)
        assert "wait " not in response
        assert "check " not in response
    always_near = sample(COUNTDOWN, 600, **clean, near_share=1.0)
    never_near = sample(COUNTDOWN, 600, **clean, near_share=0.0)
    assert mean_distance(always_near) < 0.8 * mean_distance(never_near)


def mean_distance(found: list[str]) -> float:
    first = [find_attempts(d)[0] for d in found]
    return sum(abs(float(a.value() or 0) - float(a.goal or 0)) for a in first) / len(first)


def test_slips_are_carried_on_consistently() -> None:
    slipped = sample(COUNTDOWN, 500, fact_share=0.0, guess_share=0.0, slip=1.0)
    attempts = [a for d in slipped for a in find_attempts(d)]
    assert not any(a.arithmetic_right() for a in attempts)
    # The slip is in one step: every other step follows from the line before it.
    for attempt in attempts:
        values = [parse_expression(side).value for side in attempt.sides]
        assert sum(a != b for a, b in itertools.pairwise(values)) == 1


def test_chat_documents() -> None:
    chat = CountdownSettings(high=10, template="chat")
    asked = [d for d in sample(chat, 200) if "Q:" in d]
    assert all(d.startswith("<|user|>Q:") and "\n<|assistant|>" in d for d in asked)
    half = [d for d in sample(COUNTDOWN, 1000, chat_share=0.5) if "Q:" in d]
    assert share([d.startswith("<|user|>") for d in half]) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("numbers", [(4, 4), (3, 6)])
def test_more_numbers(numbers: tuple[int, int]) -> None:
    settings = CountdownSettings(numbers=numbers, high=12)
    for document in sample(settings, 60, fact_share=0.0, slip=0.0):
        match = QUESTION.match(document)
        assert match is not None
        given = sorted(map(int, match[1].split(",")))
        for attempt in find_attempts(document):
            assert attempt.arithmetic_right()
            assert sorted(parse_expression(attempt.expression).numbers) == given


def test_multiplication_traces() -> None:
    clean = {"fact_share": 0.0, "guess_share": 0.0, "route_slip": 0.0, "honest": 1.0, "check_share": 1.0}
    for document in sample(MULTIPLICATION, 300, **clean):
        match = QUESTION.match(document)
        assert match is not None
        a, b = map(int, match[1].split("*"))
        attempts = find_attempts(document)
        assert len(attempts) == 2
        assert all(x.arithmetic_right() and x.value() == a * b for x in attempts)
        assert (attempts[1].goal, attempts[1].verdict) == (a * b, "yes")
        assert re.search(rf"(?:A:|>){a * b}(?:</answer>)?$", document)
    slipping = {**clean, "route_slip": 0.5}
    assert any(" no\n" in d for d in sample(MULTIPLICATION, 100, **slipping))


def test_multiplication_facts_are_true() -> None:
    for document in sample(MULTIPLICATION, 300, fact_share=1.0):
        assert all(a.arithmetic_right() for a in find_attempts(document))
        assert 3 <= len(document.splitlines()) <= 10


def test_every_document_is_made_of_known_tokens(countdown_documents: list[str]) -> None:
    tokenizer = build_tiny_tokenizer()
    for document in (*countdown_documents[:500], *sample(MULTIPLICATION, 300)):
        ids = tokenizer.encode(document)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == document


def test_other_tasks_have_no_corpus() -> None:
    with pytest.raises(ValueError, match="sudoku"):
        next(documents(COUNTDOWN.model_copy(update={"name": "sudoku"}), CorpusSettings(), 0))
