"""POST /v1/attention: which tokens the model looked at when it wrote one token of an answer.

    messages before the last --chat_requests--> prompt ids
    the last one, the answer --tokenizer------> answer ids     --interpret.looked_at--> weights of every token before it

The answer is tokenized from its text, which can divide it otherwise than it was written.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pydantic import Field

from litgpt_core.interpret.looked_at import looked_at
from litgpt_core.interpret.token_text import token_text
from litgpt_core.serving.errors import InvalidField
from litgpt_core.serving.preparation import SHORT_CHARS, Preparation
from litgpt_core.serving.prompting import chat_requests, check_messages
from litgpt_core.serving.schema import ChatRequest

if TYPE_CHECKING:
    from litgpt_core.serving.models import LoadedModel, ModelPool
    from litgpt_core.serving.settings import ServerSettings

MOST_ANSWER_TOKENS = 512
"""Of a longer answer the beginning is shown."""
MOST_WAITING = 4
"""Requests at a time; further ones are refused."""


class AttentionRequest(ChatRequest):
    """POST /v1/attention: the conversation up to and with the answer, and the settings that it was written with."""

    position: int = Field(default=0, ge=0)
    """Of the token in the answer, from 0."""


class AttentionAnswers:
    """Answers one request after the other in a thread of its own, so that neither prompts nor decoding wait for it.

    Args:
        pool: Its models are traced by modules of their own (`LoadedModel.traced`).
        settings: Limits of prompts and of time.
    """

    def __init__(self, pool: ModelPool, settings: ServerSettings) -> None:
        self._pool, self._settings = pool, settings
        self._thread = Preparation(most_waiting=MOST_WAITING)

    async def ask(self, params: AttentionRequest) -> dict[str, Any]:
        """As `attention_of`; also raises Busy, TimedOut and what the pool raises."""
        deadline = time.monotonic() + self._settings.timeout_s
        chars = max(check_messages(params, self._settings), SHORT_CHARS + 1)  # long prompts have one thread
        model = await self._pool.get(params.model)
        return await self._thread.run(
            lambda: attention_of(params, model, self._settings), chars=chars, deadline=deadline
        )

    def close(self) -> None:
        """Start no more work."""
        self._thread.close()


def attention_of(params: AttentionRequest, model: LoadedModel, settings: ServerSettings) -> dict[str, Any]:
    """What the page shows.

    `model`, `answer` (texts of its tokens), `position`, `context` (texts of the T tokens before that one, but for
    `left_out` at the beginning), `prompt_tokens`, and as of `looked_at` for each token of the context `average` and
    `rollout` over the layers, and `layers` (L, T).

    Raises:
        InvalidField: The last message is no answer with text, nothing precedes it, or it has no such token.
        TooLong, TokenizerError: As `chat_requests`.
    """
    *before, answer = params.messages
    if answer.role != "assistant" or not answer.content or not before:
        raise InvalidField(
            f"The last of {len(params.messages)} messages is of the {answer.role}.",
            param="messages",
            needed="a conversation that ends with the assistant's answer",
        )
    requests, _ = chat_requests(params.model_copy(update={"messages": before, "n": 1}), model, settings)
    tokenizer, prompt = model.engine.tokenizer, requests[0].prompt_ids
    ids = tokenizer.encode(answer.content)[:MOST_ANSWER_TOKENS]
    if params.position >= len(ids):
        raise InvalidField(
            f"position {params.position} of an answer of {len(ids)} tokens was given.",
            param="position",
            needed=f"a position from 0 to {len(ids) - 1}",
        )
    found = looked_at(model.traced, prompt, ids, position=params.position)
    return {
        "model": model.found.name,
        "answer": [token_text(tokenizer, token) for token in ids],
        "position": params.position,
        "context": [token_text(tokenizer, token) for token in found["ids"]],
        "prompt_tokens": len(prompt),
        "left_out": found["first"],
        **{name: found[name] for name in ("average", "rollout", "layers")},
    }
