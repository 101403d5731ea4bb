"""The formats of conversations that people have, as one table; a row's keys tell its format. No files.

A row becomes messages and, for each, whether it may be learnt. Keys and roles are read in any case. Everything that can
be wrong with a row is an `UnusableError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from litgpt_core.data.json_values import UnusableError
from litgpt_core.prompts.message import Message
from litgpt_core.prompts.tool_messages import text_message

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "ai", "bot"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "tool_response"), "tool"),
}
"""Names of roles in published data sets -> OpenAI's."""
MAX_KEYS = 1_000
"""Most keys of a row or a message."""
_ROLE_KEYS, _TEXT_KEYS, _SYSTEM_KEYS = ("role", "from"), ("content", "value", "text"), ("system", "system_prompt")

Messages = list[tuple[Message, bool]]
"""Messages in order, and whether each may be learnt."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way to write a conversation."""

    name: str
    keys: tuple[str, ...]
    """Keys that a row has; they tell the format."""
    read: Callable[[Mapping[str, Any]], Messages]
    example: str
    """A row, for docs/finetuning.md and for messages about rows of no known format."""


def format_of(row: object) -> Format:
    """The format of a JSON value; UnusableError with the keys found if it has none of the table."""
    if isinstance(row, list):
        return NANOCHAT
    if not isinstance(row, dict):
        raise UnusableError(f"it is {_kind(row)}, neither an object nor a list of messages")
    if len(row) > MAX_KEYS:
        raise UnusableError(f"it has {len(row):,} keys; at most {MAX_KEYS:,} are read: no known format")
    present = {key for key, value in _lowered(row).items() if value is not None}
    for known in FORMATS:
        if present >= set(known.keys):
            return known
    keys = ", ".join(short(key) for key in list(row)[:12]) or "none"
    if "text" in present:
        raise UnusableError(f"its keys are {keys}: text without roles is trained on with data=text")
    raise UnusableError(f"its keys are {keys}: no known format")


def is_logged(row: object) -> bool:
    """Whether a row is an exchange or a rating of the chat log."""
    if not isinstance(row, dict):
        return False
    whole = any(row.get(key) is not None for key in ("messages", "conversations"))
    return row.get("type") == "rating" or (set(CHAT_LOG.keys) <= set(row) and not whole)


def messages_of(row: object) -> tuple[Format, Messages]:
    """(format, messages) of a row that is not one of the chat log."""
    found = format_of(row)
    lowered = _lowered(row) if isinstance(row, dict) else {"messages": row}
    messages = found.read(lowered)
    system = next((lowered[key] for key in _SYSTEM_KEYS if lowered.get(key) not in (None, "")), None)
    if system is not None:
        messages = [(Message(role="system", content=_text(system, "system")), False), *messages]
    return found, messages


def known_formats() -> str:
    """The keys of every format, for messages."""
    return "; ".join([*(" + ".join(each.keys) for each in FORMATS), "a list of messages"])


def encodable(text: str) -> str:
    """The text; UnusableError if UTF-8 cannot represent it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UnusableError("it contains a lone surrogate, which UTF-8 cannot represent") from None
    return text


# ---- readers


def _listed(key: str) -> Callable[[Mapping[str, Any]], Messages]:
    return lambda row: list(_messages(row[key], key))


def _messages(listed: object, key: str) -> Iterator[tuple[Message, bool]]:
    if not isinstance(listed, list) or not listed:
        raise UnusableError(f"{key} is not a list of messages")
    for number, item in enumerate(listed, start=1):
        if not isinstance(item, dict):
            raise UnusableError(f"message {number} is not an object")
        if len(item) > MAX_KEYS:
            raise UnusableError(f"message {number} has {len(item):,} keys; at most {MAX_KEYS:,} are read")
        yield _message(_lowered(item), number), _learnt(item, number)


def _message(item: Mapping[str, Any], number: int) -> Message:
    role_key = next((key for key in _ROLE_KEYS if item.get(key) is not None), "role")
    given = item.get(role_key)
    role = _ROLES.get(given.strip().lower()) if isinstance(given, str) else None
    if role is None:
        raise UnusableError(f"message {number} has {role_key}={short(given)}")
    calls = item.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise UnusableError(f"message {number} has tool_calls={short(calls)}")
    content = next((item[key] for key in _TEXT_KEYS if item.get(key) is not None), "" if calls else None)
    refusal = item.get("refusal") if isinstance(item.get("refusal"), str) else None
    if content is None and refusal is not None:
        content = ""
    text = _text(content, f"message {number}")
    made = text_message(role, text, tool_calls=calls if role == "assistant" else (), refusal=refusal)
    encodable(made.content)
    return made


def _learnt(item: Mapping[str, Any], number: int) -> bool:
    """OpenAI's `weight` and axolotl's `train`: 0 or false keeps a message in the context without learning it."""
    lowered = _lowered(item)
    for key in ("weight", "train"):
        value = lowered.get(key)
        if value is None:
            continue
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise UnusableError(f"message {number} has {key}={short(value)}; known are 0 and 1")
        if not value:
            return False
    return True


def _pair(question: str, answer: str, *, context: str = "") -> Callable[[Mapping[str, Any]], Messages]:
    """One exchange under two keys, with an optional input or context below the question."""

    def read(row: Mapping[str, Any]) -> Messages:
        asked, answered, learnt = row[question], row[answer], row.get("label") is not False
        if isinstance(asked, list) and isinstance(answered, list):  # TRL's conversational form
            return [
                *_messages(asked, question),
                *((message, flag and learnt) for message, flag in _messages(answered, answer)),
            ]
        below = _text(row.get(context) or "", context)
        user = "\n\n".join(part for part in (_text(asked, question), below) if part.strip())
        return [
            *_history(row.get("history")),
            (Message(role="user", content=user), False),
            (Message(role="assistant", content=_text(answered, answer)), learnt),
        ]

    return read


def _preferred(row: Mapping[str, Any]) -> Messages:
    """A question and the better of two answers; or two whole conversations, as messages or as one text."""
    chosen = row["chosen"]
    question = next((row[key] for key in ("prompt", "question", "instruction", "input") if row.get(key)), None)
    if isinstance(chosen, str) and question is None:
        return _transcript(chosen)
    answer = list(_messages(chosen, "chosen")) if isinstance(chosen, list) else _answer(chosen, "chosen")
    if question is None or (answer and answer[0][0].role != "assistant"):
        return answer  # `chosen` is the whole conversation
    asked = question if isinstance(question, list) else [{"role": "user", "content": question}]
    return [*_messages(asked, "prompt"), *answer]


def _answer(text: object, key: str) -> Messages:
    return [(Message(role="assistant", content=_text(text, key)), True)]


def _transcript(text: str) -> Messages:
    """`Human: ...` and `Assistant: ...` in turn, each after an empty line (Anthropic's HH-RLHF)."""
    parts = re.split(r"(?:\A|\n\n)(Human|Assistant):", encodable(text).lstrip("\n"))
    if parts[0].strip() or len(parts) < 3:
        raise UnusableError("chosen is neither a list of messages nor a text of `Human: ...` and `Assistant: ...`")
    return [
        (Message(role="user" if speaker == "Human" else "assistant", content=said.strip()), True)
        for speaker, said in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _history(history: object) -> Messages:
    """Earlier exchanges of an Alpaca row: pairs of question and answer."""
    messages: Messages = []
    if history in (None, []):
        return messages
    if not isinstance(history, list) or not all(isinstance(each, list) and len(each) == 2 for each in history):
        raise UnusableError("history is not a list of pairs")
    for question, answer in history:
        messages.append((Message(role="user", content=_text(question, "history")), False))
        messages.append((Message(role="assistant", content=_text(answer, "history")), True))
    return messages


def _text(content: object, what: str) -> str:
    """Plain text, or OpenAI's list of text parts."""
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else part for part in content]
        other = next((part for part, text in zip(content, texts, strict=True) if not isinstance(text, str)), None)
        if other is not None or not texts:
            kind = other.get("type") if isinstance(other, dict) else other
            raise UnusableError(f"{what} is not text (it has a part {short(kind)})")
        content = "".join(text for text in texts if isinstance(text, str))
    if not isinstance(content, str):
        raise UnusableError(f"{what} is not text ({_kind(content)})")
    return encodable(content)


def _lowered(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Keys in lower case; of two that differ in case only, the one in lower case counts."""
    return {str(key).strip().lower(): value for key, value in row.items()} | dict(row)


def _kind(value: object) -> str:
    names = {list: "a list", dict: "an object", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def short(value: object) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- the table

_TURNS = '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]'

CHAT_LOG = Format(
    name="chat log",
    keys=("user", "assistant"),
    read=_pair("user", "assistant"),
    example='{"user": "Hi", "assistant": "Hello", "conversation_id": "a", "turn": 0, "id": "a-0", "rating": null}',
)
NANOCHAT = Format(name="list of messages", keys=(), read=_listed("messages"), example=_TURNS)
FORMATS = (
    Format(name="messages", keys=("messages",), read=_listed("messages"), example=f'{{"messages": {_TURNS}}}'),
    Format(
        name="conversations",
        keys=("conversations",),
        read=_listed("conversations"),
        example='{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}',
    ),
    CHAT_LOG,
    Format(
        name="preference",
        keys=("chosen", "rejected"),
        read=_preferred,
        example='{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}',
    ),
    Format(
        name="Alpaca",
        keys=("instruction", "output"),
        read=_pair("instruction", "output", context="input"),
        example='{"instruction": "Greet in", "input": "French", "output": "Bonjour"}',
    ),
    Format(
        name="Dolly",
        keys=("instruction", "response"),
        read=_pair("instruction", "response", context="context"),
        example='{"instruction": "Who asks?", "context": "Ann asks.", "response": "Ann"}',
    ),
    Format(
        name="prompt and completion",
        keys=("prompt", "completion"),
        read=_pair("prompt", "completion"),
        example='{"prompt": "Hi", "completion": "Hello"}',
    ),
    Format(
        name="prompt and response",
        keys=("prompt", "response"),
        read=_pair("prompt", "response"),
        example='{"prompt": "Hi", "response": "Hello"}',
    ),
    Format(
        name="query and response",
        keys=("query", "response"),
        read=_pair("query", "response"),
        example='{"query": "Hi", "response": "Hello"}',
    ),
    Format(
        name="question and answer",
        keys=("question", "answer"),
        read=_pair("question", "answer", context="context"),
        example='{"question": "1 + 1?", "answer": "2"}',
    ),
    Format(
        name="input and output",
        keys=("input", "output"),
        read=_pair("input", "output"),
        example='{"input": "Hi", "output": "Hello"}',
    ),
)
"""In the order in which they are tried."""
