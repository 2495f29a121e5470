"""Why this matters: each kind of answer has its own way to be asked and its own gold. An option shuffled without its
letter, tests that never reach the judge, an MBPP question that hides the function's name: all train on noise.

Not exercised: the verifiers' own rules; published files (test_shared_data).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1kit.config import UserError
from r1kit.records import Problem
from r1kit.sandbox import SandboxError, shared_sandbox
from r1kit.tasks import FileTask, witness_response

from .question_files import all_problems, file_task, task_settings, write_rows


@pytest.fixture
def sandbox() -> None:
    try:
        shared_sandbox()
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")


def asked(problem: Problem) -> str:
    return problem.prompt[-1].content


# --- choice ---


def choices(tmp_path: Path, rows: list[dict[str, Any]], **settings: Any) -> FileTask:
    task = file_task(name="choice", test_data=write_rows(tmp_path / "choice.jsonl", rows), **settings)
    return task


def colours(count: int = 40, **more: Any) -> list[dict[str, Any]]:
    return [
        {"question": f"Colour {i}?", "options": ["red", "green", "blue", "grey"], "answer": "C", **more}
        for i in range(count)
    ]


def shown(problem: Problem) -> dict[str, str]:
    """The option under each letter, as asked."""
    return dict(line.split(") ", 1) for line in asked(problem).split("\n\n")[1].split("\n"))  # type: ignore[misc]


def test_options_are_shuffled_with_their_letter(tmp_path: Path) -> None:
    task = choices(tmp_path, colours())
    letters = set()
    for problem in task.problems("test"):
        options, gold = shown(problem), problem.payload["gold"]
        assert sorted(options.values()) == ["blue", "green", "grey", "red"]
        assert options[gold] == "blue"
        assert [["red", "green", "blue", "grey"][i] for i in problem.metadata["order"]] == list(options.values())
        assert task.verify(problem, f"so it is blue. Answer: {gold}")["accuracy"].correct
        assert task.verify(problem, "\\boxed{blue}")["accuracy"].correct
        wrong = next(letter for letter in options if letter != gold)
        assert task.verify(problem, f"Answer: {wrong}")["accuracy"].reason == "wrong"
        assert task.blind_rate(problem) == 0.25
        letters.add(gold)
    assert letters == set("ABCD")


def test_the_order_is_of_the_seed_and_the_problem_alone(tmp_path: Path) -> None:
    first, again, other = (choices(tmp_path, colours(), seed=seed) for seed in (0, 0, 1))

    def orders(task: FileTask) -> dict[str, Any]:
        return {p.id: p.metadata["order"] for p in task.problems("test")}

    assert orders(first) == orders(again) != orders(other)
    fewer = choices(tmp_path, colours(10))
    assert orders(fewer).items() <= orders(first).items()
    assert {p.payload["gold"] for p in choices(tmp_path, colours(), permute=False).problems("test")} == {"C"}


def test_options_that_speak_of_others_stay_in_place(tmp_path: Path) -> None:
    for last in ("All of the above", "None of these", "Both A and B", "A and C", "以上都对"):
        rows = [{**row, "options": ["red", "green", "blue", last]} for row in colours(8)]
        assert {p.metadata["order"] == [0, 1, 2, 3] for p in choices(tmp_path, rows).problems("test")} == {True}


def test_labels_that_the_options_bring_are_taken_off(tmp_path: Path) -> None:
    rows = [{**row, "options": ["(A) red", "(B) green", "(C) blue", "(D) grey"]} for row in colours(8)]
    for problem in choices(tmp_path, rows).problems("test"):
        assert sorted(shown(problem).values()) == ["blue", "green", "grey", "red"]
    vitamins = [{**row, "options": ["A", "B", "C", "D)"]} for row in colours(1)]
    assert sorted(shown(choices(tmp_path, vitamins).problems("test")[0]).values()) == ["A", "B", "C", "D)"]


def test_an_index_a_text_and_several_letters_are_golds_too(tmp_path: Path) -> None:
    for gold, right in ((2, {"blue"}), ("blue", {"blue"}), ("AC", {"red", "blue"})):
        for problem in choices(tmp_path, [{**row, "answer": gold} for row in colours(6)]).problems("test"):
            options = shown(problem)
            assert {options[letter] for letter in problem.payload["gold"]} == right


def test_the_same_question_with_its_options_in_another_order_is_there_twice(tmp_path: Path) -> None:
    rows = [{"question": "Sky?", "options": ["red", "blue"], "answer": "B"}]
    rows.append({"question": "Sky?", "options": ["blue", "red"], "answer": "A"})
    task = choices(tmp_path, rows)
    assert len(task.problems("test")) == 1
    assert "1 there twice" in task.notes()[-1]
    rows.append({"question": "Sky?", "options": ["blue", "red"], "answer": "B"})
    with pytest.raises(UserError, match="with another answer"):
        choices(tmp_path, rows).problems("test")


def test_options_within_the_question_have_their_letters(tmp_path: Path) -> None:
    rows = [{"question": "Sky? A red B blue C grey D none", "answer": "(B)"}]
    problem = choices(tmp_path, rows, template="simple_choice").problems("test")[0]
    assert "one of ABCD" in asked(problem)


def test_one_column_for_each_option(tmp_path: Path) -> None:
    rows = [{"q": f"Which {i}?", "one": "a", "two": "b", "three": "c", "key": "B"} for i in range(5)]
    columns = {"problem": "q", "options": ["one", "two", "three"], "answer": "key"}
    for problem in choices(tmp_path, rows, columns=columns, template="simple_choice").problems("test"):
        assert "LETTER is one of ABC" in asked(problem)
        assert problem.payload["policy"]["options"][ord(problem.payload["gold"]) - 65] == "b"


def test_a_gold_that_is_no_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"choice.jsonl:1: gold is option 4, counted from 0: there are 4"):
        choices(tmp_path, [{**row, "answer": 4} for row in colours(1)]).problems("test")


# --- code ---

CALLS = {"entry_point": "double", "calls": [{"args": [2], "expected": 4}, {"args": [5], "expected": 10}]}
SOURCE = "def double(x):\n    return 2 * x"


def test_programs_of_ones_own_are_judged_by_their_tests(tmp_path: Path, sandbox: None) -> None:
    rows = [{"question": f"Double a number ({i}).", "answer": json.dumps(CALLS), "best": SOURCE} for i in range(3)]
    path = write_rows(tmp_path / "code.jsonl", rows)
    task = file_task(
        name="code", test_data=path, columns={"answer": "answer", "reference": "best"}, check_references=True
    )
    problem = task.problems("test")[0]
    assert problem.payload["gold"]["calls"][0]["expected"] == 4
    assert witness_response(problem) == f"```python\n{SOURCE}\n```"
    responses = {
        f"```python\n{SOURCE}\n```": ("correct", 1),
        f"<think>easy</think>\n```python\n{SOURCE}\n```": ("correct", 1),
        f"<think>easy</think><answer>```python\n{SOURCE}\n```</answer>": ("correct", 0),
        "```python\ndef double(x):\n    return x + 2\n```": ("wrong", 1),
        "```python\ndef double(x:\n```": ("unparsable", 1),
        "I double it.": ("no_answer", 0),
        f"<think>```python\n{SOURCE}\n```": ("no_answer", 0),
    }
    verdicts = task.verify_many([problem] * len(responses), list(responses))
    found = [(v["accuracy"].reason, v["format"].score) for v in verdicts]
    assert found == list(responses.values())
    assert task.blind_rate(problem) == 0


def test_a_named_column_of_tests_is_no_published_form(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "code.jsonl", [{"question": "Double.", "tests": CALLS}])
    task = file_task(name="code", test_data=path, columns={"answer": "tests"})
    assert task.problems("test")[0].payload["gold"]["entry_point"] == "double"


def test_tests_that_the_reference_fails_are_refused_where_asked(tmp_path: Path, sandbox: None) -> None:
    rows = [{"question": "Double.", "answer": CALLS, "best": "def double(x):\n    return x"}]
    path = write_rows(tmp_path / "code.jsonl", rows)
    columns = {"answer": "answer", "reference": "best"}
    assert file_task(name="code", test_data=path, columns=columns).problems("test")
    with pytest.raises(UserError, match=r"code\.jsonl:1: none of 1 reference solutions passes: wrong"):
        file_task(name="code", test_data=path, columns=columns, check_references=True).problems("test")


def test_questions_of_published_code_sets_say_what_is_called(tmp_path: Path) -> None:
    mbpp = {"text": "Add.", "code": "def f(a):\n    return a", "test_list": ["assert f(1) == 1"], "test_setup_code": ""}
    human = {"prompt": "\n\ndef g(x):\n    '''Doc.'''\n", "canonical_solution": "    return x\n", "entry_point": "g"}
    human["test"] = "def check(candidate):\n    assert candidate(1) == 1\n"
    taco = {
        "question": "Sum.",
        "starter_code": "def h(x):\n\t",
        "input_output": {"fn_name": "h", "inputs": [[1]], "outputs": [[1]]},
    }
    texts = []
    for row in (mbpp, human, taco):
        path = write_rows(tmp_path / "code.jsonl", [row])
        texts.append(asked(file_task(name="code", test_data=path).problems("test")[0]))
    assert texts == [
        "Add.\nYour code has to pass these tests:\n```python\nassert f(1) == 1\n```",
        "Complete this Python function. Answer with the whole function.\n```python\ndef g(x):\n    '''Doc.'''\n```",
        "Sum.\n\nBegin with this code:\n```python\ndef h(x):\n```",
    ]


def test_language_and_scoring_are_the_tasks(tmp_path: Path) -> None:
    row = {"problem": "Echo.", "test_cases": [{"input": "1", "output": "1"}]}
    path = write_rows(tmp_path / "code.jsonl", [row])
    gold = file_task(name="code", test_data=path, language="cpp", scoring="partial").problems("test")[0].payload["gold"]
    assert (gold["language"], gold["scoring"]) == ("cpp", "partial")
    mbpp = {"text": "Add.", "test_list": ["assert f(1) == 1"], "test_setup_code": ""}
    with pytest.raises(UserError, match="judged in Python only"):
        file_task(name="code", test_data=write_rows(path, [mbpp]), language="cpp").problems("test")


def test_tests_that_are_no_object_are_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "code.jsonl", [{"question": "Double.", "answer": "4"}])
    with pytest.raises(UserError, match=r"code\.jsonl:1: answer is '4': expected the tests as an object or its JSON"):
        file_task(name="code", test_data=path, columns={"answer": "answer"}).problems("test")


# --- other kinds ---


def test_numbers_to_a_target(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"nums": [3, 5, 6], "target": 13}, {"nums": [2, 2, 7], "target": 28}])
    task = file_task(verifier="countdown", test_data=path)
    problem = next(p for p in task.problems("test") if p.payload["gold"]["target"] == 13)
    assert asked(problem).startswith("Using the numbers [3, 5, 6], create an equation that equals 13.")
    right = witness_response(problem)
    assert right is not None
    assert task.verify(problem, right)["accuracy"].correct
    assert not task.verify(problem, "13")["accuracy"].correct


def test_instructions_have_no_answer_and_are_followed_or_not(tmp_path: Path) -> None:
    row = {"prompt": "Say hi.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    task = file_task(name="instruction", test_data=write_rows(tmp_path / "a.jsonl", [row]), policy={"loose": True})
    problem = task.problems("test")[0]
    assert witness_response(problem) is None
    assert task.blind_rate(problem) == 0
    assert task.verify(problem, "<think>no, never, a comma</think>Hi there")["accuracy"].correct
    assert task.verify(problem, "Hi, there")["accuracy"].reason == "wrong"


def test_a_pattern_is_a_gold(tmp_path: Path) -> None:
    rows = [{"question": f"A date {i}?", "answer": r"\d{4}-\d\d-\d\d"} for i in range(2)]
    task = file_task(verifier="regex", test_data=write_rows(tmp_path / "a.jsonl", rows))
    problem = task.problems("test")[0]
    responses = ["<answer>2024-01-31</answer>", "31 January", "2024-01-31"]
    assert [v["accuracy"].score for v in task.verify_many([problem] * 3, responses)] == [1, 0, 1]
    assert witness_response(problem) is None


def test_a_function_of_ones_own_sees_the_row(tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(
        "def judge(problem, response):\n"
        "    if 'boom' in response:\n"
        "        raise RuntimeError('bad')\n"
        "    return problem.payload['row']['dose'] in response\n"
    )
    rows = [{"case": f"Case {i}", "dose": f"{i} mg"} for i in range(4)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    verifier = f"{tmp_path}/judge.py:judge"
    assert task_settings(name="file", verifier=verifier, data=path).own_verifier == verifier
    task = file_task(verifier=verifier, test_data=path, columns={"problem": "case"})
    problem = next(p for p in all_problems(task) if asked(p) == "Case 3")
    verdicts = task.verify_many([problem] * 3, ["3 mg", "4 mg", "boom"])
    assert [(v["accuracy"].outcome, v["accuracy"].score) for v in verdicts] == [
        ("score", 1),
        ("score", 0),
        ("error", None),
    ]
    assert witness_response(problem) is None
    named = file_task(verifier=verifier, test_data=path, columns={"problem": "case", "answer": "dose"})
    assert {witness_response(p) for p in all_problems(named)} == {row["dose"] for row in rows}
