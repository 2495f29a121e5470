"""Why this matters: a task is of use once a stage trains and measures on it. Whole stages are run here on somebody's
own questions, and programs and formulas are judged as a stage judges them.

Not exercised: learning; an untrained tiny base answers nonsense.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from r1kit.config import ModelSettings, RLSettings, UserError, load_recipe, resolve
from r1kit.engines.protocol import Request, Sample
from r1kit.evaluation import evaluate
from r1kit.models.loading import write_model
from r1kit.models.tiny import make_tiny
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.pipeline.preflight import preflight
from r1kit.pipeline.run import Options, run_recipe
from r1kit.rewards import make_reward
from r1kit.sandbox import SandboxError, shared_sandbox
from r1kit.tasks import close_judges
from r1kit.training.sampling import GroupSampler

from .question_files import file_task, write_rows

TOKENIZER = build_tiny_tokenizer()
RECIPE = """\
name: own
task: {name: file, verifier: exact, data: sums.jsonl, columns: {problem: ask, answer: sum}, template: compact}
processes: 1
stages:
  rl:
    kind: rl
    model: %s
    steps: 2
    problems_per_step: 3
    samples_per_problem: 2
    warmup_steps: 0
    sampling: {max_tokens: 12}
    token_budget: 128
    reward: {kind: r1_zero}
    dynamic_sampling: {enabled: false}
  final: {kind: evaluate, model: "${rl}", problems: 4, samples: 2, max_tokens: 12}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe beside a file of sums, over an untrained base."""
    rows = [{"ask": f"{i}+{j}=", "sum": str(i + j)} for i in range(6) for j in range(6)]
    write_rows(tmp_path / "sums.jsonl", rows)
    shape = ModelSettings(hidden=16, layers=1, heads=1, kv_heads=1, head_dim=16, intermediate=32)
    write_model(make_tiny(shape, TOKENIZER, seed=0), TOKENIZER, tmp_path / "base")
    (tmp_path / "own.yaml").write_text(RECIPE % (tmp_path / "base"))
    return tmp_path / "own.yaml"


def test_a_run_on_questions_of_ones_own(recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipe(recipe)
    result = run_recipe(loaded, tmp_path / "out")
    (stored,) = (tmp_path / "out" / "evaluations" / "final").iterdir()
    evaluation = json.loads(stored.read_text())
    assert evaluation["benchmark"] == "file/test"
    assert (evaluation["judged"], evaluation["errors"]) == (8, 0)
    lineage = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert str(tmp_path / "sums.jsonl") in lineage["inputs"]
    assert result.root == tmp_path / "out"
    with (tmp_path / "sums.jsonl").open("a") as stream:
        stream.write('{"ask": "7+7=", "sum": "14"}\n')
    with pytest.raises(UserError, match=r"would change:\n.*of a data file"):
        run_recipe(loaded, tmp_path / "out", Options(allow_new_code=True))


def test_a_run_that_judges_programs_says_in_which_sandbox(recipe: Path, tmp_path: Path) -> None:
    try:
        tier = shared_sandbox().tier
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")
    rows = [{"question": f"{i}+", "tests": {"programs": [{"stdin": "", "expected": str(i)}]}} for i in range(2)]
    write_rows(tmp_path / "programs.jsonl", rows)
    (tmp_path / "exam.yaml").write_text(
        "name: exam\n"
        "task: {name: code, test_data: programs.jsonl, columns: {answer: tests}, template: compact}\n"
        "processes: 1\n"
        f"stages: {{exam: {{kind: evaluate, model: {tmp_path / 'base'}, problems: 2, samples: 1, max_tokens: 4}}}}\n"
    )
    run_recipe(load_recipe(tmp_path / "exam.yaml"), tmp_path / "out")
    recorded = json.loads((tmp_path / "out" / "stages" / "exam.json").read_text())["sandbox"]
    assert recorded.startswith(f"tier {tier}, isolation private, ")
    assert f"exam: sandbox: {recorded}\n" in (tmp_path / "out" / "run.log").read_text()


def test_the_check_says_what_becomes_of_the_rows(recipe: Path, tmp_path: Path) -> None:
    with (tmp_path / "sums.jsonl").open("a") as stream:
        stream.write('{"ask": "1+1=", "sum": "2"}\n')
    found = [(check.name, check.ok, check.found) for check in preflight(resolve(load_recipe(recipe)))]
    assert all(ok for _, ok, _ in found), found
    texts = {name: text for name, _, text in found}
    place = tmp_path / "sums.jsonl"
    assert (
        texts["task data"]
        == f"36 of 37 rows are used; left out: 1 there twice, such as {place}:37: the problem of line 8"
    )
    assert texts["golds verify"] == "the solutions of 36 problems verify"
    assert texts["rl: a right response can score full marks"] == "a right response earns 2, an empty one 0"


@pytest.mark.parametrize(
    ("change", "check", "message"),
    [
        ("task.template=chat", "rl: a right response can score full marks", ""),
        ("task.format=boxed", "rl: a right response can score full marks", ""),
        ("rl.problems_per_step=64", "rl: problems", "lower it or widen the task"),
        ("rl={kind: pretrain, tokens: 4096, warmup_steps: 0}", "rl: corpus", "start from a checkpoint instead"),
        ("task.prompt=Was ist {question} für Sie?", "prompts and tokenizer", "36 of 36 prompts have an unknown token"),
    ],
)
def test_what_can_and_cannot_work_is_told_before_the_run(recipe: Path, change: str, check: str, message: str) -> None:
    changes = [change, "task.template=chat"] if "prompt" in change else [change]
    found = {c.name: c for c in preflight(resolve(load_recipe(recipe, changes)))}
    checked = next(c for name, c in found.items() if name.startswith(check))
    assert checked.ok == (message == "")
    assert message in checked.found


def test_a_chat_template_that_opens_the_thought_has_to_be_known(recipe: Path, tmp_path: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("<|assistant|>' }}", "<|assistant|><think>\n' }}")
    tokenizer.save_pretrained(tmp_path / "base")
    changes = ["task.template=chat"]
    found = [c for c in preflight(resolve(load_recipe(recipe, changes))) if not c.ok]
    assert [c.found for c in found] == [
        'the chat template itself opens <think>: set task.prefill: "<think>\\n", so that responses are read as '
        "beginning inside the thought"
    ]
    changes.append('task.prefill="<think>\\n"')
    assert all(c.ok for c in preflight(resolve(load_recipe(recipe, changes))))


class Scripted:
    """An engine that answers sample i of every problem with script i."""

    policy_version = 0

    def __init__(self, script: Sequence[str]) -> None:
        self.script = script

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        return [self._sample(request) for request in requests]

    def _sample(self, request: Request) -> Sample:
        text = self.script[request.sample]
        ids = (*TOKENIZER.encode(text, add_special_tokens=False), TOKENIZER.eos_token_id)
        return Sample(request.id, ids, (-1.0,) * len(ids), (False,) * len(ids), "stopped", 0)


PROGRAMS = [
    "<think>add</think>\n```python\nprint(sum(map(int, input().split())))\n```",
    "<think>add</think>\n```python\nprint(input())\n```",
    "```python\nwhile True: pass\n```",
    "no program",
]
REASONS = ["correct", "wrong", "over_limit", "no_answer"]


def test_programs_of_a_policy_are_judged_in_the_sandbox(tmp_path: Path) -> None:
    try:
        shared_sandbox()
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")
    tests = {"programs": [{"stdin": "1 2", "expected": "3"}, {"stdin": "5 5", "expected": "10"}]}
    rows = [
        {"question": f"Add the numbers ({i}).", "tests_": {**tests, "limits": {"cpu_seconds": 0.5}}} for i in range(2)
    ]
    path = write_rows(tmp_path / "code.jsonl", rows)
    task = file_task(name="code", test_data=path, columns={"answer": "tests_"})
    problems = task.problems("test")

    values = {"model": "base", "warmup_steps": 0, "sampling": {"max_tokens": 200}, "reward": {"kind": "r1_zero"}}
    stage = RLSettings.model_validate(values)
    reward: Any = make_reward(stage.reward, steps=1, seed=0)
    sampler = GroupSampler(Scripted(PROGRAMS), TOKENIZER, task, reward, stage.sampling, 4)  # type: ignore[arg-type]
    for sampled in sampler.sample(problems, seed=0, step=1):
        assert not sampled.group.failed
        assert [r.verdicts["accuracy"].reason for r in sampled.group] == REASONS
        assert sampled.group.rewards.tolist() == [2, 1, 1, 0]

    class Settings:
        problems, samples, max_tokens, temperature, top_p = 2, 4, 200, 1.0, 1.0

    measured = evaluate(Scripted(PROGRAMS), TOKENIZER, task, problems, Settings, seed=0).to_json()  # type: ignore[arg-type]
    assert measured["pass@1"]["value"] == 0.25
    assert measured["reasons"] == dict.fromkeys(sorted(REASONS), 2)
    close_judges()


def test_formulas_of_a_policy_are_judged(tmp_path: Path) -> None:
    rows = [{"problem": f"Half of {i}?", "answer": rf"\frac{{{i}}}{{2}}"} for i in (3, 5)]
    task = file_task(name="math", test_data=write_rows(tmp_path / "math.jsonl", rows), template="qwen_math")
    problems = sorted(task.problems("test"), key=lambda p: p.metadata["line"])
    script = ["it is \\boxed{1.5}", "\\boxed{3/2} or \\boxed{5/2}", "\\boxed{", "<think>\\boxed{3/2}"]

    class Settings:
        problems, samples, max_tokens, temperature, top_p = 2, 4, 100, 1.0, 1.0

    measured = evaluate(Scripted(script), TOKENIZER, task, problems, Settings, seed=0).to_json()  # type: ignore[arg-type]
    assert measured["pass@1"]["value"] == 0.125
    assert measured["format"] == 0.5
    close_judges()
