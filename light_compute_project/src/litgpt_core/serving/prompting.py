"""Converts API requests to generation requests: prompts that fit the window, settings, stop strings, seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from litgpt_core.generation.prompt_fitting import BASE_STYLE, PromptTooLong, fit_prompt
from litgpt_core.generation.request import GenerationRequest
from litgpt_core.prompts import Message, style_named
from litgpt_core.serving.errors import InvalidField, TooLong
from litgpt_core.serving.schema import ChatRequest

if TYPE_CHECKING:
    from litgpt_core.generation.sampling_settings import SamplingSettings
    from litgpt_core.serving.models import LoadedModel
    from litgpt_core.serving.schema import CompletionRequest, GenerationParams
    from litgpt_core.serving.settings import ServerSettings


def chat_requests(
    params: ChatRequest, model: LoadedModel, settings: ServerSettings
) -> tuple[list[GenerationRequest], int]:
    """One request per choice (`n`), and the number of oldest turns that were left out.

    The oldest turns are left out if the conversation does not fit the window.

    Raises:
        TooLong: The newest message alone does not fit.
        InvalidField: A value outside the server's limits.
        TokenizerError: A character that the model's vocabulary cannot represent.
    """
    messages, begun = conversation_of(params)
    _check_size(sum(len(message.content) for message in messages) + len(begun), settings)
    new_tokens = _new_tokens(asked_tokens(params), settings)
    style = model.style or style_named(BASE_STYLE)
    tokenizer, block_size = model.engine.tokenizer, model.engine.model.config.block_size
    try:
        fitted = fit_prompt(
            messages,
            style=model.style,
            tokenizer=tokenizer,
            block_size=block_size,
            max_new_tokens=new_tokens,
            answer_so_far=begun,
        )
    except PromptTooLong as problem:
        raise TooLong(problem.given, needed=problem.needed) from None
    logprobs = (params.top_logprobs or 0) if params.logprobs else None
    first = GenerationRequest(
        prompt_ids=fitted.ids,
        max_new_tokens=new_tokens,
        sampling=_sampling(params, settings),
        stop_ids=() if params.ignore_eos else style.stop_tokens(tokenizer),
        stop=(*style.stop_strings(), *params.stop),
        logprobs=logprobs,
        overflow="stop",
    )
    return _choices(first, params, settings), fitted.turns_left_out


def completion_requests(
    params: CompletionRequest, model: LoadedModel, settings: ServerSettings
) -> list[GenerationRequest]:
    """`n` requests for each prompt, one prompt after the other; errors as of `chat_requests`."""
    given = params.prompt
    several = isinstance(given, list) and not (given and isinstance(given[0], int))
    if params.echo and params.logprobs is not None:
        needed = "one of them: the prompt has no logprobs"
        raise InvalidField("echo and logprobs were given together.", param="logprobs", needed=needed)
    prompts = cast("list[str | list[int]]", given if several else [given])
    if not prompts or len(prompts) * params.n > settings.max_choices:
        raise InvalidField(
            f"{len(prompts)} prompts with n={params.n} were given.",
            param="prompt" if params.n == 1 else "n",
            needed=f"1 to {settings.max_choices} answers in all",
        )
    block_size = model.engine.model.config.block_size
    requests = []
    for prompt in prompts:
        if isinstance(prompt, str):
            _check_size(len(prompt), settings)
            ids = model.engine.encode_prompt(prompt)
        else:
            _check_size(len(prompt), settings)
            ids = prompt
            if invalid := [token for token in ids if not 0 <= token < model.engine.vocab_size]:
                raise InvalidField(
                    f"The prompt holds token {invalid[0]}.",
                    param="prompt",
                    needed=f"ids from 0 to {model.engine.vocab_size - 1}",
                )
        if len(ids) >= block_size:
            raise TooLong(f"The prompt has {len(ids)} tokens.", needed=f"fewer than the context window of {block_size}")
        first = GenerationRequest(
            prompt_ids=tuple(ids),
            max_new_tokens=_new_tokens(params.max_tokens, settings),
            sampling=_sampling(params, settings),
            stop_ids=() if params.ignore_eos else None,
            stop=tuple(params.stop),
            logprobs=params.logprobs,
            overflow="stop",
        )
        requests += _choices(first, params, settings)
    return requests


def _choices(first: GenerationRequest, params: GenerationParams, settings: ServerSettings) -> list[GenerationRequest]:
    if params.n > settings.max_choices:
        raise InvalidField(f"n={params.n} was given.", param="n", needed=f"at most {settings.max_choices}")
    return [replace(first, seed=None if params.seed is None else _seed(params.seed + i)) for i in range(params.n)]


def _seed(seed: int) -> int:
    return seed % 2**63


def conversation_of(params: ChatRequest) -> tuple[list[Message], str]:
    """The messages, and the beginning of the answer that is to be continued (usually empty)."""
    messages = [message.as_message() for message in params.messages]
    if not params.continue_final_message:
        return messages, ""
    if messages[-1].role != "assistant":
        raise InvalidField(
            f"The last message is of the {messages[-1].role}.",
            param="continue_final_message",
            needed="a last message of the assistant, which is to be continued",
        )
    return messages[:-1], messages[-1].content


def asked_tokens(params: GenerationParams) -> int | None:
    """`max_tokens`, or its newer name in chats; None if neither was given."""
    newer = params.max_completion_tokens if isinstance(params, ChatRequest) else None
    return newer if params.max_tokens is None else params.max_tokens


def _new_tokens(asked: int | None, settings: ServerSettings) -> int:
    """At most the server's limit: more is no error, and the response's usage names both."""
    return settings.default_tokens if asked is None else min(asked, settings.max_tokens)


def _sampling(params: GenerationParams, settings: ServerSettings) -> SamplingSettings:
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty")
    given = {name: value for name in names if (value := getattr(params, name)) is not None}
    if given.get("top_k") == -1:  # as in vLLM: all tokens
        given["top_k"] = 0
    if given.get("top_p") == 0:  # the limit of small values: the most probable token
        given |= {"top_p": 1.0, "top_k": 1}
    return replace(settings.sampling, **given)


def check_messages(params: ChatRequest, settings: ServerSettings) -> int:
    """The number of characters of all messages. Raises InvalidField for too many messages; cheap."""
    if len(params.messages) > settings.max_messages:
        raise InvalidField(
            f"{len(params.messages):,} messages were given.",
            param="messages",
            needed=f"at most {settings.max_messages:,}; older ones do not fit the context window anyway",
        )
    return sum(len(message.content) for message in params.messages)


def _check_size(chars: int, settings: ServerSettings) -> None:
    if chars > settings.max_prompt_chars:
        raise TooLong(f"The prompt has {chars:,} characters.", needed=f"at most {settings.max_prompt_chars:,}")
