"""A conversation with one model: messages in, answers as a stream, and what the model sees of a long one.

    conversation = Conversation(engine, style=load_style(directory))
    for text in conversation.reply("Hello", max_new_tokens=100):
        print(text, end="", flush=True)

What the model sees of a long one is `fitting`'s business; nothing is lost from `messages`. A model without a style is a
base model: it continues the text that the messages make.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from litgpt_core.generation.fitting import BASE_STYLE, fit_prompt
from litgpt_core.generation.request import DEFAULT_SAMPLING, FinishReason, GenerationRequest, Piece
from litgpt_core.generation.sampling_settings import SamplingSettings
from litgpt_core.generation.stats import GenerationStats
from litgpt_core.prompts import Message, PromptStyle, style_named

if TYPE_CHECKING:
    from litgpt_core.generation.engine import Engine


@dataclass(kw_only=True)
class Reply:
    """What the latest answer took; complete once its stream has ended."""

    prompt_tokens: int
    """Tokens of the conversation that the model read."""
    turns_left_out: int
    """Oldest turns that found no room; a base model's text is cut anywhere instead."""
    stats: GenerationStats
    """Tokens and seconds."""
    finish_reason: FinishReason | None = None
    """None: the stream was closed before its end."""

    @property
    def context_used(self) -> int:
        """Tokens that the model's window held at the end."""
        return self.prompt_tokens + self.stats.new_tokens


class Conversation:
    """See the module.

    Args:
        engine: The model; one text at a time.
        style: How it wants conversations written; None for a base model.
        system: A text that says how to behave, before everything.

    Attributes:
        messages: All that was said, without the system text.
        latest: What the latest answer took; None before the first.
    """

    def __init__(self, engine: Engine, *, style: PromptStyle | None = None, system: str | None = None) -> None:
        self.engine, self.is_base, self.system = engine, style is None, system
        self.style = style or style_named(BASE_STYLE)
        self.messages: list[Message] = []
        self.latest: Reply | None = None

    @property
    def block_size(self) -> int:
        """Most tokens the model sees at once."""
        return self.engine.model.config.block_size

    def reply(
        self,
        text: str,
        *,
        max_new_tokens: int,
        sampling: SamplingSettings = DEFAULT_SAMPLING,
        seed: int | None = None,
    ) -> Generator[str, None, None]:
        """The answer to `text`, in pieces as they come.

        Closing the stream early keeps what has come as the answer; if nothing has, `text` was never said.

        Raises:
            ConfigError: `text` (with the system text) is too long for the model's window.
            TokenizerError: The vocabulary cannot represent it.
            CheckpointError: The model answers NaN.
        """
        messages = [*self.messages, Message(role="user", content=text)]
        fitted = fit_prompt(
            self._with_system(messages),
            style=None if self.is_base else self.style,
            tokenizer=self.engine.tokenizer,
            block_size=self.block_size,
            max_new_tokens=max_new_tokens,
        )
        request = GenerationRequest(
            prompt_ids=fitted.ids,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            seed=seed,
            stop_ids=self.style.stop_tokens(self.engine.tokenizer),
            stop=self.style.stop_texts(),
            overflow="slide" if self.is_base else "stop",
        )
        return self._stream(messages, request, left_out=fitted.turns_left_out)

    def _stream(
        self, messages: list[Message], request: GenerationRequest, *, left_out: int
    ) -> Generator[str, None, None]:
        reply = Reply(prompt_tokens=len(request.prompt_ids), turns_left_out=left_out, stats=GenerationStats())
        self.latest = reply
        pieces = cast("Generator[Piece, None, None]", self.engine.stream(request))
        answer = ""
        try:
            with contextlib.closing(pieces):
                for piece in pieces:
                    reply.stats, reply.finish_reason = self.engine.stats, piece.finish_reason
                    answer += piece.text
                    if piece.text:
                        yield piece.text
        finally:
            if answer or reply.finish_reason is not None:
                self.messages = [*messages, Message(role="assistant", content=answer)]

    def reset(self) -> None:
        """Forget what was said; the system text stays."""
        self.messages, self.latest = [], None

    def as_json_line(self) -> str:
        """One line of a chat file, as `data=chat` reads it: `{"messages": [{"role": ..., "content": ...}, ...]}`."""
        messages = [{"role": message.role, "content": message.content} for message in self._with_system(self.messages)]
        return json.dumps({"messages": messages}, ensure_ascii=False) + "\n"

    def _with_system(self, messages: list[Message]) -> list[Message]:
        return [*([Message(role="system", content=self.system)] if self.system else []), *messages]
