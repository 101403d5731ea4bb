"""The state of one request while it is decoded: its context window, random numbers, text, and stop conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litgpt_core.generation.request import Delta, FinishReason, GenerationRequest, TokenLogprob, join_deltas
from litgpt_core.generation.sampling import UniformRng
from litgpt_core.generation.sampling_settings import shared_instance
from litgpt_core.generation.speculation import NgramDraft
from litgpt_core.generation.stop_strings import StopStrings
from litgpt_core.generation.stream import StreamDecoder
from litgpt_core.generation.text_window import TextWindow

if TYPE_CHECKING:
    from litgpt_core.tokenizers.base import Tokenizer


class SequenceState:
    """The state of one request from its prompt to its end.

    Args:
        request: Its prompt is not empty and holds only ids of the model.
        tokenizer: The model's tokenizer.
        block_size: The model's context window in tokens.
        with_text: Whether deltas contain text, or only ids.

    Attributes:
        sampling: The request's sampling settings.
        penalizes: Whether penalties change the logits, depending on the tokens so far.
        needs_logits: Whether the logits are needed for more than the next token (penalties, log-probabilities).
        new_ids: Ids so far, without the stop id.
        finish_reason: None while the sequence is running.
        error: The exception that ended it, where finish_reason is "error".
        slot: Its slot in the decoder's cache, assigned by the batch.
        reused_tokens: First tokens of the prompt that were in that slot already.
        drafts: Drafts tokens for speculative decoding, and counts them.
    """

    def __init__(
        self, request: GenerationRequest, *, tokenizer: Tokenizer, block_size: int, with_text: bool = True
    ) -> None:
        self.request = request
        self.sampling = shared_instance(request.sampling)
        self.penalizes = self.sampling.penalizes
        self.needs_logits = self.penalizes or request.logprobs is not None
        self.window = TextWindow(ids=list(request.prompt_ids), block_size=block_size)
        self.rng = UniformRng(request.seed)
        self.new_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.error: Exception | None = None
        self.slot = -1
        self.reused_tokens = 0
        self.drafts = NgramDraft()
        self._uniforms: list[float] = []  # generated, and not yet used by a token
        self._stop_ids = frozenset({tokenizer.eos_id} if request.stop_ids is None else request.stop_ids)
        self._stops = StopStrings(request.stop)
        self._decoder = StreamDecoder(tokenizer, prompt_ids=request.prompt_ids) if with_text or request.stop else None

    def uniforms(self, n: int) -> list[float]:
        """The random numbers in [0, 1) that select the next n tokens; repeated calls return the same numbers."""
        while len(self._uniforms) < n:
            self._uniforms.append(self.rng.next())
        return self._uniforms[:n]

    @property
    def done(self) -> bool:
        """Whether the last delta has been returned."""
        return self.finish_reason is not None

    def begin(self) -> Delta | None:
        """The last delta if there is nothing to decode, else None."""
        full = self.request.overflow == "stop" and len(self.window.ids) >= self.window.block_size
        return self._end("length") if self.request.max_new_tokens == 0 or full else None

    def append(self, token: int, logprob: TokenLogprob | None = None) -> Delta:
        """Append one sampled token; returns the delta that it adds."""
        if token in self._stop_ids:
            return self._end("stop")
        self.window.ids.append(token)
        self.new_ids.append(token)
        del self._uniforms[:1]
        logprobs = () if logprob is None else (logprob,)
        text = "" if self._decoder is None else self._stops.push(self._decoder.push(token))
        if self._stops.found is not None:
            self.finish_reason = "stop"
            return Delta(text=text, token_ids=(token,), logprobs=logprobs, finish_reason="stop")
        full = self.request.overflow == "stop" and len(self.window.ids) >= self.window.block_size
        if len(self.new_ids) >= self.request.max_new_tokens or full:
            last = self._end("length")
            return Delta(text=text + last.text, token_ids=(token,), logprobs=logprobs, finish_reason=last.finish_reason)
        return Delta(text=text, token_ids=(token,), logprobs=logprobs)

    def append_all(self, tokens: list[int]) -> Delta:
        """Append consecutive tokens, up to the one that ends the sequence; returns the delta that they add."""
        n = len(tokens)
        room = self.request.max_new_tokens - len(self.new_ids)
        if self.request.overflow == "stop":
            room = min(room, self.window.block_size - len(self.window.ids))
        if n >= room or self.request.stop or not self._stop_ids.isdisjoint(tokens):
            deltas = []
            for token in tokens:
                try:
                    deltas.append(self.append(token))
                except Exception as problem:  # keep the tokens before it
                    deltas.append(self.fail(problem))
                if self.done:
                    break
            return join_deltas(deltas)
        self.window.ids += tokens
        self.new_ids += tokens
        del self._uniforms[:n]
        return Delta("" if self._decoder is None else self._decoder.push_all(tokens), tuple(tokens))

    def fail(self, error: Exception) -> Delta:
        """End with an error; returns the last delta. Other sequences of the batch are not affected."""
        self.error, self.finish_reason = error, "error"
        return Delta(finish_reason="error")

    def _end(self, reason: FinishReason) -> Delta:
        """The text held back so far, and the reason; the held-back text may still contain a stop string."""
        text = "" if self._decoder is None else self._stops.push(self._decoder.finish())
        if self._stops.found is None:
            text += self._stops.finish()
        self.finish_reason = "stop" if self._stops.found is not None else reason
        return Delta(text=text, finish_reason=self.finish_reason)
