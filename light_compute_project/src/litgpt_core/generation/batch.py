"""Texts side by side in one decoder: every step feeds each its new tokens and draws its next. They come and go.

    add -> slot 0  [prompt ......|a|b|c          a long prompt is read in parts of `prefill` tokens, so that the
    add -> slot 1        [prompt .|d|e            others' next tokens wait no longer than that
           slot 2  free

A text's tokens do not depend on its neighbours: each has its own place in the cache and its own dice. Nor does a text
that fails (logits that are NaN, an error in its settings) take others with it.

Where a decoder draws tokens itself and every text only wants its next ones, a step is several tokens long, as many as
come within `STRETCH_S`; what a text gets beyond its end is thrown away.
"""

from __future__ import annotations

import heapq
import itertools
import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from litgpt_core.generation.decoder import Decoder
from litgpt_core.generation.live_text import LiveText
from litgpt_core.generation.request import Piece, TokenLogprob, join_pieces
from litgpt_core.generation.sampling import finite, no_numbers, penalize

if TYPE_CHECKING:
    from collections.abc import Sequence

STRETCH_S = 0.01
"""Seconds that a step of several tokens may take: nobody sees them come one by one, and who joins waits no longer."""


class TextBatch:
    """Up to `n_slots` texts in the making; see the module.

    Args:
        decoder: Started here.
        n_slots: Most texts at once.
        length: Most tokens of one text that the decoder caches; at most the model's block_size.
        vocab_size: Ids that may be drawn; padding behind them is cut off.
        prefill: Most prompt tokens read in one step; None for no limit.
    """

    def __init__(
        self, decoder: Decoder, *, n_slots: int, length: int, vocab_size: int, prefill: int | None = None
    ) -> None:
        self._decoder, self._vocab_size, self._prefill = decoder, vocab_size, prefill
        self._free = list(range(n_slots))
        self._token_s = STRETCH_S  # seconds that one token of all texts took lately
        self.texts: list[LiveText] = []
        decoder.start(n_sequences=n_slots, length=length)

    @property
    def has_room(self) -> bool:
        """Whether another text may be added."""
        return bool(self._free)

    def add(self, text: LiveText) -> None:
        """Take a text in; its first piece comes with the next steps."""
        text.slot = heapq.heappop(self._free)
        self._token_s = STRETCH_S  # one more to write: measure anew
        self.texts.append(text)

    def drop(self, text: LiveText) -> None:
        """Forget a text, finished or not; its place in the cache is free."""
        self.texts.remove(text)
        heapq.heappush(self._free, text.slot)

    @torch.no_grad()  # not inference_mode: a model in training must not keep tensors that autograd refuses
    def step(self) -> list[tuple[LiveText, Piece]]:
        """More of every text whose prompt has been read: a token, or as many as `STRETCH_S` allows. Texts that end or
        fail are dropped.
        """
        out = []
        for text in [text for text in self.texts if not text.new_ids]:
            if (piece := text.begin()) is not None:
                out.append((text, piece))
                self.drop(text)
        if (n := self._stretch()) > 1:
            return [*out, *self._write(n)]
        feeds, drawn, left = [], [], self._prefill
        for text in self.texts:
            limit = unread = text.window.unread
            if unread > 1 and left is not None:
                if left == 0:
                    continue
                limit = min(unread, left)
                left -= limit
            feeds.append(text.window.next_feed(text.slot, limit=limit))
            drawn.append(text if limit == unread else None)
        if not feeds:
            return out
        began = time.perf_counter()
        logits = self._decoder.feed(feeds)[:, : self._vocab_size]
        if all(len(feed.ids) == 1 for feed in feeds):
            self._token_s = time.perf_counter() - began
        rows = [row for row, text in enumerate(drawn) if text is not None]
        ready = [text for text in drawn if text is not None]
        if not ready:
            return out
        logits = logits if len(rows) == len(drawn) else logits[rows]
        pieces = self._draw(logits, ready)
        for text in [text for text in ready if text.done]:
            self.drop(text)
        return [*out, *zip(ready, pieces, strict=True)]

    def _stretch(self) -> int:
        """How many tokens the next step may bring each text."""
        n = min(self._decoder.most_at_once, int(STRETCH_S / max(self._token_s, 1e-9)))
        if n < 2 or not self.texts:
            return 1
        for text in self.texts:
            if text.needs_logits or text.window.unread != 1:
                return 1
            n = min(n, text.window.room)
        return min(n, max(text.request.max_new_tokens - len(text.new_ids) for text in self.texts))

    def _write(self, n: int) -> list[tuple[LiveText, Piece]]:
        """n tokens of every text, as far as it goes on."""
        texts, began = list(self.texts), time.perf_counter()
        written = self._decoder.write(
            [text.window.next_feed(text.slot) for text in texts],
            [text.sampling for text in texts],
            uniforms=[text.throw(n) for text in texts],
            vocab_size=self._vocab_size,
        )
        self._token_s = (time.perf_counter() - began) / n
        out = []
        for text, tokens in zip(texts, written, strict=True):
            text.window.cached += n - 1
            try:
                piece = self._take(text, tokens)
            except Exception as problem:
                piece = text.fail(problem)
            if text.done:
                self.drop(text)
            out.append((text, piece))
        return out

    @staticmethod
    def _take(text: LiveText, tokens: Sequence[int | None]) -> Piece:
        """What a text makes of its tokens; where logits broke it fails, unless it had ended before."""
        good = [token for token in itertools.takewhile(lambda token: token is not None, tokens) if token is not None]
        piece = text.take_all(good) if good else Piece()
        if len(good) == len(tokens) or text.done:
            return piece
        return join_pieces([piece, text.fail(no_numbers())])

    def _draw(self, logits: Tensor, texts: Sequence[LiveText]) -> list[Piece]:
        """(B, V) -> what each text makes of its row."""
        try:
            drawn = self._next_tokens(logits, texts)
        except Exception as problem:  # whoever is to blame fails alone
            if len(texts) == 1:
                return [texts[0].fail(problem)]
            return [self._draw(logits[row : row + 1], [text])[0] for row, text in enumerate(texts)]
        pieces = []
        for text, (token, logprob) in zip(texts, drawn, strict=True):
            try:
                pieces.append(text.take(token, logprob))
            except Exception as problem:
                pieces.append(text.fail(problem))
        return pieces

    def _next_tokens(self, logits: Tensor, texts: Sequence[LiveText]) -> list[tuple[int, TokenLogprob | None]]:
        """(B, V) -> the drawn token of each text, and its log-probability where that was asked for."""
        settings = [text.sampling for text in texts]
        adjusted = logits
        if any(text.penalizes for text in texts):
            adjusted = finite(logits).clone()
            for row, text in enumerate(texts):
                if text.penalizes:
                    seen = {"prompt_ids": text.request.prompt_ids, "new_ids": text.new_ids}
                    adjusted[row] = penalize(adjusted[row], settings[row], **seen)
        tokens = self._decoder.draw(adjusted, settings, uniforms=[text.throw(1)[0] for text in texts])
        return [
            (token, None if text.request.logprobs is None else _logprob(logits[row], token, text.request.logprobs))
            for row, (token, text) in enumerate(zip(tokens, texts, strict=True))
        ]


def _logprob(logits: Tensor, token: int, alternatives: int) -> TokenLogprob:
    logprobs = torch.log_softmax(logits.float(), dim=-1)  # (V,)
    values, ids = logprobs.topk(min(alternatives, logprobs.numel()))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprob(token_id=token, logprob=float(logprobs[token]), top=top)
