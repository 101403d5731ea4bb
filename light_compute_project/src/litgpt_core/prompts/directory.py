"""Loads and saves the prompt style of a checkpoint directory, in our format and LitGPT's.

chat_style.json                      ours: {"style": NAME}, or a template
prompt_style.yaml                    LitGPT's: {class_path: litgpt.prompts.NAME}; never imported from
chat_template.jinja, or "chat_template" in tokenizer_config.json     Hugging Face's
model_config.yaml                    the model's name, by LitGPT's rules
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.core.parsing import ParsingError, parse_json, parse_yaml
from litgpt_core.prompts.catalogue import style_named, style_of_litgpt_class
from litgpt_core.prompts.model_names import style_name_of_model
from litgpt_core.prompts.style import PromptStyle
from litgpt_core.prompts.template import TemplateStyle
from litgpt_core.prompts.turn_style import PlainStyle, TurnStyle

OURS, LITGPTS = "chat_style.json", "prompt_style.yaml"
TEMPLATE, TOKENIZER_CONFIG, MODEL_CONFIG = "chat_template.jinja", "tokenizer_config.json", "model_config.yaml"
_LITGPT_MODULE = "litgpt.prompts"
_ANOTHER = "correct or remove the file, or choose a style: --style NAME"


def load_style(directory: Path) -> PromptStyle | None:
    """The prompt style of a model; None for a base model.

    Raises CheckpointError for a file that is corrupted or names an unknown style.
    """
    return explain_style(directory)[0]


def explain_style(directory: Path) -> tuple[PromptStyle | None, str]:
    """`load_style`, and in a few words the source of the style."""
    directory = Path(directory)
    if (directory / OURS).is_file():
        return _ours(directory / OURS), OURS
    if (directory / LITGPTS).is_file():
        style = _litgpts(directory / LITGPTS)
        return (None if isinstance(style, PlainStyle) else style), LITGPTS
    if (template := _template(directory)) is not None:
        return template, Path(template.source).name
    name = _object(directory / MODEL_CONFIG).get("name")
    if isinstance(name, str) and (chosen := style_name_of_model(name)):
        return style_named(chosen), f"the model's name, {name}"
    return None, "no file of the model names a prompt style"


def save_style(directory: Path, style: PromptStyle) -> None:
    """Write `chat_style.json`, and `prompt_style.yaml` if LitGPT has the style (else remove it).

    For a checkpoint directory, write it to the tokenizer's folder, so that `save_directory` adds it to the checksums.

    Raises:
        CheckpointError: The directory cannot be written.
        TypeError: A style that is neither in the catalogue nor a template.
    """
    directory = Path(directory)
    litgpt_class: str | None = None
    if isinstance(style, TemplateStyle):
        content: dict[str, object] = {
            "style": style.name,
            "template": style.template,
            "tokens": dict(style.tokens),
        }
    elif isinstance(style, TurnStyle | PlainStyle):
        content, litgpt_class = {"style": style_named(style.name).name}, style.litgpt_class
    else:
        raise TypeError(f"{type(style).__name__} cannot be saved")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory / OURS, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        if litgpt_class is None:
            (directory / LITGPTS).unlink(missing_ok=True)
        else:
            _write(directory / LITGPTS, yaml.safe_dump({"class_path": f"{_LITGPT_MODULE}.{litgpt_class}"}))
    except OSError as problem:
        raise CheckpointError(
            f"The prompt style cannot be written to {directory}: {problem.strerror or problem}.",
            fix="choose a writable directory",
        ) from None


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _ours(path: Path) -> PromptStyle:
    content = _object(path)
    name, template = content.get("style"), content.get("template")
    if isinstance(template, str):
        return TemplateStyle(template=template, source=str(path), tokens=_spelled(content.get("tokens")))
    if not isinstance(name, str):
        raise CheckpointError(f"{path} does not name a style.", needed='{"style": NAME}', fix=_ANOTHER)
    try:
        return style_named(name)
    except ConfigError as problem:
        raise CheckpointError(f"{path}: {problem.given}", needed=problem.needed, fix=problem.fix) from None


def _litgpts(path: Path) -> PromptStyle:
    module, _, name = str(_object(path).get("class_path", "")).rpartition(".")
    style = style_of_litgpt_class(name) if module == _LITGPT_MODULE else None
    if style is None:
        raise CheckpointError(
            f"{path} names the class {module}.{name}." if name else f"{path} names no class.",
            needed=f"a class of {_LITGPT_MODULE}; custom classes are not imported, because that would run code",
            fix=_ANOTHER,
        )
    return style


def _template(directory: Path) -> TemplateStyle | None:
    config = _object(directory / TOKENIZER_CONFIG)
    tokens = _spelled(config)
    if (directory / TEMPLATE).is_file():
        path = directory / TEMPLATE
        return TemplateStyle(template=_text(path), source=str(path), tokens=tokens)
    found = config.get("chat_template")
    if isinstance(found, list):  # several by name, as [{"name": ..., "template": ...}]
        named = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}
        found = named.get("default")
    if not isinstance(found, str):
        return None
    return TemplateStyle(template=found, source=str(directory / TOKENIZER_CONFIG), tokens=tokens)


def _spelled(entries: object) -> dict[str, str]:
    """Special tokens by role; an entry is the token or an object that contains it."""
    spelled: dict[str, str] = {}
    for name, entry in entries.items() if isinstance(entries, Mapping) else ():
        text = entry.get("content") if isinstance(entry, Mapping) else entry
        if str(name).endswith("_token") and isinstance(text, str):
            spelled[str(name)] = text
    return spelled


def _object(path: Path) -> dict[str, Any]:
    """The mapping in a JSON or YAML file; empty if the file does not exist."""
    if not path.is_file():
        return {}
    text = _text(path)
    try:
        content = parse_json(text) if path.suffix == ".json" else parse_yaml(text)
    except ParsingError as problem:
        raise CheckpointError(f"{path} cannot be read: {str(problem).splitlines()[0]}.", fix=_ANOTHER) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}.", needed="names and values", fix=_ANOTHER)
    return content


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise CheckpointError(f"{path} cannot be read: {problem}.", fix=_ANOTHER) from None
