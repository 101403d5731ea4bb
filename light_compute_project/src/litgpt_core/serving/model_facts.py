"""What /v1/models says about a model: read from its small files, whether it is loaded or not."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from litgpt_core.checkpoint.discovery import FoundModel
from litgpt_core.checkpoint.layout import HYPERPARAMETERS
from litgpt_core.checkpoint.parameters import parameters_of
from litgpt_core.core.errors import LightComputeError
from litgpt_core.core.parsing import table_in
from litgpt_core.model.config import GPTConfig
from litgpt_core.prompts.directory import load_style

if TYPE_CHECKING:
    from litgpt_core.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)

CHAT_SUGGESTIONS = (
    "Explain what a language model does, in two sentences.",
    "Tell me a short story about a lighthouse.",
    "Give me three names for a small sailing boat.",
)
BASE_SUGGESTIONS = ("Once upon a time", "The most important thing to know about the sea is", "To be, or not to be")
_MOST_SUGGESTIONS, _LONGEST_SUGGESTION = 4, 200


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The description of a model, loaded or not, for /v1/models; None for what its files do not say."""

    name: str
    modified: float
    loaded: bool = False
    chat: bool | None = None
    parameters: int | None = None
    context_length: int | None = None
    suggestions: tuple[str, ...] = field(default=())
    """First messages; only of a loaded model, whose tokenizer says what it can read."""


def read_facts(model: FoundModel) -> ModelFacts:
    """The facts of a model; whatever is wrong with its files is logged, and the rest is described."""
    unknown = ModelFacts(name=model.name, modified=model.modified)
    try:
        config = GPTConfig.from_checkpoint(model.directory)
        return ModelFacts(
            name=model.name,
            modified=model.modified,
            chat=load_style(model.directory) is not None,
            parameters=parameters_of(model.directory, config),
            context_length=config.block_size,
        )
    except LightComputeError as problem:
        logger.warning("%s cannot be described: %s", model.name, problem)
    except Exception as problem:  # files of anybody: none of them ends the list
        logger.warning("%s cannot be described: %r", model.name, problem)
    return unknown


def suggested_messages(directory: Path, tokenizer: Tokenizer, *, chat: bool) -> tuple[str, ...]:
    """First messages for a model: the `sample_prompts` of its run, else general ones; only what it can read."""
    own = _sample_prompts(directory)
    general = CHAT_SUGGESTIONS if chat else BASE_SUGGESTIONS
    for candidates in (own, general):
        readable = tuple(dict.fromkeys(text for text in candidates if _can_be_read(text, tokenizer)))
        if readable:
            return readable[:_MOST_SUGGESTIONS]
    return ()


def _sample_prompts(directory: Path) -> list[str]:
    trainer = table_in(directory / HYPERPARAMETERS).get("trainer")
    prompts = trainer.get("sample_prompts") if isinstance(trainer, dict) else None
    texts = prompts if isinstance(prompts, list) else []
    return [text for text in texts if isinstance(text, str) and text.strip() and len(text) <= _LONGEST_SUGGESTION]


def _can_be_read(text: str, tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer represents the text exactly: no unknown token in place of a character."""
    try:
        return tokenizer.decode(tokenizer.encode(text)).strip() == text.strip()
    except LightComputeError:
        return False
