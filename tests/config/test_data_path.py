"""Why this matters: a run that reads another file than the recipe's author meant trains on it without a word.

Not exercised: what is in the files.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from r1kit.config import ConfigError, dump_recipe, load_recipe, parse_recipe
from r1kit.config.data_path import expand, find_data
from r1kit.config.tasks import DataTaskSettings

RECIPE = "name: a\ntask: {name: math, data: %s}\nstages: {e: {kind: evaluate, model: m}}\n"


def data_of(folder: Path, path: str) -> str:
    (folder / "recipe.yaml").write_text(RECIPE % path)
    task = load_recipe(folder / "recipe.yaml").task
    assert isinstance(task, DataTaskSettings)
    return task.data[0]


def test_a_relative_path_lies_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert data_of(Path("recipes"), "../mine.jsonl") == str(tmp_path.resolve() / "mine.jsonl")


def test_a_stored_recipe_means_the_same_file_anywhere(tmp_path: Path) -> None:
    path = data_of(tmp_path, "mine.jsonl")
    stored = dump_recipe(load_recipe(tmp_path / "recipe.yaml"))
    task = parse_recipe(stored, "elsewhere.yaml", folder=Path("/elsewhere")).task
    assert task.data_files == (path,)


def test_variables_and_home_stay_as_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_of(tmp_path, "$R1KIT_DATA/a.jsonl") == "$R1KIT_DATA/a.jsonl"
    (tmp_path / "a.jsonl").write_text("{}")
    monkeypatch.setenv("R1KIT_DATA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    found = {find_data(path) for path in ("$R1KIT_DATA/a.jsonl", "${R1KIT_DATA}/a.jsonl", "~/a.jsonl")}
    assert found == {tmp_path / "a.jsonl"}


def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1KIT_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no\.jsonl \(\$R1KIT_DATA/no\.jsonl\) does not exist"):
        find_data("$R1KIT_DATA/no.jsonl")
    monkeypatch.delenv("R1KIT_DATA")
    with pytest.raises(ConfigError, match="no variable R1KIT_DATA: set it, or write the path in full"):
        find_data("$R1KIT_DATA/no.jsonl")
    with pytest.raises(ConfigError, match="is a directory: name its files"):
        find_data(str(tmp_path))


def test_a_path_of_a_model_is_expanded_and_begins_where_it_is_said_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MODELS", "/models")
    monkeypatch.delenv("NO_SUCH", raising=False)
    assert expand("~/base") == tmp_path / "base"
    assert expand("$MODELS/base") == expand("${MODELS}/base", tmp_path) == Path("/models/base")
    assert (expand("base"), expand("base", tmp_path)) == (Path("base"), tmp_path / "base")
    assert expand("$NO_SUCH/base") == Path("$NO_SUCH/base")
