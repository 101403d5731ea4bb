"""Settings of corpora of any size: rows of JSONL, Parquet or Arrow files, token shards of other projects, mixtures.

Not here: settings of corpora that are read whole (`settings`). Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from litgpt_core.data.setting_checks import common_problems, raise_all, stream_problems

OrderKind = Literal["full", "blocks"]
RowsKind = Literal["jsonl", "parquet", "arrow"]
TokenFormat = Literal["auto", "prepared", "nanogpt", "llmc", "megatron", "olmo", "datatrove"]
TOKEN_FORMATS: tuple[TokenFormat, ...] = ("auto", "prepared", "nanogpt", "llmc", "megatron", "olmo", "datatrove")


@dataclass(frozen=True, kw_only=True)
class RowsSettings:
    """Documents in the rows of files of any size, read in constant memory."""

    kind: RowsKind = "jsonl"
    """What the files are: jsonl (also .gz, .bz2, .xz, .zst), parquet, or arrow (Hugging Face data sets on disk)."""

    name: str = "rows"
    """First part of the prepared folder's name."""

    path: str
    """A file or a folder, relative to the current folder; or an address: s3://, gs://, hf://datasets/, https://."""

    glob: str = "**/*"
    """Which files of a folder are read; no effect when `path` is a file. Compressed files match without .gz, .zst."""

    text_key: str = "text"
    """Key or column of the text in each row."""

    chunk_bytes: int = 0
    """Bytes of input that make one shard; 0: a 64th of the corpus, within 8 MB and 256 MB."""

    workers: int = 0
    """Processes that tokenize; 0: one per core. The bytes written do not depend on it."""

    order: OrderKind = "full"
    """Order of training windows: `full` mixes all of them; `blocks` mixes blocks of 64 MB, for disks and buckets."""

    verify: Literal["stat", "full"] = "stat"
    """`stat`: files whose size and times are those of the last reading are not read again; `full`: always read."""

    cache_dir: str = "data"
    """Where prepared folders go: relative to the project folder (not to the current one), or absolute."""

    val_fraction: float = 0.01
    """Probability that a document is held out for validation, in (0, 0.5]; lowered to keep within `val_bytes`."""

    val_bytes: int = 64_000_000
    """About how many bytes of input are held out at most."""

    split_seed: int = 1337
    """Decides which documents are held out."""

    def __post_init__(self) -> None:
        problems = common_problems(self, kind=self.kind) + stream_problems(self)
        if self.kind not in ("jsonl", "parquet", "arrow"):
            problems.append(f"kind={self.kind!r} must be jsonl, parquet or arrow")
        if self.path in ("", "???"):
            problems.append("path is missing; set data.path=FILE_OR_FOLDER")
        if not self.glob:
            problems.append("glob is empty; set e.g. data.glob='**/*'")
        if not self.text_key:
            problems.append("text_key is empty; set e.g. data.text_key=text")
        raise_all(problems, kind=self.kind)


@dataclass(frozen=True, kw_only=True)
class TokensSettings:
    """Token shards that exist: a prepared folder, or shards that another project wrote. Nothing is copied."""

    kind: Literal["tokens"] = "tokens"
    """Which reader is used; fixed for this class."""

    name: str = "tokens"
    """First part of the name of the folder that describes the shards."""

    path: str
    """A folder of shards, one shard, or a prepared folder; relative to the current folder."""

    format: TokenFormat = "auto"
    """auto: recognised; prepared, nanogpt, llmc (llm.c, modded-nanogpt), megatron, olmo (raw numbers), datatrove."""

    dtype: Literal["auto", "uint16", "uint32"] = "auto"
    """Width of the numbers of raw files (nanogpt, olmo, datatrove); auto: what the tokenizer's vocabulary needs."""

    order: OrderKind = "full"
    """Order of training windows: `full` mixes all of them; `blocks` mixes blocks of 64 MB, for disks and buckets."""

    cache_dir: str = "data"
    """Where the folder that describes the shards goes: relative to the project folder, or absolute."""

    val_fraction: float = 0.01
    """Share of the tokens held out, from the end, where no shard is named after validation; in (0, 0.5]."""

    val_tokens: int = 10_000_000
    """At most so many tokens are held out."""

    split_seed: int = 1337
    """No effect: token shards are not sampled."""

    def __post_init__(self) -> None:
        problems = common_problems(self, kind="tokens")
        if self.path in ("", "???"):
            problems.append("path is missing; set data.path=FOLDER_OF_SHARDS")
        if self.format not in TOKEN_FORMATS:
            problems.append(f"format={self.format!r} must be one of {', '.join(TOKEN_FORMATS)}")
        if self.dtype not in ("auto", "uint16", "uint32"):
            problems.append(f"dtype={self.dtype!r} must be auto, uint16 or uint32")
        if self.order not in ("full", "blocks"):
            problems.append(f"order={self.order!r} must be 'full' or 'blocks'")
        if self.val_tokens < 2:
            problems.append(f"val_tokens={self.val_tokens} must be at least 2")
        raise_all(problems, kind="tokens")
