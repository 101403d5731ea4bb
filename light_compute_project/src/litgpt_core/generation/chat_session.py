"""A chat session with one model: takes messages, streams answers, keeps the conversation.

    session = ChatSession(engine, style=load_style(directory))
    for text in session.reply("Hello", max_new_tokens=100):
        print(text, end="", flush=True)

`prompt_fitting` decides how much of a long conversation is in the prompt; `messages` always keeps all of it. A model
without a style is a base model: it continues the messages as plain text.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from litgpt_core.generation.prompt_fitting import BASE_STYLE, fit_prompt
from litgpt_core.generation.request import DEFAULT_SAMPLING, Delta, FinishReason, GenerationRequest
from litgpt_core.generation.sampling_settings import SamplingSettings
from litgpt_core.generation.stats import GenerationStats
from litgpt_core.prompts import Message, PromptStyle, style_named

if TYPE_CHECKING:
    from litgpt_core.generation.engine import Engine


@dataclass(kw_only=True)
class Reply:
    """Statistics of the latest answer; complete once its stream has ended."""

    prompt_tokens: int
    """Tokens of the prompt."""
    turns_left_out: int
    """Number of oldest turns that did not fit; always 0 for a base model, whose text is cut at any token."""
    stats: GenerationStats
    """Tokens and seconds."""
    finish_reason: FinishReason | None = None
    """None if the stream was closed before its end."""

    @property
    def context_used(self) -> int:
        """Tokens of the context window in use at the end."""
        return self.prompt_tokens + self.stats.new_tokens


class ChatSession:
    """See the module docstring.

    Args:
        engine: Generates one answer at a time.
        style: The model's prompt style; None for a base model.
        system: The system prompt.

    Attributes:
        messages: All messages so far, without the system prompt.
        latest: Statistics of the latest answer; None before the first.
    """

    def __init__(self, engine: Engine, *, style: PromptStyle | None = None, system: str | None = None) -> None:
        self.engine, self.is_base, self.system = engine, style is None, system
        self.style = style or style_named(BASE_STYLE)
        self.messages: list[Message] = []
        self.latest: Reply | None = None

    @property
    def block_size(self) -> int:
        """The model's context window in tokens."""
        return self.engine.model.config.block_size

    def reply(
        self,
        text: str,
        *,
        max_new_tokens: int,
        sampling: SamplingSettings = DEFAULT_SAMPLING,
        seed: int | None = None,
    ) -> Generator[str, None, None]:
        """Stream the answer to `text`.

        Closing the stream early keeps the text so far as the answer; without any text, the message is removed too.

        Raises:
            ConfigError: `text` (with the system prompt) does not fit the context window.
            TokenizerError: The vocabulary cannot represent it.
            CheckpointError: The model's logits are NaN or infinite.
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
            stop=self.style.stop_strings(),
            overflow="slide" if self.is_base else "stop",
        )
        return self._stream(messages, request, left_out=fitted.turns_left_out)

    def _stream(
        self, messages: list[Message], request: GenerationRequest, *, left_out: int
    ) -> Generator[str, None, None]:
        reply = Reply(prompt_tokens=len(request.prompt_ids), turns_left_out=left_out, stats=GenerationStats())
        self.latest = reply
        deltas = cast("Generator[Delta, None, None]", self.engine.stream(request))
        answer = ""
        try:
            with contextlib.closing(deltas):
                for delta in deltas:
                    reply.stats, reply.finish_reason = self.engine.stats, delta.finish_reason
                    answer += delta.text
                    if delta.text:
                        yield delta.text
        finally:
            if answer or reply.finish_reason is not None:
                self.messages = [*messages, Message(role="assistant", content=answer)]

    def reset(self) -> None:
        """Remove all messages; the system prompt stays."""
        self.messages, self.latest = [], None

    def as_json_line(self) -> str:
        """One line of a chat file, as `data=chat` reads it: `{"messages": [{"role": ..., "content": ...}, ...]}`."""
        messages = [{"role": message.role, "content": message.content} for message in self._with_system(self.messages)]
        return json.dumps({"messages": messages}, ensure_ascii=False) + "\n"

    def _with_system(self, messages: list[Message]) -> list[Message]:
        return [*([Message(role="system", content=self.system)] if self.system else []), *messages]
