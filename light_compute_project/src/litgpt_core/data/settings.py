"""What a corpus is and how it is split: one frozen dataclass per kind of source, checked on construction.

Not here: reading (`sources`), tokenizing (`prepare`), batches (`dataset`). Standard library only, so that `--help`
stays fast. The YAML files in `configs/data/` carry the same field names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from litgpt_core.core.checkout import working_folder
from litgpt_core.core.class_path import check_arguments, import_function
from litgpt_core.data.setting_checks import (
    DecodeErrors,
    common_problems,
    encoding_problem,
    raise_all,
    split_problems,
    stream_problems,
)
from litgpt_core.data.stream_settings import MixtureSettings, RowsSettings, TokensSettings

SplitKind = Literal["document", "tail"]
VerifyKind = Literal["stat", "full"]
DEFAULT_SPLIT_SEED = 1337

TINY_SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
TINY_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TINY_SHAKESPEARE_BYTES = 1_115_394


@dataclass(frozen=True, kw_only=True)
class PythonSourceSettings:
    """Python sources of installed packages: tens of MB of real text without a download."""

    kind: Literal["python_source"] = "python_source"
    """Which reader is used; fixed for this class."""

    name: str = "python_source"
    """First part of the prepared folder's name."""

    packages: dict[str, str] = field(default_factory=lambda: {"sympy": "1.14.0", "networkx": "3.6.1"})
    """Distribution name -> the exact version that must be installed."""

    max_file_bytes: int = 300_000
    """Files larger than this are left out: in the default packages two generated tables (see docs/data.md)."""

    verify: VerifyKind = "stat"
    """`stat`: files whose size and times are those of the last reading are not read again; `full`: always read."""

    cache_dir: str = "data"
    """Where prepared folders go: relative to the project folder (not to the current one), or absolute."""

    val_fraction: float = 0.02
    """Share of the bytes held out for validation, in (0, 0.5]."""

    split_seed: int = DEFAULT_SPLIT_SEED
    """Decides which groups of files are held out."""

    group_near_duplicates: bool = True
    """Whether documents that are alike stay on one side of the split."""

    def __post_init__(self) -> None:
        problems = common_problems(self, kind="python_source")
        if not self.packages:
            problems.append("packages is empty; name at least one distribution, e.g. {sympy: 1.14.0}")
        for package, version in self.packages.items():
            if not isinstance(version, str) or not version:
                problems.append(f"packages.{package}={version!r} is not a version; write it in quotes, e.g. '1.14.0'")
        if self.max_file_bytes < 1:
            problems.append(f"max_file_bytes={self.max_file_bytes} must be at least 1")
        raise_all(problems, kind="python_source")


@dataclass(frozen=True, kw_only=True)
class TinyShakespeareSettings:
    """The 1.1 MB file that char-rnn and nanoGPT train on, with nanoGPT's split, so that losses can be compared."""

    kind: Literal["tiny_shakespeare"] = "tiny_shakespeare"
    """Which reader is used; fixed for this class."""

    name: str = "tiny_shakespeare"
    """First part of the prepared folder's name."""

    url: str = TINY_SHAKESPEARE_URL
    """Where the file is downloaded from, unless LIGHT_COMPUTE_DATA_MIRROR names a folder or address with it."""

    sha256: str = TINY_SHAKESPEARE_SHA256
    """Hash of the file's bytes; a file that differs is refused."""

    size_bytes: int = TINY_SHAKESPEARE_BYTES
    """Size of the file; a file that differs is refused."""

    timeout_s: float = 30.0
    """Seconds without a response after which a download fails."""

    cache_dir: str = "data"
    """Where the download and the prepared folders go: relative to the project folder, or absolute."""

    val_fraction: float = 0.1
    """Share held out for validation, in (0, 0.5]; with split=tail a share of the characters."""

    split: SplitKind = "tail"
    """`tail`: hold out the last characters, as nanoGPT does; `document`: hold out a seeded choice of chunks."""

    split_seed: int = DEFAULT_SPLIT_SEED
    """Decides which chunks are held out; has no effect with split=tail."""

    group_near_duplicates: bool = True
    """Whether documents that are alike stay on one side of the split."""

    def __post_init__(self) -> None:
        problems = common_problems(self, kind="tiny_shakespeare") + split_problems(self.split)
        if urlsplit(self.url).scheme not in ("http", "https", "file"):
            problems.append(f"url={self.url!r} is not an http(s):// or file:// address")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            problems.append(f"sha256={self.sha256!r} is not 64 lower-case hex digits")
        if self.size_bytes < 1:
            problems.append(f"size_bytes={self.size_bytes} must be at least 1")
        if not self.timeout_s > 0:
            problems.append(f"timeout_s={self.timeout_s} must be above 0")
        raise_all(problems, kind="tiny_shakespeare")


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """Your own text: one file, or a folder of files."""

    kind: Literal["text"] = "text"
    """Which reader is used; fixed for this class."""

    name: str = "text"
    """First part of the prepared folder's name."""

    path: str
    """A file or a folder; a relative path is taken from the current folder."""

    glob: str = "**/*.txt"
    """Which files of a folder are read; no effect when `path` is a file."""

    encodings: list[str] = field(default_factory=lambda: ["utf-8", "utf-16", "cp1252", "latin-1"])
    """Tried in this order, UTF-8 first; utf-16 and utf-32 need a byte-order mark; a single one is used as it is."""

    decode_errors: DecodeErrors = "strict"
    """`strict`: refuse a damaged file, with the byte offset; `replace`: damaged bytes become U+FFFD, with a warning."""

    document_separator: str = ""
    """Text between the documents of a file, such as <|endoftext|>; it is removed. Empty: a file is one document."""

    text_key: str = ""
    """Key of the text in the rows of JSON or CSV files, such as text: each row is a document. Empty: plain text."""

    stream_above: int = 256_000_000
    """A corpus with more bytes than this is prepared in constant memory, by a split rule of its own (docs/data.md)."""

    workers: int = 0
    """Processes that tokenize such a corpus; 0: one per core. The bytes written do not depend on it."""

    fast_tokenizer: Literal["never", "auto"] = "never"
    """`auto`: gigatoken tokenizes such a corpus, if it is installed and gives the same ids on a sample."""

    verify: VerifyKind = "stat"
    """`stat`: files whose size and times are those of the last reading are not read again; `full`: always read."""

    cache_dir: str = "data"
    """Where prepared folders go: relative to the project folder (not to the current one), or absolute."""

    val_fraction: float = 0.1
    """Share held out for validation, in (0, 0.5]: of the bytes, or with split=tail of the characters."""

    split: SplitKind = "document"
    """`document`: hold out entire files, or chunks of a single file; `tail`: hold out the end of a single file."""

    split_seed: int = DEFAULT_SPLIT_SEED
    """Decides which documents are held out; has no effect with split=tail."""

    group_near_duplicates: bool = True
    """Whether documents that are alike stay on one side of the split."""

    def __post_init__(self) -> None:
        problems = common_problems(self, kind="text") + split_problems(self.split) + stream_problems(self)
        if self.path in ("", "???"):
            problems.append("path is missing; set data.path=FILE_OR_FOLDER")
        if not self.glob:
            problems.append("glob is empty; set e.g. data.glob='**/*.txt'")
        if not self.encodings:
            problems.append("encodings is empty; set e.g. data.encodings=[utf-8]")
        if self.decode_errors not in ("strict", "replace"):
            problems.append(f"decode_errors={self.decode_errors!r} must be 'strict' or 'replace'")
        if self.text_key and self.document_separator:
            problems.append("text_key and document_separator exclude each other: set one of them")
        problems += [f"encodings: {problem}" for each in self.encodings if (problem := encoding_problem(each))]
        raise_all(problems, kind="text")


@dataclass(frozen=True, kw_only=True)
class CustomTextSettings:
    """Any text that a Python function reads."""

    kind: Literal["custom"] = "custom"
    """Which reader is used; fixed for this class."""

    name: str = "custom"
    """First part of the prepared folder's name."""

    reader: str
    """Import path of a function that yields (name, text) for each document; the current folder is searched too."""

    kwargs: dict[str, Any] = field(default_factory=dict)
    """The function's keyword arguments."""

    cache_dir: str = "data"
    """Where prepared folders go: relative to the project folder (not to the current one), or absolute."""

    val_fraction: float = 0.1
    """Share held out for validation, in (0, 0.5]: of the bytes, or with split=tail of the characters."""

    split: SplitKind = "document"
    """`document`: hold out entire documents, or chunks of a single one; `tail`: hold out the end of a single one."""

    split_seed: int = DEFAULT_SPLIT_SEED
    """Decides which documents are held out; has no effect with split=tail."""

    group_near_duplicates: bool = True
    """Whether documents that are alike stay on one side of the split."""

    def __post_init__(self) -> None:
        raise_all(common_problems(self, kind="custom") + split_problems(self.split), kind="custom")
        check_arguments(self.function, self.kwargs, supplied=(), setting="data.kwargs")

    @property
    def function(self) -> Callable[..., Any]:
        """The function at `reader`.

        Raises:
            ConfigError: It cannot be imported, or is not a function.
        """
        return import_function(self.reader, example="my_texts.read", setting="data.reader")


@dataclass(frozen=True, kw_only=True)
class ChatDataSettings:
    """Conversations: the chat log of `serve.py` and `chat.py`, or JSONL in OpenAI's or ShareGPT's format."""

    kind: Literal["chat"] = "chat"
    """Which reader is used; fixed for this class."""

    name: str = "chat"
    """First part of the prepared folder's name."""

    path: str = "chat_history.jsonl"
    """A JSONL file, with its rotated ones (FILE.1, FILE.2, ...), or a folder; relative to the current folder."""

    glob: str = "**/*.jsonl"
    """Which files of a folder are read; no effect when `path` is a file."""

    style: str = "auto"
    """Name of a prompt style; auto: that of `init_from`, else human_assistant."""

    cache_dir: str = "data"
    """Where prepared folders go: relative to the project folder (not to the current one), or absolute."""

    val_fraction: float = 0.1
    """Probability that a conversation is held out for validation, in (0, 0.5]; each split gets at least one."""

    split_seed: int = DEFAULT_SPLIT_SEED
    """Decides which conversations are held out."""

    def __post_init__(self) -> None:
        problems = common_problems(self, kind="chat")
        for key in ("path", "glob", "style"):
            if getattr(self, key) in ("", "???"):
                problems.append(f"{key} is missing; set data.{key}={type(self).__dataclass_fields__[key].default}")
        raise_all(problems, kind="chat")


CorpusSettings = PythonSourceSettings | TinyShakespeareSettings | TextSettings | CustomTextSettings
"""Plain text that may be read into memory: one stream of tokens, all of which are targets."""

StreamSettings = TextSettings | RowsSettings
"""Text that is read in constant memory; `text` above `stream_above`."""


def makes_segments(settings: DataSettings) -> bool:
    """Whether rows hold several documents that do not see each other, so that batches come with segments."""
    return isinstance(settings, ChatDataSettings) or getattr(settings, "packing", "") == "best_fit"


DataSettings = CorpusSettings | RowsSettings | TokensSettings | MixtureSettings | ChatDataSettings
DATA_KINDS: dict[str, type] = {
    "python_source": PythonSourceSettings,
    "tiny_shakespeare": TinyShakespeareSettings,
    "text": TextSettings,
    "custom": CustomTextSettings,
    **dict.fromkeys(("jsonl", "parquet", "arrow"), RowsSettings),
    "tokens": TokensSettings,
    "mixture": MixtureSettings,
    "chat": ChatDataSettings,
}
"""The values of `data.kind`."""


def cache_folder(data: DataSettings) -> Path:
    """Absolute path of `cache_dir`: relative to the project folder, `~` is the home folder. Creates nothing.

    A copy installed as a wheel has no project folder; there, it is relative to the current folder.
    """
    return working_folder() / Path(data.cache_dir).expanduser()
