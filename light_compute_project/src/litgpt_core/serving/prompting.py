"""From a request's fields to what the engine is asked: prompts that fit, settings, stops, seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from litgpt_core.core.errors import ConfigError
from litgpt_core.generation.prompt_fitting import BASE_STYLE, PromptTooLong, fit_prompt
from litgpt_core.generation.request import GenerationRequest
from litgpt_core.prompts import Message, style_named
from litgpt_core.serving.errors import TooLong

if TYPE_CHECKING:
    from litgpt_core.generation.sampling_settings import SamplingSettings
    from litgpt_core.serving.models import LoadedModel
    from litgpt_core.serving.schema import AnswerRequest, ChatRequest, CompletionRequest
    from litgpt_core.serving.settings import ServerSettings


def chat_requests(asked: ChatRequest, model: LoadedModel, settings: ServerSettings) -> list[GenerationRequest]:
    """One request for each answer (`n`). The oldest turns are left out where the window is too short for all.

    Raises:
        TooLong: The newest message alone does not fit.
        ConfigError, TokenizerError: What cannot be asked, or not be written in the model's alphabet.
    """
    messages = [
        Message(role="system" if message.role == "developer" else message.role, content=message.text)
        for message in asked.messages
    ]
    _check_size(sum(len(message.content) for message in messages), settings)
    wanted = asked.max_completion_tokens if asked.max_tokens is None else asked.max_tokens
    new_tokens, style = _new_tokens(wanted, settings), model.style or style_named(BASE_STYLE)
    tokenizer, block_size = model.engine.tokenizer, model.engine.model.config.block_size
    try:
        fitted = fit_prompt(
            messages, style=model.style, tokenizer=tokenizer, block_size=block_size, max_new_tokens=new_tokens
        )
    except PromptTooLong as problem:
        raise TooLong(problem.given, needed=problem.needed) from None
    logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    first = GenerationRequest(
        prompt_ids=fitted.ids,
        max_new_tokens=new_tokens,
        sampling=_sampling(asked, settings),
        stop_ids=() if asked.ignore_eos else style.stop_tokens(tokenizer),
        stop=(*style.stop_strings(), *asked.stops),
        logprobs=logprobs,
        overflow="stop",
    )
    return _choices(first, asked, settings)


def completion_requests(
    asked: CompletionRequest, model: LoadedModel, settings: ServerSettings
) -> list[GenerationRequest]:
    """`n` requests for each prompt, one prompt after the other; errors as of `chat_requests`."""
    given = asked.prompt
    several = isinstance(given, list) and not (given and isinstance(given[0], int))
    if asked.echo and asked.logprobs is not None:
        raise ConfigError("echo and logprobs were given together.", needed="one of them: the prompt has no logprobs")
    prompts = cast("list[str | list[int]]", given if several else [given])
    if not prompts or len(prompts) * asked.n > settings.max_choices:
        raise ConfigError(
            f"{len(prompts)} prompts with n={asked.n} were given.", needed=f"1 to {settings.max_choices} answers in all"
        )
    block_size = model.engine.model.config.block_size
    requests = []
    for prompt in prompts:
        if isinstance(prompt, str):
            _check_size(len(prompt), settings)
            ids = model.engine.encode_prompt(prompt)
        else:
            ids = prompt
            if strange := [token for token in ids if not 0 <= token < model.engine.vocab_size]:
                raise ConfigError(
                    f"The prompt holds token {strange[0]}.", needed=f"ids from 0 to {model.engine.vocab_size - 1}"
                )
        if len(ids) >= block_size:
            raise TooLong(f"The prompt has {len(ids)} tokens.", needed=f"fewer than the model's window of {block_size}")
        first = GenerationRequest(
            prompt_ids=tuple(ids),
            max_new_tokens=_new_tokens(asked.max_tokens, settings),
            sampling=_sampling(asked, settings),
            stop_ids=() if asked.ignore_eos else None,
            stop=asked.stops,
            logprobs=asked.logprobs,
            overflow="stop",
        )
        requests += _choices(first, asked, settings)
    return requests


def _choices(first: GenerationRequest, asked: AnswerRequest, settings: ServerSettings) -> list[GenerationRequest]:
    if asked.n > settings.max_choices:
        raise ConfigError(f"n={asked.n} was given.", needed=f"at most {settings.max_choices}")
    return [replace(first, seed=None if asked.seed is None else _seed(asked.seed + i)) for i in range(asked.n)]


def _seed(seed: int) -> int:
    return seed % 2**63


def _new_tokens(wanted: int | None, settings: ServerSettings) -> int:
    if wanted is None:
        return settings.default_tokens
    if wanted > settings.max_tokens:
        raise ConfigError(f"max_tokens={wanted} was given.", needed=f"at most {settings.max_tokens}")
    return wanted


def _sampling(asked: AnswerRequest, settings: ServerSettings) -> SamplingSettings:
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty")
    given = {name: value for name in names if (value := getattr(asked, name)) is not None}
    return replace(settings.sampling, **given)


def _check_size(chars: int, settings: ServerSettings) -> None:
    if chars > settings.max_prompt_chars:
        raise TooLong(f"The prompt has {chars:,} characters.", needed=f"at most {settings.max_prompt_chars:,}")
