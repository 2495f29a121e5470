"""Why this matters: somebody's own questions and answers are trained on as they are read. A column taken for another,
a wrong gold, a question on both sides: the run goes on and learns that.

Not exercised: what the verifiers accept (tests/verifiers); published sets (test_shared_data).
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from r1kit.config import ConfigError, UserError
from r1kit.records import prompt_text
from r1kit.tasks.check_data import check_data

from .question_files import CAPITALS, all_problems, capitals, file_task, write_rows


def test_questions_and_answers_become_problems(tmp_path: Path) -> None:
    path = capitals(tmp_path / "land.jsonl")
    task = file_task(verifier="exact", data=path, system="Be brief.")
    problems = all_problems(task)
    assert len(problems) == len(CAPITALS)
    assert len({p.id for p in problems}) == len(CAPITALS)
    first = next(p for p in problems if p.payload["gold"] == "Paris")
    assert prompt_text(first.prompt) == "[system] Be brief.\n[user] What is the capital of France?"
    assert first.metadata == {
        "template": "chat",
        "format": "any",
        "file": "land.jsonl",
        "line": 1,
        "witness": "Paris",
    }
    assert first.id == "land:1"
    verdicts = task.verify(first, "<think>I know</think>paris.")
    assert {name: v.score for name, v in verdicts.items()} == {"accuracy": 1, "format": 1}
    assert task.verify(first, "Rome")["accuracy"].reason == "wrong"
    assert task.verify(first, "<think>Paris")["accuracy"].reason == "no_answer"


def rows(count: int = 12) -> list[dict[str, Any]]:
    return [{"id": f"q{i}", "ask": f"{i}*7=", "is": 7 * i, "set": ("dev", "train")[i % 2]} for i in range(1, count + 1)]


def write_as(path: Path, suffix: str) -> Path:
    target = path / f"sums{suffix}"
    if suffix == ".csv":
        with target.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["id", "ask", "is", "set"])
            writer.writeheader()
            writer.writerows(rows())
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows()), target)
    else:
        plain = write_rows(path / "plain.jsonl", rows())
        target.write_bytes(gzip.compress(plain.read_bytes()) if suffix.endswith(".gz") else plain.read_bytes())
    return target


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".parquet"])
def test_columns_are_mapped_in_every_format(tmp_path: Path, suffix: str) -> None:
    columns = {"problem": "ask", "answer": "is", "id": "id", "split": "set"}
    task = file_task(verifier="integer", data=write_as(tmp_path, suffix), columns=columns)
    assert sorted(p.id.rpartition(":")[2] for p in task.problems("train")) == ["q1", "q11", "q3", "q5", "q7", "q9"]
    assert len(task.problems("test")) == 6
    problem = next(p for p in task.problems("train") if p.id.endswith(":q3"))
    assert task.verify(problem, "21")["accuracy"].correct
    assert problem.split == "train"


def test_problems_are_known_by_their_file_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1KIT_DATA", str(tmp_path))
    for folder in ("sums", "more"):
        (tmp_path / folder).mkdir()
        write_rows(tmp_path / folder / "train.jsonl", [{"question": f"{folder} 1+1?", "answer": "2"}])
    for paths, ids in (
        ([tmp_path / "sums/train.jsonl"], ["train:1"]),
        (["$R1KIT_DATA/sums/train.jsonl"], ["sums/train:1"]),
        ([tmp_path / "sums/train.jsonl", tmp_path / "more/train.jsonl"], ["more/train:1", "sums/train:1"]),
    ):
        task = file_task(verifier="exact", test_data=paths)
        assert sorted(p.id for p in task.problems("test")) == ids


def test_several_columns_make_one_question(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"t": f"Text {i}.", "q": f"Which {i}?", "a": "x"} for i in range(9)])
    task = file_task(verifier="exact", data=path, columns={"problem": ["t", "q"], "answer": "a"}, test_share=0.5)
    assert {p.prompt[0].content for p in all_problems(task)} == {f"Text {i}.\nWhich {i}?" for i in range(9)}


# --- the split ---


def test_the_split_is_by_content_and_does_not_move(tmp_path: Path) -> None:
    asked = [{"question": f"Name the number {i}.", "answer": str(i)} for i in range(200)]
    whole = file_task(verifier="exact", data=write_rows(tmp_path / "a.jsonl", asked))
    part = file_task(verifier="exact", data=write_rows(tmp_path / "b.jsonl", asked[50:][::-1]))
    assert 20 <= len(whole.problems("test")) <= 60
    held_out = {p.payload["gold"] for p in whole.problems("test")}
    assert {p.payload["gold"] for p in part.problems("test")} == {g for g in held_out if int(g) >= 50}


def test_nearly_equal_questions_are_on_one_side(tmp_path: Path) -> None:
    text = "A farmer has {} cows and buys {} more of them at the market. How many cows has he now?"
    near = [{"question": text.format(i, i + 1), "answer": str(2 * i + 1)} for i in range(30)]
    others = [{"question": f"Name the number {i}.", "answer": str(i)} for i in range(30)]
    path = write_rows(tmp_path / "a.jsonl", near + others)
    for problems in map(file_task(verifier="exact", data=path).problems, ("train", "test")):
        assert sum("farmer" in p.prompt[0].content for p in problems) in (0, 30)
    apart = file_task(verifier="exact", data=path, families="exact")
    assert 0 < sum("farmer" in p.prompt[0].content for p in apart.problems("test")) < 30


def test_one_family_cannot_be_divided(tmp_path: Path) -> None:
    text = "A farmer has {} cows and buys {} more of them at the market. How many cows has he now?"
    path = write_rows(tmp_path / "a.jsonl", [{"question": text.format(i, i), "answer": str(2 * i)} for i in range(30)])
    with pytest.raises(UserError, match=r"30 questions in 1 families, .* families: exact where nearly equal"):
        file_task(verifier="exact", data=path).problems("train")


def test_a_family_column_says_what_belongs_together(tmp_path: Path) -> None:
    asked = [{"question": f"Name {i}.", "answer": str(i), "book": f"b{i % 5}"} for i in range(60)]
    task = file_task(
        verifier="exact", data=write_rows(tmp_path / "a.jsonl", asked), columns={"family": "book"}, test_share=0.5
    )
    train, test = ({p.family for p in task.problems(side)} for side in ("train", "test"))
    assert train
    assert test
    assert not train & test
    assert train | test == {f"book b{i}" for i in range(5)}


def test_a_training_question_that_nearly_stands_in_the_test_file_is_left_out(tmp_path: Path) -> None:
    text = "A farmer has {} cows and buys {} more of them at the market. How many cows has he now?"
    train = [{"question": f"Name {i}.", "answer": str(i)} for i in range(5)]
    leak = [{"question": text.format(3, 4), "answer": "7"}, {"question": " NAME 9. ", "answer": "9"}]
    test = [{"question": text.format(10, 20), "answer": "30"}, {"question": "Name 9.", "answer": "9"}]
    task = file_task(
        verifier="exact",
        data=write_rows(tmp_path / "a.jsonl", train + leak),
        test_data=write_rows(tmp_path / "b.jsonl", test),
    )
    assert {p.payload["gold"] for p in task.problems("train")} == {str(i) for i in range(5)}
    assert len(task.problems("test")) == 2
    assert f"2 nearly a held-out one, such as {tmp_path}/a.jsonl:6: {tmp_path}/b.jsonl:1" in task.notes()[-1]


def test_only_held_out_questions_will_do(tmp_path: Path) -> None:
    task = file_task(verifier="exact", test_data=capitals(tmp_path / "a.jsonl"))
    assert (len(task.problems("train")), len(task.problems("test"))) == (0, len(CAPITALS))


def test_caps_take_the_same_problems_whatever_the_other_settings(tmp_path: Path) -> None:
    path = capitals(tmp_path / "a.jsonl")
    whole, capped = (file_task(verifier="exact", data=path, train_problems=n) for n in (None, 3))
    assert list(capped.problems("train")) == list(whole.problems("train")[:3])
    other = file_task(verifier="exact", data=path, seed=3, test_share=0.5)
    assert [p.id for p in other.problems("train")] != [p.id for p in whole.problems("train")]


def test_difficulty_is_read_and_chosen_by(tmp_path: Path) -> None:
    levels = ["Level 1", 3, "4.5", None, "Level 5"]
    asked = [{"question": f"Name {i}.", "answer": str(i), "level": level} for i, level in enumerate(levels * 4)]
    path = write_rows(tmp_path / "a.jsonl", asked)
    task = file_task(verifier="exact", data=path, columns={"difficulty": "level"}, train_difficulty=[3, 4.5])
    assert {p.difficulty for p in task.problems("train")} == {3.0, 4.5}
    assert {p.difficulty for p in task.problems("test")} - {3.0, 4.5}
    assert "difficulty outside 3 to 4.5" in task.notes()[-1]


# --- what is wrong with a file ---


def refused(tmp_path: Path, content: Any, *, name: str = "a.jsonl", **settings: Any) -> str:
    """The message with which the content of a file is refused, without the folder."""
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_rows(path, content)
    with pytest.raises(UserError) as caught:
        all_problems(file_task(**{"verifier": "exact", "data": path, **settings}))
    return str(caught.value).replace(f"{tmp_path}/", "")


GOOD = [{"question": f"Name {i}.", "answer": str(i)} for i in range(8)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{oops", "a.jsonl:9: not JSON: Expecting property name enclosed in double quotes at column 2"),
        ("[1, 2]", "a.jsonl:9: list: expected an object"),
        ({"question": "Empty?", "answer": " "}, "a.jsonl:9: the answer is empty"),
        ({"question": "Missing?"}, "a.jsonl:9: the answer is empty"),
        ({"question": "", "answer": "5"}, "a.jsonl:9: the problem is empty"),
        ({"question": "A list?", "answer": {"a": 1}}, "a.jsonl:9: gold is {'a': 1}: expected text or a number"),
        ({"question": "A truth?", "answer": True}, "a.jsonl:9: gold is True: expected text or a number"),
        ({"question": "Name 3.", "answer": "4"}, "a.jsonl:9: the problem of line 4, with another answer"),
    ],
)
def test_a_bad_row_is_named_by_line_and_not_trained(tmp_path: Path, row: Any, message: str) -> None:
    found = refused(tmp_path, [*GOOD, row])
    assert found.startswith("something is wrong with 1 of 9 rows of the task's data:\n")
    assert message in found
    assert "set task.bad_rows: skip" in found
    task = file_task(verifier="exact", data=tmp_path / "a.jsonl", bad_rows="skip")
    kept = 7 if "another answer" in message else 8
    assert len(all_problems(task)) == kept
    both = "1 answered otherwise further down, such as that of" if kept == 7 else "1 wrong"
    assert f"{kept} of 9 rows are used; left out: {both}" in task.notes()[-1]


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    good = "".join(f'{{"question": "Name {i}.", "answer": "{i}"}}\n' for i in range(8)).encode()
    found = refused(tmp_path, good + b'{"question": "caf\xe9", "answer": "1"}\n')
    assert "a.jsonl:9: not UTF-8: invalid continuation byte at byte 17" in found
    cells = b"question,answer\n" + b"".join(b"Name %d.,%d\n" % (i, i) for i in range(8)) + b"caf\xe9,1\n"
    assert "a.csv:10: not UTF-8" in refused(tmp_path, cells, name="a.csv")


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ([], {}, "a.jsonl: the file is empty"),
        (["{oops"], {}, "a.jsonl: no row can be read; a.jsonl:1: not JSON"),
        (
            GOOD,
            {"columns": {"answer": "anwser"}},
            "a.jsonl: no column 'anwser' (did you mean \"answer\"?); its columns",
        ),
        (GOOD, {"columns": {"split": "fold"}}, "a.jsonl: no column 'fold'"),
        (
            [{"a": 1, "b": 2}],
            {},
            "which column is the problem? Its columns are a, b; name it with task.columns.problem",
        ),
        ([{"question": 1, "b": 2}], {}, "which column is the answer?"),
        (GOOD, {"policy": {"cases": True}}, "task.policy: exact policy: no field 'cases' (did you mean \"case\"?)"),
        (GOOD, {"verifier": "integer", "policy": {"a": 1}}, "task.policy: kind integer has no policy"),
        (
            GOOD,
            {"verifier": "code"},
            "name their column with task.columns.answer. Its columns are question",
        ),
        (
            GOOD,
            {"verifier": "countdown"},
            "countdown is read from columns target, nums; or target, numbers. Its columns",
        ),
        (GOOD, {"data": "nowhere.jsonl"}, "data file nowhere.jsonl does not exist"),
        (GOOD, {"data": "$R1KIT_NOT_SET/a.jsonl"}, "the environment has no variable R1KIT_NOT_SET"),
        (GOOD, {"test_data": "/"}, "data file / is a directory: name its files"),
    ],
)
def test_a_file_or_setting_that_cannot_be_used(
    tmp_path: Path, content: Any, settings: dict[str, Any], message: str
) -> None:
    assert message in refused(tmp_path, content, **settings)


def test_a_name_that_says_no_format(tmp_path: Path) -> None:
    assert "expected a name that ends in .jsonl" in refused(tmp_path, GOOD, name="a.txt")


def test_a_split_column_of_other_words(tmp_path: Path) -> None:
    asked = [{**row, "part": "train"} for row in GOOD[:-1]] + [{**GOOD[-1], "part": "tset"}]
    found = refused(tmp_path, asked, columns={"split": "part"})
    assert "a.jsonl:8: part is 'tset': expected one of train, training, test, validation" in found


def test_a_difficulty_that_is_no_number(tmp_path: Path) -> None:
    asked = [{**row, "level": 1} for row in GOOD[:-1]] + [{**GOOD[-1], "level": "Level ?"}]
    found = refused(tmp_path, asked, columns={"difficulty": "level"})
    assert "a.jsonl:8: level is 'Level ?': expected a number" in found


def test_an_id_that_comes_twice(tmp_path: Path) -> None:
    asked = [{**row, "id": min(i, 6)} for i, row in enumerate(GOOD)]
    found = refused(tmp_path, asked)
    assert "a.jsonl:8: its id 6 is that of a.jsonl:7" in found


def test_a_question_that_comes_twice_with_one_answer_is_kept_once(tmp_path: Path) -> None:
    a = write_rows(tmp_path / "a.jsonl", [*GOOD, {"question": "name  ２.", "answer": "2"}])
    b = write_rows(tmp_path / "b.jsonl", [{"question": "Name 5.", "answer": "5"}])
    task = file_task(verifier="exact", data=[a, b])
    assert len(all_problems(task)) == 8
    assert "left out: 2 there twice" in task.notes()[-1]


def test_two_files_that_disagree(tmp_path: Path) -> None:
    b = write_rows(tmp_path / "b.jsonl", [{"question": "Name 5.", "answer": "6"}])
    found = refused(tmp_path, GOOD, data=[tmp_path / "a.jsonl", b])
    assert "b.jsonl:1: the problem of a.jsonl:6, with another answer" in found
    kept = all_problems(file_task(verifier="exact", data=[tmp_path / "a.jsonl", b], bad_rows="skip"))
    assert "5" not in {p.payload["gold"] for p in kept}


def test_a_math_gold_that_is_not_itself_is_refused(tmp_path: Path) -> None:
    found = refused(tmp_path, [*GOOD, {"question": "Broken?", "answer": "\\frac{1}{"}], name="a.jsonl", verifier="math")
    assert "a.jsonl:9: \\frac{1}{: " in found


def test_columns_named_kind_and_policy_are_data(tmp_path: Path) -> None:
    asked = [{**row, "kind": "cardiology", "policy": "P-17"} for row in GOOD]
    task = file_task(verifier="exact", data=write_rows(tmp_path / "a.jsonl", asked))
    assert {p.payload["kind"] for p in all_problems(task)} == {"exact"}


def test_a_run_reads_the_files_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = capitals(tmp_path / "a.jsonl")
    first = file_task(verifier="exact", data=path)
    assert all_problems(first)
    again = file_task(verifier="exact", data=path, template="dapo", train_problems=2)
    assert again.intake is first.intake
    write_rows(path, GOOD)
    changed = file_task(verifier="exact", data=path)
    assert {p.payload["gold"] for p in all_problems(changed)} == {str(i) for i in range(8)}


def test_problems_can_be_judged_again_from_their_records(tmp_path: Path) -> None:
    problems = all_problems(file_task(verifier="math", data=write_rows(tmp_path / "a.jsonl", GOOD)))
    stored = write_rows(tmp_path / "problems.jsonl", [p.to_json() for p in problems])
    report = check_data(stored)
    assert report.ok
    assert report.rows == len(GOOD)


def test_a_verifier_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.verifier: 'exakt' \(did you mean .exact.\?\)"):
        file_task(verifier="exakt", data="a.jsonl")
