"""`--engine pure`: the plain-Python model of `litgpt_core.pure` with the methods of `Engine` that `lcp generate` uses.

It starts without importing torch, so that its first token is there before torch would be. Sums are in double precision:
the text is that of `Engine` with `--precision 32` for the same seed.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from litgpt_core import tokenizers
from litgpt_core.checkpoint import locate
from litgpt_core.generation.sampling_settings import SamplingSettings
from litgpt_core.generation.stats import GenerationStats
from litgpt_core.generation.stop_strings import StopStrings
from litgpt_core.generation.stream import StreamDecoder
from litgpt_core.prompts.bos import starts_with_bos
from litgpt_core.pure.generate import generate
from litgpt_core.pure.gpt import GPT
from litgpt_core.pure.sampling import Sampling


class PureEngine:
    """A model in plain Python and its tokenizer.

    Attributes:
        stats: Of the latest generation.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        """Raises CheckpointError or TokenizerError for a directory that cannot be read."""
        folder = locate(directory)
        self.model, self.tokenizer = GPT.from_directory(folder), tokenizers.load(folder)
        self.add_bos = starts_with_bos(folder)
        self.stats = GenerationStats()

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt as `Engine.encode_prompt` gives them: with bos where the model wants it, and never empty."""
        ids, bos_id = self.tokenizer.encode(text), self.tokenizer.bos_id
        if self.add_bos and bos_id is not None and ids[:1] != [bos_id]:
            ids = [bos_id, *ids]
        return ids or [self.tokenizer.eos_id if bos_id is None else bos_id]

    def generate_text_stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: SamplingSettings,
        seed: int | None = None,
        stop_ids: Collection[int] | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """The text after `prompt` in whole characters, up to the first stop string; see `Engine`."""
        prompt_ids = self.encode_prompt(prompt)
        decoder, stops = StreamDecoder(self.tokenizer, prompt_ids=prompt_ids), StopStrings(stop)
        began, self.stats = time.perf_counter(), GenerationStats()
        new_ids = generate(
            self.model,
            prompt_ids,
            max_new_tokens=max_new_tokens,
            vocab_size=min(self.tokenizer.vocab_size, self.model.config.padded_vocab_size),
            how=Sampling(**dataclasses.asdict(sampling)),
            seed=seed,
            stop_ids=(self.tokenizer.eos_id,) if stop_ids is None else stop_ids,
        )
        for token in new_ids:
            self.stats.seconds = time.perf_counter() - began
            self.stats.new_tokens += 1
            self.stats.seconds_to_first_token = self.stats.seconds_to_first_token or self.stats.seconds
            if text := stops.push(decoder.push(token)):
                yield text
            if stops.found is not None:
                return
        if text := stops.push(decoder.finish()) + ("" if stops.found is not None else stops.finish()):
            yield text
