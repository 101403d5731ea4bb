"""Decoding with the model of `litgpt_core.model`: any device, any architecture; optionally compiled.

    feeds of one token each, of all sequences --> one pass of (B, 1), each row at its own position
    a feed of several tokens (a prompt)       --> a separate pass, (1, T)

With torch.compile, the step of one token per sequence is one graph. Its machine code is stored in the user's cache
folder, so that later processes trace but do not compile again. The KV cache always has the model's block_size, because
another size would need another graph. On CUDA that graph is recorded once and replayed as a CUDA graph.

On CUDA the host does not wait for the device here: ids and positions come in one copy from pinned memory. cuDNN's
attention is not used, because it makes a plan for every new shape, and here every prompt has another length.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.generation.decoder import Decoder, Feed
from litgpt_core.generation.device_copies import numbers_on
from litgpt_core.generation.kernel_build import cache_folder
from litgpt_core.model.kv_cache import KVCache
from litgpt_core.model.moe import leave_experts_out, stack_experts

if TYPE_CHECKING:
    from litgpt_core.model.gpt import GPT


_NONE = torch.empty(0)
LIVE_STEP = 512
"""Attention reads the cache up to the last token, rounded up to a multiple of this: few shapes, and the blocks in which
PyTorch's fused kernel on CPUs adds up, so that the text of a sequence does not depend on how long the others are.
"""


class TorchDecoder(Decoder):
    """See the module."""

    def __init__(self, model: GPT, *, compiled: bool = False, kv_cache: str = "auto") -> None:
        self._model = model
        self._cache_dtype = torch.int8 if kv_cache == "int8" else None
        self._compiled = compiled
        self.name = "compiled" if compiled else "eager"
        self._step: Callable[[Tensor, Tensor], Tensor] = self._logits
        stack_experts(model)
        if compiled:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder().with_name("inductor")))
            leave_experts_out(model)
            mode = "reduce-overhead" if model.device.type == "cuda" else None
            self._step = torch.compile(self._logits, dynamic=False, mode=mode)
        self._sequences = 0
        self._length = self._live = 0
        self._row: list[int] = []  # of the cache, for every sequence
        self._written: list[int] = []  # slots, in every row

    def start(self, *, n_sequences: int, length: int) -> None:
        """See `Decoder`."""
        if self._compiled:
            if n_sequences == self._sequences and self._model.transformer.cache_length is not None:
                return  # the graph refers to these tensors; the mask hides their old content
            length = self._model.config.block_size
        self._model.set_kv_cache(n_sequences, max_seq_length=length, dtype=self._cache_dtype)
        self._sequences = n_sequences
        self._length = self._live = length
        self._row, self._written = list(range(n_sequences)), [0] * n_sequences

    def finish(self) -> None:
        """See `Decoder`; a compiled step keeps its cache, because a new one would have to be compiled again."""
        if not self._compiled:
            self._model.clear_kv_cache()

    def feed(self, feeds: Sequence[Feed]) -> Tensor:
        """See `Decoder`. Raises EnvironmentProblem where torch.compile fails."""
        with kernels_without_plans(self._model.device):
            return self._feed(feeds)

    def _feed(self, feeds: Sequence[Feed]) -> Tensor:
        steps = [place for place, item in enumerate(feeds) if len(item.ids) == 1]
        if len(steps) == len(feeds):
            return self._feed_steps(feeds)
        logits: list[Tensor] = [
            self._model.head(self.hidden(item)[-1:]) if len(item.ids) > 1 else _NONE for item in feeds
        ]
        if steps:
            together = self._feed_steps([feeds[place] for place in steps])
            for row, place in enumerate(steps):
                logits[place] = together[row : row + 1]
        return torch.cat(logits)

    def hidden(self, feed: Feed) -> Tensor:
        """(T, C): the input of the head for every token of one feed."""
        ids, positions = self._tensors([feed])
        row = self._row[feed.sequence]
        with kernels_without_plans(self._model.device), self._model.cache_rows(row, fresh=feed.position == 0):
            return self._model.hidden(ids, input_pos=positions[0])[0]

    def step_hidden(self, feeds: Sequence[Feed]) -> Tensor:
        """(len(feeds), C): the input of the head after one more token of sequences 0, 1, 2, ..."""
        assert [self._row[item.sequence] for item in feeds] == list(range(len(feeds)))
        ids, positions = self._tensors(feeds)
        with kernels_without_plans(self._model.device):
            return self._model.hidden(ids, input_pos=positions)[:, -1]

    def reorder(self, sources: Sequence[int], *, length: int) -> None:
        """See `Decoder`."""
        targets = self._row[: len(sources)]
        rows = numbers_on(self._model.device, [[self._row[source] for source in sources], targets])
        for slots in self._slots():
            slots[:, :, :length].index_copy_(0, rows[1], slots[rows[0], :, :length])
        for target in targets:
            self._written[target] = length

    def _slots(self) -> Iterator[Tensor]:
        for module in self._model.modules():
            if isinstance(module, KVCache):
                yield from module.tensors()

    def _feed_steps(self, feeds: Sequence[Feed]) -> Tensor:
        """(len(feeds), V) after one more token of each."""
        if self._sequences == 1:
            ids, positions = self._tensors(feeds)
            return self._called(ids, positions[0])
        if self._compiled:
            logits = self._called(*self._tensors(self._all_rows(feeds)))
            sequences = [item.sequence for item in feeds]
            whole = sequences == list(range(self._sequences))
            return logits if whole else logits[numbers_on(self._model.device, sequences)]
        self._make_dense([item.sequence for item in feeds])
        order = sorted(range(len(feeds)), key=lambda place: self._row[feeds[place].sequence])
        logits = self._logits(*self._tensors([feeds[place] for place in order]))  # of (B, 1) each
        if order == list(range(len(feeds))):
            return logits
        return logits[numbers_on(self._model.device, sorted(range(len(feeds)), key=order.__getitem__))]

    def _make_dense(self, sequences: Sequence[int]) -> None:
        """Have these sequences be in the first rows of the cache, which attention then reads in place. A sequence from
        behind them changes rows with one that is not fed; after that, as long as the same are fed, nothing is copied.
        """
        taken = {self._row[sequence] for sequence in sequences}
        free = [row for row in range(len(sequences)) if row not in taken]
        behind = [sequence for sequence in sequences if self._row[sequence] >= len(sequences)]
        for row, sequence in zip(free, behind, strict=True):
            self._exchange(self._row.index(row), sequence)

    def _exchange(self, one: int, other: int) -> None:
        """Two sequences change rows; only what is written of each is copied."""
        a, b = self._row[one], self._row[other]
        of_a, of_b = self._written[a], self._written[b]
        for slots in self._slots():
            kept = slots[a, :, :of_a].clone()
            slots[a, :, :of_b] = slots[b, :, :of_b]
            slots[b, :, :of_a] = kept
        self._row[one], self._row[other] = b, a
        self._written[a], self._written[b] = of_b, of_a

    def _all_rows(self, feeds: Sequence[Feed]) -> list[Feed]:
        """One feed for every sequence, because the graph has one shape. A sequence without a token writes a dummy to
        the last slot of its cache, which is overwritten before it is read.
        """
        last = self._model.config.block_size - 1
        rows = {item.sequence: item for item in feeds}
        return [rows.get(sequence) or Feed(sequence, last, [0]) for sequence in range(self._sequences)]

    def _called(self, ids: Tensor, positions: Tensor) -> Tensor:
        try:
            return self._step(ids, positions)
        except RuntimeError as problem:  # the base class of dynamo's and inductor's errors
            if not self._compiled:
                raise
            raise EnvironmentProblem(
                f"torch.compile failed: {str(problem).splitlines()[0]}", fix="--compile false"
            ) from problem

    def _tensors(self, feeds: Sequence[Feed]) -> tuple[Tensor, Tensor]:
        """(B, T) ids and (B, T) positions of feeds of equal length; the cache is read as far as they need."""
        if not self._compiled:
            self._read_up_to(max(item.position + len(item.ids) for item in feeds))
        length = len(feeds[0].ids)
        for item in feeds:
            self._written[self._row[item.sequence]] = item.position + length
        rows = [[*item.ids, *range(item.position, item.position + length)] for item in feeds]
        both = numbers_on(self._model.device, rows)  # (B, 2 T): one copy
        return both[:, :length], both[:, length:]

    def _read_up_to(self, position: int) -> None:
        live = min(self._length, -(-position // LIVE_STEP) * LIVE_STEP)
        if live != self._live:
            self._model.limit_cache(live)
            self._live = live

    def _logits(self, ids: Tensor, positions: Tensor) -> Tensor:
        """(B, T) at (T,) or (B, T) -> (B, V) after the last."""
        return self._model.head(self._model.hidden(ids, input_pos=positions)[:, -1])


def kernels_without_plans(device: torch.device) -> AbstractContextManager[None]:
    """On CUDA: attention by kernels that take any shape at once, so without cuDNN's; elsewhere nothing changes."""
    if device.type != "cuda":
        return nullcontext()
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(kernels)
