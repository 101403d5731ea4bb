"""What people type, as the overrides that Hydra reads: `my.txt --epochs 10 batch_size=64` becomes `data=text
data.path=my.txt trainer.epochs=10 trainer.global_batch_size=64`.

Every rewriting is logged once, so that the exact line can be learnt. What means nothing here is an error that says what
to type. Overrides in Hydra's own form pass unchanged.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from litgpt_core.config.aliases import ELSEWHERE, VALUES, near_keys, resolve_key
from litgpt_core.config.schema import settings, takes_flag, takes_null, takes_texts, takes_whole_number
from litgpt_core.config.source import Source, find_config, group_names, option_names
from litgpt_core.core.errors import ConfigError
from litgpt_core.core.text import close_names, hydra_quoted

logger = logging.getLogger(__name__)

FROM_LITGPT = "from_litgpt"
_WITH_PATH = {"text", "chat", "jsonl", "parquet", "arrow", "hub", "tokens"}
"""Options of `data` that have a path."""
_SWITCHES = {
    "cpu": "trainer.accelerator=cpu",
    **dict.fromkeys(("gpu", "cuda"), "trainer.accelerator=cuda"),
    "wandb": "logger=wandb",
    "no_wandb": "logger=none",
    "no_logger": "logger=none",
}
"""Options without a value -> override."""


def as_overrides(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command that composes a config, each as Hydra's `KEY=VALUE`.

    Raises:
        ConfigError: With every argument that means nothing, and what to type instead.
    """
    result: list[str] = []
    problems: list[str] = []
    changed = False
    waiting = _joined(arguments)
    while waiting:
        words = _together(waiting)
        try:
            found = _read(words)
        except ConfigError as error:
            problems.append(str(error))
            found = words
        waiting = waiting[len(words) :]
        changed |= found != words
        result += found
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    completed = _with_data_group(result)
    if changed or completed != result:
        logger.info("%s is read as %s", shlex.join(arguments), shlex.join(completed))
    return completed


def _read(words: list[str]) -> list[str]:
    if words[0].startswith("--"):
        return _option(words)
    if "=" in words[0]:
        return _assignment(words[0])
    return words if words[0].startswith("~") else _bare(words)


def text_value(key: str, value: str) -> str:
    """A value of a setting that holds text, as Hydra reads it back unchanged: `1.50` stays `1.50`.

    Values in quotes, `null`, sweeps and interpolations stay as they are.
    """
    if value in ("null", "???", "") or re.fullmatch(r"'.*'|\".*\"", value, re.DOTALL) or "${" in value:
        return value
    if value == "None" and takes_null(key):
        return "null"
    sweeps = re.fullmatch(r"(choice|range|interval|tag|sort|shuffle|glob|str|int|float|bool)\(.*\)", value)
    if sweeps or ("," in value and not _exists(value)):
        return value
    return hydra_quoted(value)


def _joined(arguments: Sequence[str]) -> list[str]:
    """`lr = 1e-3`, `lr= 1e-3` and `lr =1e-3` as one word."""
    words: list[str] = []
    for word in arguments:
        before = words[-1] if words else ""
        begins = word.startswith("=") and before and "=" not in before
        goes_on = re.fullmatch(r"[\w.+]+=", before) and "=" not in word and not word.startswith("-")
        if begins or goes_on:
            words[-1] += word
        else:
            words.append(word)
    return words


def _together(waiting: Sequence[str]) -> list[str]:
    """The first word, with the one behind it where that is its value."""
    first, following = waiting[0], list(waiting[1:2])
    if "=" in first or not following or following[0].startswith(("--", "+", "~")):
        return [first]
    name = first.removeprefix("--").replace("-", "_")
    key = resolve_key(name)
    if not first.startswith("--"):
        own = name in option_names("experiment") or _exists(name)
        return [first] if key is None or own or "=" in following[0] else [first, *following]
    if name in _SWITCHES or name.startswith("no_"):
        return [first]
    if key is None and ("=" in following[0] or _is_file_or_experiment(following[0])):
        return [first]
    if key and takes_flag(key) and ("=" in following[0] or following[0].lower() not in ("true", "false", "auto")):
        return [first]
    return [first, *following]


def _is_file_or_experiment(word: str) -> bool:
    return word in option_names("experiment") or _exists(word)


def _with_data_group(overrides: list[str]) -> list[str]:
    """`data.path=FILE` chooses the kind of data that has a path, where nothing else chooses one."""
    paths = [text.partition("=")[2] for text in overrides if text.lstrip("+").startswith("data.path=")]
    if not paths or paths[-1] in ("null", "") or set(Source(overrides).chosen("data")) & _WITH_PATH:
        return overrides
    if any(text.lstrip("+").startswith(("data=", "data.kind=", "~data", f"{FROM_LITGPT}=")) for text in overrides):
        return overrides
    return [_of_path(paths[-1].strip("'\""))[0], *overrides]


def _option(words: list[str]) -> list[str]:
    name, equals, value = words[0][2:].partition("=")
    name = name.replace("-", "_")
    if name == FROM_LITGPT:
        return [f"{name}={value}"]
    if not equals and name in _SWITCHES:
        return [_SWITCHES[name]]
    if name in ELSEWHERE:
        raise ConfigError(f"there is no option {words[0].partition('=')[0]} here", fix=ELSEWHERE[name])
    key = resolve_key(name)
    if key is None and name.startswith("no_") and (denied := resolve_key(name[3:])) and takes_flag(denied):
        return [f"{denied}=false"]
    if key is None:
        shown = [f"{near}=..." for near in near_keys(name)]
        raise ConfigError(
            f"there is no option --{name}; settings are written KEY=VALUE",
            fix=" or ".join(shown) if shown else "lcp train --help lists groups and settings",
        )
    if len(words) == 2:
        value = words[1]
    elif not equals and takes_flag(key):
        value = "true"
    elif not equals:
        raise ConfigError(f"--{name} without a value", fix=f"{key}=..." if "." in key else f"{key}=NAME")
    return _assignment(f"{'+' if key == 'experiment' else ''}{key}={value}")


def _assignment(text: str) -> list[str]:
    """`KEY=VALUE` with the key's and the value's usual spelling."""
    name, _, value = text.partition("=")
    prefix = name[: len(name) - len(name.lstrip("+~"))]
    name = name.lstrip("+~")
    if name == FROM_LITGPT or name.startswith(("hydra.", "hydra/")):
        return [text]
    if name in ELSEWHERE:
        raise ConfigError(f"{text}: there is no setting {name!r}", fix=ELSEWHERE[name])
    key = resolve_key(name) or name
    if key in group_names() and key != "experiment":
        return _choice(prefix, key, value)
    if key == "experiment":
        return [f"{prefix or '+'}experiment={value}"] if name != key else [text]
    value = VALUES.get(key, {}).get(value.lower(), value)
    return [f"{prefix}{key}={_plain_value(key, value)}"]


def _plain_value(key: str, value: str) -> str:
    """Python's `None`, `1e3` and `10k` for a whole number, one text for a list of texts."""
    if value == "None" and takes_null(key):
        return "null"
    number = re.fullmatch(r"(\d+\.?\d*(?:[eE]\+?\d+)?)([kKM]?)", value)
    if number and takes_whole_number(key):
        whole = float(number[1]) * {"": 1, "k": 1e3, "K": 1e3, "M": 1e6}[number[2]]
        return str(int(whole)) if whole.is_integer() and not value.isdecimal() else value
    if takes_texts(key) and value and value[0] not in "['\"" and "," not in value and value != "null":
        return f"[{hydra_quoted(value)}]"
    return value


def _choice(prefix: str, group: str, value: str) -> list[str]:
    """`GROUP=NAME`; a file or a model's name in the place of an option chooses the option that takes it."""
    value = VALUES.get(group, {}).get(value.lower(), value)
    if value in option_names(group) or re.search(r"[,(\[]", value):
        return [f"{prefix}{group}={value}"]
    path = _path(value)
    if group == "data" and value and _exists(str(path)):
        return _of_path(value)
    if group == "tokenizer" and path.is_dir():
        return [f"{prefix}tokenizer=pretrained", f"tokenizer.path={value}"]
    if group == "model" and _in_registry(value):
        return [f"{prefix}model=registry", f"model.name={value}"]
    if group == "data" and ("/" in value or path.suffix):
        raise ConfigError(f"data={value}: there is no such file or folder", fix=_near_file(value))
    return [f"{prefix}{group}={value}"]


def _in_registry(name: str) -> bool:
    from litgpt_core.model.registry import load_registry

    if close_names(name, option_names("model"), cutoff=0.85):
        return False  # a slip: `model=tinyy`
    return any(name in (entry["name"], (entry.get("hf_config") or {}).get("name")) for entry in load_registry())


def _of_path(text: str) -> list[str]:
    """A file or folder of texts, or of conversations."""
    path = _path(text)
    kind = "chat" if path.name.removesuffix(".gz").endswith((".jsonl", ".json")) else "text"
    kind = "parquet" if path.suffix == ".parquet" else kind
    return [f"data={kind}", f"data.path={text}"]


def _bare(words: list[str]) -> list[str]:
    """A word without `=`: an experiment's name, or a file or folder to train on."""
    word, *value = words
    if value:
        key = resolve_key(word)
        raise ConfigError(f"{word} {value[0]} is not KEY=VALUE", fix=" ".join(_assignment(f"{key}={value[0]}")))
    path = _path(word)
    if word in option_names("experiment"):
        return [f"+experiment={word}"]
    if path.suffix in (".yaml", ".yml") and path.is_file():
        if find_config(f"experiment/{path.stem}") == path.resolve():
            return [f"+experiment={path.stem}"]
        raise ConfigError(
            f"{word} is a YAML file, which is no argument by itself",
            needed="an experiment by its name, or a config of `litgpt pretrain`",
            fix=f"from_litgpt={word}; or put it into configs/experiment/ and type +experiment={path.stem}",
        )
    if path.is_dir() and ((path / "config.yaml").is_file() or (path / "lit_model.pth").is_file()):
        raise ConfigError(
            f"{word} holds a model, not text to train on",
            needed="what to do with it",
            fix=f"init_from={word} to start from its weights; run.name={path.name} run.resume=true, with the settings "
            "it began with, to continue the run",
        )
    if _exists(str(path)):
        return _of_path(word)
    raise ConfigError(f"{word!r} is not KEY=VALUE, nor an experiment, nor a file", fix=_instead(word))


def _instead(word: str) -> str:
    """What to type for a word that means nothing."""
    if found := re.fullmatch(r"([\w.]+):\s*(\S+)", word):
        key = resolve_key(found[1])
        if key is not None:
            return f"{key}={found[2]}"
    if key := (resolve_key(word) if word in settings() or "." not in word else None):
        return f"{key}=..." if "." in key else f"{key}={'|'.join(option_names(key)) or '...'}"
    if len(homes := [group for group in group_names() if word in option_names(group)]) == 1:
        return f"{homes[0]}={word}"
    if close := close_names(word, option_names("experiment")):
        return " or ".join(f"+experiment={name}" for name in close)
    if "/" in word or "." in word:
        return _near_file(word)
    return "trainer.max_steps=100, +experiment=baseline, or a text file's name"


def _near_file(text: str) -> str:
    """`data.path=` with the most similar name of the same folder."""
    path = _path(text)
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = close_names(path.name, [name for name in names if not name.startswith(".")], cutoff=0.5)
    return f"data.path={path.parent / near[0]}" if near else "data.path=FILE_OR_FOLDER, with one that exists"


def _path(text: str) -> Path:
    """With `~` as the user's folder; `~name` of an unknown user stays as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _exists(text: str) -> bool:
    try:
        return _path(text).exists()
    except OSError:  # a text that no file system takes for a name
        return False
