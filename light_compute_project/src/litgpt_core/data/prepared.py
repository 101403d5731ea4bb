"""What text and chat data have in common once prepared: the folder's files, its checks, and one interface for training.

    TextData (`text_data`)    one stream of tokens; every token is a target; reference losses of n-gram models
    ChatData (`chat_data`)    packed conversations; only answers are targets; held-out questions as sample prompts

`prepare` makes folders and picks one of the two from `data.kind`; nothing else asks which it is. A training run reads
folders through this file and makes none.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from litgpt_core.core.errors import DataError
from litgpt_core.data.stream.manifest import STREAM_FORMAT, Shard, manifest_problem, shards_of
from litgpt_core.data.stream.token_row import sample_tokens

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from litgpt_core.data.dataset import Batch, ValidationBatches

FORMAT_VERSION = 1
"""Of folders with one shard per split. Raise this when the same settings and corpus would give other files; folders of
many shards have `manifest.STREAM_FORMAT`.
"""


class Share(TypedDict):
    """Which rows a process reads; all of them without these."""

    rank: NotRequired[int]
    world_size: NotRequired[int]


class OrderedRows(Share):
    """The order of training rows, and how many make a micro-batch."""

    seed: int
    """Decides the order."""
    micro_batch_size: int
    """Rows per micro-batch and process."""


class TrainRows(OrderedRows):
    """Options of `train_batches`."""

    block_size: int
    """T, tokens per row."""
    global_batch_size: int
    """Rows per optimizer step over all processes."""


class ValRows(Share):
    """Options of `val_batches`."""

    block_size: int
    batch_size: int
    max_tokens: NotRequired[int | None]
    """At most about so many tokens of the split; None reads all."""


@dataclass(frozen=True)
class PreparedData(ABC):
    """A prepared folder and its meta.json. Torch is imported only when batches are requested."""

    directory: Path
    meta: dict[str, Any]

    # ---- the same for text and chat

    @property
    def train_path(self) -> Path:
        """Training shard of a folder of one shard per split."""
        return self.directory / "train.bin"

    @property
    def val_path(self) -> Path:
        """Validation shard of a folder of one shard per split."""
        return self.directory / "val.bin"

    def shards(self, side: str) -> list[Shard]:
        """The shards of `train` or `val`; of a folder of one shard per split, that one."""
        if self.meta.get("format_version") == STREAM_FORMAT:
            return shards_of(self.directory, side)
        path = self.train_path if side == "train" else self.val_path
        return [Shard(path=path, tokens=int(self.meta["splits"][side]["tokens"]))]

    def tokens(self, side: str, *, at_most: int = 1 << 26) -> npt.NDArray[np.unsignedinteger]:
        """The ids of `train` or `val`, shape (N,), to look at: mapped where they are one shard, else `at_most` of them
        from segments spread evenly.
        """
        shards = self.shards(side)
        if len(shards) > 1 or shards[0].remote is not None:
            return sample_tokens(shards, dtype=self.dtype, at_most=at_most)
        (shard,) = shards
        dtype = np.dtype(self.dtype).newbyteorder("<")
        return np.memmap(shard.path, dtype=dtype, mode="r", offset=shard.offset, shape=(shard.tokens,))

    @property
    def tokenizer_dir(self) -> Path:
        """Folder with the tokenizer's files, for checkpoints and `tokenizers.load`."""
        return self.directory / "tokenizer"

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that decides the folder's content."""
        return str(self.meta["fingerprint"])

    @property
    def dtype(self) -> str:
        """ "uint16" or "uint32"."""
        return str(self.meta["dtype"])

    @property
    def vocab_size(self) -> int:
        """Ids of the tokenizer, special tokens included."""
        return int(self.meta["tokenizer"]["vocab_size"])

    @property
    def eos_id(self) -> int:
        """The end-of-document id."""
        return int(self.meta["tokenizer"]["eos_id"])

    @property
    def train_tokens(self) -> int:
        """Ids in the training shard."""
        return int(self.meta["splits"]["train"]["tokens"])

    @property
    def val_tokens(self) -> int:
        """Ids in the validation shard."""
        return int(self.meta["splits"]["val"]["tokens"])

    @property
    def val_bytes(self) -> int:
        """UTF-8 bytes of the validation text; for chat, of the answers that are targets."""
        return int(self.meta["splits"]["val"]["bytes"])

    # ---- where text and chat differ

    @property
    @abstractmethod
    def epoch_tokens(self) -> int:
        """Token positions of one pass over the training split."""

    @property
    @abstractmethod
    def val_targets(self) -> int:
        """Validation tokens that a loss is computed for."""

    @property
    @abstractmethod
    def val_tokens_per_byte(self) -> float:
        """Turns nats per token into bits per byte: `loss / ln 2 * val_tokens_per_byte`."""

    @property
    @abstractmethod
    def references(self) -> dict[str, float]:
        """Name of a reference model -> its loss on the validation split, nats per token; may be empty."""

    @property
    @abstractmethod
    def held_out(self) -> list[list[dict[str, Any]]]:
        """Held-out conversations as sample prompts: messages of role and content, the last one the original answer."""

    @abstractmethod
    def check_block_size(self, block_size: int) -> None:
        """Raise DataError if the training split holds no sample of `block_size` tokens."""

    @abstractmethod
    def train_batches(self, **rows: Unpack[TrainRows]) -> Dataset[Batch]:
        """Training micro-batches by ordinal; (inputs, targets) first, targets of -100 have no loss."""

    @abstractmethod
    def val_batches(self, **rows: Unpack[ValRows]) -> ValidationBatches:
        """This rank's batches of the held-out split."""


def folder_problem(directory: Path, *, fingerprint: str | None = None) -> str:
    """Why a folder must not be used, or an empty string. Looks at meta.json, shard sizes and the tokenizer's hashes."""
    try:
        meta = json.loads((directory / "meta.json").read_text(encoding="utf-8"))
        if meta["format_version"] not in (FORMAT_VERSION, STREAM_FORMAT):
            return (
                f"its format version is {meta['format_version']}, this code writes {FORMAT_VERSION} and {STREAM_FORMAT}"
            )
        if fingerprint is not None and meta["fingerprint"] != fingerprint:
            return f"its fingerprint is {meta['fingerprint']}, these settings and this corpus have {fingerprint}"
        if meta["meta_sha256"] != meta_sha256(meta):
            return "meta.json was edited"
        width = np.dtype(meta["dtype"]).itemsize
        many = meta["format_version"] == STREAM_FORMAT
        if many and (problem := manifest_problem(directory, meta)):
            return problem
        for side in () if many else ("train", "val"):
            size, expected = (directory / f"{side}.bin").stat().st_size, meta["splits"][side]["tokens"] * width
            if size != expected:
                return f"{side}.bin has {size:,} bytes instead of {expected:,}"
        for name, expected in meta.get("more_files", {}).items():
            if (size := (directory / name).stat().st_size) != expected:
                return f"{name} has {size:,} bytes instead of {expected:,}"
        for name, digest in meta["tokenizer"]["files"].items():
            if hashlib.sha256((directory / "tokenizer" / name).read_bytes()).hexdigest() != digest:
                return f"tokenizer/{name} was changed"
    except OSError as error:
        return f"{Path(error.filename or directory).name}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"meta.json is broken ({type(error).__name__}: {error})"
    return ""


def read_meta(directory: Path) -> dict[str, Any]:
    """The meta.json of a folder that is complete; the settings it was made from are not checked.

    Raises:
        DataError: The folder is missing or does not fit its meta.json.
    """
    problem = folder_problem(directory)
    if problem:
        raise DataError(
            f"{directory} is not a usable prepared folder: {problem}",
            needed="a folder made by this version's prepare",
            fix=f"delete {directory} and prepare the data again",
        )
    return checked_meta(directory)


def checked_meta(directory: Path) -> dict[str, Any]:
    """The meta.json of a folder that was made or found complete just now."""
    meta: dict[str, Any] = json.loads((directory / "meta.json").read_text(encoding="utf-8"))
    return meta


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys and without spaces or non-ASCII letters: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def meta_sha256(meta: dict[str, Any]) -> str:
    """SHA-256 (hex) of all entries but `meta_sha256` itself."""
    return hashlib.sha256(
        canonical_json({key: value for key, value in meta.items() if key != "meta_sha256"})
    ).hexdigest()
