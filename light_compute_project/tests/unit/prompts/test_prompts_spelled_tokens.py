"""Messages and documents that spell special tokens of a foreign tokenizer stay text; markers of a style are tokens."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from litgpt_core import tokenizers
from litgpt_core.data.document import Document
from litgpt_core.data.prepare import prepare
from litgpt_core.data.settings import TextSettings
from litgpt_core.data.shards import write_shard
from litgpt_core.prompts import Message, encode_conversation, encode_prompt, style_named
from litgpt_core.prompts.spelled_tokens import replace_spelled
from litgpt_core.prompts.template import TemplateStyle
from litgpt_core.tokenizers.settings import PretrainedSettings

TEXT = Path(__file__).read_text(encoding="utf-8")
START, END = "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory from elsewhere: byte-level BPE with two chat markers as special tokens."""
    folder = tmp_path_factory.mktemp("foreign")
    tokenizers.train(tokenizers.SubwordSettings(kind="bpe", vocab_size=300), [TEXT]).save(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"] += [
        {"id": 300 + i, "content": t, **flags, "special": True} for i, t in enumerate((START, END))
    ]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> tokenizers.Tokenizer:
    return tokenizers.load(folder)


def dialogue(*contents: str) -> list[Message]:
    return [Message(role="assistant" if i % 2 else "user", content=content) for i, content in enumerate(contents)]


STYLES = [style_named("chatml"), TemplateStyle(template=TEMPLATE, source="here", tokens={"eos_token": END})]


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
@pytest.mark.parametrize("spelled", [END, START, END + START, "<|endoftext|>", f"a{END}b\U000f0000", END * 3])
def test_a_message_that_spells_a_token_does_not_get_it(style, spelled, tokenizer) -> None:
    messages = dialogue(f"Hi {spelled} you", f"{spelled}!", "Bye")
    ids, _ = encode_conversation(style, tokenizer, messages)
    prompt = encode_prompt(style, tokenizer, messages)
    plain, _ = encode_conversation(style, tokenizer, dialogue("Hi", "!", "Bye"))
    for special in (300, 301, tokenizer.encode("<|endoftext|>")[0]):
        assert ids.count(special) == plain.count(special), "exactly those of the markup"
    text = b"".join(tokenizer.token_bytes(i) or b"" for i in ids).decode()
    assert f"Hi {spelled} you" in text and f"\n{spelled}!" in text, "nothing of the text is lost"
    assert prompt[: len(ids)] == ids[: len(prompt)]


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_other_messages_have_the_ids_of_the_whole_text(style, tokenizer) -> None:
    ids = encode_prompt(style, tokenizer, dialogue("Hello < | im_end", "Hello", "user"))
    markup = f"{START}user\nHello < | im_end{END}\n{START}assistant\n"
    assert ids[: len(tokenizer.encode(markup))] == tokenizer.encode(markup)


def test_tokenizers_trained_here_have_no_such_spellings(tmp_path: Path) -> None:
    ours = tokenizers.train(tokenizers.SubwordSettings(kind="bpe", vocab_size=300), [TEXT])
    messages = dialogue("a <|endoftext|> b")
    assert ours.special_names() == frozenset() and replace_spelled(messages, ours) == (messages, {})


def test_documents_keep_spelled_tokens_as_text(tokenizer, tmp_path: Path) -> None:
    text = f"one{END}two <|endoftext|>{START}"
    facts = write_shard(tmp_path / "x.bin", [Document("s", "a", text)], tokenizer=tokenizer, append_eos=True)
    plain = tokenizer.encode_plain_batch([text, "Hello"])
    assert plain[1] == tokenizer.encode("Hello") and facts.tokens == len(plain[0]) + 1
    assert b"".join(tokenizer.token_bytes(i) or b"" for i in plain[0]).decode() == text
    assert 301 in tokenizer.encode(text) and not set(plain[0]) & {300, 301}


def test_a_corpus_that_spells_tokens_is_prepared_again_and_it_is_said(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fingerprint(extra: str) -> str:
        (tmp_path / "a.txt").write_text("".join(f"line {i}{extra}\n" for i in range(200)))
        settings = TextSettings(path=str(tmp_path / "a.txt"), cache_dir=str(tmp_path / "cache"))
        return prepare(settings, PretrainedSettings(path=str(folder))).fingerprint

    fingerprint("")
    assert "spells special tokens" not in caplog.text
    with caplog.at_level(logging.WARNING):
        fingerprint(END)
    assert f"spells special tokens of the tokenizer, which stay ordinary text: {END} (200 times)" in caplog.text
