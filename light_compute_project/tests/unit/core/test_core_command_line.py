"""One style of options; commands that are recorded can be read back; a child is started the same way everywhere."""

from __future__ import annotations

import sys

import pytest

from litgpt_core.core.command_line import (
    CommandParser,
    YesNo,
    child_command,
    command_for_record,
    program_of,
    recorded_arguments,
    with_underscores,
)


@pytest.fixture
def parser() -> CommandParser:
    made = CommandParser("generate")
    made.add_argument("words", nargs="*")
    made.add_argument("--max_new_tokens", type=int, default=1)
    made.add_argument("--stop_at_eos", action=YesNo, default=True)
    made.add_argument_group("others").add_argument("--top_k", type=int)
    return made


def test_hyphens_and_underscores_are_the_same(parser: CommandParser) -> None:
    for form in (["--max_new_tokens", "3"], ["--max-new-tokens", "3"], ["--max-new-tokens=3"], ["--max-new", "3"]):
        assert parser.parse_args(form).max_new_tokens == 3
    assert parser.parse_args(["--top-k=5"]).top_k == 5
    assert parser.parse_intermixed_args(["a", "--top-k", "5", "b-c"]).words == ["a", "b-c"]


def test_values_keep_their_hyphens() -> None:
    given = ["--sbatch=--gres-flags=a-b", "a-b=c", "-m", "--", "--keep-this"]
    assert with_underscores(given) == given
    assert with_underscores(["--no-stop_at_eos", "--log-file=my-log"]) == ["--no_stop_at_eos", "--log_file=my-log"]


def test_an_option_has_its_opposite(parser: CommandParser) -> None:
    assert parser.parse_args([]).stop_at_eos is True
    for form in ("--no_stop_at_eos", "--no-stop_at_eos", "--no-stop-at-eos"):
        assert parser.parse_args([form]).stop_at_eos is False
    assert parser.parse_args(["--no_stop_at_eos", "--stop-at-eos"]).stop_at_eos is True


def test_a_misspelt_option_is_answered_with_the_nearest(
    parser: CommandParser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--max-mew-tokens", "3"])
    assert end.value.code == 2
    assert "did you mean --max_new_tokens" in capsys.readouterr().err


def test_records_say_how_the_command_was_called_and_are_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["+experiment=smoke", "data.path=my texts"]
    monkeypatch.setattr(sys, "argv", ["some/scripts/train.py", *arguments])
    assert program_of("train") == "train.py"
    by_script = command_for_record("train", arguments)
    assert by_script == "python some/scripts/train.py +experiment=smoke 'data.path=my texts'"
    for started in ("/some/bin/lcp", "/some/litgpt_core/__main__.py"):
        monkeypatch.setattr(sys, "argv", [started, "train", *arguments])
        assert program_of("train") == "lcp train"
        by_command = command_for_record("train", arguments)
        assert by_command == "lcp train +experiment=smoke 'data.path=my texts'"
    for command in (by_script, by_command, "uv run lcp train +experiment=smoke 'data.path=my texts'"):
        assert recorded_arguments(command, verb="train", script="train.py") == arguments
    assert recorded_arguments("lcp chat x", verb="train", script="train.py") == []


def test_a_child_does_not_import_from_the_current_folder() -> None:
    command = child_command("train", "seed=1")
    assert command[0] == sys.executable and command[-2:] == ["train", "seed=1"]
    assert "-P" in command[1 : command.index("-m")]
