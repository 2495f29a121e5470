"""The merge stage: every candidate is measured once, the rule chooses, and what is handed on is what was chosen.

Why this matters: a grid whose best is not the one that stays, or whose files of a lost candidate are taken for the
result, gives a model nobody measured.

Not exercised here: the merging itself (tests/models/test_merging.py); real evaluations (docs/merging.md has one).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests.training.helpers import tiny_model
from tests.training.stage import ListRecorder

from r1kit.config.merge import MergeSettings
from r1kit.config.tasks import CountdownSettings
from r1kit.models.checkpoint import read_hf_state
from r1kit.models.loading import write_model
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.pipeline import merge
from r1kit.pipeline.kinds import StageContext
from r1kit.training.checkpoints import verify_checkpoint
from r1kit.training.parallel import World
from r1kit.training.recorder import Interrupted


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, tokenizer = tmp_path_factory.mktemp("models"), build_tiny_tokenizer()
    for seed in range(3):
        write_model(tiny_model(seed, vocab_size=len(tokenizer)), tokenizer, folder / str(seed))
    return [folder / str(seed) for seed in range(3)]


class Notes(ListRecorder):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, stage: str, text: str) -> None:
        self.notes.append(text)


def context(root: Path, models: list[Path], recorder: Any, **settings: Any) -> StageContext:
    chosen = MergeSettings.model_validate({"models": [str(m) for m in models[:2]], **settings})
    inputs = {f"models[{i}]": path for i, path in enumerate(models[:2])}
    if chosen.base is not None:
        inputs["base"] = models[2]
    task = CountdownSettings(high=6)
    return StageContext("merged", chosen, task, 0, "float32", root, inputs, World.single(), recorder)


def scored(monkeypatch: pytest.MonkeyPatch, values: list[float], stop_at: int | None = None) -> list[int]:
    """Evaluations that give `values` by place instead of sampling; the places that were asked for."""
    asked: list[int] = []

    def evaluate(self: Any, model: Path, place: int) -> dict[str, Any]:
        if place == stop_at:
            raise Interrupted("stopped")
        assert (model / "model.safetensors").is_file()
        asked.append(place)
        value = values[place]
        return {"pass@1": {"value": value, "low": value, "high": value}, "tokens_sampled": 10, "examples": ["long"]}

    monkeypatch.setattr(merge._Grid, "_evaluate", evaluate)
    return asked


GRID = {"method": "slerp", "grid": {"t": [0.0, 0.25, 1.0]}}


def test_the_best_is_handed_on_and_nothing_else_stays(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, [0.1, 0.2, 0.3, 0.25, 0.35])
    recorder = Notes()
    outcome = merge.run_merge(context(tmp_path, models, recorder, **GRID))
    assert outcome.model is not None
    verify_checkpoint(outcome.model)
    got, second = read_hf_state(outcome.model), read_hf_state(models[1])
    assert all(torch.equal(got[name], second[name]) for name in second), "t = 1 is the second model"
    assert {p.name for p in (tmp_path / "checkpoints" / "merged").iterdir()} == {"measured.json", "step-000000"}
    assert outcome.metrics == {
        "candidates": 3.0, "best": 2.0, "best_pass@1": 0.3, "worst_pass@1": 0.1, "input_0_pass@1": 0.25,
        "input_1_pass@1": 0.35,
    }  # fmt: skip
    assert outcome.tokens["sampled"] == 50
    assert [row["pass@1"] for row in recorder.rows] == [0.1, 0.2, 0.3, 0.25, 0.35]
    assert any("models[1] has a higher pass@1 than the best merge (0.350 against 0.300)" in n for n in recorder.notes)


def test_of_equal_candidates_the_first_is_taken(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, [0.1, 0.3, 0.3])
    outcome = merge.run_merge(context(tmp_path, models, Notes(), measure_inputs=False, **GRID))
    assert outcome.metrics["best"] == 1.0
    assert "input_0_pass@1" not in outcome.metrics


def test_a_stopped_grid_measures_only_what_is_left(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [0.3, 0.2, 0.1, 0.0, 0.0]
    alone, recorder = Notes(), Notes()
    scored(monkeypatch, values)
    whole = merge.run_merge(context(tmp_path / "alone", models, alone, **GRID))
    first = scored(monkeypatch, values, stop_at=1)
    with pytest.raises(Interrupted):
        merge.run_merge(context(tmp_path / "broken", models, recorder, **GRID))
    assert not list((tmp_path / "broken" / "checkpoints" / "merged").glob(".candidate*"))
    then = scored(monkeypatch, values)
    resumed = merge.run_merge(context(tmp_path / "broken", models, recorder, **GRID))
    assert (first, then) == ([0], [1, 2, 3, 4])
    assert recorder.rows == alone.rows
    assert whole.model is not None
    assert resumed.model is not None
    for file in ("model.safetensors", "trainer.json"):
        assert (whole.model / file).read_bytes() == (resumed.model / file).read_bytes()
    assert whole.metrics == resumed.metrics


def test_candidates_are_decoded_as_the_stage_says(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def engine(model: Path, *, native: str, **_: Any) -> Any:
        asked.append(native)
        raise Interrupted("that is all")

    monkeypatch.setattr(merge, "open_engine", engine)
    for native in ("float32", "off"):
        evaluate = {"problems": 2, "samples": 1, "native": native}
        with pytest.raises(Interrupted):
            merge.run_merge(context(tmp_path / native, models, Notes(), evaluate=evaluate, **GRID))
    assert asked == ["float32", "off"]


def test_without_a_grid_nothing_is_measured(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = scored(monkeypatch, [])
    outcome = merge.run_merge(context(tmp_path, models, Notes(), weights=[1.0, 0.0]))
    assert asked == []
    assert outcome.model is not None
    first = read_hf_state(models[0])
    assert all(torch.equal(t, first[name]) for name, t in read_hf_state(outcome.model).items())


def test_the_grid_is_every_combination_in_order() -> None:
    grid = {"density": [0.2, 0.5], "weights": [[1, 1], [1, 2]]}
    chosen = MergeSettings.model_validate({"models": ["a", "b"], "base": "c", "method": "ties", "grid": grid})
    found = [(c["weights"], c["density"], c["scale"]) for c in chosen.candidates()]
    assert found == [((1, 1), 0.2, 1.0), ((1, 1), 0.5, 1.0), ((1, 2), 0.2, 1.0), ((1, 2), 0.5, 1.0)]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"method": "ties"}, "set base to the model"),
        ({"base": "c"}, "base is set, but method linear has none"),
        ({"t": 0.3}, "t is set, but method linear does not read it"),
        ({"method": "slerp", "grid": {"density": [0.5]}}, "density is set, but method slerp does not read it"),
        ({"method": "slerp", "models": ["a", "b", "c"]}, "slerp goes between two models, found 3"),
        ({"weights": [1.0]}, "expected 2 of them"),
        ({"weights": [1.0, -1.0]}, "add up to 0"),
        ({"grid": {}}, "grid is empty"),
        ({"method": "dare", "base": "c", "density": 0.0}, "density is 0"),
        ({"models": ["a"]}, "at least 2 items"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        MergeSettings.model_validate({"models": ["a", "b"], **changes})
