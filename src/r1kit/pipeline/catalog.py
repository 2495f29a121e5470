"""The recipes that come with the package: found by name, listed, copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import r1kit
from r1kit.config.suggest import nearest
from r1kit.pipeline.files import RunError

FOLDER = Path(r1kit.__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """`tinyzero`, `tinyzero/full`, ...: a bare name means its mini.yaml."""
    files = sorted(FOLDER.glob("*/*.yaml"), key=lambda p: (p.parent.name, p.stem != "mini"))
    return [p.parent.name if p.stem == "mini" else f"{p.parent.name}/{p.stem}" for p in files]


def find_recipe(text: str) -> Path:
    """The file of a recipe given as a name, `name/variant` or a path. Else RunError with the nearest."""
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RunError(f"recipe file {path} does not exist (from {Path.cwd()}): check the path")
        return path
    name, _, scale = text.partition("/")
    packaged = FOLDER / name / f"{scale or 'mini'}.yaml"
    if packaged.is_file():
        return packaged
    names = recipe_names()
    raise RunError(f"no recipe {text!r}{nearest(text, names)}; give a YAML file or one of {', '.join(names)}")


def copy_recipe(text: str, destination: Path) -> Path:
    """Copy a recipe to `destination` (a file or an existing directory) for editing; never overwrites."""
    source = find_recipe(text)
    target = destination / f"{source.parent.name}.yaml" if destination.is_dir() else destination
    if target.exists():
        raise RunError(f"{target} exists: choose another destination, or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target
