"""Where a setting was written: which config groups and options exist, and the file and line, or the argument, behind a
key.

Reads YAML files as text with positions; knows nothing of what a setting means (`config.py` does).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from litgpt_core.core.machine import PROJECT_DIR

CONFIG_DIR = PROJECT_DIR / "configs"
"""The folder of all shipped YAML files."""


def group_names() -> list[str]:
    """Config groups: the folders of `configs/`."""
    return sorted(path.name for path in CONFIG_DIR.iterdir() if path.is_dir())


def option_names(group: str) -> list[str]:
    """Options of a group: its YAML files without the ending."""
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


def needs_checkpoint(experiment: str) -> bool:
    """Whether an experiment trains the model of a checkpoint, so that `init_from` must be typed."""
    entries = _defaults(CONFIG_DIR / "experiment" / f"{experiment}.yaml")
    return any(entry.get("override /model") == "pretrained" for entry in entries if isinstance(entry, dict))


class Source:
    """The arguments and files that one composed config came from.

    Args:
        arguments: Normalised overrides, as `config.normalise_overrides` returns them.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)

    def where(self, path: str) -> str:
        """Say where the dotted key `path` was written, as a clause for an error message; empty if it cannot be
        found.
        """
        groups = group_names()
        for argument in reversed(self.arguments):
            key = argument.lstrip("+~").split("=", 1)[0]
            if key not in groups and (key == path or path.startswith(f"{key}.")):
                return f" (on the command line: {argument.lstrip('+')})"
        for file, line in self._lines(path):
            return f" (in {file.relative_to(CONFIG_DIR.parent).as_posix()}, line {line})"
        return ""

    def _lines(self, path: str) -> Iterator[tuple[Path, int]]:
        """Experiment files first: they override the groups' files, and those `train.yaml`."""
        keys = path.split(".")
        files = [(CONFIG_DIR / "experiment" / f"{name}.yaml", keys) for name in self._chosen("experiment")]
        group = keys[0]
        if group in group_names():
            chosen = self._chosen(group)
            files += [(CONFIG_DIR / group / f"{name}.yaml", keys[1:]) for name in chosen or option_names(group)]
        files.append((CONFIG_DIR / "train.yaml", keys))
        for file, inner in files:
            if file.is_file() and inner and (line := _line_of(file, inner)):
                yield file, line

    def _chosen(self, group: str) -> list[str]:
        """Options of `group` named on the command line or in the chosen experiments' defaults lists."""
        chosen: list[str] = []
        for argument in self.arguments:
            key, _, value = argument.lstrip("+~").partition("=")
            if key == group:
                chosen += [part.strip() for part in value.strip("[]").split(",")]
        if group != "experiment":
            for experiment in self._chosen("experiment"):
                file = CONFIG_DIR / "experiment" / f"{experiment}.yaml"
                for entry in _defaults(file):
                    if isinstance(entry, dict):
                        chosen += [str(v) for k, v in entry.items() if str(k).split("/")[-1] == group]
        return chosen


def _defaults(file: Path) -> list[object]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return []
    return list(content.get("defaults") or []) if isinstance(content, dict) else []


def _line_of(file: Path, keys: Sequence[str]) -> int | None:
    """1-based line where the nested key stands in a YAML file, or None."""
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, yaml.YAMLError):
        return None
    line = None
    for key in keys:
        if not isinstance(node, yaml.MappingNode):
            return None
        for key_node, value_node in node.value:
            if key_node.value == key:
                line, node = key_node.start_mark.line + 1, value_node
                break
        else:
            return None
    return line
