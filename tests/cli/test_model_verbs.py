"""Why this matters: `eval`, `sample` and `export` are how a finished model is used; they must run on a bare checkpoint.

The checkpoint is a tiny model with random weights, so only the way is exercised, not what it answers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from r1kit.cli.app import app
from r1kit.config import ModelSettings, UserError, dump_recipe, load_recipe
from r1kit.models.loading import write_model
from r1kit.models.tiny import make_tiny
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.pipeline.ask import default_cap, written_problem
from r1kit.pipeline.catalog import find_recipe
from r1kit.pipeline.export import find_model
from r1kit.tasks import make_task


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = build_tiny_tokenizer()
    shape = ModelSettings(hidden=16, layers=1, heads=1, kv_heads=1, head_dim=16, intermediate=32)
    write_model(make_tiny(shape, tokenizer, seed=0), tokenizer, folder)
    (folder / "trainer.json").write_text("{}")
    return folder


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(app, [*arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_eval_writes_the_whole_evaluation(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "eval.json"
    options = ["--task", "countdown", "--problems", "3", "--samples", "2", "--cap", "8", "--processes", "1"]
    result = invoke("eval", str(checkpoint), *options, "--set", "task.high=5", "--out", str(out))
    assert "3 problems x 2 samples, cap 8 tokens" in result.stdout
    assert "pass@1 " in result.stdout
    evaluation = json.loads(out.read_text())
    assert (evaluation["n"], evaluation["k"], evaluation["cap"]) == (3, 2, 8)
    assert evaluation["examples"]


def test_eval_needs_a_task_outside_a_run(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="give --task countdown"):
        invoke("eval", str(checkpoint))


def test_sample_judges_a_written_problem(checkpoint: Path) -> None:
    result = invoke("sample", str(checkpoint), "--problem", "3,5,6>13", "-n", "2", "--cap", "8")
    assert result.stdout.startswith("Q:3,5,6>13\n")
    assert result.stdout.count("accuracy ") == 2


def test_sample_takes_any_prompt(checkpoint: Path) -> None:
    options = ["--prompt", "Q:12*34", "--cap", "4", "--temperature", "0"]
    first, second = (invoke("sample", str(checkpoint), *options).stdout for _ in range(2))
    assert first == second
    assert "-- 4 tokens, cut at the cap of 4" in first


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["eval", "--task", "countdown", "--processes", "3x"], "processes is '3x'"),
        (["eval", "--task", "countdown", "--dtype", "half"], "dtype is 'half'"),
        (["eval", "--task", "countdown", "--set", "task={name: countdown, high: 4, test_share: 0.001}"], "no problem"),
        (["sample", "--problem", "12*34", "--dtype", "half"], "dtype is 'half'"),
        (["sample", "--problem", "12*34", "--template", "tinyzer"], 'did you mean "tinyzero"'),
    ],
)
def test_wrong_options_are_messages(checkpoint: Path, options: list[str], part: str) -> None:
    verb, *rest = options
    rest += ["--processes", "1"] if verb == "eval" and "--processes" not in rest else []
    error = CliRunner().invoke(app, [verb, str(checkpoint), *rest]).exception
    assert type(error).__module__.startswith("r1kit.")
    assert part in str(error)


def test_the_cap_is_the_one_the_run_measures_with(checkpoint: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(checkpoint, run / "checkpoints" / "rl" / "step-000001")
    recipe = load_recipe(find_recipe("tinyzero"), ["task.high=5", "final.max_tokens=7", "base_eval.max_tokens=9"])
    (run / "recipe.resolved.yaml").write_text(dump_recipe(recipe))
    model = str(run / "checkpoints" / "rl" / "step-000001")
    options = ["--problems", "2", "--samples", "1", "--processes", "1", "--set", "task.train_problems=9"]
    assert "cap 7 tokens" in invoke("eval", model, *options).stdout
    assert "cut at the cap of 7" in invoke("sample", model, "--temperature", "0").stdout
    assert default_cap(checkpoint) == 240


def test_sample_asks_for_a_question(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="give --problem or --prompt"):
        invoke("sample", str(checkpoint))


@pytest.mark.parametrize(("text", "task"), [("3,5,6>13", "countdown"), (" 12 * 34 ", "multiplication")])
def test_written_problems_are_judged_like_generated_ones(text: str, task: str) -> None:
    from r1kit.pipeline.ask import default_task

    problem = written_problem(text, "compact")
    right = {"countdown": "(5*6-3)-14", "multiplication": "408"}[task]
    verdict = make_task(default_task(task)).verify(problem, f"<think></think><answer>{right}</answer>")["accuracy"]
    assert verdict.correct is (task == "multiplication")


def test_unreadable_problem_shows_the_form() -> None:
    with pytest.raises(UserError, match="3,5,6>13"):
        written_problem("3+5", "compact")


def test_export_leaves_the_trainer_behind(checkpoint: Path, tmp_path: Path) -> None:
    result = invoke("export", str(checkpoint), str(tmp_path / "plain"))
    assert "Transformers agrees within" in result.stdout
    assert "base: not compared: it lies in no run; --base DIR names" in result.stdout
    names = {path.name for path in (tmp_path / "plain").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "trainer.json" not in names
    with pytest.raises(UserError, match="choose another destination"):
        invoke("export", str(checkpoint), str(tmp_path / "plain"))
    with pytest.raises(UserError, match="nothing was learned"):
        invoke("export", str(checkpoint), str(tmp_path / "other"), "--base", str(tmp_path / "plain"))


def test_a_model_is_found_by_its_directory(checkpoint: Path, tmp_path: Path) -> None:
    assert find_model(checkpoint) == checkpoint
    with pytest.raises(UserError, match="expected a checkpoint directory"):
        find_model(tmp_path)
