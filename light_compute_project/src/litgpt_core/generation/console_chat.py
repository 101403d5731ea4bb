"""The terminal chat: reads lines, streams answers, and executes commands.

Answers go to `out` and everything else to `notes`, so that a pipe receives only the answers. The streams and the source
of lines are arguments, so that tests can drive it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from litgpt_core.checkpoint import FoundModel, describe, discover, find_model
from litgpt_core.core.errors import ConfigError, LightComputeError
from litgpt_core.core.private_files import open_private
from litgpt_core.core.replaceable import refuse_foreign_file
from litgpt_core.core.text import visible
from litgpt_core.generation.chat_model import ChatModel
from litgpt_core.generation.chat_session import ChatSession
from litgpt_core.generation.sampling_settings import SamplingSettings

PROMPT = "you> "
COMMANDS = {
    "help": ("", "list the commands"),
    "temp": ("NUMBER", "sampling temperature; 0 is greedy decoding"),
    "top_k": ("NUMBER", "sample from the k most probable tokens; 0 for all"),
    "top_p": ("NUMBER", "nucleus sampling: smallest token set with this total probability; 1 for all"),
    "tokens": ("NUMBER", "maximum length of an answer, in tokens"),
    "seed": ("NUMBER", "make answers reproducible; none for a random seed"),
    "system": ("TEXT", "set the system prompt; none removes it"),
    "reset": ("", "start a new conversation"),
    "save": ("FILE", "save the conversation as a line of chat JSONL; without FILE the name is generated"),
    "model": ("NAME", "switch to another model; without NAME list the models"),
    "stats": ("", "speed of the latest answer, context used, settings"),
    "quit": ("", "quit; so do Ctrl-D, and Ctrl-C twice"),
}
"""Name: (argument, what it does). A setting without its argument is shown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """The settings that commands change; each change makes a new object."""

    sampling: SamplingSettings = dataclasses.field(default_factory=lambda: SamplingSettings(temperature=0.8, top_k=50))
    """How tokens are sampled."""
    max_new_tokens: int = 256
    """Maximum length of an answer, in tokens."""
    seed: int | None = None
    """Answer number i is sampled with seed + i; None uses a random seed."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens={self.max_new_tokens} was given.", needed="1 or more")


class _QuitError(Exception):
    """The command /quit."""


class ConsoleChat:
    """See the module docstring.

    Args:
        model: The first model.
        load: Loads another model for /model.
        read: Returns the next line, after showing its argument as a prompt. Raises EOFError at the end and
            KeyboardInterrupt at Ctrl-C.
        out: Receives the answers.
        notes: Receives everything else.
        settings: The initial settings; commands change them.
        system: The initial system prompt.
        decorated: Whether a person is at the terminal: shows a prompt and hints, and continues after errors.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        load: Callable[[FoundModel], ChatModel],
        read: Callable[[str], str],
        out: TextIO,
        notes: TextIO,
        settings: ChatSettings,
        system: str | None = None,
        decorated: bool = True,
    ) -> None:
        self._load, self._read, self._out, self._notes = load, read, out, notes
        self._interactive, self.settings = decorated, settings
        self._saved: tuple[Path, int, int] | None = None  # file, start and end offset of our line
        self._interrupted = False  # whether the latest event was Ctrl-C
        self._begin(model, system=system)

    def _begin(self, model: ChatModel, *, system: str | None) -> None:
        self.model = model
        self.session = ChatSession(model.engine, style=model.style, system=system)
        for line in model.introduction():
            self._note(line)
        self._check_system()

    def run(self) -> int:
        """Chat until the input ends or the user quits. Returns the exit code, 0."""
        if self._interactive:
            self._note("Type a message. /help lists commands, Ctrl-C stops an answer, /quit quits.")
        while True:
            try:
                line = self._read(PROMPT if self._interactive else "")
            except EOFError:
                if self._interactive:
                    self._note("")
                return 0
            except KeyboardInterrupt:
                if self._interrupted:
                    self._note("")
                    return 0
                self._interrupted = True
                self._note("\n(press Ctrl-C again to quit, or type /quit)")
                continue
            self._interrupted = False
            try:
                self._process(line)
            except _QuitError:
                return 0
            except (LightComputeError, KeyboardInterrupt) as stop:
                if not self._interactive:  # nobody is there to correct the input
                    raise
                self._interrupted = isinstance(stop, KeyboardInterrupt)
                self._note("\n(stopped; press Ctrl-C again to quit)" if self._interrupted else str(stop))

    def _process(self, line: str) -> None:
        text = line.strip()
        if text.startswith("//"):
            self._answer(text[1:])
        elif text.startswith("/"):
            self._command(text[1:])
        elif text:
            self._answer(line)

    # --- answers

    def _answer(self, text: str) -> None:
        settings, turn = self.settings, len(self.session.messages) // 2
        reply = self.session.reply(
            text,
            max_new_tokens=settings.max_new_tokens,
            sampling=settings.sampling,
            seed=None if settings.seed is None else settings.seed + turn,
        )
        with contextlib.closing(reply):  # if stopped early, the session keeps the text so far
            for delta in reply:
                self._say(delta)
        self._say("\n")
        self._remark()

    def _remark(self) -> None:
        latest = self.session.latest
        if latest is None or not self._interactive:
            return
        if latest.turns_left_out:
            turns = (
                "turn no longer fits" if latest.turns_left_out == 1 else f"{latest.turns_left_out} turns no longer fit"
            )
            self._note(f"(the oldest {turns} into the context window of {self.session.block_size} tokens)")
        if latest.finish_reason == "length" and not self.session.is_base:
            full = latest.context_used >= self.session.block_size
            self._note("(truncated: the context window is full)" if full else "(truncated: see /tokens)")

    def _say(self, text: str) -> None:
        self._out.write(visible(text) if self._interactive else text)
        self._out.flush()

    def _note(self, text: str) -> None:
        self._notes.write(visible(text) + "\n")  # names of models may hold anything
        self._notes.flush()

    # --- commands

    def _command(self, text: str) -> None:
        name, _, argument = text.partition(" ")
        name, argument = {"exit": "quit", "q": "quit", "temperature": "temp"}.get(name, name), argument.strip()
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.5)
            raise ConfigError(
                f"There is no command /{name}.",
                needed="one that /help lists; type // to send a message that begins with /",
                fix=f"did you mean {' or '.join('/' + other for other in near)}?" if near else "/help",
            )
        getattr(self, f"_do_{name}")(argument)

    def _do_help(self, _: str) -> None:
        for name, (argument, what) in COMMANDS.items():
            self._note(f"  {f'/{name} {argument}':<16} {what}")

    def _do_temp(self, argument: str) -> None:
        if argument:
            self._sampling(temperature=_number(argument))
        self._note(f"temperature is {self.settings.sampling.temperature}")

    def _do_top_k(self, argument: str) -> None:
        if argument:
            self._sampling(top_k=_whole_number(argument))
        self._note(f"top_k is {self.settings.sampling.top_k or 'off'}")

    def _do_top_p(self, argument: str) -> None:
        if argument:
            self._sampling(top_p=_number(argument))
        self._note(f"top_p is {self.settings.sampling.top_p}")

    def _sampling(self, **change: Any) -> None:
        self.settings = dataclasses.replace(
            self.settings, sampling=dataclasses.replace(self.settings.sampling, **change)
        )

    def _do_tokens(self, argument: str) -> None:
        if argument:
            self.settings = dataclasses.replace(self.settings, max_new_tokens=_whole_number(argument))
        self._note(f"answers have at most {self.settings.max_new_tokens} tokens")

    def _do_seed(self, argument: str) -> None:
        if argument:
            seed = None if argument == "none" else _whole_number(argument)
            self.settings = dataclasses.replace(self.settings, seed=seed)
        seed = self.settings.seed
        self._note("every answer uses a random seed" if seed is None else f"the seed is {seed}")

    def _do_system(self, argument: str) -> None:
        if argument:
            self.session.system = None if argument == "none" else argument
        self._note(f"system prompt: {self.session.system or 'none set here'}")
        self._check_system()

    def _check_system(self) -> None:
        style = self.session.style
        if self.session.system and not style.takes_system():
            self._note(
                f"note: the style {style.name} does not support a system prompt: it is put into the first message"
            )

    def _do_reset(self, _: str) -> None:
        self.session.reset()
        self._saved = None
        self._note("started a new conversation")

    def _do_save(self, argument: str) -> None:
        if not self.session.messages:
            self._note("the conversation is empty")
            return
        path = Path(argument or time.strftime("chat-%Y%m%d-%H%M%S.jsonl")).expanduser()
        if not argument and self._saved:
            path = self._saved[0]
        line = self.session.as_json_line().encode()
        try:
            refuse_foreign_file(path, contains=b'"messages"', what="a file of conversations")
            with open_private(path) as file:
                end = file.seek(0, 2)
                if self._saved and self._saved[0] == path and self._saved[2] == end:
                    end = file.seek(self._saved[1])  # replace the earlier line of this conversation
                    file.truncate()
                file.write(line)
            self._saved = (path, end, end + len(line))
        except OSError as problem:
            self._note(f"{path} cannot be written: {problem.strerror or problem}")
            return
        self._note(f"saved {len(self.session.messages)} messages to {path}; data=chat data.path={path} trains on it")

    def _do_model(self, argument: str) -> None:
        if not argument:
            discovered = discover()
            for found in discovered.models:
                mark = "*" if found.directory.resolve() == self.model.found.directory.resolve() else " "
                self._note(f"{mark} {describe(found)}")
            for line in discovered.skipped:
                self._note(f"  skipped {line}")
            self._note("/model NAME switches to another model; * marks the current one")
            return
        model = self._load(find_model(argument))
        self._note(f"Model: {describe(model.found)}. Started a new conversation.")
        self._saved = None
        self._begin(model, system=self.session.system)

    def _do_stats(self, _: str) -> None:
        latest, sampling = self.session.latest, self.settings.sampling
        if latest is None:
            self._note("no answer yet")
        else:
            self._note(f"latest answer: {latest.stats.summary()}")
            block_size, turns = self.session.block_size, len(self.session.messages) // 2
            seen = "" if self.session.is_base else f", {turns - latest.turns_left_out} of {turns} turns included"
            self._note(f"context: {min(latest.context_used, block_size)} of {block_size} tokens used{seen}")
        seed = "random seeds" if self.settings.seed is None else f"seed {self.settings.seed}"
        self._note(
            f"settings: temperature {sampling.temperature}, top_k {sampling.top_k or 'all'}, top_p {sampling.top_p}, "
            f"at most {self.settings.max_new_tokens} tokens, {seed}"
        )

    def _do_quit(self, _: str) -> None:
        raise _QuitError


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a whole number.", needed="digits, such as 50") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a number.", needed="a number, such as 0.8") from None
