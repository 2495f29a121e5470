"""Why this matters: stored answers are graded again by other programs, which read standard output row by row. A row
that is lost, out of order or silently judged by another rule would make a number nobody can trust.

Not exercised: what is equal to what (the tests of each verifier), the sandbox, files of every format (test_data_check).
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zstandard
from click.testing import Result
from typer.testing import CliRunner

from r1kit.cli.app import app
from r1kit.config import UserError
from r1kit.records import Message, Problem, Verdict
from r1kit.tasks.shapes import S1_ANSWER
from r1kit.verifiers import registry
from r1kit.verifiers.math.verify import default_pool

LABELLED = Path(__file__).parents[1] / "verifiers" / "math" / "labelled.jsonl"
KEYS = ["id", "outcome", "score", "reason", "extracted", "voter", "seconds"]
MAKE_13 = {"numbers": [3, 5, 6], "target": 13}


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def judged(result: Result) -> list[dict[str, Any]]:
    """The rows on standard output, which holds nothing else."""
    assert result.exit_code == 0, result.exception
    return [json.loads(line) for line in result.stdout.splitlines()]


def graded(path: Path, rows: Sequence[dict[str, Any]], *options: object) -> list[dict[str, Any]]:
    return judged(verify("--pairs", write(path / "pairs.jsonl", rows), *options))


def refused(result: Result) -> str:
    """The message of a refusal, before which nothing was written."""
    assert result.stdout == ""
    assert isinstance(result.exception, UserError)
    assert result.exception.exit_code == 2
    return str(result.exception)


def pair(kind: str, gold: Any, prediction: Any, **rest: Any) -> dict[str, Any]:
    return {"id": "a", "gold": gold, "prediction": prediction, "kind": kind, **rest}


def test_every_kind_gives_one_row_in_order_with_these_fields(tmp_path: Path) -> None:
    rows = [
        pair("math", "1/2", "0.5") | {"id": "one"},
        pair("choice", "B", "The answer is (B).") | {"id": 2},
        pair("exact", "Paris", "paris") | {"id": "three"},
        pair("countdown", MAKE_13, "3*6-5") | {"id": "4"},
        pair("math", "1/2", "0.6") | {"id": "one"},
    ]
    found = graded(tmp_path, rows)
    assert [list(row) for row in found] == [KEYS] * 5
    assert [(row["id"], row["score"]) for row in found] == [("one", 1), (2, 1), ("three", 1), ("4", 1), ("one", 0)]
    assert found[4]["reason"] == "wrong"
    assert found[4]["extracted"] == "0.6"
    assert all(row["seconds"] > 0 and row["outcome"] == "score" and row["voter"] for row in found)


def test_labelled_pairs_with_their_policies_come_out_as_labelled(tmp_path: Path) -> None:
    labelled = [json.loads(line) for line in LABELLED.read_text("utf-8").splitlines()]
    rows = [row for row in labelled if not row.get("gap")][::4]  # a gap is known to be judged otherwise
    found = graded(tmp_path, rows)
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert [row["score"] == 1 for row in found] == [row["label"] for row in rows]


@pytest.mark.parametrize(
    ("kind", "gold", "right", "wrong"),
    [
        ("math", "42", "\\boxed{42}", "\\boxed{41}"),
        ("math", "7", "She had three apples and bought four more. So there are 3 + 4 = 7 apples", "There are 8. So 8"),
        ("choice", "C", "Answer: C", "It is A or C"),
        ("exact", "Paris", "<answer>Paris</answer>", "<answer>London</answer>"),
        ("exact", "Paris", "The capital it is.\nAnswer: Paris", "Paris is not it.\nAnswer: London"),
        ("countdown", MAKE_13, "<answer>(3*6)-5</answer>", "<answer>18-5</answer>"),
        ("countdown", {"nums": [3, 5, 6], "target": 13}, "(3*6)-5", "18-5"),
        ("regex", "\\d{4}-\\d{2}", "2024-05", "May 2024"),
        ("integer", 12, "<answer>12</answer>", "<answer>21</answer>"),
    ],
)
def test_a_thought_is_taken_off_and_one_that_never_closes_holds_no_answer(
    kind: str, gold: Any, right: str, wrong: str, tmp_path: Path
) -> None:
    thought = "<think>maybe \\boxed{41} A London 18-5</think>\n"
    predictions = [right, thought + right, wrong, thought.replace("</think>", "") + right, thought]
    found = graded(tmp_path, [pair(kind, gold, text) for text in predictions])
    assert [row["score"] for row in found] == [1, 1, 0, 0, 0]
    assert found[3]["reason"] == "no_answer"


@pytest.mark.parametrize(
    "hack",
    [
        *("3.5*2-6", "3**6-5", "13//1", "3*6-5-0", "35-22", "3*6--5", "3*6-5=13", "3*6-5 # 13", "3*6-5+3-3", "13", ""),
        *("<answer>3*6-5</answer> so 13", "<answer>1</answer><answer>3*6-5</answer>", "<think><answer>3*6-5</answer>"),
    ],
)
def test_countdown_hacks_score_0(hack: str, tmp_path: Path) -> None:
    (row,) = graded(tmp_path, [pair("countdown", MAKE_13, hack)])
    assert (row["outcome"], row["score"]) == ("score", 0)


@pytest.mark.parametrize(
    ("prediction", "score"),
    [
        ("First she had three apples and then four more. So it is 3 + 4 = 7.", 1),
        ("Take the first and add the second of them.\nThis leaves $7$", 1),
        ("Es sind am Anfang drei Stück und dann noch vier mehr。一共 7 个", 1),
        ("It could be five or six or 7. I cannot tell which one of them", 0),
        ("One of these, I do not know which of them it is. Maybe 6 or 7", 0),
        ("not 7", 0),
        ("7 apples or 8 apples", 0),
    ],
)
def test_a_response_without_any_mark_counts_by_how_it_ends(prediction: str, score: float, tmp_path: Path) -> None:
    (row,) = graded(tmp_path, [pair("math", "7", prediction)])
    assert (row["outcome"], row["score"]) == ("score", score)


def test_numbers_null_and_missing_answers_are_read_and_a_gold_that_is_none_is_a_skip(tmp_path: Path) -> None:
    rows = [pair("math", 12.5, 12.5), pair("math", "1", None), pair("math", None, "1"), pair("choice", "Q9", "A")]
    found = graded(tmp_path, rows)
    assert [(row["outcome"], row["reason"]) for row in found] == [
        ("score", "correct"),
        ("score", "no_answer"),
        ("skip", "gold_invalid"),
        ("skip", "gold_invalid"),
    ]
    assert [row["score"] for row in found] == [1, 0, None, None]


@pytest.mark.parametrize(
    ("row", "part"),
    [
        (pair("maths", "1", "1"), "kind is 'maths' (did you mean \"math\"?)"),
        (pair("math", "1", "1", policy={"unit": "drop"}), "no field 'unit' (did you mean \"units\"?)"),
        (pair("math", "1", "1", policy={"units": "dropp"}), "units is 'dropp'"),
        (pair("exact", "1", "1", policy={"cases": True}), "no field 'cases' (did you mean \"case\"?)"),
        (pair("exact", "1", "1", policy={"case": 1}), "case is 1: expected one of true, false"),
        (pair("choice", "A", "A", policy={"options": 99}), "options is 99"),
        (pair("countdown", {"numbers": [3.5, 2], "target": 7}, "1"), "of whole numbers"),
        (pair("countdown", MAKE_13, "1", policy={"strict": "no"}), "strict is 'no'"),
        (pair("math", {"a": 1}, "1"), "expected text or a number"),
        (pair("knights_knaves", {"names": ["Ava"]}, "1"), "expected an object with lists names and statements"),
        (pair("instructions", {"kinds": [], "kwargs": []}, "1", policy={"loose": 1}), "expected true or false"),
        (pair("math", "1", ["1"]), "prediction is list: expected text"),
        (pair("math", "1", "1", polcy={"units": "drop"}), "field 'polcy': did you mean \"policy\"?"),
        (pair("math", "1", "1", policy=["units"]), "policy is ['units']: expected an object"),
        ({"id": 1, "gold": "1"}, "no field prediction; it has id, gold"),
        ('{"id": 1, ', "not JSON"),
        ("[1]", "list: expected an object"),
    ],
)
def test_a_row_that_cannot_be_judged_is_named_before_anything_is_judged(row: Any, part: str, tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", [pair("math", "1", "1"), row, pair("math", "2", "2")])
    message = refused(verify("--pairs", path))
    assert message.startswith(f"{path}:2: ")
    assert part in message
    kept = verify("--pairs", path, "--keep-going")
    assert [(r["outcome"], r["score"]) for r in judged(kept)] == [("score", 1), ("skip", None), ("score", 1)]
    assert f"skipped: {path}:2: " in kept.stderr


def test_default_policies_come_from_the_options_and_a_row_may_differ(tmp_path: Path) -> None:
    rows = [
        pair("math", "5 cm", "5 m"),
        pair("math", "5 cm", "5 m", policy={"units": "match"}),
        pair("exact", "a", "A"),
    ]
    options = ("--policy", "units=drop", "--policy", "exact.case=true")
    assert [row["score"] for row in graded(tmp_path, rows)] == [0, 0, 1]
    assert [row["score"] for row in graded(tmp_path, rows, *options)] == [1, 0, 0]
    for bad, part in (("unit=drop", "units"), ("units", "KEY=VALUE"), ("integer.a=1", "has no policy")):
        assert part in refused(verify("--pairs", tmp_path / "pairs.jsonl", "--policy", bad))


def test_a_judge_that_raises_costs_no_row_and_an_error_is_tried_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def flaky(gold: Any, policy: Any) -> registry.Judge:
        def judge(prediction: str, opened: bool = False) -> Verdict:
            calls.append(prediction)
            if prediction == "slow":
                time.sleep(0.2)
            if prediction == "raises":
                raise KeyError("a defect")
            if prediction == "lost" and calls.count("lost") == 1:
                return Verdict("error", None, "worker_lost")
            return Verdict.scored(1, "correct", voter="flaky")

        return judge

    monkeypatch.setitem(registry.KINDS, "flaky", flaky)
    texts = ["slow", "raises", "lost", *map(str, range(100))]
    path = write(tmp_path / "pairs.jsonl", [pair("flaky", "", text) | {"id": text} for text in texts])
    result = verify("--pairs", path)
    rows = judged(result)
    assert [row["id"] for row in rows] == texts
    assert [row["outcome"] for row in rows] == ["score", "error", *["score"] * 101]
    assert (rows[1]["reason"], rows[1]["score"]) == ("voter_failed", None)
    assert calls.count("raises") == calls.count("lost") == 2
    assert "KeyError" in result.stderr
    assert "1 of 103 rows are errors of ours" in result.stderr


def test_killed_workers_lose_no_row(tmp_path: Path) -> None:
    golds = [f"\\int_0^{n} 2x\\,dx" for n in range(1, 9)]
    rows = [pair("math", gold, str(n * n + n % 2)) | {"id": n} for n, gold in enumerate(golds, start=1)]
    done, killed = threading.Event(), []

    def kill() -> None:
        while len(killed) < 6 and not done.wait(0.005):
            for pid in set(default_pool().pids()) - set(killed):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        found = graded(tmp_path, rows)
    finally:
        done.set()
        thread.join()
    assert killed
    assert [(row["id"], row["score"]) for row in found] == [(n, float(n % 2 == 0)) for n in range(1, 9)]
    assert {row["voter"] for row in found} == {"math-verify"}


def test_stored_responses_are_judged_by_their_problems(tmp_path: Path) -> None:
    problems = [
        {"id": "sum", "question": "1+1?", "answer": "so\n#### 2"},
        {"id": "pick", "question": "which?", "answer": "B", "kind": "choice"},
    ]
    responses = [
        {"id": "pick", "response": "Answer: B", "score": 1.0},
        {"id": "sum", "responses": ["<think>3</think> 2", "\\boxed{3}"]},
        {"problem_id": "sum", "text": "2", "score": 0.0},
    ]
    paths = write(tmp_path / "problems.jsonl", problems), write(tmp_path / "responses.jsonl", responses)
    result = verify("--problems", paths[0], "--responses", paths[1], "--summary")
    rows = judged(result)
    assert [(r["id"], r.get("sample"), r["score"]) for r in rows] == [
        ("pick", None, 1),
        ("sum", 0, 1),
        ("sum", 1, 0),
        ("sum", None, 1),
    ]
    assert "same score as stored: 1 of 2" in result.stderr
    write(paths[1], [{"id": "sun", "response": "2"}])
    assert "responses.jsonl:1: no problem 'sun'" in refused(verify("--problems", paths[0], "--responses", paths[1]))


def test_rollouts_of_a_run_are_judged_as_its_task_judges_them(tmp_path: Path) -> None:
    problem = Problem(
        id="countdown-3.5.6-13",
        prompt=(Message("text", "Q:3,5,6>13\n<think>"),),
        task="countdown",
        payload=MAKE_13,
        metadata={"template": "compact"},
    )
    texts = ["3*6</think><answer>3*6-5</answer>", "<answer>3*6-5</answer>", "x</think><answer>3*6-5</answer> yes"]
    rollouts = [
        {"problem_id": problem.id, "sample": i, "text": text, "verdicts": {"accuracy": {"score": score}}}
        for i, (text, score) in enumerate(zip(texts, (1.0, 1.0, 1.0), strict=True))
    ]
    path = tmp_path / "step-000001.jsonl.zst"
    row = json.dumps({"problem": problem.to_json(), "rollouts": rollouts})
    path.write_bytes(zstandard.compress(f"{row}\n".encode()))
    result = verify("--problems", path, "--responses", path, "--summary")
    assert [(r["sample"], r["score"]) for r in judged(result)] == [(0, 1), (1, 0), (2, 1)]
    assert "same score as stored: 2 of 3" in result.stderr


JUDGE = """\
def longest(problem, response):
    return len(response) == len(problem.payload["row"]["word"]) and response == problem.payload["gold"]

def asked(problem, response):
    return problem.id + problem.prompt[0].content == response

def asleep(problem, response):
    raise RuntimeError("judge asleep")
"""


def own_rollouts(root: Path, verifier: str) -> Path:
    """A run directory with one group of a task whose answers a function of the user's judges."""
    problem = Problem(
        id="words:1",
        prompt=(Message("text", "word?"),),
        task="file",
        payload={"kind": "own", "gold": "ab", "policy": {}, "row": {"word": "xy"}},
        metadata={"template": "plain", "format": "plain"},
    )
    rollouts = [
        {"problem_id": problem.id, "sample": i, "text": text, "verdicts": {"accuracy": {"score": score}}}
        for i, (text, score) in enumerate((("ab", 1.0), ("abc", 0.0), ("xy", 1.0)))
    ]
    path = root / "rollouts" / "rl" / "step-000001.jsonl.zst"
    path.parent.mkdir(parents=True)
    row = json.dumps({"problem": problem.to_json(), "rollouts": rollouts})
    path.write_bytes(zstandard.compress(f"{row}\n".encode()))
    (root / "recipe.resolved.yaml").write_text(f"task: {{name: file, verifier: '{verifier}'}}\n", "utf-8")
    return path


def test_what_a_function_of_the_users_judged_is_judged_by_it_again_where_it_is_named(tmp_path: Path) -> None:
    judge = tmp_path / "judge.py"
    judge.write_text(JUDGE, "utf-8")
    path = own_rollouts(tmp_path / "run", "judge.py:longest")
    files = ("--problems", path, "--responses", path)
    message = refused(verify(*files))
    assert "problem 'words:1' was judged by a function of your own (its recipe says judge.py:longest)" in message
    assert "--verifier judge.py:longest; it is run only where you say so" in message
    result = verify(*files, "--verifier", f"{judge}:longest", "--summary")
    assert [(r["sample"], r["score"], r["voter"]) for r in judged(result)] == [
        (0, 1, f"{judge}:longest"),
        (1, 0, f"{judge}:longest"),
        (2, 0, f"{judge}:longest"),
    ]
    assert "same score as stored: 2 of 3" in result.stderr
    # A task with a rule of its own is judged by that, and it is said that this is another one.
    countdown = Problem("c:1", (Message("text", "Q"),), "countdown", MAKE_13, metadata={"template": "compact"})
    sample = {"problem_id": "c:1", "sample": 0, "text": "<answer>3*6-5</answer>", "verdicts": {}}
    other = write(path.with_name("step.jsonl"), [{"problem": countdown.to_json(), "rollouts": [sample]}])
    by_rule = verify("--problems", other, "--responses", other)
    assert [row["score"] for row in judged(by_rule)] == [1]
    assert "in this run judge.py:longest judged; here the rule of each kind does" in by_rule.stderr
    (tmp_path / "run" / "recipe.resolved.yaml").write_text("task: [", "utf-8")
    assert "--verifier path/to/file.py:function" in refused(verify(*files))


def test_a_function_of_the_users_judges_rows_of_any_kind_and_its_failures_are_errors(tmp_path: Path) -> None:
    judge = tmp_path / "judge.py"
    judge.write_text(JUDGE, "utf-8")
    problems = write(tmp_path / "problems.jsonl", [{"id": "p", "question": "How many?"}])  # without a gold
    responses = write(tmp_path / "responses.jsonl", [{"id": "p", "responses": ["pHow many?", "2"]}])
    files = ("--problems", problems, "--responses", responses)
    assert [row["score"] for row in judged(verify(*files, "--verifier", f"{judge}:asked"))] == [1, 0]
    row = pair("own", "ab", "ab", word="xy")
    assert [r["score"] for r in graded(tmp_path, [row], "--verifier", f"{judge}:longest")] == [1]
    asleep = verify(*files, "--verifier", f"{judge}:asleep")
    assert [(r["outcome"], r["reason"], r["score"]) for r in judged(asleep)] == [("error", "voter_failed", None)] * 2
    assert "2 of 2 rows are errors of ours" in asleep.stderr
    for bad, part in (("judge.py", "names no function"), (f"{judge}:asket", 'did you mean "asked"')):
        assert part in refused(verify(*files, "--verifier", bad))
    assert "give one of them" in refused(verify(*files, "--verifier", f"{judge}:asked", "--policy", "units=drop"))


def test_a_response_of_s1_is_read_as_its_task_reads_it(tmp_path: Path) -> None:
    """Its thought ends at the words of its template: without them the whole response would be a bare answer."""
    problem = Problem(
        id="m:1",
        prompt=(Message("text", "1+1?"),),
        task="math",
        payload={"kind": "math", "gold": "2", "policy": {}},
        prefill="<think>",
        metadata={"template": "s1", "format": "s1"},
    )
    rollouts = [{"problem_id": "m:1", "sample": 0, "text": f"maybe 3{S1_ANSWER}2", "verdicts": {}}]
    path = write(tmp_path / "step.jsonl", [{"problem": problem.to_json(), "rollouts": rollouts}])
    assert [row["score"] for row in judged(verify("--problems", path, "--responses", path))] == [1]


def test_the_options_say_what_to_judge(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", [])
    for options in ((), ("--problems", path), ("--pairs", path, "--responses", path)):
        assert "expected --pairs FILE, or --problems FILE with --responses FILE" in refused(verify(*options))
    assert judged(verify("--pairs", path)) == []
