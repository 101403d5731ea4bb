"""The chat at a terminal: reads lines, prints answers as they come, understands commands.

Answers go to `out`, everything else to `notes`, so that in a pipe the output is the answers and nothing else. Streams
and the source of lines are given, so that a test can talk to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from litgpt_core.checkpoint import FoundModel, discover, find_model
from litgpt_core.core.errors import ConfigError, LightComputeError
from litgpt_core.generation.chat_model import ChatModel, describe
from litgpt_core.generation.conversation import Conversation
from litgpt_core.generation.sampling_settings import SamplingSettings

PROMPT = "you> "
_VISIBLE = (
    {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
    | {127: 0x2421}
    | dict.fromkeys(range(128, 160), 0xFFFD)
)
"""Control characters that a model writes are shown as pictures: they must not steer the terminal."""

COMMANDS = {
    "help": ("", "this list"),
    "temp": ("NUMBER", "temperature: 0 always takes the likeliest token"),
    "top_k": ("NUMBER", "draw among this many likeliest tokens, 0 for all"),
    "top_p": ("NUMBER", "draw among the likeliest tokens that sum to this probability, 1 for all"),
    "tokens": ("NUMBER", "longest answer, in tokens"),
    "seed": ("NUMBER", "makes answers repeatable; none for fresh ones"),
    "system": ("TEXT", "how the assistant should behave; none for no such text"),
    "reset": ("", "forget the conversation"),
    "save": ("FILE", "write the conversation as a line of chat JSONL; without FILE a name is made up"),
    "model": ("NAME", "talk to another model; without NAME the models are listed"),
    "stats": ("", "speed of the latest answer, context used, settings"),
    "quit": ("", "leave; so do Ctrl-D, and Ctrl-C twice"),
}
"""Name: (argument, what it does). A setting without its argument is shown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """What commands change, each time into a new object."""

    sampling: SamplingSettings = dataclasses.field(default_factory=lambda: SamplingSettings(temperature=0.8, top_k=50))
    """How tokens are drawn."""
    max_new_tokens: int = 256
    """Longest answer."""
    seed: int | None = None
    """Answer number i is drawn with seed + i; None draws a fresh one."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens={self.max_new_tokens} was given.", needed="1 or more")


class _QuitError(Exception):
    """/quit was typed."""


class ConsoleChat:
    """See the module.

    Args:
        model: Whom to talk to first.
        load: Loads another one for /model.
        read: Gives the next line, shown the prompt it is called with; EOFError at the end, KeyboardInterrupt at Ctrl-C.
        out: Answers.
        notes: Everything else.
        settings: Where to begin; commands change it.
        system: The first system text.
        decorated: Whether to show a prompt and hints: somebody sits there.
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
        self._decorated, self.settings = decorated, settings
        self._saved: tuple[Path, int, int] | None = None  # file, where our line begins, where it ends
        self._interrupted = False  # the latest thing that happened was Ctrl-C
        self._begin(model, system=system)

    def _begin(self, model: ChatModel, *, system: str | None) -> None:
        self.model = model
        self.conversation = Conversation(model.engine, style=model.style, system=system)
        for line in model.introduction():
            self._note(line)
        self._check_system()

    def run(self) -> int:
        """Talk until the lines end or somebody quits. Returns the exit code, 0."""
        if self._decorated:
            self._note("Type a message. /help lists commands, Ctrl-C stops an answer, /quit leaves.")
        while True:
            try:
                line = self._read(PROMPT if self._decorated else "")
            except EOFError:
                if self._decorated:
                    self._note("")
                return 0
            except KeyboardInterrupt:
                if self._interrupted:
                    self._note("")
                    return 0
                self._interrupted = True
                self._note("\n(Ctrl-C again leaves, as does /quit)")
                continue
            self._interrupted = False
            try:
                self._take(line)
            except _QuitError:
                return 0
            except (LightComputeError, KeyboardInterrupt) as stop:
                if not self._decorated:  # nobody sits there to mend it
                    raise
                self._interrupted = isinstance(stop, KeyboardInterrupt)
                self._note("\n(stopped; Ctrl-C again leaves)" if self._interrupted else str(stop))

    def _take(self, line: str) -> None:
        text = line.strip()
        if text.startswith("//"):
            self._answer(text[1:])
        elif text.startswith("/"):
            self._command(text[1:])
        elif text:
            self._answer(line)

    # --- answers

    def _answer(self, text: str) -> None:
        settings, turn = self.settings, len(self.conversation.messages) // 2
        reply = self.conversation.reply(
            text,
            max_new_tokens=settings.max_new_tokens,
            sampling=settings.sampling,
            seed=None if settings.seed is None else settings.seed + turn,
        )
        with contextlib.closing(reply):  # stopped early, it keeps what has come
            for piece in reply:
                self._say(piece)
        self._say("\n")
        self._remark()

    def _remark(self) -> None:
        latest = self.conversation.latest
        if latest is None or not self._decorated:
            return
        if latest.turns_left_out:
            turns = "turn does" if latest.turns_left_out == 1 else f"{latest.turns_left_out} turns do"
            self._note(f"(the oldest {turns} not fit into the model's {self.conversation.block_size} tokens any more)")
        if latest.finish_reason == "length" and not self.conversation.is_base:
            full = latest.context_used >= self.conversation.block_size
            self._note("(cut off: the model's window is full)" if full else "(cut off: /tokens allows longer answers)")

    def _say(self, text: str) -> None:
        self._out.write(text.translate(_VISIBLE) if self._decorated else text)
        self._out.flush()

    def _note(self, text: str) -> None:
        self._notes.write(text + "\n")
        self._notes.flush()

    # --- commands

    def _command(self, text: str) -> None:
        name, _, argument = text.partition(" ")
        name, argument = {"exit": "quit", "q": "quit", "temperature": "temp"}.get(name, name), argument.strip()
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.5)
            raise ConfigError(
                f"There is no command /{name}.",
                needed="one that /help lists; a message that begins with / is typed with //",
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
        self._note(f"an answer has at most {self.settings.max_new_tokens} tokens")

    def _do_seed(self, argument: str) -> None:
        if argument:
            seed = None if argument == "none" else _whole_number(argument)
            self.settings = dataclasses.replace(self.settings, seed=seed)
        seed = self.settings.seed
        self._note("every answer is drawn afresh" if seed is None else f"the seed is {seed}")

    def _do_system(self, argument: str) -> None:
        if argument:
            self.conversation.system = None if argument == "none" else argument
        self._note(f"system text: {self.conversation.system or 'none of ours'}")
        self._check_system()

    def _check_system(self) -> None:
        style = self.conversation.style
        if self.conversation.system and not style.takes_system():
            self._note(f"warning: the style {style.name} has no place for a system text; it is left out")

    def _do_reset(self, _: str) -> None:
        self.conversation.reset()
        self._saved = None
        self._note("the conversation starts anew")

    def _do_save(self, argument: str) -> None:
        if not self.conversation.messages:
            self._note("nothing has been said yet")
            return
        path = Path(argument or time.strftime("chat-%Y%m%d-%H%M%S.jsonl")).expanduser()
        if not argument and self._saved:
            path = self._saved[0]
        line = self.conversation.as_json_line().encode()
        try:
            with path.open("r+b" if path.exists() else "xb") as file:
                end = file.seek(0, 2)
                if self._saved and self._saved[0] == path and self._saved[2] == end:
                    end = file.seek(self._saved[1])  # this conversation again, longer now
                    file.truncate()
                file.write(line)
            self._saved = (path, end, end + len(line))
        except OSError as problem:
            self._note(f"{path} cannot be written: {problem.strerror or problem}")
            return
        self._note(
            f"saved {len(self.conversation.messages)} messages to {path}; data=chat data.path={path} trains on it"
        )

    def _do_model(self, argument: str) -> None:
        if not argument:
            around = discover()
            for found in around.models:
                mark = "*" if found.directory.resolve() == self.model.found.directory.resolve() else " "
                self._note(f"{mark} {describe(found)}")
            for line in around.passed_over:
                self._note(f"  passed over {line}")
            self._note("/model NAME takes another; * is the one you talk to")
            return
        model = self._load(find_model(argument))
        self._note(f"Model: {describe(model.found)}. The conversation starts anew.")
        self._saved = None
        self._begin(model, system=self.conversation.system)

    def _do_stats(self, _: str) -> None:
        latest, sampling = self.conversation.latest, self.settings.sampling
        if latest is None:
            self._note("no answer yet")
        else:
            self._note(f"latest answer: {latest.stats.summary()}")
            block_size, turns = self.conversation.block_size, len(self.conversation.messages) // 2
            seen = "" if self.conversation.is_base else f", {turns - latest.turns_left_out} of {turns} turns in it"
            self._note(f"context: {min(latest.context_used, block_size)} of {block_size} tokens used{seen}")
        seed = "fresh seeds" if self.settings.seed is None else f"seed {self.settings.seed}"
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
