"""YAML with the place of every key: duplicates refused, `1e-5` read as a number, `<<: *other` as other's keys below.

PyYAML follows YAML 1.1, where `1e-5` is a string and a repeated key silently wins: both cost people runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from r1kit.config.errors import ConfigError

Path = tuple[str | int, ...]
Origins = dict[Path, str]


class _Loader(yaml.SafeLoader):
    """The safe loader with YAML 1.2's floats."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+\Z"),
    list("-+0123456789."),
)


@dataclass
class YamlSource:
    """Plain values and, by path, the `file:line` each came from."""

    data: Any
    origins: Origins = field(default_factory=dict)

    def place(self, path: Path, default: str) -> str:
        """Where `path`, or the nearest thing around it, was written."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return default


def read_yaml(text: str, filename: str) -> YamlSource:
    """Parse one YAML document. Raises ConfigError with file and line."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        source = YamlSource(None)
        if root is not None:
            source.data = _construct(loader, root, (), source.origins, filename, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{filename}{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{filename}: not valid YAML: {error}") from None
    finally:
        loader.dispose()
    return source


def parse_scalar(text: str, place: str) -> Any:
    """The value of `--set key=TEXT`, read as YAML."""
    return read_yaml(text, place).data


def _construct(
    loader: _Loader,
    node: yaml.Node,
    path: Path,
    origins: Origins,
    filename: str,
    above: tuple[yaml.Node, ...],
) -> Any:
    where = f"{filename}:{node.start_mark.line + 1}"
    origins.setdefault(path, where)
    if node in above:
        raise ConfigError(f"{where}: an alias that contains itself")
    if isinstance(node, yaml.SequenceNode):
        return [
            _construct(loader, child, (*path, i), origins, filename, (*above, node))
            for i, child in enumerate(node.value)
        ]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    result: dict[str, Any] = {}
    own: set[str] = set()
    # What is merged goes below what the mapping says itself, wherever `<<` stands in it.
    for key_node, value_node in sorted(node.value, key=lambda pair: not _is_merge(pair[0])):
        if _is_merge(key_node):
            for other in reversed(_merged(value_node, filename)):
                result.update(_construct(loader, other, path, origins, filename, (*above, node)))
            continue
        key = loader.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
        here = f"{filename}:{key_node.start_mark.line + 1}"
        if isinstance(key, (bool, type(None))) or not isinstance(key, (str, int)):
            raise ConfigError(
                f"{here}: key {key_node.value!r}: expected a plain name (quote it if YAML reads it otherwise)"
            )
        key = str(key)
        if key in own:
            raise ConfigError(f"{here}: key {key!r} is written twice (first at {origins[(*path, key)]}): remove one")
        own.add(key)
        if key in result:
            for merged in [p for p in origins if p[: len(path) + 1] == (*path, key)]:
                del origins[merged]
        origins[(*path, key)] = here
        result[key] = _construct(loader, value_node, (*path, key), origins, filename, (*above, node))
    return result


def _is_merge(key: yaml.Node) -> bool:
    return bool(key.tag == "tag:yaml.org,2002:merge")


def _merged(node: yaml.Node, filename: str) -> list[yaml.Node]:
    """The mappings that a `<<` names, the first above the others."""
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    for other in nodes:
        if not isinstance(other, yaml.MappingNode):
            raise ConfigError(
                f"{filename}:{node.start_mark.line + 1}: << takes a mapping named before, such as <<: *rl, or a list "
                "of such"
            )
    return list(nodes)
