"""The recipe's `device`: what auto means, what it is refused with, what follows from it.

Why it matters: a run that falls back to the processor in silence costs days, and one that begins on a GPU with passes
compiled for the processor, or with more processes than GPUs, dies after its first stage.

Not exercised: computing on a device (tests/training/test_device.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from r1kit.config import machine
from r1kit.config.errors import ConfigError
from r1kit.config.load import dump_recipe, load_recipe, parse_recipe
from r1kit.config.machine import resolve
from r1kit.config.schema import Recipe
from r1kit.pipeline.catalog import find_recipe, recipe_names
from r1kit.pipeline.changes import begun_machine, fingerprints
from r1kit.pipeline.run_directory import RunDirectory
from r1kit.training.parallel import World, backends, device_of_rank


def loaded(*changes: str) -> Recipe:
    """The quick start's recipe, which names the processor, with the schema's own device in its place."""
    return load_recipe(find_recipe("tinyzero"), overrides=("device=auto", *changes))


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(machine, "gpus", lambda: 4)
    return monkeypatch


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(machine, "gpus", lambda: 0)
    return monkeypatch


@pytest.mark.usefixtures("no_gpu")
def test_auto_is_the_processor_without_a_gpu() -> None:
    recipe = resolve(loaded())
    assert recipe.device == "cpu"
    assert recipe.processes == min(2, machine.usable_cores())
    assert "device: cpu\n" in dump_recipe(recipe)


@pytest.mark.usefixtures("gpus")
def test_auto_is_every_gpu_there_is() -> None:
    recipe = resolve(loaded())
    assert (recipe.device, recipe.processes) == ("cuda", 4)
    assert resolve(loaded("processes=2")).processes == 2
    assert resolve(loaded("device=cpu")).device == "cpu"
    assert resolve(recipe) == recipe


@pytest.mark.usefixtures("gpus")
def test_small_models_stay_on_the_processor() -> None:
    names = [name for name in recipe_names() if not name.endswith("/full")]
    assert {resolve(load_recipe(find_recipe(name))).device for name in names} == {"cpu"}


@pytest.mark.usefixtures("no_gpu")
def test_a_gpu_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"device is cuda, but torch can use no GPU here: set device: cpu, or mend"):
        resolve(loaded("device=cuda"))


def test_an_unknown_device_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="device is 'tpu': expected 'auto', 'cpu' or 'cuda'"):
        loaded("device=tpu")


@pytest.mark.usefixtures("gpus")
def test_more_processes_than_gpus_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"processes is 5 and device cuda, but torch can use 4 GPUs here"):
        resolve(loaded("processes=5"))


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("key", ["native", "rl.native", "rl.engine.native", "final.native"])
def test_what_is_compiled_is_off_on_a_gpu_and_refused_by_name(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{key} is float32 and device cuda: .* set {key}: off"):
        resolve(loaded(f"{key}=float32"))
    stages = resolve(loaded(f"{key}=auto")).stages
    found = {stage.native for stage in stages.values() if hasattr(stage, "native")}
    assert {*found, stages["rl"].engine.native} == {"off"}  # type: ignore[union-attr]
    assert resolve(loaded(f"{key}=float32", "device=cpu")).device == "cpu"


def test_a_run_keeps_its_device_wherever_it_is_reported(tmp_path: Path, gpus: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path / "run")
    run.root.mkdir()
    begun = resolve(loaded())
    run.recipe.write_text(dump_recipe(begun))
    gpus.setattr(machine, "gpus", lambda: 0)
    kept = begun_machine(run, loaded())
    assert (kept.device, kept.processes) == ("cuda", 4)
    assert fingerprints(resolve(kept, elsewhere=True)) == fingerprints(begun)
    with pytest.raises(ConfigError, match="no GPU here"):
        resolve(kept)


def test_a_run_from_before_there_was_a_device_goes_on_on_the_processor(
    tmp_path: Path, gpus: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path / "run")
    run.root.mkdir()
    begun = resolve(loaded("device=cpu"))
    run.recipe.write_text(dump_recipe(begun).replace("device: cpu\n", ""))
    kept = resolve(begun_machine(run, loaded()), elsewhere=True)
    assert (kept.device, kept.processes) == ("cpu", begun.processes)
    assert fingerprints(kept) == fingerprints(begun)
    assert fingerprints(resolve(parse_recipe(dump_recipe(begun), "begun"))) == fingerprints(begun)


def test_each_process_has_a_gpu_of_its_own() -> None:
    assert [device_of_rank("cuda", rank) for rank in range(3)] == ["cuda:0", "cuda:1", "cuda:2"]
    assert [device_of_rank("cpu", rank) for rank in range(3)] == ["cpu"] * 3
    assert World.single("cuda").device == "cuda:0"
    assert (backends("cpu"), backends("cuda")) == ("gloo", "cpu:gloo,cuda:nccl")
