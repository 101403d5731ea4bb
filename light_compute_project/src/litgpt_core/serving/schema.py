"""The fields of API requests: the supported ones of OpenAI, and a few of our own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._-]+$")]


StopString = Annotated[str, StringConstraints(max_length=256)]
Stops = Annotated[list[StopString], Field(max_length=16, fail_fast=True)]
"""Every stop string is searched for after every token of a sequence, so their number is limited."""


class TextPart(BaseModel):
    """One part of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)]

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    """OpenAI's `stream_options`."""

    include_usage: bool = False


class GenerationParams(BaseModel):
    """Fields of both endpoints. Unknown fields are ignored, because clients send many that do not apply here."""

    model_config = ConfigDict(extra="ignore", strict=False)

    model: str | None = None
    max_tokens: int | None = Field(default=None, ge=0)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, ge=0, lt=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    frequency_penalty: float | None = Field(default=None, ge=-100, le=100)
    presence_penalty: float | None = Field(default=None, ge=-100, le=100)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: StopString | Stops | None = None
    n: int = Field(default=1, ge=1)
    ignore_eos: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """`stop` as a tuple, empty strings left out."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)


class ChatRequest(GenerationParams):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(fail_fast=True)] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=0)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    conversation_id: Identifier | None = None
    turn: int | None = Field(default=None, ge=0)


Texts = Annotated[list[str], Field(fail_fast=True)]
Ids = Annotated[list[int], Field(fail_fast=True)]


class CompletionRequest(GenerationParams):
    """POST /v1/completions."""

    prompt: str | Texts | Ids | Annotated[list[Ids], Field(fail_fast=True)] = ""
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool = False


class RatingRequest(BaseModel):
    """POST /v1/ratings."""

    id: Identifier
    rating: Literal[1, -1, 0]


class PlainChatRequest(BaseModel):
    """POST /chat."""

    message: str = Field(min_length=1)
