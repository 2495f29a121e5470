"""Published data forms as traces and pairs, and what becomes of rows that are none.

Why this matters: people bring files of a dozen forms. A column taken for another trains the wrong text without a word;
a bad row that is not named cannot be found among a million.

Not exercised here: files themselves, their packing and damage (test_data_files.py); tokens (tests/models).
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from r1kit.config.data import DataSettings
from r1kit.config.errors import UserError
from r1kit.records import Message, PreferencePair, RecordError, Trace
from r1kit.tasks.traces import BadRowError, read_labelled, read_pairs, read_traces, write_jsonl

DATA = Path(os.environ.get("R1KIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
ASK, SAY = Message("user", "2+2?"), Message("assistant", "4", "Two and two.")

THOUGHT = "<think>\nTwo and two.\n</think>\n\n4"
FORMS: dict[str, dict[str, Any]] = {
    "ShareGPT": {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": THOUGHT}]},
    "OpenAI messages": {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": THOUGHT}]},
    "parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]},
            {"role": "assistant", "content": "4", "reasoning_content": "Two and two."},
        ]
    },
    "prompt and completion": {"prompt": "2+2?", "completion": THOUGHT},
    "conversational prompt": {
        "prompt": [{"role": "user", "content": "2+2?"}],
        "completion": [{"role": "assistant", "content": THOUGHT}],
    },
    "Alpaca": {"instruction": "2+2?", "input": "", "output": THOUGHT},
    "Open-R1": {
        "problem": "2+2?",
        "solution": "not this",
        "answer": "not this",
        "messages": [{"content": "2+2?", "role": "user"}, {"content": THOUGHT, "role": "assistant"}],
    },
    "s1K": {
        "question": "2+2?",
        "solution": "not this",
        "thinking_trajectories": ["Two and two."],
        "attempt": "4",
        "cot_type": "math",
    },
    "s1K-1.1": {
        "question": "2+2?",
        "solution": "not this",
        "gemini_attempt": "not this",
        "deepseek_thinking_trajectory": "Two and two.",
        "deepseek_attempt": "4",
    },
    "OpenThoughts": {
        "problem": "2+2?",
        "ground_truth_solution": "not this",
        "deepseek_reasoning": "Two and two.",
        "deepseek_solution": "4",
    },
    "thinking and answer": {"id": 7, "problem": "2+2?", "thinking": "Two and two.", "answer": "4"},
}


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def settings(path: Path | str, **changes: Any) -> DataSettings:
    return DataSettings(path=str(path), **changes)


@pytest.mark.parametrize("form", FORMS)
def test_every_published_form_gives_the_same_turns(form: str, tmp_path: Path) -> None:
    (trace,) = read_traces(settings(lines(tmp_path / "rows.jsonl", FORMS[form])))
    assert trace.messages == (ASK, SAY)
    assert trace.provenance == {"source": f"{tmp_path / 'rows.jsonl'}:1"}
    assert trace.id == ("7" if "id" in FORMS[form] else "rows.jsonl:1")


def test_limo_trains_the_solution_behind_the_given_system_prompt(tmp_path: Path) -> None:
    file = lines(tmp_path / "limo.jsonl", {"question": "2+2?", "solution": "It is 4.", "answer": "4"})
    (trace,) = read_traces(settings(file, system="Reason step by step."))
    assert trace.messages == (Message("system", "Reason step by step."), ASK, Message("assistant", "It is 4."))


def test_a_system_prompt_of_the_row_wins_over_that_of_the_recipe(tmp_path: Path) -> None:
    file = lines(tmp_path / "rows.jsonl", FORMS["ShareGPT"] | {"system": "Sky."})
    (trace,) = read_traces(settings(file, system="other"))
    assert trace.messages[0] == Message("system", "Sky.")


def test_alpaca_appends_its_input(tmp_path: Path) -> None:
    file = lines(tmp_path / "rows.jsonl", {"instruction": "Add.", "input": "2 and 2", "output": "4"})
    (trace,) = read_traces(settings(file))
    assert trace.messages[0].content == "Add.\n2 and 2"


def test_named_columns_win_over_known_ones(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "rows.jsonl", {"messages": "unused", "frage": "2+2?", "gedanke": "Two and two.", "output": "4"}
    )
    columns = {"prompt": "frage", "reasoning": "gedanke", "response": "output"}
    (trace,) = read_traces(settings(file, columns=columns))
    assert trace.messages == (ASK, SAY)


def test_every_file_kind_reads_alike(tmp_path: Path) -> None:
    row = {"prompt": "2+2?", "completion": THOUGHT}
    text = json.dumps(row)
    lines(tmp_path / "a.jsonl", row)
    (tmp_path / "b.json").write_text(f"[{text}]")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "d.jsonl.zst").write_bytes(zstandard.compress(text.encode()))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "e.parquet")
    with open(tmp_path / "f.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(row))
        writer.writeheader()
        writer.writerow(row)
    (tmp_path / "README.md").write_text("not data")
    reading = read_traces(settings(tmp_path))
    assert [t.messages for t in reading] == [(ASK, SAY)] * 6
    assert [f.name for f in reading.files] == ["a.jsonl", "b.json", "c.jsonl.gz", "d.jsonl.zst", "e.parquet", "f.csv"]


def test_a_conversation_in_a_csv_cell_is_its_json_text(tmp_path: Path) -> None:
    with open(tmp_path / "rows.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["messages"], [json.dumps(FORMS["OpenAI messages"]["messages"])]])
    (trace,) = read_traces(settings(tmp_path / "rows.csv"))
    assert trace.messages == (ASK, SAY)


GOOD = {"prompt": "a", "completion": "b"}
BAD: dict[str, tuple[Any, str]] = {
    "not JSON": ("{", "not JSON"),
    "no response": ({"prompt": "a", "completion": None}, "completion is empty"),
    "blank response": ({"prompt": "a", "completion": " "}, "is empty"),
    "no prompt": ({"completion": "b"}, "prompt is empty"),
    "endless thought": ({"prompt": "a", "completion": "<think>\nb"}, "never ended"),
    "a number for a list": ({"prompt": "a", "completion": {"b": 1}}, "expected one of"),
    "list": ("[1]", "expected an object"),
    "no number": ('{"prompt": "a", "completion": NaN}', "completion is nan: expected a text"),
    "no end": ('{"prompt": -Infinity, "completion": "b"}', "prompt is -inf: expected a text"),
    "half a surrogate": ('{"prompt": "a", "completion": "\\ud83d"}', "half a surrogate pair"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_and_ends_the_reading_or_is_counted(name: str, tmp_path: Path) -> None:
    row, reason = BAD[name]
    file = lines(tmp_path / "rows.jsonl", GOOD, row, GOOD)
    with pytest.raises(BadRowError, match=rf"rows\.jsonl:2: .*{reason}.*bad_rows: skip"):
        list(read_traces(settings(file)))
    reading = read_traces(settings(file, bad_rows="skip"))
    assert len(list(reading)) == 2
    assert (reading.read, reading.skipped) == (3, 1)
    assert reading.bad[0].place == f"{file}:2"
    assert reason in reading.bad[0].reason


CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "ends with the user": ([{"role": "user", "content": "a"}], "last turn is by user"),
    "begins with the assistant": ([{"role": "assistant", "content": "a"}], "no prompt"),
    "unknown speaker": ([{"from": "narrator", "value": "a"}], "by 'narrator'"),
    "late system prompt": (
        [{"role": "user", "content": "a"}, {"role": "system", "content": "s"}, {"role": "assistant", "content": "b"}],
        "turn 2 is a system prompt",
    ),
    "tool call": ([{"from": "human", "value": "a"}, {"from": "function_call", "value": "{}"}], "calls a tool"),
    "nothing": ([], "expected a list of turns"),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations_that_cannot_be_trained(name: str, tmp_path: Path) -> None:
    turns, reason = CONVERSATIONS[name]
    with pytest.raises(BadRowError, match=reason):
        list(read_traces(settings(lines(tmp_path / "rows.jsonl", {"messages": turns}))))


def test_columns_that_cannot_be_told_or_do_not_exist(tmp_path: Path) -> None:
    file = lines(tmp_path / "rows.jsonl", {"a": "x", "question": "q"})
    with pytest.raises(UserError, match=r"no column that holds the response; its columns are a, question"):
        list(read_traces(settings(file)))
    with pytest.raises(
        UserError, match=r"rows\.jsonl:1: columns.response is 'questoin' \(did you mean \"question\"\?\)"
    ):
        list(read_traces(settings(file, columns={"response": "questoin"})))
    for reader, key in ((read_traces, "steps"), (read_pairs, "response"), (read_labelled, "chosen")):
        with pytest.raises(UserError, match=rf"columns.{key} is set, but such rows have none; expected messages"):
            list(reader(settings(file, columns={key: "a"})))


def test_no_file_an_empty_file_and_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such data file"):
        read_traces(settings(tmp_path / "absent.jsonl"))
    with pytest.raises(UserError, match="holds no data file"):
        read_traces(settings(tmp_path))
    reading = read_traces(settings(lines(tmp_path / "rows.jsonl")))
    assert list(reading) == []
    with pytest.raises(UserError, match="none of its 0 rows"):
        reading.require_rows()


def test_max_rows_stops_the_reading(tmp_path: Path) -> None:
    reading = read_traces(settings(lines(tmp_path / "rows.jsonl", GOOD, GOOD, "{"), max_rows=2))
    assert len(list(reading)) == 2


PAIRS: dict[str, dict[str, Any]] = {
    "ShareGPT": {
        "conversations": [{"from": "human", "value": "2+2?"}],
        "chosen": {"from": "gpt", "value": "4"},
        "rejected": {"from": "gpt", "value": "5"},
    },
    "TRL": {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
    "TRL, conversational": {
        "prompt": [{"role": "user", "content": "2+2?"}],
        "chosen": [{"role": "assistant", "content": "4"}],
        "rejected": [{"role": "assistant", "content": "5"}],
    },
    "implicit prompt": {
        "prompt": "not this",
        "chosen": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}],
        "rejected": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "5"}],
    },
    "HH-RLHF": {"chosen": "\n\nHuman: 2+2?\n\nAssistant: 4", "rejected": "\n\nHuman: 2+2?\n\nAssistant: 5"},
    "Alpaca": {"instruction": "2+2?", "input": "", "chosen": "4", "rejected": "5"},
}


@pytest.mark.parametrize("form", PAIRS)
def test_every_published_form_of_pairs(form: str, tmp_path: Path) -> None:
    (pair,) = read_pairs(settings(lines(tmp_path / "rows.jsonl", PAIRS[form])))
    assert (pair.prompt, pair.chosen.content, pair.rejected.content) == ((ASK,), "4", "5")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "chosen": "x", "rejected": "x"}, "are equal"),
        ({"prompt": "a", "chosen": "x", "rejected": ""}, "rejected is empty"),
        (
            {
                "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
                "rejected": "\n\nHuman: a\n\nAssistant: e\n\nHuman: c\n\nAssistant: f",
            },
            "part at turn 2",
        ),
        ({"prompt": [{"role": "assistant", "content": "a"}], "chosen": "x", "rejected": "y"}, "no prompt"),
    ],
)
def test_pairs_that_are_none(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(BadRowError, match=reason):
        list(read_pairs(settings(lines(tmp_path / "rows.jsonl", row))))


def test_labelled_responses(tmp_path: Path) -> None:
    rows = [{**FORMS["ShareGPT"], "label": True}, {**FORMS["ShareGPT"], "label": "false"}]
    assert [label for _, label in read_labelled(settings(lines(tmp_path / "rows.jsonl", *rows)))] == [True, False]
    with pytest.raises(BadRowError, match="label is 'good': expected true or false"):
        list(read_labelled(settings(lines(tmp_path / "rows.jsonl", {**FORMS["ShareGPT"], "label": "good"}))))


def test_labels_of_tables(tmp_path: Path) -> None:
    """CSV has texts only, and pandas writes a column with a gap as floats."""
    (tmp_path / "a.csv").write_text("prompt,completion,label\na,b,1\na,b,0\na,b,True\na,b,0.0\na,b,2\na,b,\n")
    reading = read_labelled(settings(tmp_path / "a.csv", bad_rows="skip"))
    assert [label for _, label in reading] == [True, False, True, False]
    assert [bad.reason for bad in reading.bad] == [
        "label is '2': expected true or false, 1 or 0",
        "label is '': expected true or false, 1 or 0",
    ]
    rows = [{"prompt": "a", "completion": "b", "label": label} for label in (1.0, 0.0, 0.5, math.nan)]
    rows += [{**rows[0], "completion": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "b.parquet")
    reading = read_labelled(settings(tmp_path / "b.parquet", bad_rows="skip"))
    assert [label for _, label in reading] == [True, False]
    assert [bad.place.rpartition(":")[2] for bad in reading.bad] == ["row 3", "row 4", "row 5"]


def test_nan_of_a_column_of_floats_is_nobodys_word(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": value} for value in (4.5, math.nan)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    reading = read_traces(settings(tmp_path / "rows.parquet", bad_rows="skip"))
    assert [trace.messages[-1].content for trace in reading] == ["4.5"]
    assert reading.bad[0].reason == "completion is nan: expected a text"


def test_one_object_over_several_lines(tmp_path: Path) -> None:
    file = tmp_path / "row.json"
    file.write_text("\ufeff\n" + json.dumps({"prompt": "2+2?", "completion": THOUGHT}, indent=2) + "\n")
    (trace,) = read_traces(settings(file))
    assert trace.messages == (ASK, SAY)
    assert trace.provenance == {"source": f"{file}:2"}
    row = json.dumps(GOOD)
    for number, content in ((1, row), (2, f"{row}\n{row}"), (2, f"{row}\n{{\n{row}")):
        file.write_text(content)
        assert len(list(read_traces(settings(file, bad_rows="skip")))) == number


def test_what_is_written_is_read_as_it_was(tmp_path: Path) -> None:
    # A text that reads like a thought stays what the writer said it was.
    trace = Trace("t", (Message("text", "Q"), Message("assistant", THOUGHT)), "p", {"teacher": "big", "k": [1]})
    pair = PreferencePair("p", (ASK,), SAY, Message("assistant", "5"), "verifier", {})
    write_jsonl(tmp_path / "traces.jsonl.zst", [trace])
    write_jsonl(tmp_path / "pairs.jsonl", [pair])
    assert list(read_traces(settings(tmp_path / "traces.jsonl.zst"))) == [trace]
    assert list(read_pairs(settings(tmp_path / "pairs.jsonl"))) == [pair]


def test_records_refuse_what_they_are_not() -> None:
    with pytest.raises(RecordError, match="expected the assistant's"):
        Trace("t", (ASK, ASK))
    with pytest.raises(RecordError, match="expected a prompt and a response"):
        Trace("t", (SAY,))
    with pytest.raises(RecordError, match="chosen and rejected are equal"):
        PreferencePair("p", (ASK,), SAY, SAY)


# Reader and least share of good rows. In cot_skyt1 more than half of the thoughts were never closed.
REAL: dict[str, tuple[Any, float]] = {
    "cot_r1distill_math/traces.jsonl.gz": (read_traces, 0.9),
    "cot_skyt1/traces.jsonl.gz": (read_traces, 0.4),
    "cot_star1_safety/train.jsonl.gz": (read_traces, 1.0),
    "gpteacher/roleplay.jsonl.gz": (read_traces, 0.99),
    "math/train.jsonl.gz": (read_traces, 1.0),
    "dpo_demo/en.jsonl.gz": (read_pairs, 1.0),
    "hh_rlhf/harmless_base_test.jsonl.gz": (read_pairs, 0.9),
    "kto_demo/en.jsonl.gz": (read_labelled, 1.0),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read(name: str) -> None:
    if not (DATA / name).is_file():
        pytest.skip(f"no {name}: set R1KIT_DATA to a folder that holds it")
    reader, share = REAL[name]
    reading = reader(settings(DATA / name, bad_rows="skip"))
    assert sum(1 for _ in reading) >= share * reading.read > 0, reading.bad[:3]
