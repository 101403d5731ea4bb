"""Command line and YAML -> one checked, frozen `TrainConfig`. The only module that imports hydra and omegaconf.

The way of a setting: `compose` merges the YAML files and overrides with Hydra; `check` turns the plain result into the
rooms' own frozen settings and reports every problem at once, each with the nearest valid name and the place where it
was written (`source.py`). Nothing is built here and nothing is read but YAML.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from litgpt_core.config.aliases import near_keys
from litgpt_core.config.check import check_section, check_trainer, check_value
from litgpt_core.config.litgpt import expand
from litgpt_core.config.optional_sections import OPTIONAL_SECTIONS, check_optional, teacher_of
from litgpt_core.config.run_name import named
from litgpt_core.config.schema import DATA_WITH_PATH, KINDS, MODEL_FORBIDDEN, TOP_LEVEL, model_fields, takes_text
from litgpt_core.config.shorthand import as_overrides, text_value
from litgpt_core.config.source import CONFIG_DIR, Source, config_dirs, group_names, option_names
from litgpt_core.config.train_config import RunSettings, SuiteCurveSettings, TrainConfig, dump
from litgpt_core.core.errors import ConfigError
from litgpt_core.core.text import hydra_quoted, nearest
from litgpt_core.model.config import PRETRAINED_FIELDS, GPTConfig, ModelSettings
from litgpt_core.optim.settings import AdamWSettings, CustomOptimSettings, MuonSettings
from litgpt_core.tokenizers.settings import PretrainedSettings

__all__ = ["TrainConfig", "check", "compose", "dump", "load", "normalise_overrides"]

logger = logging.getLogger(__name__)


def load(overrides: Sequence[str], *, numbered: bool = False) -> TrainConfig:
    """Compose and check a training config from command-line overrides such as `+experiment=baseline
    trainer.max_steps=10`, or their shorthand (`shorthand.py`).

    Args:
        overrides: Of the command line.
        numbered: Whether a run that nothing names gets the next free number, as a single training does; see
            `run_name.py`.

    Raises:
        ConfigError: With every problem that was found.
    """
    arguments = normalise_overrides(overrides)
    plain = compose(arguments, numbered=numbered)
    return check(plain, source=Source(arguments))


def normalise_overrides(overrides: Iterable[str]) -> list[str]:
    """Make overrides that Hydra accepts from what people type, and refuse unknown groups and options with the nearest
    name.

    `experiment=x` becomes `+experiment=x` (the group is absent from the defaults list, so that it may appear inside
    one); a plain key becomes `++key`, so that Hydra lets an unknown one through to `check`, which knows all problems
    and where each was written.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    groups, problems, result = group_names(), [], []
    parser = OverridesParser.create()
    for given in expand(as_overrides(list(overrides)), model_fields=model_fields(), block_size_of=_registry_block_size):
        text, override = given, None
        for attempt in _attempts(_with_text(given)):
            try:
                text, override = attempt, parser.parse_override(attempt)
                break
            except HydraException:
                continue
        if override is None:
            problems.append(f"{given!r} is not KEY=VALUE, such as trainer.max_steps=100 or +experiment=baseline")
            continue
        key, bare = override.key_or_group, text.lstrip("+~")
        if key.startswith(("hydra.", "hydra/")):
            problems.append(f"{given}: Hydra's own settings have no effect here")
        elif override.is_delete():
            result.append(text)
        elif key in OPTIONAL_SECTIONS and override.value() is None:
            result.append(f"~{key}")  # Hydra has no other way to leave out what an experiment chooses
        elif key in groups:
            problems += _option_problems(given, key, override)
            result.append(f"+{bare}" if key == "experiment" else bare)
        elif "/" in key or ("." not in key and key not in TOP_LEVEL):
            near = near_keys(key)
            hint = f"; did you mean {' or '.join(near)}?" if near else nearest(key, [*groups, *TOP_LEVEL])
            problems.append(f"{given}: no setting or group {key!r}{hint}")
        else:
            result.append(f"++{bare}")
    if problems:
        raise _combined(problems)
    return result


def _registry_block_size(name: str) -> int:
    return ModelSettings(source="registry", fields={"name": name}).build(vocab_size=256).block_size


def _with_text(given: str) -> str:
    """`run.name=1.50` with its value in quotes, where the setting holds text."""
    name, equals, value = given.partition("=")
    key = name.lstrip("+~")
    return f"{name}={text_value(key, value)}" if equals and takes_text(key) else given


def _attempts(given: str) -> list[str]:
    """What may be parsed for an argument: as typed, then with its value in quotes; bare words only as `~key`."""
    if "=" not in given:
        return [given] if given.startswith("~") else []
    return [given, _quoted(given)]


def _quoted(text: str) -> str:
    """`key=value` with the value in quotes, for what Hydra's grammar does not take bare: umlauts, `~`, brackets."""
    key, _, value = text.partition("=")
    return f"{key}={hydra_quoted(value)}"


def _option_problems(text: str, group: str, override: Any) -> list[str]:
    if override.is_sweep_override():
        return []  # the values of a sweep are checked one by one
    value = override.value()
    problems = []
    for name in value if isinstance(value, list) else [value]:
        if not isinstance(name, str) or name not in option_names(group):
            there = nearest(str(name), option_names(group))
            problems.append(f"{text}: no file configs/{group}/{name}.yaml{there}")
    return problems


def compose(arguments: Sequence[str], *, numbered: bool = False) -> dict[str, Any]:
    """Merge `configs/train.yaml`, the chosen files and the overrides; returns plain, resolved values.

    Args:
        arguments: As `normalise_overrides` returns them.
        numbered: As for `load`.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    _search_own_folder_first()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
            composed = hydra_compose("train", overrides=list(arguments))
        plain = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise _not_composed(str(error)) from error
    assert isinstance(plain, dict)
    values = {str(key): value for key, value in plain.items()}
    return named(values, experiment=Source(arguments).experiment, numbered=numbered)


@functools.cache
def _search_own_folder_first() -> None:
    """Let Hydra look into the user's own config folder, where there is one, before the shipped one."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class OwnFolderFirst(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in config_dirs()[:-1]:
                search_path.prepend(provider="own", path=f"file://{folder}", anchor="main")

    Plugins.instance().register(OwnFolderFirst)


def check(plain: dict[str, Any], *, source: Source) -> TrainConfig:
    """Turn plain values into settings, or raise one ConfigError that lists everything wrong.

    Args:
        plain: What `compose` returned.
        source: Knows where each key was written.
    """
    problems: list[str] = []
    for key in plain:
        if key not in TOP_LEVEL:
            problems.append(f"unknown section {key!r}{nearest(key, TOP_LEVEL)}{source.where(key)}")
    sections: dict[str, Any] = {}
    for key in ("seed", "init_from"):
        wanted: Any = int if key == "seed" else (str | None)
        sections[key] = check_value(plain.get(key), wanted, path=key, source=source, problems=problems)
    if sections["seed"] is not None and not 0 <= sections["seed"] < 2**63:
        problems.append(f"seed={sections['seed']}: needed a whole number from 0 to 2^63 - 1{source.where('seed')}")
    plain = _without_other_optimizers(plain, source)
    sections["run"] = check_section(plain, "run", RunSettings, source, problems)
    _warn_of_two_lengths(plain, source)
    sections["trainer"] = check_trainer(plain.get("trainer"), source, problems)
    sections["model"] = _model(plain, source, problems)
    for group, kinds in KINDS.items():
        kind = (plain.get(group) or {}).get("kind")
        if kind not in kinds:
            problems.append(f"{group}.kind={kind!r}{nearest(str(kind), list(kinds))}{source.where(f'{group}.kind')}")
        elif group == "data" and kind in DATA_WITH_PATH and plain["data"].get("path") in (None, "???"):
            problems.append("data.path is missing: type data.path=FILE_OR_FOLDER")
        else:
            sections[group] = check_section(plain, group, kinds[kind], source, problems)
    sections["evaluation"] = SuiteCurveSettings()
    if plain.get("evaluation") is not None:  # configs of earlier versions lack it
        sections["evaluation"] = check_section(plain, "evaluation", SuiteCurveSettings, source, problems)
    sections |= check_optional(plain, source, problems)
    if isinstance(settings := sections.get("tokenizer"), PretrainedSettings):
        path = _directory(plain, "tokenizer", True, source, problems)
        sections["tokenizer"] = dataclasses.replace(settings, path=path)
    if problems:
        raise _combined(problems)
    return TrainConfig(**sections, plain=plain)


def _warn_of_two_lengths(plain: dict[str, Any], source: Source) -> None:
    trainer = plain.get("trainer")
    if not isinstance(trainer, dict) or trainer.get("epochs") is None:
        return
    if all("command line" in source.where(f"trainer.{key}") for key in ("epochs", "max_steps")):
        logger.warning("trainer.max_steps=%s is not used: trainer.epochs is given, too", trainer.get("max_steps"))


def _without_other_optimizers(plain: dict[str, Any], source: Source) -> dict[str, Any]:
    """`optim=custom` under an experiment drops what its file says for AdamW or Muon: other classes have other rates."""
    optim = plain.get("optim")
    if not isinstance(optim, dict) or optim.get("kind") != "custom":
        return plain
    others = {f.name for cls in (AdamWSettings, MuonSettings) for f in dataclasses.fields(cls)}
    others -= {f.name for f in dataclasses.fields(CustomOptimSettings)}
    left_over = [key for key in optim if key in others and "command line" not in source.where(f"optim.{key}")]
    for key in left_over:
        logger.warning("optim=custom: optim.%s=%s is not used%s", key, optim[key], source.where(f"optim.{key}"))
    return {**plain, "optim": {key: value for key, value in optim.items() if key not in left_over}}


def _model(plain: dict[str, Any], source: Source, problems: list[str]) -> ModelSettings | None:
    section = plain.get("model")
    if not isinstance(section, dict):
        problems.append("model: needed a group of settings, for example model=baseline")
        return None
    hints, before = typing.get_type_hints(GPTConfig), len(problems)
    names = model_fields()
    for key, item in section.items():
        where = f"model.{key}"
        if key in MODEL_FORBIDDEN:
            problems.append(f"{where} cannot be set: {MODEL_FORBIDDEN[key]}{source.where(where)}")
        elif key not in ("source", "path") and key not in names:
            problems.append(f"unknown setting {where}{nearest(str(key), ['source', *names])}{source.where(where)}")
        elif key != "source":
            check_value(item, hints.get(key, str | None), path=where, source=source, problems=problems)
    kind = section.get("source")
    if kind not in ("fields", "registry", "pretrained"):
        problems.append(f"model.source={kind!r}: needed fields, registry or pretrained{source.where('model.source')}")
    fields = {k: v for k, v in section.items() if k not in ("source", "path")}
    settings = ModelSettings(
        source=str(kind), path=_directory(plain, "model", kind == "pretrained", source, problems), fields=fields
    )
    if kind == "pretrained":
        for key in sorted(fields.keys() - {*PRETRAINED_FIELDS}):
            where = f"model.{key}"
            problems.append(f"{where} cannot be set: the directory's model_config.yaml says it{source.where(where)}")
    elif len(problems) == before:
        try:
            settings.build(vocab_size=256)
        except ConfigError as error:
            problems.append(str(error))
    return settings


def _directory(plain: dict[str, Any], group: str, wanted: bool, source: Source, problems: list[str]) -> str | None:
    """`GROUP.path` of a pretrained model or tokenizer, or what `init_from` names, or else the teacher's tokenizer; None
    where it has no place.
    """
    given = plain[group].get("path")
    if not wanted:
        if given is not None:
            problems.append(f"{group}.path has no effect without {group}=pretrained{source.where(f'{group}.path')}")
        return None
    found = given or plain.get("init_from") or (teacher_of(plain) if group == "tokenizer" else None)
    if not found:
        problems.append(f"{group}.path is missing: type {group}.path=DIR, or init_from=DIR")
    return str(found) if found else None


def _combined(problems: list[str]) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(problems[0])
    return ConfigError(f"{len(problems)} problems in the configuration:\n" + "\n".join(f"  - {p}" for p in problems))


def _not_composed(message: str) -> ConfigError:
    """What Hydra said, as an error of ours."""
    if found := re.search(r"Ambiguous value for argument '\+*([\w.]+)=(.*?)'$", message, re.MULTILINE):
        key, value = found.groups()
        one = f"{key}={value.replace(',', '')} for one number; " if re.fullmatch(r"\d{1,3}(,\d{3})+", value) else ""
        return ConfigError(
            f"{key}={value} has several values", fix=f"{one}{key}=[{value}] for a list; -m trains with each in turn"
        )
    return ConfigError(f"the configuration cannot be composed: {_with_suggestion(message)}")


def _with_suggestion(message: str) -> str:
    """Add the nearest name to Hydra's own complaint about a missing file, such as a misspelt `override /model:` in
    a YAML.
    """
    for group in group_names():
        marker = f"'{group}/"
        if marker in message:
            name = message.split(marker, 1)[1].split("'", 1)[0]
            first = message.strip().splitlines()[0]
            return f"{first}{nearest(name, option_names(group))}"
    return message.strip()
