"""A tokenizer's files on disk: finding them, reading bos and eos from the config files, and writing them.

The rules are LitGPT's: `tokenizer.json` is preferred to `tokenizer.model`; bos and eos come from
`tokenizer_config.json`, then from `generation_config.json`. Nothing here encodes or decodes.
"""

from __future__ import annotations

import fnmatch
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from litgpt_core.core.command_line import shown_command
from litgpt_core.core.errors import TokenizerError
from litgpt_core.core.links import refuse_leading_out
from litgpt_core.core.parsing import ParsingError, read_bytes, read_json
from litgpt_core.tokenizers.file_names import COMPANIONS, CONFIG_FILE, GENERATION_FILE, JSON_FILE, MODEL_FILE

FOREIGN = "foreign"
MAX_DEFINITION_BYTES = 200_000_000
"""The largest published tokenizer.json has about 40 MB."""
_MODEL = ("lit_model*", "model_config.yaml", "*.safetensors", "pytorch_model*", "*.gguf", "*.distcp", "checksums.json")
_WHERE_FROM = (
    "copy the tokenizer files from the checkpoint they belong to, or train again: "
    f"{shown_command('tokenizer', '--help')}"
)


@dataclass(frozen=True, kw_only=True)
class Description:
    """A directory's tokenizer before any tokenizer library reads it."""

    path: Path
    """The defining file, `tokenizer.json` or `tokenizer.model`."""
    definition: bytes
    """That file's bytes."""
    kind: str = FOREIGN
    """Our kind, or "foreign" for a directory that was made elsewhere."""
    config: dict[str, object] = field(default_factory=dict)
    """`tokenizer_config.json`, or empty."""
    bos_token: str | None = None
    eos_token: str | None = None
    bos_id: int | None = None
    """From `generation_config.json`; used only where there is no `bos_token`."""
    eos_id: int | None = None
    use_bos: bool = False
    """Whether LitGPT puts bos before a prompt for this directory."""

    def broken(self, problem: object) -> TokenizerError:
        """The error for a defining file that its library cannot read."""
        return TokenizerError(
            f"{self.path} cannot be read as a tokenizer: {problem}",
            needed=f"an intact {self.path.name}",
            fix=_WHERE_FROM,
        )


def read_description(directory: Path) -> Description:
    """Read the files of `directory`; TokenizerError names the one that is missing or damaged."""
    path = next((directory / name for name in (JSON_FILE, MODEL_FILE) if (directory / name).is_file()), None)
    if path is None:
        given = f"{directory} is not a directory." if not directory.is_dir() else f"{directory} contains no tokenizer."
        raise TokenizerError(given, needed=f"a directory with {JSON_FILE} or {MODEL_FILE}", fix=_WHERE_FROM)
    config = _read_object(directory / CONFIG_FILE)
    ids = _read_generation_ids(directory / GENERATION_FILE)
    kind = config.get("kind", FOREIGN)
    try:
        definition = read_bytes(refuse_leading_out(path), max_bytes=MAX_DEFINITION_BYTES)
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror}.", fix="check the file's permissions") from None
    except ParsingError as error:
        raise TokenizerError(f"{path} cannot be read: {error}.", needed="a tokenizer", fix=_WHERE_FROM) from None
    return Description(
        path=path,
        definition=definition,
        kind=kind if isinstance(kind, str) else FOREIGN,
        config=config,
        bos_token=_token(config.get("bos_token")),
        eos_token=_token(config.get("eos_token")),
        bos_id=ids.get("bos_token_id"),
        eos_id=ids.get("eos_token_id"),
        use_bos=_use_bos(directory, config),
    )


def write_files(directory: Path, files: dict[str, bytes]) -> None:
    """Write each file atomically, and remove a defining file of the other format, which might be preferred.

    Raises:
        TokenizerError: The folder holds a model's weights, which need the tokenizer that is there, or a tokenizer that
            this project did not make; or it cannot be written.
    """
    refuse_foreign(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            temporary = directory / f".{name}.{uuid.uuid4().hex}.tmp"
            try:
                temporary.write_bytes(data)
                temporary.replace(directory / name)
            finally:
                temporary.unlink(missing_ok=True)
        for name in {JSON_FILE, MODEL_FILE} - set(files):
            (directory / name).unlink(missing_ok=True)
    except OSError as error:
        raise TokenizerError(
            f"The tokenizer cannot be written to {directory}: {error.strerror or error}.",
            fix="choose a directory that you may write to",
        ) from None


def refuse_foreign(directory: Path) -> None:
    """The tokenizer of a model is part of it: with another one, its weights are useless."""
    names = sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []
    weights = next((name for each in _MODEL for name in names if fnmatch.fnmatch(name, each)), None)
    if weights is not None:
        raise TokenizerError(
            f"{directory} holds a model: {weights}. Its weights need the tokenizer that is there.",
            needed="a folder without weights",
            fix="another folder",
        )
    if holds_tokenizer(directory) and not isinstance(_read_object(directory / CONFIG_FILE).get("kind"), str):
        raise TokenizerError(
            f"{directory} holds a tokenizer that this project did not make.",
            needed="an empty or new folder",
            fix="another folder, or move the files away",
        )


def holds_tokenizer(directory: Path) -> bool:
    """Whether a folder has a defining file of a tokenizer."""
    return any((directory / name).is_file() for name in (JSON_FILE, MODEL_FILE))


def copy_companions(source: Path, target: Path) -> None:
    """Copy `COMPANIONS` from one tokenizer's directory to another's."""
    for name in COMPANIONS:
        if (source / name).is_file():
            (target / name).write_bytes(refuse_leading_out(source / name).read_bytes())


def config_bytes(
    *,
    kind: str,
    tokenizer_class: str,
    eos_token: str,
    bos_token: str | None = None,
    use_bos: bool = False,
    foreign: Description | None = None,
) -> bytes:
    """`tokenizer_config.json` as LitGPT reads it; a foreign one keeps all its keys."""
    content: dict[str, object] = {"tokenizer_class": tokenizer_class, "add_bos_token": use_bos}
    if foreign is None:
        content["kind"] = kind
    else:
        content |= {"add_bos_token": foreign.use_bos} | foreign.config
    content |= {"bos_token": bos_token, "eos_token": eos_token}
    return json_bytes(content)


def json_bytes(content: Mapping[str, object]) -> bytes:
    """An indented JSON file; half surrogates, which UTF-8 cannot represent, as escapes."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return (json.dumps(content, indent=2) + "\n").encode("ascii")


def _read_object(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
    except (OSError, ParsingError) as error:
        raise TokenizerError(f"{path} cannot be read as JSON: {error}", fix=_WHERE_FROM) from None
    if not isinstance(content, dict):
        raise TokenizerError(f"{path} holds a {type(content).__name__}.", needed="a JSON object", fix=_WHERE_FROM)
    return content


def _read_generation_ids(path: Path) -> dict[str, int]:
    """bos and eos ids, by pattern rather than by parsing: some published files are not valid JSON.

    Of a list, the first id is used.
    """
    if not path.is_file():
        return {}
    try:
        text = read_bytes(path).decode("utf-8", errors="replace")
    except (OSError, ParsingError) as error:
        raise TokenizerError(f"{path} cannot be read: {error}", fix=_WHERE_FROM) from None
    found = re.findall(r'"(bos_token_id|eos_token_id)"\s{0,100}:\s{0,100}\[?\s{0,100}(\d{1,10})\b', text)
    return {name: int(value) for name, value in reversed(found)}


def _token(entry: object) -> str | None:
    content = entry.get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) else None


def _use_bos(directory: Path, config: dict[str, object]) -> bool:
    """LitGPT's own order of decision, folder names included (`litgpt.tokenizer`, 0.5.13)."""
    if not config:
        return False
    stem, name = directory.stem, directory.name
    if stem.startswith(("Meta-Llama-3", "Llama-3")) or (stem.startswith("SmolLM2") and name.endswith("Instruct")):
        return True
    if "add_bos_token" in config:
        return bool(config["add_bos_token"])
    return config.get("tokenizer_class") == "LlamaTokenizer"
