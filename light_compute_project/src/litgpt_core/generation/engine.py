"""The generation engine: prefill of the prompt in one pass, then decoding token by token with a KV cache.

    checkpoint directory --load--> model + tokenizer --choice--> decoder: C++ kernel, plain PyTorch, torch.compile
    prompt --ids--> prefill (T tokens) --last logits--> sample --id--> decode (1 token) --> sample --> ...
                                                                  \\--> StreamDecoder --> text

One sequence as a stream, or many as a batch. Sequences longer than the context window slide by half a window: see
`text_window`. `reference` is the slow implementation that this one is tested against. Chat formats and HTTP are
elsewhere.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litgpt_core import tokenizers
from litgpt_core.checkpoint import load_model, locate
from litgpt_core.core.errors import CheckpointError
from litgpt_core.generation.batches import KeptBatch, batch_of, deltas_of
from litgpt_core.generation.choice import check_options, choose_decoder, load_dtype
from litgpt_core.generation.continuous_batch import ContinuousBatch
from litgpt_core.generation.decoder import Decoder
from litgpt_core.generation.hardware import choose_device, named_dtype
from litgpt_core.generation.request import DEFAULT_SAMPLING, Delta, GenerationRequest, request_of
from litgpt_core.generation.sampling_settings import SamplingSettings
from litgpt_core.generation.sequence_state import SequenceState
from litgpt_core.generation.stats import GenerationStats
from litgpt_core.generation.weight_memory import move_to_huge_pages
from litgpt_core.prompts import starts_with_bos

if TYPE_CHECKING:
    from litgpt_core.model.gpt import GPT
    from litgpt_core.tokenizers.base import Tokenizer


class Engine:
    """Generates with one model and its tokenizer.

    The model is in evaluation mode during a generation; afterwards its mode is restored and its cache is freed, so that
    an engine can use a model in the middle of training. Starting a second generation ends the first: its iterator
    raises RuntimeError after the tokens that were decoded before.

    Args:
        model: On its device, in its dtype.
        tokenizer: The one it was trained with.
        add_bos: Prepend the tokenizer's bos to every prompt text, as some models from elsewhere expect.
        compile: auto, true or false: see `choice`. The decoder is chosen, and logged, at the first generation.
        packed_weights: Decode with a repacked copy of the weights, which is faster for many sequences at once; only
            used by the CPU kernel: see `kernel`.
        kv_cache: auto: the dtype that the decoder chooses; int8: keys and values in 8 bits.
        keep_cache: Keep the cache between generations of one sequence, so that the next turn of a conversation prefills
            only what is new; where the decoder allows it, see `cache_slots`. The model must not be trained meanwhile.
        speculative: off, or ngram: verify several drafted tokens in one pass where that is faster, with the same
            result; see `speculation`. Needs the CPU kernel.

    Attributes:
        stats: Of the latest generation.
        vocab_size: Number of ids that may be sampled: the tokenizer's, without the model's padding.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        *,
        add_bos: bool = False,
        compile: str = "auto",
        packed_weights: bool = False,
        kv_cache: str = "auto",
        keep_cache: bool = False,
        speculative: str = "off",
    ) -> None:
        self.model, self.tokenizer, self.add_bos = model, tokenizer, add_bos and tokenizer.bos_id is not None
        self.stats = GenerationStats()
        check_options(compile, kv_cache, speculative)
        self.kv_cache, self.keep_cache = kv_cache, keep_cache
        self._decoder_options: dict[str, Any] = {"compile": compile, "packed_weights": packed_weights}
        self._decoder_options |= {"kv_cache": kv_cache, "speculative": speculative}
        self._kept = KeptBatch()
        self._decoder: Decoder | None = None
        self._mode_before: bool | None = None  # the model's mode before the current generation
        self.vocab_size = min(tokenizer.vocab_size, model.config.padded_vocab_size)
        self._batch_options: dict[str, Any] = {"vocab_size": self.vocab_size, "speculative": speculative != "off"}

    @classmethod
    def from_directory(
        cls,
        path: str | Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        compile: str = "auto",
        packed_weights: bool = False,
        kv_cache: str = "auto",
        keep_cache: bool = False,
        speculative: str = "off",
    ) -> Engine:
        """Load a checkpoint directory, ours or LitGPT's.

        Args:
            path: A run's name, a checkpoint directory, its weights file, or a run folder; None: the best candidate, as
                `checkpoint.choose` finds it.
            device: auto, cpu, cuda, cuda:1, mps.
            dtype: auto, 32, bf16, 16. `auto` is bf16 where that is fast; see `choice.load_dtype`.
            compile: auto, true, false; see `choice`.
            packed_weights, kv_cache, keep_cache, speculative: See the class.

        Raises:
            CheckpointError, TokenizerError: The directory is incomplete or corrupted.
            EnvironmentProblem, ConfigError: The device is not available, or an argument is not one of those above.
        """
        check_options(compile, kv_cache, speculative)
        target, requested = choose_device(device), named_dtype(dtype)
        directory = locate(path)
        model = load_model(directory)
        chosen = requested or load_dtype(model, device=target)
        if target.type == "cpu":
            move_to_huge_pages(model, dtype=chosen)
        model = model.to(target, chosen)
        tokenizer, add_bos = tokenizers.load(directory), starts_with_bos(directory)
        words = {"compile": compile, "kv_cache": kv_cache, "speculative": speculative}
        flags = {"add_bos": add_bos, "packed_weights": packed_weights, "keep_cache": keep_cache}
        return cls(model, tokenizer, **flags, **words)  # type: ignore[arg-type]

    # --- one sequence

    def stream(self, request: GenerationRequest, *, with_text: bool = True) -> Iterator[Delta]:
        """Stream the deltas of one sequence; the last delta has the finish reason.

        A delta holds one token, or several that were decoded within `continuous_batch.MULTI_STEP_S`.

        Args:
            request: Prompt and settings.
            with_text: Whether deltas contain text besides ids.

        Raises:
            CheckpointError: A prompt id outside the model's vocabulary, or NaN or infinite logits.

        >>> request = GenerationRequest(prompt_ids=tuple(engine.encode_prompt("def ")), max_new_tokens=8, seed=1)
        >>> deltas = list(engine.stream(request))
        >>> deltas[-1].finish_reason
        'length'
        """
        return self._run(self.new_sequence(request, with_text=with_text))

    def _run(self, sequence: SequenceState) -> Iterator[Delta]:
        start = time.perf_counter()
        with self.decoding(keep=self.keep_cache) as (decoder, stats):
            batch = self._kept.batch_of(decoder, sequence, **self._batch_options) if self.keep_cache else None
            batch = batch or batch_of(decoder, [sequence], **self._batch_options)
            yield from deltas_of(sequence, batch, stats, start=start, is_current=lambda: self.stats is stats)

    def generate_stream(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int,
        sampling: SamplingSettings = DEFAULT_SAMPLING,
        seed: int | None = None,
        stop_ids: Collection[int] | None = None,
    ) -> Iterator[int]:
        """Stream the new ids one by one.

        Args:
            prompt_ids: Ids to continue; empty means the start of a document (bos, or else eos).
            max_new_tokens: At most this many; may exceed the model's block_size: see `text_window`.
            sampling: How tokens are sampled.
            seed: Equal seeds give equal sequences on one machine; None uses a random seed.
            stop_ids: Ids that end the sequence and are not part of it. None means the tokenizer's eos, `()` none.

        Raises:
            ConfigError: max_new_tokens is negative.
            CheckpointError: A prompt id outside the model's vocabulary, or NaN or infinite logits.

        >>> ids = engine.tokenizer.encode("def ")
        >>> len([token for token in engine.generate_stream(ids, max_new_tokens=5, seed=1, stop_ids=())])
        5
        """
        deltas = self.stream(
            request_of(prompt_ids, max_new_tokens, sampling, seed=seed, stop_ids=stop_ids), with_text=False
        )
        return (token for delta in deltas for token in delta.token_ids)

    def generate(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int,
        sampling: SamplingSettings = DEFAULT_SAMPLING,
        seed: int | None = None,
        stop_ids: Collection[int] | None = None,
    ) -> list[int]:
        """All new ids at once; see `generate_stream`.

        >>> len(engine.generate([1], max_new_tokens=5, sampling=SamplingSettings(temperature=0), stop_ids=()))
        5
        """
        settings = {"max_new_tokens": max_new_tokens, "sampling": sampling, "seed": seed, "stop_ids": stop_ids}
        return list(self.generate_stream(prompt_ids, **settings))  # type: ignore[arg-type]

    # --- many sequences

    def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        sampling: SamplingSettings = DEFAULT_SAMPLING,
        seed: int | None = None,
        stop_ids: Collection[int] | None = None,
    ) -> list[list[int]]:
        """New ids of many sequences, decoded as one batch, which reads the weights once per step for all of them.

        Sequence i is sampled with seed + i. Arguments and errors are those of `generate_stream`.
        """
        request = request_of((), max_new_tokens, sampling, seed=seed, stop_ids=stop_ids)
        sequences = []
        for i, prompt in enumerate(prompts):
            own_seed = None if seed is None else seed + i
            own = dataclasses.replace(request, prompt_ids=tuple(map(int, prompt)), seed=own_seed)
            sequences.append(self.new_sequence(own, with_text=False))
        if not sequences:
            return []
        start = time.perf_counter()
        with self.decoding(n_sequences=len(sequences)) as (decoder, stats):
            batch = batch_of(decoder, sequences, **self._batch_options)
            while batch.sequences:
                deltas = batch.step()
                if failed := next((sequence.error for sequence, _ in deltas if sequence.error is not None), None):
                    raise failed
                stats.new_tokens += sum(len(delta.token_ids) for _, delta in deltas)
                stats.count_drafts(sequences)
                stats.seconds = time.perf_counter() - start
                stats.seconds_to_first_token = stats.seconds_to_first_token or stats.seconds
        return [sequence.new_ids for sequence in sequences]

    @contextmanager
    def open_batch(self, *, n_slots: int, prefill: int | None = None) -> Iterator[ContinuousBatch]:
        """A batch that sequences join and leave while others are being decoded; the server runs on it.

        Args:
            n_slots: Maximum number of running sequences; each may fill the context window.
            prefill: Maximum number of prompt tokens per step.

        The beginning of a prompt that is still in the cache, from an earlier turn, is not prefilled again: see
        `cache_slots`. Create sequences with `new_sequence`. The engine cannot be used otherwise until the batch is
        closed.
        """
        length = self.model.config.block_size
        with self.decoding(n_sequences=n_slots) as (decoder, _):
            options = {"length": length, "prefill": prefill, "keep_prefixes": True, **self._batch_options}
            yield ContinuousBatch(decoder, n_slots=n_slots, **options)

    @contextmanager
    def decoding(
        self, decoder: Decoder | None = None, *, n_sequences: int = 1, keep: bool = False
    ) -> Iterator[tuple[Decoder, GenerationStats]]:
        """The model in evaluation mode with its decoder (or another one); restores the mode and frees the cache, unless
        it is to be kept and a batch was kept.
        """
        if not keep:
            self._kept.forget()
        self.stats = stats = GenerationStats(n_sequences=n_sequences)  # also identifies the current generation
        if self._mode_before is None:
            self._mode_before = self.model.training
        if decoder is None:
            decoder = self._decoder = self._decoder or choose_decoder(self.model, **self._decoder_options)
        try:
            self.model.eval()
            yield decoder, stats
        finally:
            if self.stats is stats:
                if not self._kept:
                    decoder.finish()
                self.model.train(self._mode_before)
                self._mode_before = None

    def new_sequence(self, request: GenerationRequest, *, with_text: bool = True) -> SequenceState:
        """A sequence for `open_batch`. Raises CheckpointError for a prompt id outside the model's vocabulary."""
        rows, block_size = self.model.config.padded_vocab_size, self.model.config.block_size
        if not request.prompt_ids:
            request = dataclasses.replace(request, prompt_ids=tuple(self.document_start()))
        if invalid := [token_id for token_id in request.prompt_ids if not 0 <= token_id < rows]:
            raise CheckpointError(
                f"The prompt holds token {invalid[0]}, but the model has {rows} tokens.",
                needed="the tokenizer that the model was trained with",
            )
        return SequenceState(request, tokenizer=self.tokenizer, block_size=block_size, with_text=with_text)

    # --- text

    def generate_text_stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: SamplingSettings = DEFAULT_SAMPLING,
        seed: int | None = None,
        stop_ids: Collection[int] | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """Stream the text after `prompt` in whole characters, up to the first of the `stop` strings.

        The other arguments are those of `generate_stream`. Raises TokenizerError, before anything is generated, for a
        prompt that the tokenizer cannot represent.

        >>> deltas = engine.generate_text_stream("def ", max_new_tokens=8, seed=1)
        >>> "".join(deltas) == engine.generate_text("def ", max_new_tokens=8, seed=1)
        True
        """
        request = request_of(
            self.encode_prompt(prompt), max_new_tokens, sampling, seed=seed, stop_ids=stop_ids, stop=tuple(stop)
        )
        return (delta.text for delta in self.stream(request) if delta.text)

    def generate_text(
        self,
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: SamplingSettings = DEFAULT_SAMPLING,
        seed: int | None = None,
        stop_ids: Collection[int] | None = None,
        stop: Sequence[str] = (),
    ) -> str:
        """The text after `prompt`, without it; see `generate_text_stream`.

        >>> isinstance(engine.generate_text("def ", max_new_tokens=8, seed=1), str)
        True
        """
        settings = {"max_new_tokens": max_new_tokens, "sampling": sampling, "seed": seed, "stop_ids": stop_ids}
        return "".join(self.generate_text_stream(prompt, stop=stop, **settings))  # type: ignore[arg-type]

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt, with bos where the model expects it. Never empty: no text means the start of a document."""
        ids = self.tokenizer.encode(text)
        bos_id = self.tokenizer.bos_id
        if self.add_bos and bos_id is not None and ids[:1] != [bos_id]:
            ids = [bos_id, *ids]
        return ids or self.document_start()

    def document_start(self) -> list[int]:
        """The id before the first token of a document: bos, or else eos."""
        return [self.tokenizer.eos_id if self.tokenizer.bos_id is None else self.tokenizer.bos_id]
