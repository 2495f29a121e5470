"""Why this matters: text comparison is where silent wrongness hides (a trailing point, a full-width digit), and a
pattern from a data set is a program: some run for hours. Exercised: every policy, both ways; patterns that explode, do
not compile or eat memory; workers killed from outside; threads and forks.

Not exercised: patterns of other engines (POSIX, PCRE).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

import pytest

from r1kit.verifiers import regex_worker
from r1kit.verifiers.exact import MAX_CHARS, VERBATIM, ExactPolicy, judge_exact, judge_regex


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("The Answer.", "the answer"),
        ("“yes”", "Yes"),
        (" a  b\n", "a b"),
        ("５", "5"),
        ("3.5.", "3.5"),
        ("Straße", "STRASSE"),
        ("café", "cafe\u0301"),
        (".5", ".5"),
        ("f(x)", "f(x)"),
    ],
)
def test_equal_under_the_default_policy(answer: str, gold: str) -> None:
    assert judge_exact(answer, gold).correct


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        *(("-5", "5"), ("50%", "50"), ("C++", "C"), ("$5", "5"), ("3.5", "35")),
        *(("3,5", "35"), ("a b", "ab"), ("f(x", "f(x)"), ("x", "y")),
    ],
)
def test_different_under_the_default_policy(answer: str, gold: str) -> None:
    assert judge_exact(answer, gold).reason == "wrong"


def test_every_policy_both_ways() -> None:
    pairs = [
        (ExactPolicy(case=True), "Yes", "yes", ExactPolicy()),
        (ExactPolicy(space="keep"), "a  b", "a b", ExactPolicy()),
        (ExactPolicy(), "a b", "ab", ExactPolicy(space="remove")),
        (ExactPolicy(punctuation="keep"), "yes!", "yes", ExactPolicy()),
        (ExactPolicy(), "it's, so", "it s so", ExactPolicy(punctuation="remove")),
        (ExactPolicy(), "the cat", "cat", ExactPolicy(articles=False)),
        (ExactPolicy(compatible=False), "５", "5", ExactPolicy()),
    ]
    for strict, answer, gold, lenient in pairs:
        assert not judge_exact(answer, gold, strict).correct, strict
        assert judge_exact(answer, gold, lenient).correct, lenient


def test_numbers_survive_the_removal_of_punctuation() -> None:
    assert ExactPolicy(punctuation="remove").normalise("it's 3,000.50, -a: b!") == "it s 3,000.50 -a b"


def test_outcomes() -> None:
    assert judge_exact("b", ["a", "b"]).correct
    assert judge_exact("", "a").reason == "no_answer"
    assert judge_exact("a", "").reason == "gold_invalid"
    assert judge_exact("a", []).reason == "gold_invalid"
    assert judge_exact("a" * (MAX_CHARS + 1), "a").reason == "over_limit"


@pytest.mark.parametrize(
    ("answer", "pattern", "anywhere", "reason"),
    [
        ("hello", "h.*o", False, "correct"),
        (" hello\n", "hello", False, "correct"),
        ("hello world", "hello", False, "wrong"),
        ("hello world", "wor", True, "correct"),
        ("Hello", "hello", False, "wrong"),
        ("", "a*", False, "no_answer"),
        ("x", "[", False, "gold_invalid"),
        ("x", "(" * 5000, False, "gold_invalid"),
        ("x", "a{99999999}{9999999999}", False, "gold_invalid"),
        ("a" * 40, "(a+)+b", False, "over_limit"),
        ("x" * 19_000, "(x*)*(x*)*y", False, "over_limit"),
    ],
)
def test_patterns(answer: str, pattern: str, anywhere: bool, reason: str) -> None:
    started = time.perf_counter()
    assert judge_regex(answer, pattern, anywhere=anywhere).reason == reason
    assert time.perf_counter() - started < 30  # it takes at most half a second of CPU


def test_a_policy_without_case() -> None:
    assert judge_regex("HELLO", "hel+o", policy=ExactPolicy()).correct
    assert not judge_regex("HELLO", "hel+o", policy=VERBATIM).correct


def test_a_worker_killed_from_outside_changes_no_verdict() -> None:
    for _ in range(20):
        # Several are idle, as after threads: all of them are lost at once.
        regex_worker._idle.extend(regex_worker._Worker() for _ in range(3 - len(regex_worker._idle)))
        for worker in list(regex_worker._idle):
            os.kill(worker.process.pid, signal.SIGKILL)
        assert judge_regex("ab", "a.").correct
        assert judge_regex("ab", "b.").reason == "wrong"


def test_a_worker_that_cannot_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    regex_worker._idle.clear()
    monkeypatch.setattr(regex_worker, "_CHILD", "/nonexistent.py")
    verdict = judge_regex("ab", "a.")
    assert (verdict.outcome, verdict.reason, verdict.score) == ("error", "worker_lost", None)


def test_threads_do_not_mix_their_answers() -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in range(30):
            if not judge_regex(f"n{seed}x{i}", rf"n{seed}x{i}").correct or judge_regex(f"n{i}", r"m\d+").correct:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _in_child(queue: multiprocessing.Queue[bool]) -> None:
    queue.put(judge_regex("child", "chi.*").correct)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_processes_have_workers_of_their_own(method: str) -> None:
    assert judge_regex("parent", "par.*").correct
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60)
    child.join()
    assert judge_regex("parent", "par.*").correct
