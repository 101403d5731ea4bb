"""Decoding by the model as it stands in `litgpt_core.model`: any device, any architecture; optionally compiled.

Compiled, one step of one token is a graph of its own, kept with all of its machine code in the user's cache folder, so
that a second start traces but does not compile again. Its KV cache keeps one size, the model's block_size, because
another size would be another graph.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from litgpt_core.errors import EnvironmentProblem
from litgpt_core.generation.decoder import Decoder, Feed
from litgpt_core.generation.kernel_build import cache_folder

if TYPE_CHECKING:
    from litgpt_core.model.gpt import GPT


class TorchDecoder(Decoder):
    """See the module."""

    ragged = False

    def __init__(self, model: GPT, *, compiled: bool = False) -> None:
        self._model = model
        self._compiled = compiled
        self.name = "compiled" if compiled else "eager"
        self._step: Callable[[Tensor, Tensor], Tensor] = self._forward
        if compiled:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder().with_name("inductor")))
            self._step = torch.compile(self._forward, dynamic=False)
        self._sequences = 0

    def start(self, *, n_sequences: int, length: int) -> None:
        """See `Decoder`."""
        if self._compiled:
            if n_sequences == self._sequences and self._model.transformer.cache_length is not None:
                return  # the graph holds on to these very tensors; what they hold is hidden by the mask
            length = self._model.config.block_size
        self._model.set_kv_cache(n_sequences, max_seq_length=length)
        self._sequences = n_sequences

    def finish(self) -> None:
        """See `Decoder`; a compiled step keeps its cache, because a new one would mean compiling anew."""
        if not self._compiled:
            self._model.clear_kv_cache()

    def feed(self, feeds: Sequence[Feed]) -> Tensor:
        """See `Decoder`. Raises EnvironmentProblem where torch.compile fails."""
        device = self._model.lm_head.weight.device
        ids = torch.tensor([item.ids for item in feeds], device=device)  # (B, T)
        first = feeds[0].position
        positions = torch.arange(first, first + ids.size(1), device=device)  # (T,)
        if ids.size(1) > 1 or not self._compiled:
            return self._forward(ids, positions)
        try:
            return self._step(ids, positions)
        except RuntimeError as problem:  # all of dynamo's and inductor's errors are
            raise EnvironmentProblem(
                f"torch.compile failed: {str(problem).splitlines()[0]}", fix="--compile false"
            ) from problem

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """(B, T) at (T,) -> (B, V) after the last."""
        hidden = self._model.hidden(ids, input_pos=positions)  # (B, T, C)
        return self._model.head(hidden[:, -1])
