"""What every command has in common: one parser with one style of options, and how commands are named and started.

Options are written with underscores, as LitGPT's are (`--max_new_tokens`); hyphens are accepted too. A command is
started as `lcp VERB` or by the script of the same name in `scripts/`; help and records show what was used.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from litgpt_core.core.checkout import in_checkout
from litgpt_core.core.errors import ConfigError
from litgpt_core.core.text import nearest

PROGRAM = "lcp"

MODEL_HELP = "run name, checkpoint directory, GGUF file or any path (a chat model, else the most recent)"
"""Of the argument that says which model."""

CONFIG_DIR_VARIABLE = "LIGHT_COMPUTE_CONFIG_DIR"
"""Environment variable that `--config_dir` sets, for this process and those that it starts."""


class CommandParser(argparse.ArgumentParser):
    """An argument parser that takes `--max-new-tokens` for `--max_new_tokens` and suggests names for unknown options.

    Args:
        verb: The command's name behind `lcp`.
        description: Shown by `--help` as it is.
        options: As `argparse.ArgumentParser` takes them.
    """

    def __init__(self, verb: str = "", *, description: str | None = None, **options: Any) -> None:
        options.setdefault("prog", program_of(verb) if verb else None)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(description=description, **options)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, with the hyphens of option names read as underscores."""
        return super().parse_known_args(with_underscores(sys.argv[1:] if args is None else args), namespace)

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2; an unknown option is answered with the nearest ones."""
        unknown = re.search(r"unrecognized arguments:.*?(--[\w-]+)", message)
        if unknown:
            message += nearest(unknown[1], re.findall(r"--\w+", self.format_usage()))
        super().error(message)


class YesNo(argparse.Action):
    """An option with an opposite: `--stop_at_eos` and `--no_stop_at_eos`."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        opposites = [f"--no_{name.removeprefix('--')}" for name in option_strings]
        super().__init__([*option_strings, *opposites], dest, nargs=0, **options)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Set the destination to whether the option, not its opposite, was given."""
        setattr(namespace, self.dest, not str(option_string).startswith("--no_"))


def with_underscores(arguments: Sequence[str]) -> list[str]:
    """Arguments in which the names of long options have underscores; what follows `=` or `--` stays as it is."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [_with_underscores(text) for text in arguments[:end]] + list(arguments[end:])


def _with_underscores(text: str) -> str:
    name, equals, value = text.partition("=")
    return text if not re.fullmatch(r"--[a-z][\w-]*", name) else "--" + name[2:].replace("-", "_") + equals + value


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether `-h` or `--help` is among the arguments of a command that takes settings instead of options."""
    return bool({"-h", "--help"} & set(arguments))


def program_of(verb: str) -> str:
    """How this command was called: `train.py` by its script, else `lcp train`."""
    script = _script()
    return script.name if script else f"{PROGRAM} {verb}"


def command_for_record(verb: str, arguments: Sequence[str]) -> str:
    """The command line as it is written into records, ready to be typed again.

    Args:
        verb: The command's name behind `lcp`.
        arguments: What follows it.
    """
    script = _script()
    start = ["python", str(script)] if script else [PROGRAM, verb]
    return shlex.join([*start, *config_dir_option(), *arguments])


def recorded_arguments(command: str, *, verb: str, script: str) -> list[str]:
    """The arguments of a command line that `command_for_record` or an older version wrote; empty for another command.

    Args:
        command: From a record.
        verb: As behind `lcp`.
        script: Name of the script of the same command.

    Returns:
        What followed; without `--config_dir`, which says where settings were looked up and not what they were.
    """
    words = shlex.split(command)
    for place, word in enumerate(words):
        by_script = word == script or word.endswith(("/" + script, "\\" + script))
        if by_script or (Path(word).name == PROGRAM and words[place + 1 : place + 2] == [verb]):
            found = words[place + (1 if by_script else 2) :]
            return found[2:] if found[:1] == ["--config_dir"] else found
    return []


def child_command(verb: str, *arguments: str) -> list[str]:
    """What starts a command in a process of its own; the same from a checkout and from an installed package.

    The current folder is kept off the module search path: a folder named `litgpt` there must not be imported.
    """
    return [sys.executable, "-P", "-m", "litgpt_core", verb, *config_dir_option(), *arguments]


def take_config_dir(arguments: Sequence[str]) -> list[str]:
    """The arguments without `--config_dir DIR`, which is kept in the environment for whatever composes a config.

    Raises:
        ConfigError: No folder follows the option.
    """
    rest, words = [], iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in ("--config_dir", "--config-dir"):
            rest.append(word)
        elif folder := value if equals else next(words, ""):
            os.environ[CONFIG_DIR_VARIABLE] = str(Path(folder).expanduser().resolve())
        else:
            raise ConfigError("--config_dir without a folder", needed="a folder", fix="--config_dir FOLDER")
    return rest


def config_dir_option() -> list[str]:
    """`--config_dir DIR` for another process, if this one was given it."""
    given = os.environ.get(CONFIG_DIR_VARIABLE)
    return ["--config_dir", given] if given else []


def shown_command(verb: str, *arguments: str) -> str:
    """A command for the user to type: `uv run lcp ...` in a checkout, `lcp ...` where the package is installed."""
    return shlex.join(shown_words(verb, *arguments))


def shown_words(verb: str, *arguments: str) -> list[str]:
    """The words of `shown_command`."""
    return [*(("uv", "run") if in_checkout() else ()), PROGRAM, verb, *arguments]


def _script() -> Path | None:
    """The file of `scripts/` that was started, if one was."""
    started = Path(sys.argv[0])
    return started if started.suffix == ".py" and started.name != "__main__.py" else None
