"""The prepared data that a checkpoint was trained on: held-out documents, training tokens, n-gram models of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from litgpt_core import tokenizers
from litgpt_core.core.checkout import working_folder
from litgpt_core.core.errors import DataError
from litgpt_core.core.parsing import ParsingError, read_yaml
from litgpt_core.data.document import Document
from litgpt_core.data.ngram import BigramModel
from litgpt_core.data.prepare import PreparedData, open_prepared
from litgpt_core.data.prepared import folder_problem
from litgpt_core.data.text_data import TextData
from litgpt_core.evaluate.ngram_scorer import NgramScorer
from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.training.run_folder import RunFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunData:
    """A prepared folder of text.

    Args:
        prepared: The folder.
    """

    prepared: PreparedData

    @classmethod
    def open(cls, folder: Path) -> RunData:
        """Raises DataError for a folder that is incomplete, or that does not hold text."""
        prepared = open_prepared(folder)
        if not isinstance(prepared, TextData):
            raise DataError(
                f"{folder} holds conversations, not text", needed="a prepared folder of text", fix="--text FILE"
            )
        return cls(prepared)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Whose ids the shards hold."""
        return tokenizers.load(self.prepared.tokenizer_dir)

    @cached_property
    def train(self) -> npt.NDArray[np.integer[Any]]:
        """(N,) training tokens, mapped into memory; of many shards, an even sample."""
        return self.prepared.tokens("train")

    @cached_property
    def documents(self) -> list[Document]:
        """The held-out split; a text that was cut at its end is one document."""
        val = self.prepared.tokens("val")
        ends = np.flatnonzero(val == self.prepared.eos_id) + 1
        parts = np.split(val, ends) if self.prepared.meta["append_eos"] else [val]
        texts = [self.tokenizer.decode(part.tolist()) for part in parts]
        name = str(self.prepared.meta["name"])
        return [Document(name, f"held-out {number:04d}", text) for number, text in enumerate(texts) if text]

    @cached_property
    def ngrams(self) -> list[NgramScorer]:
        """The unigram and the bigram model of the training tokens."""
        counts = BigramModel.fit(self.train, vocab_size=self.prepared.vocab_size)
        return [NgramScorer(counts, self.tokenizer, order=1), NgramScorer(counts, self.tokenizer, order=2)]


def run_folder_of(checkpoint: Path) -> RunFolder | None:
    """The run that a checkpoint directory lies in, if it lies in one."""
    path = checkpoint.resolve()
    return next((RunFolder(each) for each in (path, *path.parents[:2]) if (each / "config.yaml").is_file()), None)


def data_of(checkpoint: Path) -> RunData | None:
    """The data a checkpoint was trained on; None, with a warning that says why, where it is not on this machine."""
    folder = run_folder_of(checkpoint)
    if folder is None:
        logger.warning("%s is not part of a run: no held-out text and no n-gram models of its data", checkpoint)
        return None
    fingerprint = folder.read_environment().get("data_fingerprint")
    try:
        settings = (read_yaml(folder.config) or {})["data"]
        place = working_folder() / Path(settings["cache_dir"]).expanduser()
        prepared = place / f"{settings['name']}-{str(fingerprint)[:12]}"
    except (OSError, ValueError, KeyError, TypeError, ParsingError):
        logger.warning("%s does not say which data it was trained on", folder.path)
        return None
    if problem := folder_problem(prepared, fingerprint=fingerprint):
        logger.warning(
            "the data of %s is not here (%s: %s): no held-out text and no n-gram models; --data FOLDER names it",
            folder.path,
            prepared,
            problem,
        )
        return None
    try:
        return RunData.open(prepared)
    except DataError as error:
        logger.warning("%s", error.given)
        return None
