"""A model that writes: the prompt in one pass, then token after token through a KV cache.

    checkpoint directory --load--> model + tokenizer --choice--> decoder: C++ kernel, plain PyTorch, torch.compile
    prompt --ids--> prefill (T tokens) --last logits--> sample --id--> decode (1 token) --> sample --> ...
                                                                  \\--> StreamDecoder --> text

One text as a stream, or many as a batch. Texts longer than the model's window slide by half a window: see
`text_window`. `reference` is the slow version that this one is tested against. Not here: chat formats, HTTP.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from litgpt_core import tokenizers
from litgpt_core.checkpoint import load_model, resolve
from litgpt_core.core.errors import CheckpointError
from litgpt_core.generation.batch import TextBatch
from litgpt_core.generation.choice import check_compile, choose_decoder, reading_dtype
from litgpt_core.generation.decoder import Decoder
from litgpt_core.generation.hardware import choose_device, named_dtype
from litgpt_core.generation.live_text import LiveText
from litgpt_core.generation.request import DEFAULT_SAMPLING, GenerationRequest, Piece, request_of
from litgpt_core.generation.sampling_settings import SamplingSettings
from litgpt_core.generation.stats import GenerationStats
from litgpt_core.generation.weight_memory import gather_weights
from litgpt_core.prompts import starts_with_bos

if TYPE_CHECKING:
    from litgpt_core.model.gpt import GPT
    from litgpt_core.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)


class Engine:
    """Generates with one model and its tokenizer.

    The model is put into evaluation mode while a text is being made and back afterwards, and its cache is freed, so
    that an engine may borrow a model in the middle of training. Starting a second text ends the first: its iterator
    raises RuntimeError, once it has given what was known before.

    Args:
        model: On its device, in its number type.
        tokenizer: The one it was trained with.
        add_bos: Put the tokenizer's bos before every prompt text, as some foreign models want it.
        compile: auto, true or false: see `choice`. Decided, and said in the log, when the first text begins.
        panels: For many texts at once, a rearranged copy of the weights where the CPU kernel decodes: see `kernel`.

    Attributes:
        stats: Of the latest generation.
        vocab_size: Ids that may be drawn: those of the tokenizer, without the model's padding.
    """

    def __init__(
        self, model: GPT, tokenizer: Tokenizer, *, add_bos: bool = False, compile: str = "auto", panels: bool = False
    ) -> None:
        self.model, self.tokenizer, self.add_bos = model, tokenizer, add_bos and tokenizer.bos_id is not None
        self.stats = GenerationStats()
        self._compile, self._panels = check_compile(compile), panels
        self._decoder: Decoder | None = None
        self._mode_before: bool | None = None  # the model's mode before the text that is being made
        self.vocab_size = min(tokenizer.vocab_size, model.config.padded_vocab_size)

    @classmethod
    def from_directory(
        cls, path: Path, *, device: str = "auto", dtype: str = "auto", compile: str = "auto", panels: bool = False
    ) -> Engine:
        """Load a checkpoint of ours or of LitGPT's.

        Args:
            path: A checkpoint directory, its weights file, or a run folder.
            device: auto, cpu, cuda, cuda:1, mps.
            dtype: auto, 32, bf16, 16. `auto` is bf16 where that is fast; see `choice.reading_dtype`.
            compile: auto, true, false; see `choice`.
            panels: See the class.

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
        return cls(
            model, tokenizers.load(directory), add_bos=starts_with_bos(directory), compile=compile, panels=panels
        )

    # --- one text

    def stream(self, request: GenerationRequest, *, with_text: bool = True) -> Iterator[Piece]:
        """A text piece by piece, as soon as each is known; the last piece says why it ended.

        A piece is one token, or several that came within `batch.STRETCH_S`.

        Args:
            request: What to write.
            with_text: Whether pieces hold text besides ids.

        Raises:
            CheckpointError: An id that the model does not have, or a model that answers NaN.

        >>> request = GenerationRequest(prompt_ids=tuple(engine.encode_prompt("def ")), max_new_tokens=8, seed=1)
        >>> pieces = list(engine.stream(request))
        >>> pieces[-1].finish_reason
        'length'
        """
        return self._run(self.live_text(request, with_text=with_text))

    def _run(self, text: LiveText) -> Iterator[Piece]:
        began = time.perf_counter()
        with self._writing() as (decoder, stats):
            batch = self._batch(decoder, [text])
            while not text.done:
                for _, piece in batch.step():
                    stats.seconds = time.perf_counter() - began
                    stats.seconds_to_first_token = stats.seconds_to_first_token or stats.seconds
                    stats.new_tokens = len(text.new_ids)
                    if text.error is not None:
                        if piece.token_ids:
                            yield piece._replace(finish_reason=None)
                        raise text.error
                    yield piece
                    if self.stats is not stats:
                        raise RuntimeError("another text was started on this engine: one at a time, or one engine each")

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
            max_new_tokens: At most this many; may exceed the model's block_size: see `text_window`.
            sampling: How tokens are drawn.
            seed: Equal seeds give equal texts on one machine; None draws a fresh one.
            stop_ids: Ids that end the text and are not part of it. None means the tokenizer's eos, `()` that nothing
            does.

        Raises:
            ConfigError: max_new_tokens is negative.
            CheckpointError: An id that the model does not have, or a model that answers NaN.

        >>> ids = engine.tokenizer.encode("def ")
        >>> len([token for token in engine.generate_stream(ids, max_new_tokens=5, seed=1, stop_ids=())])
        5
        """
        pieces = self.stream(
            request_of(prompt_ids, max_new_tokens, sampling, seed=seed, stop_ids=stop_ids), with_text=False
        )
        return (token for piece in pieces for token in piece.token_ids)

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

        >>> greedy = SamplingSettings(temperature=0)
        >>> new = engine.generate(engine.tokenizer.encode("def "), max_new_tokens=5, sampling=greedy, stop_ids=())
        >>> len(new)
        5
        """
        words = {"max_new_tokens": max_new_tokens, "sampling": sampling, "seed": seed, "stop_ids": stop_ids}
        return list(self.generate_stream(prompt_ids, **words))  # type: ignore[arg-type]

    # --- many texts

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

        Text i is drawn with seed + i. Arguments and errors are those of `generate_stream`.
        """
        texts = [
            self.live_text(
                request_of(
                    prompt, max_new_tokens, sampling, seed=None if seed is None else seed + i, stop_ids=stop_ids
                ),
                with_text=False,
            )
            for i, prompt in enumerate(prompts)
        ]
        if not texts:
            return []
        began = time.perf_counter()
        with self._writing(n_texts=len(texts)) as (decoder, stats):
            batch = self._batch(decoder, texts)
            while batch.texts:
                pieces = batch.step()
                if failed := next((text.error for text, _ in pieces if text.error is not None), None):
                    raise failed
                stats.new_tokens += sum(len(piece.token_ids) for _, piece in pieces)
                stats.seconds = time.perf_counter() - began
                stats.seconds_to_first_token = stats.seconds_to_first_token or stats.seconds
        return [text.new_ids for text in texts]

    @contextmanager
    def open_batch(self, *, n_slots: int, prefill: int | None = None) -> Iterator[TextBatch]:
        """A batch that texts join and leave while others are written: what the server runs on.

        Args:
            n_slots: Most texts at once; each may fill the model's window.
            prefill: Most prompt tokens read between two tokens of the others.

        Make texts with `live_text`; the engine serves nothing else until the batch is closed.
        """
        length = self.model.config.block_size
        with self.writing(n_texts=n_slots) as decoder:
            yield TextBatch(decoder, n_slots=n_slots, length=length, vocab_size=self.vocab_size, prefill=prefill)

    # --- pieces

    @contextmanager
    def writing(self, decoder: Decoder | None = None, *, n_texts: int = 1) -> Iterator[Decoder]:
        """The model in evaluation mode and its decoder (or another one), for ways of writing that are not here."""
        with self._writing(n_texts=n_texts, decoder=decoder) as (chosen, _):
            yield chosen

    @contextmanager
    def _writing(
        self, *, n_texts: int = 1, decoder: Decoder | None = None
    ) -> Iterator[tuple[Decoder, GenerationStats]]:
        """The model in evaluation mode and its decoder, until the texts are made; then everything as it was."""
        self.stats = stats = GenerationStats(n_texts=n_texts)  # doubles as the sign of whose turn it is
        if self._mode_before is None:
            self._mode_before = self.model.training
        if decoder is None:
            decoder = self._decoder = self._decoder or choose_decoder(
                self.model, compile=self._compile, panels=self._panels
            )
        try:
            self.model.eval()
            yield decoder, stats
        finally:
            if self.stats is stats:
                decoder.finish()
                self.model.train(self._mode_before)
                self._mode_before = None

    def _batch(self, decoder: Decoder, texts: Sequence[LiveText]) -> TextBatch:
        block_size = self.model.config.block_size
        longest = max(len(text.window.ids) for text in texts)
        if longest > block_size:
            logger.warning("The prompt has %d tokens: only the last %d are seen", longest, max(1, block_size // 2))
        most = max(len(text.window.ids) + text.request.max_new_tokens for text in texts)
        length = max(1, min(block_size, most + decoder.most_at_once - 1))  # one that ends goes on beside the others
        batch = TextBatch(decoder, n_slots=len(texts), length=length, vocab_size=self.vocab_size)
        for text in texts:
            batch.add(text)
        return batch

    def live_text(self, request: GenerationRequest, *, with_text: bool = True) -> LiveText:
        """A text for `open_batch`; raises CheckpointError for an id that the model does not have."""
        rows, block_size = self.model.config.padded_vocab_size, self.model.config.block_size
        if not request.prompt_ids:
            request = dataclasses.replace(request, prompt_ids=tuple(self.document_start()))
        if strange := [token_id for token_id in request.prompt_ids if not 0 <= token_id < rows]:
            raise CheckpointError(
                f"The prompt holds token {strange[0]}, but the model has {rows} tokens.",
                needed="the tokenizer that the model was trained with",
            )
        return LiveText(request, tokenizer=self.tokenizer, block_size=block_size, with_text=with_text)

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
        """The text after `prompt` in pieces of whole characters, up to the first of the `stop` texts.

        The other arguments are those of `generate_stream`. Raises TokenizerError, before anything is generated, for a
        prompt that the tokenizer cannot represent.

        >>> pieces = engine.generate_text_stream("def ", max_new_tokens=8, seed=1)
        >>> "".join(pieces) == engine.generate_text("def ", max_new_tokens=8, seed=1)
        True
        """
        request = request_of(
            self.encode_prompt(prompt), max_new_tokens, sampling, seed=seed, stop_ids=stop_ids, stop=tuple(stop)
        )
        return (piece.text for piece in self.stream(request) if piece.text)

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
        words = {"max_new_tokens": max_new_tokens, "sampling": sampling, "seed": seed, "stop_ids": stop_ids}
        return "".join(self.generate_text_stream(prompt, stop=stop, **words))  # type: ignore[arg-type]

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt, with bos where the model wants it. Never empty: no text means the start of a document."""
        ids = self.tokenizer.encode(text)
        bos_id = self.tokenizer.bos_id
        if self.add_bos and bos_id is not None and ids[:1] != [bos_id]:
            ids = [bos_id, *ids]
        return ids or self.document_start()

    def document_start(self) -> list[int]:
        """What stands before the first token of a document."""
        return [self.tokenizer.eos_id if self.tokenizer.bos_id is None else self.tokenizer.bos_id]
