"""Which style a directory speaks for, and that what is saved is read back, by us and by LitGPT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from litgpt_core.core.errors import CheckpointError
from litgpt_core.prompts import Message, load_style, save_style, style_named, style_names
from litgpt_core.prompts.directory import explain_style
from litgpt_core.prompts.template import TemplateStyle

QUESTION = [Message(role="user", content="a")]


def write(path: Path, content: object) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def test_the_precedence_of_files(tmp_path: Path) -> None:
    assert load_style(tmp_path) is None
    write(tmp_path / "model_config.yaml", "name: phi-2\n")
    assert load_style(tmp_path) is style_named("phi-2")
    write(tmp_path / "tokenizer_config.json", {"chat_template": "T {{ messages[0].content }}", "eos_token": "</s>"})
    assert (style := load_style(tmp_path)) and style.prompt(QUESTION) == "T a"
    write(tmp_path / "chat_template.jinja", "F {{ messages[0].content }}")
    assert (style := load_style(tmp_path)) and style.prompt(QUESTION) == "F a"
    write(tmp_path / "prompt_style.yaml", "class_path: litgpt.prompts.Gemma\ninit_args: {}\n")
    assert load_style(tmp_path) is style_named("gemma")
    write(tmp_path / "chat_style.json", {"style": "llama3"})
    assert load_style(tmp_path) is style_named("llama3")
    assert explain_style(tmp_path)[1] == "chat_style.json"


def test_a_model_without_a_style_is_a_base_model(tmp_path: Path) -> None:
    write(tmp_path / "model_config.yaml", "name: pythia-14m\n")
    write(tmp_path / "tokenizer_config.json", {"tokenizer_class": "GPTNeoXTokenizer"})
    assert load_style(tmp_path) is None
    write(tmp_path / "prompt_style.yaml", "class_path: litgpt.prompts.Default\n")
    assert load_style(tmp_path) is None


def test_a_template_is_found_among_several_with_its_tokens(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "X"}, {"name": "default", "template": "{{ bos_token }}D{{ eos_token }}"}]
    tokens = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": None}
    write(tmp_path / "tokenizer_config.json", {"chat_template": named, **tokens})
    style = load_style(tmp_path)
    assert style and style.prompt(QUESTION) == "<s>D</s>"


@pytest.mark.parametrize("name", style_names())
def test_a_saved_style_is_loaded_again(name: str, tmp_path: Path) -> None:
    save_style(tmp_path, style_named(name))
    assert load_style(tmp_path) is style_named(name)


def test_a_template_is_saved_completely(tmp_path: Path) -> None:
    style = TemplateStyle(template="{{ eos_token }}ü", source="elsewhere", tokens={"eos_token": "</s>"})
    save_style(tmp_path / "new", style)
    again = load_style(tmp_path / "new")
    assert again and again.prompt(QUESTION) == style.prompt(QUESTION) == "</s>ü"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["chat_style.json"]


def test_litgpts_file_of_another_style_is_removed(tmp_path: Path) -> None:
    save_style(tmp_path, style_named("gemma"))
    assert yaml.safe_load((tmp_path / "prompt_style.yaml").read_text()) == {"class_path": "litgpt.prompts.Gemma"}
    save_style(tmp_path, style_named("human_assistant"))
    assert not (tmp_path / "prompt_style.yaml").exists(), "LitGPT would write another format than was learnt"


@pytest.mark.parity
def test_litgpt_reads_what_we_save_and_we_read_what_it_saves(tmp_path: Path) -> None:
    from litgpt import prompts

    for name, upstream in prompts.prompt_styles.items():
        save_style(tmp_path, style_named(name))
        assert type(prompts.load_prompt_style(tmp_path)) is upstream
        (tmp_path / "chat_style.json").unlink()
        prompts.save_prompt_style(name, tmp_path)
        assert load_style(tmp_path) is style_named(name)


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("chat_style.json", "{", "cannot be read"),
        ("chat_style.json", "[]", "holds a list"),
        ("chat_style.json", "{}", "does not name a style"),
        ("chat_style.json", '{"style": "llama33"}', "no prompt style 'llama33'"),
        ("prompt_style.yaml", "class_path: my_module.MyStyle\n", r"my_module\.MyStyle"),
        ("prompt_style.yaml", "class_path: litgpt.prompts.PromptStile\n", "PromptStile"),
        ("prompt_style.yaml", "a: [", "cannot be read"),
        ("tokenizer_config.json", "{", "cannot be read"),
    ],
)
def test_a_corrupted_file_is_reported(file: str, content: str, complaint: str, tmp_path: Path) -> None:
    write(tmp_path / file, content)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        load_style(tmp_path)
    assert file in caught.value.given


def test_a_custom_class_is_never_imported(tmp_path: Path) -> None:
    write(tmp_path / "evil.py", "raise SystemExit('imported')")
    write(tmp_path / "prompt_style.yaml", "class_path: evil.Style\n")
    with pytest.raises(CheckpointError, match="would run code"):
        load_style(tmp_path)


def test_a_directory_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "file", "")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_style(tmp_path / "file", style_named("alpaca"))
