"""Texts side by side in one decoder: every step feeds each its new tokens and draws its next one. They come and go.

    add -> slot 0  [prompt ......|a|b|c          a long prompt is read in parts of `prefill` tokens, so that the
    add -> slot 1        [prompt .|d|e            others' next tokens wait no longer than that
           slot 2  free

A text's tokens do not depend on its neighbours: each has its own place in the cache and its own dice. Nor does a text
that fails (logits that are NaN, an error in its settings) take others with it.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from litgpt_core.generation.decoder import Decoder
from litgpt_core.generation.live_text import LiveText
from litgpt_core.generation.request import Piece, TokenLogprob
from litgpt_core.generation.sampling import draw, finite, penalize

if TYPE_CHECKING:
    from collections.abc import Sequence


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
        self.texts: list[LiveText] = []
        decoder.start(n_sequences=n_slots, length=length)

    @property
    def has_room(self) -> bool:
        """Whether another text may be added."""
        return bool(self._free)

    def add(self, text: LiveText) -> None:
        """Take a text in; its first piece comes with the next steps."""
        text.slot = heapq.heappop(self._free)
        self.texts.append(text)

    def drop(self, text: LiveText) -> None:
        """Forget a text, finished or not; its place in the cache is free."""
        self.texts.remove(text)
        heapq.heappush(self._free, text.slot)

    @torch.no_grad()  # not inference_mode: a model in training must not keep tensors that autograd refuses
    def step(self) -> list[tuple[LiveText, Piece]]:
        """One more token for every text whose prompt has been read; texts that end or fail are dropped."""
        out = []
        for text in [text for text in self.texts if not text.new_ids]:
            if (piece := text.begin()) is not None:
                out.append((text, piece))
                self.drop(text)
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
        logits = self._decoder.feed(feeds)[:, : self._vocab_size]
        rows = [row for row, text in enumerate(drawn) if text is not None]
        ready = [text for text in drawn if text is not None]
        if not ready:
            return out
        logits = logits if len(rows) == len(drawn) else logits[rows]
        pieces = self._draw(logits, ready)
        for text in [text for text in ready if text.done]:
            self.drop(text)
        return [*out, *zip(ready, pieces, strict=True)]

    @staticmethod
    def _draw(logits: Tensor, texts: Sequence[LiveText]) -> list[Piece]:
        """(B, V) -> what each text makes of its row."""
        try:
            drawn = next_tokens(logits, texts)
        except Exception as problem:  # whoever is to blame fails alone
            if len(texts) == 1:
                return [texts[0].fail(problem)]
            return [TextBatch._draw(logits[row : row + 1], [text])[0] for row, text in enumerate(texts)]
        pieces = []
        for text, (token, logprob) in zip(texts, drawn, strict=True):
            try:
                pieces.append(text.take(token, logprob))
            except Exception as problem:
                pieces.append(text.fail(problem))
        return pieces


def next_tokens(logits: Tensor, texts: Sequence[LiveText]) -> list[tuple[int, TokenLogprob | None]]:
    """(B, V) -> the drawn token of each text, and its log-probability where that was asked for."""
    settings = [text.sampling for text in texts]
    adjusted = logits
    if any(text.penalizes for text in texts):
        adjusted = finite(logits).clone()
        for row, text in enumerate(texts):
            if text.penalizes:
                seen = {"prompt_ids": text.request.prompt_ids, "new_ids": text.new_ids}
                adjusted[row] = penalize(adjusted[row], settings[row], **seen)
    tokens = draw(adjusted, settings, uniforms=[text.throw() for text in texts])
    return [
        (token, None if text.request.logprobs is None else _logprob(logits[row], token, text.request.logprobs))
        for row, (token, text) in enumerate(zip(tokens, texts, strict=True))
    ]


def _logprob(logits: Tensor, token: int, alternatives: int) -> TokenLogprob:
    logprobs = torch.log_softmax(logits.float(), dim=-1)  # (V,)
    values, ids = logprobs.topk(min(alternatives, logprobs.numel()))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprob(token_id=token, logprob=float(logprobs[token]), top=top)
