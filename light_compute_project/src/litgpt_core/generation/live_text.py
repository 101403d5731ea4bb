"""One text in the making: what the model sees of it, its own randomness, its characters, and when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litgpt_core.generation.request import FinishReason, GenerationRequest, Piece, TokenLogprob, join_pieces
from litgpt_core.generation.sampling import Dice
from litgpt_core.generation.sampling_settings import one_for_all
from litgpt_core.generation.stop_texts import StopTexts
from litgpt_core.generation.stream import StreamDecoder
from litgpt_core.generation.text_window import TextWindow

if TYPE_CHECKING:
    from litgpt_core.tokenizers.base import Tokenizer


class LiveText:
    """The state of one request between its prompt and its end.

    Args:
        request: What is asked; its prompt is not empty and holds only ids of the model.
        tokenizer: Of the model.
        block_size: The model's window.
        with_text: Whether pieces hold text, or only ids.

    Attributes:
        sampling: That of the request.
        penalizes: Whether what has been written changes the logits.
        needs_logits: Whether anything but the next token is wanted of them.
        new_ids: Ids so far, without the stop id.
        finish_reason: None while it goes on.
        error: What ended it, where its finish_reason is "error".
        slot: Its place in the decoder, which the batch gives it.
    """

    def __init__(
        self, request: GenerationRequest, *, tokenizer: Tokenizer, block_size: int, with_text: bool = True
    ) -> None:
        self.request = request
        self.sampling = one_for_all(request.sampling)
        self.penalizes = self.sampling.penalizes
        self.needs_logits = self.penalizes or request.logprobs is not None
        self.window = TextWindow(ids=list(request.prompt_ids), block_size=block_size)
        self.dice = Dice(request.seed)
        self.new_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.error: Exception | None = None
        self.slot = -1
        self._numbers: list[float] = []  # of the tokens to come
        self._stop_ids = frozenset({tokenizer.eos_id} if request.stop_ids is None else request.stop_ids)
        self._stops = StopTexts(request.stop)
        self._decoder = StreamDecoder(tokenizer, prompt_ids=request.prompt_ids) if with_text or request.stop else None

    def throw(self, n: int) -> list[float]:
        """The numbers that decide the next n tokens: the same however often they are asked for."""
        while len(self._numbers) < n:
            self._numbers.append(self.dice.throw())
        return self._numbers[:n]

    @property
    def done(self) -> bool:
        """Whether its last piece has come."""
        return self.finish_reason is not None

    def begin(self) -> Piece | None:
        """The last piece at once, where there is nothing to write."""
        full = self.request.overflow == "stop" and len(self.window.ids) >= self.window.block_size
        return self._end("length") if self.request.max_new_tokens == 0 or full else None

    def take(self, token: int, logprob: TokenLogprob | None = None) -> Piece:
        """The piece that one drawn token adds."""
        if token in self._stop_ids:
            return self._end("stop")
        self.window.ids.append(token)
        self.new_ids.append(token)
        del self._numbers[:1]
        logprobs = () if logprob is None else (logprob,)
        text = "" if self._decoder is None else self._stops.push(self._decoder.push(token))
        if self._stops.found is not None:
            self.finish_reason = "stop"
            return Piece(text=text, token_ids=(token,), logprobs=logprobs, finish_reason="stop")
        full = self.request.overflow == "stop" and len(self.window.ids) >= self.window.block_size
        if len(self.new_ids) >= self.request.max_new_tokens or full:
            last = self._end("length")
            return Piece(text=text + last.text, token_ids=(token,), logprobs=logprobs, finish_reason=last.finish_reason)
        return Piece(text=text, token_ids=(token,), logprobs=logprobs)

    def take_all(self, tokens: list[int]) -> Piece:
        """The piece that tokens drawn one after the other add, up to the one that ends the text."""
        n = len(tokens)
        room = self.request.max_new_tokens - len(self.new_ids)
        if self.request.overflow == "stop":
            room = min(room, self.window.block_size - len(self.window.ids))
        if n >= room or self.request.stop or not self._stop_ids.isdisjoint(tokens):
            pieces = []
            for token in tokens:
                try:
                    pieces.append(self.take(token))
                except Exception as problem:  # what came before stays
                    pieces.append(self.fail(problem))
                if self.done:
                    break
            return join_pieces(pieces)
        self.window.ids += tokens
        self.new_ids += tokens
        del self._numbers[:n]
        return Piece("" if self._decoder is None else self._decoder.push_all(tokens), tuple(tokens))

    def fail(self, error: Exception) -> Piece:
        """The last piece of a text that cannot go on; its neighbours do."""
        self.error, self.finish_reason = error, "error"
        return Piece(finish_reason="error")

    def _end(self, reason: FinishReason) -> Piece:
        """What was held back, and the reason; a stop text may hide in what was held back."""
        text = "" if self._decoder is None else self._stops.push(self._decoder.finish())
        if self._stops.found is None:
            text += self._stops.finish()
        self.finish_reason = "stop" if self._stops.found is not None else reason
        return Piece(text=text, finish_reason=self.finish_reason)
