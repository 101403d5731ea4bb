"""A prepared folder as it lies on the disk: what is in it, whether it may be used, and the numbers others ask it for.

Making one is `prepare`. Reading its shards as batches is `dataset`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from litgpt_core.core.errors import DataError

FORMAT_VERSION = 1
"""Raise this when the same settings and corpus would give other files."""


@dataclass(frozen=True)
class PreparedData:
    """A prepared folder and its meta.json."""

    directory: Path
    meta: dict[str, Any]

    @property
    def train_path(self) -> Path:
        """Training shard."""
        return self.directory / "train.bin"

    @property
    def val_path(self) -> Path:
        """Validation shard."""
        return self.directory / "val.bin"

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
        """Ids of the tokenizer, specials included."""
        return int(self.meta["tokenizer"]["vocab_size"])

    @property
    def eos_id(self) -> int:
        """The end-of-document id."""
        return int(self.meta["tokenizer"]["eos_id"])

    @property
    def is_chat(self) -> bool:
        """Whether conversations lie here, of which only the answers are learnt (`chat_prepare`)."""
        return bool(self.meta.get("kind") == "chat")

    @property
    def epoch_tokens(self) -> int:
        """Token places of one pass over the training split; with conversations, of its packed rows."""
        if self.is_chat:
            return int(self.meta["splits"]["train"]["rows"]) * int(self.meta["block_size"])
        return self.train_tokens

    @property
    def train_tokens(self) -> int:
        """Ids in the training shard."""
        return int(self.meta["splits"]["train"]["tokens"])

    @property
    def val_tokens(self) -> int:
        """Ids in the validation shard."""
        return int(self.meta["splits"]["val"]["tokens"])

    @property
    def val_targets(self) -> int:
        """Validation tokens that a loss is computed for."""
        return int(self.meta["splits"]["val"]["targets"]) if self.is_chat else self.val_tokens - 1

    @property
    def val_bytes(self) -> int:
        """UTF-8 bytes of the validation text; with conversations, of the answers in it."""
        return int(self.meta["splits"]["val"]["bytes"])

    @property
    def val_tokens_per_byte(self) -> float:
        """Turns nats per token into bits per byte: `loss / ln 2 * val_tokens_per_byte`."""
        return (self.val_targets if self.is_chat else self.val_tokens) / self.val_bytes

    @property
    def references(self) -> dict[str, float]:
        """Reference model -> its loss on the validation split; none with conversations, where the base model is it."""
        return {} if self.is_chat else {"unigram": self.unigram_loss, "bigram": self.bigram_loss}

    @property
    def unigram_loss(self) -> float:
        """Nats per validation token of a unigram model fitted on the training tokens."""
        return float(self.meta["reference_losses"]["unigram"])

    @property
    def bigram_loss(self) -> float:
        """Nats per validation token of a bigram model fitted on the training tokens."""
        return float(self.meta["reference_losses"]["bigram"])


def open_prepared(directory: Path) -> PreparedData:
    """A prepared folder that is already there, checked for completeness but not against any settings.

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
    return PreparedData(Path(directory), json.loads((directory / "meta.json").read_text(encoding="utf-8")))


def folder_problem(directory: Path, *, fingerprint: str | None = None) -> str:
    """Why a folder must not be used, or an empty string. Looks at meta.json, shard sizes and the tokenizer's hashes."""
    try:
        meta = json.loads((directory / "meta.json").read_text(encoding="utf-8"))
        if meta["format_version"] != FORMAT_VERSION:
            return f"its format version is {meta['format_version']}, this code writes {FORMAT_VERSION}"
        if fingerprint is not None and meta["fingerprint"] != fingerprint:
            return f"its fingerprint is {meta['fingerprint']}, these settings and this corpus have {fingerprint}"
        if meta["meta_sha256"] != meta_sha256(meta):
            return "meta.json was edited"
        width = np.dtype(meta["dtype"]).itemsize
        for side in ("train", "val"):
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


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys and without spaces or non-ASCII letters: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def meta_sha256(meta: dict[str, Any]) -> str:
    """SHA-256 (hex) of all entries but `meta_sha256` itself."""
    return hashlib.sha256(
        canonical_json({key: value for key, value in meta.items() if key != "meta_sha256"})
    ).hexdigest()
