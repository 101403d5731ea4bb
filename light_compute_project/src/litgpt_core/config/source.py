"""Where a setting was written: which config groups and options exist, and the file and line, or the argument, behind a
key.

Reads YAML files as text with positions; knows nothing of what a setting means (`compose.py` does).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from litgpt_core.core.checkout import PACKAGE_DIR, PROJECT_DIR, in_checkout
from litgpt_core.core.command_line import CONFIG_DIR_VARIABLE
from litgpt_core.core.errors import ConfigError
from litgpt_core.core.parsing import table_in

CONFIG_DIR = PROJECT_DIR / "configs" if in_checkout() else PACKAGE_DIR / "configs"
"""The folder of all shipped YAML files."""


def config_dirs() -> list[Path]:
    """Folders that are searched for YAML files: the user's own, if there is one, then the shipped one.

    The user's is the one that `--config_dir` names, else `configs` in the current folder.

    Raises:
        ConfigError: `--config_dir` names no folder.
    """
    given = os.environ.get(CONFIG_DIR_VARIABLE)
    own = Path(given or "configs").expanduser().resolve()
    if given and not own.is_dir():
        raise ConfigError(
            f"--config_dir {given}: there is no such folder",
            needed="a folder with YAML files, such as DIR/experiment/mine.yaml",
            fix="lcp init FOLDER writes one to start from",
        )
    return [CONFIG_DIR] if own == CONFIG_DIR.resolve() or not own.is_dir() else [own, CONFIG_DIR]


def find_config(name: str) -> Path | None:
    """The file that a name such as `model/tiny` stands for, the user's own before the shipped one; None: no such."""
    return next((path for folder in config_dirs() if (path := folder / f"{name}.yaml").is_file()), None)


def group_names() -> list[str]:
    """Config groups: the folders of the shipped `configs/`."""
    return sorted(path.name for path in CONFIG_DIR.iterdir() if path.is_dir() and not path.name.startswith("_"))


def option_names(group: str) -> list[str]:
    """Options of a group: its YAML files without the ending."""
    return sorted({path.stem for folder in config_dirs() for path in (folder / group).glob("*.yaml")})


def needs_checkpoint(experiment: str) -> bool:
    """Whether an experiment trains the model of a checkpoint, so that `init_from` must be given."""
    return _chosen_by(experiment, "model") == "pretrained"


def needs_teacher(experiment: str) -> bool:
    """Whether an experiment learns from another model, so that `distill.teacher` must be given."""
    return _chosen_by(experiment, "distill") is not None


def placeholders(experiment: str) -> list[str]:
    """Overrides that stand for what must be given on the command line, for a check of an experiment's file."""
    needed = {"init_from": needs_checkpoint(experiment), "distill.teacher": needs_teacher(experiment)}
    return [f"{key}=CHECKPOINT" for key, is_needed in needed.items() if is_needed]


def _chosen_by(experiment: str, group: str) -> object:
    """The option of a group that an experiment's defaults list chooses; None without one."""
    for file in _experiment_files(experiment):
        for entry in _defaults(file):
            if isinstance(entry, dict) and f"override /{group}" in entry:
                return entry[f"override /{group}"]
    return None


class Source:
    """The arguments and files that one composed config came from.

    Args:
        arguments: Normalised overrides, as `config.normalise_overrides` returns them.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)

    @property
    def experiment(self) -> str | None:
        """The experiment chosen last."""
        chosen = self.chosen("experiment")
        return chosen[-1].strip("'\"") if chosen else None

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
            return f" (in {_shown(file)}, line {line})"
        return ""

    def _lines(self, path: str) -> Iterator[tuple[Path, int]]:
        """Experiment files first: they override the groups' files, and those `train.yaml`."""
        keys = path.split(".")
        files = [(file, keys) for name in self.chosen("experiment") for file in _experiment_files(name)]
        group = keys[0]
        if group in group_names():
            chosen = self.chosen(group)
            found = [find_config(f"{group}/{name}") for name in chosen or option_names(group)]
            files += [(file, keys[1:]) for file in found if file is not None]
        if (frame := find_config("train")) is not None:
            files.append((frame, keys))
        for file, inner in files:
            if inner and (line := _line_of(file, inner)):
                yield file, line

    def chosen(self, group: str) -> list[str]:
        """Options of `group` named on the command line or in the chosen experiments' defaults lists."""
        chosen: list[str] = []
        for argument in self.arguments:
            key, _, value = argument.lstrip("+~").partition("=")
            if key == group:
                chosen += [part.strip() for part in value.strip("[]").split(",")]
        if group != "experiment":
            for experiment in self.chosen("experiment"):
                for file in _experiment_files(experiment):
                    for entry in _defaults(file):
                        if isinstance(entry, dict):
                            chosen += [str(v) for k, v in entry.items() if str(k).split("/")[-1] == group]
        return chosen


def _experiment_files(name: str) -> list[Path]:
    """The file of an experiment and, behind it, those of the experiments that it inherits from."""
    found: list[Path] = []
    waiting = [name]
    while waiting:
        file = find_config(f"experiment/{waiting.pop(0)}")
        if file is not None and file not in found:
            found.append(file)
            waiting += [entry for entry in _defaults(file) if isinstance(entry, str) and entry != "_self_"]
    return found


def _shown(file: Path) -> str:
    """A path as the user knows it: from `configs/` on, or as it is seen from the current folder."""
    if file.is_relative_to(CONFIG_DIR):
        return file.relative_to(CONFIG_DIR.parent).as_posix()
    here = Path.cwd()
    return (file.relative_to(here) if file.is_relative_to(here) else file).as_posix()


def _defaults(file: Path) -> list[object]:
    return list(table_in(file).get("defaults") or [])


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
