"""Training data are looked at before a run begins.

Why this matters: a missing file or a wrong column is otherwise found after the stages before it have run for hours.

Not exercised here: the other checks (tests/pipeline/test_preflight.py); reading itself (tests/tasks/test_traces.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1kit.config import parse_recipe
from r1kit.config.machine import resolve
from r1kit.pipeline.lengths import root_model
from r1kit.pipeline.plan import plan_stages
from r1kit.pipeline.preflight_data import data_checks

RECIPE = """
name: two stages
task: countdown
processes: 1
dtype: float32
stages:
  base: {kind: pretrain}
  sft: {kind: sft, model: "${base}", max_tokens: 30, data: [{path: ROWS}]}
  more: {kind: sft, model: "${sft}", data: [{path: ROWS, columns: {response: answer}}]}
"""


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def checks(path: Path, *overrides: str) -> dict[str, tuple[bool, str]]:
    recipe = parse_recipe(RECIPE.replace("ROWS", str(path)), "recipe.yaml", overrides)
    return {what: (ok, found) for what, ok, found in data_checks(recipe)}


GOOD = {"prompt": "Q:1", "completion": "1", "answer": "2"}


def test_what_is_found_is_said(tmp_path: Path) -> None:
    found = checks(write(tmp_path / "rows.jsonl", GOOD, {**GOOD, "completion": "1" * 40}))
    assert found["sft: data[0]"] == (
        True,
        f"{tmp_path / 'rows.jsonl'}: 2 of its first 2 rows can be used, to 46 tokens; "
        "1 longer than max_tokens 30, drop",
    )
    assert found["more: data[0]"][0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD, "{"], r"rows.jsonl:2: not JSON"),
        ([{"question": "a"}], "no column that holds the response"),
        ([{**GOOD, "completion": "1" * 40}], "all are longer than max_tokens 30"),
        ([], "none of its 0 rows can be used"),
    ],
)
def test_what_cannot_be_trained_on_fails(rows: list[Any], message: str, tmp_path: Path) -> None:
    ok, found = checks(write(tmp_path / "rows.jsonl", *rows))["sft: data[0]"]
    assert not ok
    assert message in found


JUDGED = """
name: judged data
task: countdown
stages:
  pairs: {kind: preference, model: base, data: [{path: FOLDER/pairs.jsonl}]}
  kto: {kind: preference, model: base, method: kto, data: [{path: FOLDER/labelled.jsonl}]}
  steps: {kind: reward_model, model: base, method: process, data: [{path: FOLDER/steps.jsonl, columns: {labels: n}}]}
  safe: {kind: reward_model, model: base, method: pointwise, data: [{path: FOLDER/labelled.jsonl}]}
  judge: {kind: reward_model, model: base, data: [{path: FOLDER/pairs.jsonl}]}
"""


def test_judged_data_are_read_as_their_stage_will(tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"})
    write(tmp_path / "labelled.jsonl", {"prompt": "a", "completion": "b", "label": True})
    write(tmp_path / "steps.jsonl", {"prompt": "a", "steps": ["b"], "n": [0.5]})

    def found() -> dict[str, tuple[bool, str]]:
        recipe = parse_recipe(JUDGED.replace("FOLDER", str(tmp_path)), "recipe.yaml")
        return {what.partition(":")[0]: (ok, said) for what, ok, said in data_checks(recipe)}

    assert {name: ok for name, (ok, _) in found().items()} == dict.fromkeys(
        ("pairs", "kto", "steps", "safe", "judge"), True
    )
    write(tmp_path / "pairs.jsonl", {"prompt": "a", "chosen": "b"})
    write(tmp_path / "labelled.jsonl", {"prompt": "a", "completion": "b", "label": "good"})
    write(tmp_path / "steps.jsonl", {"prompt": "a", "steps": ["b"], "m": [0.5]})
    said = found()
    assert not any(ok for ok, _ in said.values())
    for name, part in {
        "pairs": "no column that holds the rejected",
        "judge": "no column that holds the rejected",
        "kto": "label is 'good'",
        "safe": "label is 'good'",
        "steps": "steps.jsonl:1: columns.labels is 'n'",
    }.items():
        assert part in said[name][1]


def test_a_file_that_is_not_there_fails(tmp_path: Path) -> None:
    assert checks(tmp_path / "rows.jsonl")["sft: data[0]"] == (
        False,
        f"{tmp_path / 'rows.jsonl'}: no such data file or directory",
    )


def test_stages_behind_a_fine_tuning_know_their_root_and_their_memory(tmp_path: Path) -> None:
    recipe = parse_recipe(RECIPE.replace("ROWS", "rows.jsonl"), "recipe.yaml")
    assert root_model(recipe, "more") is None
    assert [plan.name for plan in plan_stages(recipe)] == ["base", "sft", "more"]
    given = parse_recipe(RECIPE.replace("ROWS", "rows.jsonl"), "recipe.yaml", ["sft.model=/models/base"])
    assert root_model(given, "more") == Path("/models/base")


@pytest.mark.parametrize("kind", ["preference", "reward_model"])
def test_training_on_judged_responses_is_in_the_memory_plan(kind: str) -> None:
    def memory(settings: str) -> int:
        judged = f"{{kind: {kind}, model: '${{base}}', data: [{{path: pairs.jsonl}}], {settings}}}"
        text = f"name: x\ntask: countdown\nstages:\n  base: {{kind: pretrain}}\n  judged: {judged}\n"
        recipe = parse_recipe(text, "recipe.yaml")
        return {plan.name: plan.memory_bytes for plan in plan_stages(resolve(recipe))}["judged"]

    implicit = ", method: implicit" if kind == "reward_model" else ""
    assert memory("token_budget: 8192") < memory("token_budget: 65536")
    assert memory(f"reference: precomputed{implicit}") < memory(f"reference: on_the_fly{implicit}")
    if kind == "preference":
        lora, live = "lora: {rank: 4}", "reference: on_the_fly"
        assert memory(lora) < memory("epochs: 1")
        assert memory(f"{lora}, {live}") == memory(lora), "the reference is the model under the adapters"
        assert memory(f"{lora}, {live}, reference_model: m") > memory(lora)


def test_the_candidates_of_a_merge_are_in_the_memory_plan() -> None:
    def memory(settings: str) -> int:
        merged = f"{{kind: merge, models: ['${{base}}', m], {settings}}}"
        text = f"name: x\ntask: countdown\nstages:\n  base: {{kind: pretrain}}\n  merged: {merged}\n"
        return {p.name: p.memory_bytes for p in plan_stages(resolve(parse_recipe(text, "recipe.yaml")))}["merged"]

    grid = "grid: {weights: [[1, 2]]}"
    assert memory("weights: [1, 2]") < memory(grid) < memory(f"{grid}, evaluate: {{slots: 512}}")
