"""What is analysed: a model in float32, its tokenizer, held-out text as token ids, and prompts, all checked together.

A run folder leads to the data that it was trained on (`config.yaml` names it), whose validation split is the held-out
text; any text file serves instead. Without either, analyses that need text are left out.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.interpret.token_text import token_text
from litgpt_core.model.cost import forward_flops_per_token
from litgpt_core.model.gpt import GPT
from litgpt_core.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

logger = logging.getLogger(__name__)

TEXT_TOKENS = 1 << 16
"""At most so many tokens of held-out text are kept, in windows spread evenly over it."""
FULL_FLOPS, LEAST_SHARE = 2e7, 0.1
"""Up to so many forward FLOPs per token all the text is read; beyond, less of it, by the square root, never below a
tenth.
"""
PROMPT_TOKENS = 48
"""Tokens of held-out text that serve as the prompt where none is given."""


@dataclass(kw_only=True)
class Subject:
    """One model and what it is shown."""

    model: GPT
    """float32, in evaluation mode, without gradients."""
    tokenizer: Tokenizer
    name: str
    directory: Path | None = None
    """The checkpoint directory."""
    windows: Tensor | None = None
    """(N, T + 1) ids of held-out text; T inputs and their targets."""
    bytes_per_token: float | None = None
    """UTF-8 bytes per token of that text."""
    counts: npt.NDArray[np.int64] | None = None
    """(V,) how often each token occurs in the training text, else in the held-out text."""
    trained_tokens: int | None = None
    """Tokens that the run was trained on."""
    checkpoints: list[tuple[int, Path]] = field(default_factory=list)
    """(step, directory) of the run, oldest first."""
    prompt: str | None = None
    against: str | None = None
    losses: Tensor | None = field(default=None, init=False)
    """Losses of some windows, once an analysis has computed them."""
    seed: int = 0
    layer: int | None = None
    """Of the analyses that look at one layer; None: the middle one."""
    effort: float = 1.0
    """Multiplies the amount of text that expensive analyses read."""

    def __post_init__(self) -> None:
        self.model.eval().requires_grad_(False)
        rows = self.model.config.padded_vocab_size
        if self.tokenizer.vocab_size > rows:
            raise CheckpointError(
                f"the tokenizer has {self.tokenizer.vocab_size:,} ids, the model's embedding {rows:,} rows",
                needed="the tokenizer that the model was trained with",
                fix="the checkpoint directory with its own tokenizer files",
            )
        if self.layer is not None and not 0 <= self.layer < self.model.config.n_layer:
            raise ConfigError(
                f"--layer {self.layer}: there is no such layer",
                needed=f"a layer from 0 to {self.model.config.n_layer - 1}",
                fix=f"--layer {self.model.config.n_layer // 2}",
            )
        for option in ("prompt", "against"):
            if getattr(self, option) is not None:
                self._encode(getattr(self, option), option)

    @property
    def middle_layer(self) -> int:
        """The layer of analyses that look at one."""
        return (self.model.config.n_layer - 1) // 2 if self.layer is None else self.layer

    # ---- token ids

    def _encode(self, text: str, option: str) -> Tensor:
        """(1, T) ids of a text. Raises ConfigError if it is empty or longer than the model's window."""
        ids = self.tokenizer.encode(text)
        if self.tokenizer.use_bos and self.tokenizer.bos_id is not None:
            ids = [self.tokenizer.bos_id, *ids]
        window = self.model.config.block_size
        if not ids or len(ids) > window:
            raise ConfigError(
                f"--{option} has {len(ids):,} tokens",
                needed=f"1 to {window:,} tokens: the model's block_size",
                fix=f"a text of about {int(window * (self.bytes_per_token or 3.0)):,} bytes or less",
            )
        return torch.tensor([ids])

    def prompt_ids(self) -> Tensor:
        """(1, T) ids of the prompt; without one, of the beginning of a window of held-out text; without
        text, the first ids of the vocabulary."""
        if self.prompt is not None:
            return self._encode(self.prompt, "prompt")
        if self.windows is not None:
            row = self.windows[len(self.windows) // 2]
            return row[None, : min(PROMPT_TOKENS, len(row) - 1)]
        special = self.tokenizer.special_ids()
        plain = [token for token in range(self.tokenizer.vocab_size) if token not in special]
        return torch.tensor([plain[: min(16, self.model.config.block_size)]])

    def against_ids(self) -> Tensor:
        """(1, T) ids of the text that the prompt is compared with."""
        assert self.against is not None
        return self._encode(self.against, "against")

    @property
    def share(self) -> float:
        """Of the text that analyses read in a small model: less in one that takes longer, with larger errors."""
        config = self.model.config
        flops = forward_flops_per_token(config, seq_length=min(config.block_size, 256))
        return self.effort * min(1.0, max(LEAST_SHARE, math.sqrt(FULL_FLOPS / flops)))

    def some_windows(self, count: int) -> Tensor:
        """(N, T + 1): `count` times `share` windows spread evenly over the held-out text, or all of them."""
        assert self.windows is not None
        n = max(2, min(len(self.windows), round(count * self.share)))
        return self.windows[torch.arange(n) * len(self.windows) // n]

    # ---- tokens as text

    @cached_property
    def _texts(self) -> dict[int, str]:
        return {}

    def token_text(self, token: int) -> str:
        """One token as text, spaces included; ids that are no text of their own in angle brackets."""
        if token not in self._texts:
            self._texts[token] = token_text(self.tokenizer, token)
        return self._texts[token]

    def token_texts(self, ids: Tensor) -> list[str]:
        """(T,) -> T texts."""
        return [self.token_text(int(token)) for token in ids]
