"""A model that writes: the prompt in one pass, then one token at a time through a KV cache.

    checkpoint directory --load--> model + tokenizer --choice--> decoder: C++ kernel, plain PyTorch, torch.compile
    prompt --ids--> prefill (T tokens) --last logits--> sample --id--> decode (1 token) --> sample --> ...
                                                                  \\--> StreamDecoder --> text

One text as a stream, or many as a batch. Texts longer than the model's window slide by half a window: see
`text_window`. `reference` is the slow version that this one is tested against. Not here: chat formats, HTTP.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from litgpt_core import tokenizers
from litgpt_core.checkpoint import load_model, resolve
from litgpt_core.errors import CheckpointError, ConfigError
from litgpt_core.generation.batch import BatchRow, groups, step
from litgpt_core.generation.choice import check_compile, choose_decoder, reading_dtype
from litgpt_core.generation.decoder import Decoder
from litgpt_core.generation.hardware import choose_device, named_dtype
from litgpt_core.generation.prompts import starts_with_bos
from litgpt_core.generation.sampling import SamplingSettings, sample
from litgpt_core.generation.stats import GenerationStats
from litgpt_core.generation.stream import StreamDecoder
from litgpt_core.generation.text_window import TextWindow
from litgpt_core.generation.weight_memory import gather_weights

if TYPE_CHECKING:
    from litgpt_core.model.gpt import GPT
    from litgpt_core.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)

DEFAULT_SAMPLING = SamplingSettings()


class Engine:
    """Generates with one model and its tokenizer.

    The model is put into evaluation mode while a text is being made and back afterwards, and its cache is freed, so
    that an engine may borrow a model in the middle of training. Starting a second text ends the first: its iterator
    raises RuntimeError.

    Args:
        model: On its device, in its number type.
        tokenizer: The one it was trained with.
        add_bos: Put the tokenizer's bos before every prompt text, as some foreign models want it.
        compile: auto, true or false: see `choice`. Decided, and said in the log, when the first text begins.

    Attributes:
        stats: Of the latest generation.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, *, add_bos: bool = False, compile: str = "auto") -> None:
        self.model, self.tokenizer, self.add_bos = model, tokenizer, add_bos and tokenizer.bos_id is not None
        self.stats = GenerationStats()
        self._compile = check_compile(compile)
        self._decoder: Decoder | None = None
        self._mode_before: bool | None = None  # the model's mode before the text that is being made
        self._vocab_size = min(tokenizer.vocab_size, model.config.padded_vocab_size)

    @classmethod
    def from_directory(cls, path: Path, *, device: str = "auto", dtype: str = "auto", compile: str = "auto") -> Engine:
        """Load a checkpoint of ours or of LitGPT's.

        Args:
            path: A checkpoint directory, its weights file, or a run folder.
            device: auto, cpu, cuda, cuda:1, mps.
            dtype: auto, 32, bf16, 16. `auto` is bf16 where that is fast; see `choice.reading_dtype`.
            compile: auto, true, false; see `choice`.

        Raises:
            CheckpointError, TokenizerError, EnvironmentProblem, ConfigError: What is wrong with the directory or the
            machine.
        """
        check_compile(compile)
        target, wanted = choose_device(device), named_dtype(dtype)
        directory = resolve(Path(path))
        model = load_model(directory)
        wanted = wanted or reading_dtype(model, device=target)
        if target.type == "cpu":
            gather_weights(model, dtype=wanted)
        model = model.to(target, wanted)
        return cls(model, tokenizers.load(directory), add_bos=starts_with_bos(directory), compile=compile)

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
        text = self._window(prompt_ids, max_new_tokens=max_new_tokens)
        stop = frozenset({self.tokenizer.eos_id} if stop_ids is None else stop_ids)
        generator = self._generator(seed)
        return self._run(text, max_new_tokens=max_new_tokens, sampling=sampling, generator=generator, stop=stop)

    @torch.no_grad()  # not inference_mode: a model in training must not keep tensors that autograd refuses
    def _run(
        self,
        text: TextWindow,
        *,
        max_new_tokens: int,
        sampling: SamplingSettings,
        generator: torch.Generator,
        stop: frozenset[int],
    ) -> Iterator[int]:
        began = time.perf_counter()
        with self._writing() as (decoder, stats):
            self._start(decoder, [text], max_new_tokens=max_new_tokens)
            for _ in range(max_new_tokens):
                logits = decoder.feed([text.next_feed(0)])[:, : self._vocab_size]  # (1, V); padding is cut off
                token = int(sample(logits, sampling, generator=generator))
                stats.seconds = time.perf_counter() - began
                stats.seconds_to_first_token = stats.seconds_to_first_token or stats.seconds
                if token in stop:
                    return
                text.ids.append(token)
                stats.new_tokens += 1
                yield token
                if self.stats is not stats:
                    raise RuntimeError("another text was started on this engine: one at a time, or one engine each")

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

    def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        sampling: SamplingSettings = DEFAULT_SAMPLING,
        seed: int | None = None,
        stop_ids: Collection[int] | None = None,
    ) -> list[list[int]]:
        """New ids of many texts, made side by side: the weights are read once per step for all of them.

        Text i is drawn with seed + i. Arguments and errors are those of `generate_stream`. A decoder that is not
        ragged makes prompts of equal length together, one length after the other.
        """
        rows = [
            BatchRow(
                text=self._window(prompt, max_new_tokens=max_new_tokens),
                generator=self._generator(None if seed is None else seed + i),
            )
            for i, prompt in enumerate(prompts)
        ]
        stop = frozenset({self.tokenizer.eos_id} if stop_ids is None else stop_ids)
        began = time.perf_counter()
        with torch.no_grad(), self._writing(n_texts=len(rows)) as (decoder, stats):
            for group in groups(rows, ragged=decoder.ragged):
                self._start(decoder, [row.text for row in group], max_new_tokens=max_new_tokens)
                for _ in range(max_new_tokens):
                    if all(row.done for row in group):
                        break
                    stats.new_tokens += step(decoder, group, sampling=sampling, stop=stop, vocab_size=self._vocab_size)
                    stats.seconds = time.perf_counter() - began
                    stats.seconds_to_first_token = stats.seconds_to_first_token or stats.seconds
        return [row.new_ids for row in rows]

    @contextmanager
    def _writing(self, *, n_texts: int = 1) -> Iterator[tuple[Decoder, GenerationStats]]:
        """The model in evaluation mode and its decoder, until the texts are made; then everything as it was."""
        self.stats = stats = GenerationStats(n_texts=n_texts)  # doubles as the sign of whose turn it is
        if self._mode_before is None:
            self._mode_before = self.model.training
        decoder = self._decoder = self._decoder or choose_decoder(self.model, compile=self._compile)
        try:
            self.model.eval()
            yield decoder, stats
        finally:
            if self.stats is stats:
                decoder.finish()
                self.model.train(self._mode_before)
                self._mode_before = None

    def _start(self, decoder: Decoder, texts: Sequence[TextWindow], *, max_new_tokens: int) -> None:
        block_size, longest = self.model.config.block_size, max(len(text.ids) for text in texts)
        if longest > block_size:
            logger.warning("The prompt has %d tokens: only the last %d are seen", longest, max(1, block_size // 2))
        decoder.start(n_sequences=len(texts), length=min(block_size, longest + max_new_tokens))

    def _window(self, prompt_ids: Sequence[int], *, max_new_tokens: int) -> TextWindow:
        if max_new_tokens < 0:
            raise ConfigError(f"max_new_tokens={max_new_tokens} was given.", needed="0 or more")
        ids = [int(token_id) for token_id in prompt_ids] or self._document_start()
        rows = self.model.config.padded_vocab_size
        if strange := [token_id for token_id in ids if not 0 <= token_id < rows]:
            raise CheckpointError(
                f"The prompt holds token {strange[0]}, but the model has {rows} tokens.",
                needed="the tokenizer that the model was trained with",
            )
        return TextWindow(ids=ids, block_size=self.model.config.block_size)

    def _generator(self, seed: int | None) -> torch.Generator:
        generator = torch.Generator(self.model.lm_head.weight.device)
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        return generator

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
