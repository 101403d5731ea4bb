"""The fields of API requests: the supported ones of OpenAI, and a few of our own.

Clients send every field of OpenAI's schema, many of them null: null is the same as absent. Fields without an effect
here are ignored where ignoring them is within their meaning (`user`, `metadata`, `store`, `tools` that the model may
use); those that would change the answer are refused (`unsupported_fields`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from litgpt_core.prompts.message import Message
from litgpt_core.prompts.tool_messages import text_message
from litgpt_core.serving.unsupported_fields import refuse_unsupported

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._-]+$")]

MOST_STOPS, LONGEST_STOP = 16, 256
"""Every stop string is searched for after every token of a sequence, so their number is limited."""
MOST_PARTS = 1_000
MOST_TOOL_CALLS = 100
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def _stops(value: object) -> list[str]:
    if value is None:
        return []
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("must be a string or a list of strings")
    if len(texts) > MOST_STOPS:
        raise ValueError(f"{len(texts)} stop strings were given, at most {MOST_STOPS} are searched for")
    if longest := next((text for text in texts if len(text) > LONGEST_STOP), None):
        raise ValueError(f"a stop string has {len(longest)} characters, at most {LONGEST_STOP} are searched for")
    return [text for text in texts if text]


def _text(value: object) -> str:
    """The content of a message as one string."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("must be a string, a list of text parts, or null")
    if len(value) > MOST_PARTS:
        raise ValueError(f"{len(value)} parts were given, at most {MOST_PARTS} are joined")
    texts = []
    for number, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind is not None and kind not in ("text", "refusal"):
            raise ValueError(f"part {number} has the type {_shown(kind)}: this server reads text only")
        text = part.get(kind) if isinstance(part, dict) and kind else None
        if not isinstance(text, str):
            raise ValueError(f'part {number} is not {{"type": "text", "text": ...}}')
        texts.append(text)
    return "".join(texts)


def _tool_calls(value: object) -> list[dict[str, Any]]:
    calls = [] if value is None else value
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise ValueError("must be a list of objects")
    if len(calls) > MOST_TOOL_CALLS:
        raise ValueError(f"{len(calls)} calls were given, at most {MOST_TOOL_CALLS} are read")
    for number, call in enumerate(calls):
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError(f'call {number} is not {{"function": {{"name": ..., "arguments": ...}}}}')
    return calls


def _role(value: object) -> object:
    if not isinstance(value, str) or value not in ROLES:
        raise ValueError(f"{_shown(value)} is unknown; one of {', '.join(ROLES)} is needed")
    return value


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


class ChatMessage(BaseModel):
    """One message of a conversation. Of an assistant, `content` may be null: a refusal, or calls of tools."""

    role: Annotated[str, BeforeValidator(_role)]
    content: Annotated[str, BeforeValidator(_text)] = ""
    refusal: str | None = None
    tool_calls: Annotated[list[dict[str, Any]], BeforeValidator(_tool_calls)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_text(self) -> ChatMessage:
        if self.role != "assistant" and "content" not in self.model_fields_set:
            raise ValueError(f"the message of the {self.role} has no content")
        return self

    def as_message(self) -> Message:
        """As prompt styles take it."""
        return text_message(self.role, self.content, tool_calls=self.tool_calls, refusal=self.refusal)


class StreamOptions(BaseModel):
    """OpenAI's `stream_options`."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = False


Number = Annotated[float, Field(allow_inf_nan=False)]


class GenerationParams(BaseModel):
    """Fields of both endpoints. Unknown fields are ignored, because clients send many that do not apply here."""

    model_config = ConfigDict(extra="ignore", strict=False)

    model: str | None = None
    max_tokens: int | None = Field(default=None, ge=0)
    temperature: Number | None = Field(default=None, ge=0, le=100)
    top_p: Number | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: Number | None = Field(default=None, ge=0, lt=1)
    repetition_penalty: Number | None = Field(default=None, ge=0.01, le=100)
    frequency_penalty: Number | None = Field(default=None, ge=-100, le=100)
    presence_penalty: Number | None = Field(default=None, ge=-100, le=100)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[str], BeforeValidator(_stops)] = Field(default_factory=list)
    n: int = Field(default=1, ge=1)
    ignore_eos: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        """Null means absent, as in OpenAI's schema. Raises for fields that would change the answer."""
        if not isinstance(values, dict):
            return values
        given = {key: value for key, value in values.items() if value is not None}
        refuse_unsupported(given)
        return given


def _messages(value: object) -> object:
    if isinstance(value, list) and len(value) > 10_000:  # the server's own limit is lower; this one is before parsing
        raise ValueError(f"{len(value)} messages were given")
    return value


class ChatRequest(GenerationParams):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(fail_fast=True, min_length=1), BeforeValidator(_messages)]
    max_completion_tokens: int | None = Field(default=None, ge=0)
    continue_final_message: bool = False
    """The last message is the beginning of the answer; the response has only what follows it, as in vLLM."""
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    conversation_id: Identifier | None = None
    turn: int | None = Field(default=None, ge=0, lt=2**63)


def _prompt(value: object) -> object:
    """One of the four forms; pydantic's own message would name the first form only."""
    if isinstance(value, str) or (isinstance(value, list) and not value):
        return value
    if isinstance(value, list):
        kinds = {type(item) for item in value}
        if kinds in ({str}, {int}):
            return value
        if kinds == {list} and all(set(map(type, item)) <= {int} for item in value):
            return value
    raise ValueError("must be a string, a list of strings, a list of token ids, or a list of such lists")


class CompletionRequest(GenerationParams):
    """POST /v1/completions."""

    prompt: Annotated[str | list[str] | list[int] | list[list[int]], BeforeValidator(_prompt)] = ""
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool = False


class RatingRequest(BaseModel):
    """POST /v1/ratings."""

    id: Identifier
    rating: Literal[1, -1, 0]


class Code(BaseModel):
    """A block of code and the language that its writer named."""

    language: str = Field(max_length=40)
    text: str = Field(max_length=50_000)


class Formula(BaseModel):
    """A formula in TeX, on a line of its own or not."""

    source: str = Field(max_length=2_000)
    display: bool = False


class MarkupRequest(BaseModel):
    """POST /v1/markup."""

    code: list[Code] = Field(default_factory=list, max_length=100)
    formulas: list[Formula] = Field(default_factory=list, max_length=300)


class PlainChatRequest(BaseModel):
    """POST /chat."""

    message: str = Field(min_length=1)
