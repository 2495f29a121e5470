"""Why this matters: a step's verdicts come from several threads and processes. They must be those of one thread, in
order, and a judge that breaks down must cost its response, never become a 0.

Not exercised: the speed of judging side by side (docs/tasks.md says what was measured).
"""

from __future__ import annotations

import logging
import random
import time
from pathlib import Path

import pytest

from r1kit.config.errors import ConfigError
from r1kit.records import Group, Rollout, Verdict
from r1kit.sandbox import SandboxError
from r1kit.tasks import close_judges, make_task, question_task, verify_many
from r1kit.tasks.own_verifier import OwnVerifier
from r1kit.verifiers.math import JudgeModel
from r1kit.verifiers.math.verify import default_pool

from .question_files import all_problems, capitals, file_task, task_settings, write_rows


def sums(path: Path, count: int = 24) -> Path:
    return write_rows(path, [{"question": f"{i}+{i}=", "answer": f"{2 * i}"} for i in range(count)])


def test_many_verdicts_are_those_of_one_after_another(tmp_path: Path) -> None:
    task = file_task(verifier="math", test_data=sums(tmp_path / "a.jsonl"))
    rng = random.Random(0)
    problems = [rng.choice(all_problems(task)) for _ in range(120)]
    endings = [
        "\\boxed{%s}",
        "it is %s",
        "<think>%s",
        "\\boxed{%s+0}",
        "\\boxed{\\sqrt{%s}}",
        "\\boxed{\\int_0^1 %s dx}",
    ]
    responses = [rng.choice(endings) % rng.choice((p.payload["gold"], "7")) for p in problems]
    together = verify_many(task, problems, responses)
    alone = [task.verify(p, r) for p, r in zip(problems, responses, strict=True)]

    def plain(verdicts: dict[str, Verdict]) -> dict[str, tuple[str, float | None, str]]:
        return {name: (v.outcome, v.score, v.voter) for name, v in verdicts.items()}

    assert [*map(plain, together)] == [*map(plain, alone)]
    assert {v["accuracy"].score for v in together} == {0, 1}
    assert "math-verify" in {v["accuracy"].voter for v in together}
    close_judges()


def test_a_caller_may_guard_each_verdict(tmp_path: Path) -> None:
    task = file_task(verifier="math", test_data=sums(tmp_path / "a.jsonl"))
    problems = all_problems(task)[:5]
    found = verify_many(task, problems, list("abcde"), lambda problem, response: {"said": Verdict.scored(1, "correct")})
    assert [list(v) for v in found] == [["said"]] * 5


def test_a_judge_that_breaks_down_is_an_error_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(prediction: str, opened: bool = False) -> Verdict:
        if "boom" in prediction:
            raise ZeroDivisionError("inside the judge")
        return Verdict.scored(1, "correct")

    monkeypatch.setattr(question_task, "make_judge", lambda *_: broken)
    task = file_task(verifier="exact", test_data=capitals(tmp_path / "a.jsonl"))
    problem = task.problems("test")[0]
    with caplog.at_level(logging.ERROR):
        verdicts = task.verify_many([problem] * 3, ["boom", "fine", "boom"])
    assert [v["accuracy"].outcome for v in verdicts] == ["error", "score", "error"]
    assert [record.message for record in caplog.records] == [
        f"file: a judge failed on a response to {problem.id}: ZeroDivisionError: inside the judge (told once)"
    ]
    zero = [0, 0]
    rollouts = [
        Rollout(problem.id, i, 1, zero, zero, zero, zero, zero, "stopped").scored(v, {}) for i, v in enumerate(verdicts)
    ]
    assert Group(problem, tuple(rollouts)).failed


def test_a_machine_without_sandbox_is_said_in_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise SandboxError("no sandbox here: install bubblewrap")

    monkeypatch.setattr(question_task, "make_judge", none)
    row = {"question": "Echo.", "answer": {"programs": [{"stdin": "1", "expected": "1"}]}}
    path = write_rows(tmp_path / "a.jsonl", [row])
    task = file_task(name="code", test_data=path, columns={"answer": "answer"})
    with pytest.raises(question_task.UserError, match="task code: no sandbox here: install bubblewrap"):
        task.verify(task.problems("test")[0], "```python\nprint(1)\n```")


def running(pid: int) -> bool:
    """False for a process that is gone, or ended and not yet collected by whoever adopted it."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] not in "ZX"


def test_judges_end_with_their_stage(tmp_path: Path) -> None:
    task = file_task(verifier="math", test_data=sums(tmp_path / "a.jsonl", 4))
    problem = task.problems("test")[0]
    hard = "\\boxed{\\int_0^1 7 dx}"
    assert task.verify(problem, hard)["accuracy"].voter == "math-verify"
    workers = default_pool().pids()
    assert workers
    close_judges()
    close_judges()
    deadline = time.monotonic() + 20  # they are killed, not waited for
    while any(map(running, workers)):
        assert time.monotonic() < deadline, "workers go on after their stage"
        time.sleep(0.02)
    assert default_pool().pids() == []


def test_a_function_in_the_place_of_a_tasks_rule_leaves_the_rule_to_compare_with(tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text("def judge(problem, response):\n    return response == 'mine'\n")
    path = sums(tmp_path / "a.jsonl", 4)
    task = make_task(task_settings(name="math", test_data=path, verifier=f"{tmp_path}/judge.py:judge"))
    assert isinstance(task, OwnVerifier)
    problem = task.problems("test")[0]
    assert problem.payload["kind"] == "math"
    right = f"\\boxed{{{problem.payload['gold']}}}"
    assert [task.verify(problem, text)["accuracy"].score for text in ("mine", right)] == [1, 0]
    assert task.task.verify(problem, right)["accuracy"].correct
    assert task.notes()[-1] == "4 of 4 rows are used"


def test_a_model_is_asked_last_where_the_recipe_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def ask(model: JudgeModel, text: str) -> str:
        asked.append((model.url, text))
        return "SAME"

    monkeypatch.setattr(JudgeModel, "_ask", ask)
    path = write_rows(tmp_path / "shapes.jsonl", [{"problem": "Which shape is it?", "answer": "a square"}])
    endpoint = {"url": "http://127.0.0.1:1/v1", "model": "m"}
    task = file_task(name="math", test_data=path, judge_model=endpoint)
    (problem,) = task.problems("test")
    verdict = task.verify(problem, "\\boxed{a regular quadrilateral}")["accuracy"]
    assert (verdict.score, verdict.voter) == (1.0, "JudgeModel")
    assert [url for url, _ in asked] == [endpoint["url"]]
    assert task.verify(problem, "\\boxed{a square}")["accuracy"].voter == "exact"
    plain = file_task(name="math", test_data=path)
    assert plain.verify(problem, "\\boxed{a regular quadrilateral}")["accuracy"].reason == "wrong"
    assert len(asked) == 1
    with pytest.raises(ConfigError, match=r"judge_model\.url.*expected http"):
        task_settings(name="math", test_data=path, judge_model={**endpoint, "url": "localhost:8000"})


def test_a_blind_answer_is_as_good_as_its_gold_is_common(tmp_path: Path) -> None:
    asked = [{"question": f"Is {i} good?", "answer": "yes" if i % 4 else "no"} for i in range(40)]
    task = file_task(verifier="exact", data=write_rows(tmp_path / "a.jsonl", asked))
    train = task.problems("train")
    share = sum(p.payload["gold"] == "yes" for p in train) / len(train)
    rates = {p.payload["gold"]: task.blind_rate(p) for p in all_problems(task)}
    assert rates == {"yes": pytest.approx(share), "no": pytest.approx(1 - share)}


def test_what_a_thought_did_is_measured(tmp_path: Path) -> None:
    task = file_task(verifier="exact", test_data=capitals(tmp_path / "a.jsonl"), template="deepseek_r1")
    problem = task.problems("test")[0]
    found = task.statistics(problem, "Lyon is the capital. Wait, that is not right. Let me check: Paris.</think>Paris")
    assert (found["backtracking"], found["verification"]) == (1, 1)
    assert found["thought_words"] == 13
    assert found["reflection_rate"] == pytest.approx(2000 / 13)
    assert not {"repetition", "code_share", "language_share"} & set(found), "training measures these otherwise"
    plain = task.statistics(problem, "Paris is the capital.</think>Wait, I said so. Let me check.")
    assert (plain["backtracking"], plain["verification"]) == (0, 0)
    assert task.statistics(problem, "") == {}


def test_s1_ends_its_thought_with_its_own_delimiter(tmp_path: Path) -> None:
    task = file_task(verifier="exact", test_data=capitals(tmp_path / "a.jsonl"), template="s1")
    problem = next(p for p in task.problems("test") if p.payload["gold"] == "Rome")
    right = "It is Rome.\n<|im_start|>answer\nRome"
    assert {n: v.score for n, v in task.verify(problem, right).items()} == {"accuracy": 1, "format": 1}
    assert task.verify(problem, "It is Rome.")["accuracy"].reason == "no_answer"
    assert task.statistics(problem, right)["thought_words"] == 3
