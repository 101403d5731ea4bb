"""A model that writes: the prompt in one pass, then one token at a time through a KV cache. One text at a time per
engine.

    checkpoint directory --load--> model + tokenizer
    prompt --ids--> prefill (1, T) --last logits--> sample --id--> decode (1, 1) --> sample --> ...
                                                           \\--> StreamDecoder --> text

Texts longer than the model's window slide by half a window: see `window_start` in `reference.py`, the slow version that
this one is tested against. Not here: chat formats, HTTP, batches.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from litgpt_core import tokenizers
from litgpt_core.checkpoint import load_model, resolve
from litgpt_core.errors import CheckpointError, ConfigError
from litgpt_core.generation.hardware import choose_device, choose_dtype
from litgpt_core.generation.prompts import starts_with_bos
from litgpt_core.generation.reference import window_start
from litgpt_core.generation.sampling import SamplingSettings, sample
from litgpt_core.generation.stream import StreamDecoder

if TYPE_CHECKING:
    from litgpt_core.model.gpt import GPT
    from litgpt_core.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)

DEFAULT_SAMPLING = SamplingSettings()


@dataclass(kw_only=True)
class GenerationStats:
    """What the latest generation took; counts up while it runs."""

    new_tokens: int = 0
    seconds_to_first_token: float = 0.0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Decoding rate after the first token, 0 before there are two."""
        decoding = self.seconds - self.seconds_to_first_token
        return (self.new_tokens - 1) / decoding if self.new_tokens > 1 and decoding > 0 else 0.0


class Engine:
    """Generates with one model and its tokenizer.

    The model is put into evaluation mode while a text is being made and back afterwards, and its cache is freed, so
    that an engine may borrow a model in the middle of training. Starting a second text ends the first: its iterator
    raises RuntimeError.

    Args:
        model: On its device, in its number type.
        tokenizer: The one it was trained with.
        add_bos: Put the tokenizer's bos before every prompt text, as some foreign models want it.

    Attributes:
        stats: Of the latest generation.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, *, add_bos: bool = False) -> None:
        self.model, self.tokenizer, self.add_bos = model, tokenizer, add_bos and tokenizer.bos_id is not None
        self.stats = GenerationStats()
        self._mode_before: bool | None = None  # the model's mode before the text that is being made
        self._vocab_size = min(tokenizer.vocab_size, model.config.padded_vocab_size)

    @classmethod
    def from_directory(cls, path: Path, *, device: str = "auto", dtype: str = "auto") -> Engine:
        """Load a checkpoint of ours or of LitGPT's.

        Args:
            path: A checkpoint directory, its weights file, or a run folder.
            device: auto, cpu, cuda, cuda:1, mps.
            dtype: auto, 32, bf16, 16. `auto` keeps the stored type, but float32 on a CPU unless the weights are bf16.

        Raises:
            CheckpointError, TokenizerError, EnvironmentProblem, ConfigError: What is wrong with the directory or the
            machine.
        """
        target = choose_device(device)
        directory = resolve(Path(path))
        model = load_model(directory)
        model = model.to(target, choose_dtype(dtype, device=target, stored=model.lm_head.weight.dtype))
        return cls(model, tokenizers.load(directory), add_bos=starts_with_bos(directory))

    # --- ids

    def generate_stream(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int,
        sampling: SamplingSettings = DEFAULT_SAMPLING,
        seed: int | None = None,
        stop_ids: Collection[int] | None = None,
    ) -> Iterator[int]:
        """New ids, one by one, as soon as they are known.

        Args:
            prompt_ids: Ids to continue; empty means the start of a document (bos, or else eos).
            max_new_tokens: At most this many; may exceed the model's block_size.
            sampling: How tokens are drawn.
            seed: Equal seeds give equal texts on one machine; None draws a fresh one.
            stop_ids: Ids that end the text and are not part of it. None means the tokenizer's eos, `()` that nothing
            does.

        Raises:
            ConfigError: max_new_tokens is negative.
            CheckpointError: An id that the model does not have, or a model that answers NaN.
        """
        if max_new_tokens < 0:
            raise ConfigError(f"max_new_tokens={max_new_tokens} was given.", needed="0 or more")
        ids = [int(token_id) for token_id in prompt_ids] or self._document_start()
        rows = self.model.config.padded_vocab_size
        if strange := [token_id for token_id in ids if not 0 <= token_id < rows]:
            raise CheckpointError(
                f"The prompt holds token {strange[0]}, but the model has {rows} tokens.",
                needed="the tokenizer that the model was trained with",
            )
        stop = frozenset({self.tokenizer.eos_id} if stop_ids is None else stop_ids)
        generator = torch.Generator(self.model.lm_head.weight.device)
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        return self._run(ids, max_new_tokens=max_new_tokens, sampling=sampling, generator=generator, stop=stop)

    @torch.no_grad()  # not inference_mode: a model in training must not keep tensors that autograd refuses
    def _run(
        self,
        ids: list[int],
        *,
        max_new_tokens: int,
        sampling: SamplingSettings,
        generator: torch.Generator,
        stop: frozenset[int],
    ) -> Iterator[int]:
        model, block_size = self.model, self.model.config.block_size
        began, start, cached = time.perf_counter(), 0, 0
        if len(ids) > block_size:
            logger.warning("The prompt has %d tokens: only the last %d are seen", len(ids), max(1, block_size // 2))
        self.stats = stats = GenerationStats()  # doubles as the sign of whose turn it is
        if self._mode_before is None:
            self._mode_before = model.training
        try:
            model.eval()
            model.set_kv_cache(1, max_seq_length=min(block_size, len(ids) + max_new_tokens))
            for _ in range(max_new_tokens):
                if (moved := window_start(start, length=len(ids), block_size=block_size)) != start:
                    start, cached = moved, 0
                token = self._next(ids[start + cached :], cached, sampling=sampling, generator=generator)
                cached = len(ids) - start
                stats.seconds = time.perf_counter() - began
                stats.seconds_to_first_token = stats.seconds_to_first_token or stats.seconds
                if token in stop:
                    return
                ids.append(token)
                stats.new_tokens += 1
                yield token
                if self.stats is not stats:
                    raise RuntimeError("another text was started on this engine: one at a time, or one engine each")
        finally:
            if self.stats is stats:
                model.clear_kv_cache()
                model.train(self._mode_before)
                self._mode_before = None

    def _next(self, new_ids: list[int], cached: int, *, sampling: SamplingSettings, generator: torch.Generator) -> int:
        """Feed `new_ids` at positions `cached`, ... and draw the token after them."""
        device = generator.device
        positions = torch.arange(cached, cached + len(new_ids), device=device)  # (T,)
        hidden = self.model.hidden(torch.tensor([new_ids], device=device), input_pos=positions)  # (1, T, C)
        logits = self.model.head(hidden[:, -1])[:, : self._vocab_size]  # (1, V); padding is cut off
        return int(sample(logits, sampling, generator=generator))

    def generate(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int,
        sampling: SamplingSettings = DEFAULT_SAMPLING,
        seed: int | None = None,
        stop_ids: Collection[int] | None = None,
    ) -> list[int]:
        """All new ids at once; see `generate_stream`."""
        return list(
            self.generate_stream(
                prompt_ids, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, stop_ids=stop_ids
            )
        )

    # --- text

    def generate_text_stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: SamplingSettings = DEFAULT_SAMPLING,
        seed: int | None = None,
        stop_ids: Collection[int] | None = None,
    ) -> Iterator[str]:
        """The text after `prompt` in pieces of whole characters; see `generate_stream`.

        Raises TokenizerError, before anything is generated, for a prompt that the tokenizer cannot represent.
        """
        ids = self.encode_prompt(prompt)
        stream = self.generate_stream(
            ids, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, stop_ids=stop_ids
        )
        return self._decode(stream, StreamDecoder(self.tokenizer, prompt_ids=ids))

    @staticmethod
    def _decode(stream: Iterator[int], decoder: StreamDecoder) -> Iterator[str]:
        for token in stream:
            if piece := decoder.push(token):
                yield piece
        if rest := decoder.finish():
            yield rest

    def generate_text(
        self,
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: SamplingSettings = DEFAULT_SAMPLING,
        seed: int | None = None,
        stop_ids: Collection[int] | None = None,
    ) -> str:
        """The text after `prompt`, without it; see `generate_stream`."""
        return "".join(
            self.generate_text_stream(
                prompt, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, stop_ids=stop_ids
            )
        )

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt, with bos where the model wants it. Never empty: no text means the start of a document."""
        ids = self.tokenizer.encode(text)
        bos_id = self.tokenizer.bos_id
        if self.add_bos and bos_id is not None and ids[:1] != [bos_id]:
            ids = [bos_id, *ids]
        return ids or self._document_start()

    def _document_start(self) -> list[int]:
        return [self.tokenizer.eos_id if self.tokenizer.bos_id is None else self.tokenizer.bos_id]
