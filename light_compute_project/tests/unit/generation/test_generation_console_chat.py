"""The terminal chat, driven through streams: answers, commands, interruptions."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from litgpt_core.checkpoint import choose, find_model
from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.generation.chat_model import ChatModel, ModelLoader
from litgpt_core.generation.chat_session import ChatSession
from litgpt_core.generation.console_chat import COMMANDS, ChatSettings, ConsoleChat
from litgpt_core.prompts import save_style, style_named

Talk = Callable[..., tuple[str, str]]


@pytest.fixture
def here(tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with one model: runs/small."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def talk(here: Path) -> Talk:
    """`talk(*lines)`: the output for these input lines; an exception among them is raised instead of a line."""

    def _talk(
        *lines: object, interactive: bool = True, style: str | None = None, system: str | None = None
    ) -> tuple[str, str]:
        load = ModelLoader(style=style, compile="false", device="cpu")
        waiting = iter(lines)

        def read(prompt: str) -> str:
            assert prompt == ("you> " if interactive else "")
            line = next(waiting, EOFError())
            if isinstance(line, BaseException):
                raise line
            return str(line)

        out, notes = io.StringIO(), io.StringIO()
        settings = ChatSettings(max_new_tokens=6, seed=1)
        chat = ConsoleChat(
            load(find_model("small")),
            load=load,
            read=read,
            out=out,
            notes=notes,
            settings=settings,
            system=system,
            decorated=interactive,
        )
        assert chat.run() == 0
        assert next(waiting, None) is None, "left before the end"
        return out.getvalue(), notes.getvalue()

    return _talk


def test_only_answers_go_to_the_output(talk: Talk) -> None:
    out, notes = talk("hello", "/stats", "", interactive=False)
    assert out.endswith("\n") and len(out) > 1
    assert "tokens/s" in notes and "/help" not in notes
    assert talk("hello", interactive=False)[0] == out, "seeded"


def test_a_base_model_says_that_it_only_continues_text(talk: Talk) -> None:
    _, notes = talk()
    assert "Prompt style: none" in notes and "only continues the text" in notes


def test_the_style_and_its_source_are_shown(talk: Talk, directory: Path) -> None:
    save_style(directory, style_named("chatml"))
    assert "Prompt style: chatml" in talk()[1] and "from chat_style.json" in talk()[1]
    assert "from the command line" in talk(style="human_assistant")[1]
    with pytest.raises(ConfigError, match="did you mean chatml"):
        ModelLoader(style="chatlm")


def test_every_command_is_listed_and_has_its_function(talk: Talk) -> None:
    _, notes = talk("/help")
    assert all(f"/{name}" in notes and callable(getattr(ConsoleChat, f"_do_{name}")) for name in COMMANDS)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/temp 0.5", "temperature is 0.5"),
        ("/temp warm", "'warm' is not a number"),
        ("/temp -1", "temperature 0 (greedy) or more"),
        ("/temp", "temperature is 0.8"),
        ("/top_k 3", "top_k is 3"),
        ("/top_k 0", "top_k is off"),
        ("/top_k 2.5", "'2.5' is not a whole number"),
        ("/top_p 1.5", "above 0 and at most 1"),
        ("/top_p 0.9", "top_p is 0.9"),
        ("/tokens 9", "at most 9 tokens"),
        ("/tokens 0", "1 or more"),
        ("/seed 7", "the seed is 7"),
        ("/seed none", "random seed"),
        ("/seed x", "'x' is not a whole number"),
        ("/system Be kind.", "system prompt: Be kind."),
        ("/system", "none set here"),
        ("/save", "conversation is empty"),
        ("/stats", "no answer yet"),
        ("/rset", "did you mean /reset"),
        ("/xyzzy", "one that /help lists"),
        ("/model smal", "did you mean small?"),
    ],
)
def test_commands_answer(line: str, expected: str, talk: Talk) -> None:
    out, notes = talk(line)
    assert expected in notes and out == ""


def test_settings_have_an_effect(talk: Talk) -> None:
    out, notes = talk("/tokens 3", "/temp 0", "a", "/stats", interactive=False)
    assert "latest answer: 3 tokens" in notes and "temperature 0.0" in notes and "context: 4 of 24 tokens used" in notes
    assert talk("/tokens 3", "/temp 0", "/seed none", "a", interactive=False)[0] == out, "greedy needs no seed"


def test_two_slashes_send_a_message_that_begins_with_one(talk: Talk, here: Path) -> None:
    talk("//usr", "/save said.jsonl")
    assert json.loads((here / "said.jsonl").read_text())["messages"][0]["content"] == "/usr"


def test_a_saved_conversation_is_private_and_only_added_to_its_kind(talk: Talk, here: Path) -> None:
    talk("a", "/save c.jsonl")
    assert (here / "c.jsonl").stat().st_mode & 0o077 == 0
    (here / "thesis.txt").write_text("thesis")
    (here / "link.jsonl").symlink_to("c.jsonl")
    before = (here / "c.jsonl").read_bytes()
    notes = talk("a", "/save thesis.txt", "/save link.jsonl")[1]
    assert "thesis.txt is not overwritten: it is not a file of conversations" in notes
    assert "link.jsonl cannot be written" in notes
    assert (here / "thesis.txt").read_text() == "thesis" and (here / "c.jsonl").read_bytes() == before


def test_a_conversation_saved_again_replaces_itself_and_another_is_added(talk: Talk, here: Path) -> None:
    (here / "c.jsonl").write_text('{"messages": []}\n')
    _, notes = talk("a", "/save c.jsonl", "b", "/save c.jsonl", "/save", "/reset", "c", "/save c.jsonl")
    rows = [json.loads(line)["messages"] for line in (here / "c.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [[entry["content"] for entry in row if entry["role"] == "user"] for row in rows] == [[], ["a", "b"], ["c"]]
    assert "saved 4 messages to c.jsonl" in notes


def test_a_file_that_cannot_be_written_is_reported(talk: Talk) -> None:
    assert "cannot be written" in talk("a", "/save no/such/folder.jsonl")[1]


def test_switching_models_and_the_list_marks_the_current_one(talk: Talk, here: Path, directory: Path) -> None:
    (here / "models").mkdir()
    (here / "models" / "other").symlink_to(directory)
    copied = here / "models" / "copy"
    copied.mkdir()
    for file in directory.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    _, notes = talk("/model", "a", "/model copy", "/model", "/stats")
    before, after = notes.split("Started a new conversation")
    assert "* small (" in before and "  copy (" in before
    assert "* copy (" in after and "  small (" in after and "no answer yet" in after


def test_a_corrupted_model_leaves_the_current_one(talk: Talk, here: Path, directory: Path) -> None:
    corrupted = here / "models" / "corrupted"
    corrupted.mkdir(parents=True)
    for file in directory.iterdir():
        (corrupted / file.name).write_bytes(file.read_bytes()[:5])
    out, notes = talk("/model corrupted", "a")
    assert out.endswith("\n") and "corrupted" in notes and "Started a new" not in notes


def test_an_unsupported_system_prompt_is_warned_of(talk: Talk) -> None:
    assert "gemma does not support a system prompt" in talk(style="gemma", system="S")[1]
    assert "does not support" not in talk(style="chatml", system="S")[1]


def test_ctrl_c_twice_at_the_prompt_quits_and_once_does_not(talk: Talk) -> None:
    stop = KeyboardInterrupt()
    assert "Ctrl-C again to quit" in talk(stop, "/seed", stop, stop)[1]


def test_ctrl_c_stops_the_answer_and_not_the_program(talk: Talk, monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    shown: list[str] = []
    plain_say = ConsoleChat._say

    def say(self: ConsoleChat, text: str) -> None:
        plain_say(self, text)
        shown.append(text)
        if len(shown) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ConsoleChat, "_say", say)
    _, notes = talk("/tokens 50", "a", "/save cut.jsonl", "b", "/quit")
    assert "stopped" in notes
    answer = json.loads((here / "cut.jsonl").read_text(encoding="utf-8"))["messages"][1]["content"]
    assert answer == "".join(shown[:2]), "the text so far is kept"
    assert len(shown) > 3, "the next question is answered"


def test_generated_text_cannot_control_the_terminal(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(self: ChatSession, text: str, **_: object) -> Generator[str, None, None]:
        yield "\x1b[2Jred\x07\ttab\nline\x9b"

    monkeypatch.setattr(ChatSession, "reply", reply)
    assert talk("a")[0] == "␛[2Jred␇\ttab\nline\ufffd\n"
    assert talk("a", interactive=False)[0] == "\x1b[2Jred\x07\ttab\nline\x9b\n", "a pipe gets what was written"


def test_in_a_pipe_mistakes_and_ctrl_c_end_the_program(talk: Talk) -> None:
    with pytest.raises(ConfigError):
        talk("/temp warm", interactive=False)
    with pytest.raises(ConfigError, match="no command /tmep"):
        talk("/tmep 1", interactive=False)
    with pytest.raises(ConfigError, match="context window"):
        talk("x" * 500, interactive=False, style="chatml")


def test_the_most_recent_model_is_chosen_and_the_reason_shown(here: Path) -> None:
    chosen = choose(None)
    found, reasons = chosen.found, chosen.reasons
    assert found.name == "small" and found.directory == Path("runs/small/final")
    assert "the only model found" in reasons[0] and "runs: 1 model" in reasons[0]
    assert choose("small").found == found


def test_no_model_at_all_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"Searched runs: does not exist.*\n.*\n.*lcp train"):
        choose(None)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_new_tokens=0"):
        ChatSettings(max_new_tokens=0)


def test_a_loaded_model_is_what_it_says(here: Path) -> None:
    model = ModelLoader(style="llama3", compile="false")(find_model("small"))
    assert isinstance(model, ChatModel)
    assert model.style is style_named("llama3") and model.style_source == "the command line"
