"""Secrets are removed from text, commands and settings; ordinary code and special tokens stay."""

from __future__ import annotations

import time

import pytest

from litgpt_core.core.redaction import HIDDEN, redact, redact_command, redact_values

A, D = "aB1" * 14, "0a" * 20
SECRETS = [
    "+key = 'sk-" + "a1" * 15 + "'",
    f"+export WANDB_API_KEY={D}",
    '+{"api_key": "abcdefgh12345"}',
    "+password: 'correct-horse'",
    "+url = 'https://someone:hunter2@host.example/x'",
    f"+url = 'https://{A}@host.example/x'",
    f"+HF = 'hf_{A}'",
    "+id = AKIA" + "ABCDEFGH12345678",
    f'+wandb.login(key="{D}")',
    f'+wandb.login("{D}")',
    f"+x = 'glpat-{A}'",
    f"+x = 'npm_{A}'",
    f"+x = 'sk_live_{A}'",
    f"+x = 'ya29.{A}'",
    f"+x = 'pypi-{A}'",
    f"+x = 'eyJ{A}.eyJ{A}.{A}'",
    f"+    headers = 'Authorization: Bearer {A}'",
    f"+AccountName=x;AccountKey={A}==;EndpointSuffix=y",
    f"+https://hooks.slack.com/services/T{A}/B{A}/{A}",
    '+token = "my-own-token"',
    f'+token: "{A}"',
    '+passphrase = "four words and more"',
    "+password: hunter2hunter2",
    '+password = "with a space"',
    f'+    upload(key="{A}")',
]


@pytest.mark.parametrize("line", SECRETS)
def test_a_secret_is_removed(line: str) -> None:
    text, count = redact(line)
    assert count == 1 and text.count(HIDDEN) == 1 and text[0] == "+"
    secrets = ("a1a1", D, A, "12345", "horse", "hunter2", "my-own", "four words", "with a space")
    assert not any(part in text for part in secrets)
    assert redact(text) == (text, 0), "removing twice is removing once"


@pytest.mark.parametrize(
    "line",
    [
        "+    tokens_per_step = global_batch_size * block_size",
        "+    secret = compute_the_secret_of_this(argument)",
        "+tokenizer_fingerprint = 'abc'",
        "+    password = settings.password_from_the_environment",
        "+see https://example.org/page",
        '+    eos_token = "<|endoftext|>"',
        '+    rows.sort(key="validation_loss")',
        '+    key="transformer.h.0.attn.qkv.weight"',
        '+    token = "[PAD]"',
        "+git clone ssh://git@host.example/x.git",
        "+    max_tokens: 1024",
        "+bearer of good news",
    ],
)
def test_ordinary_lines_stay(line: str) -> None:
    assert redact(line) == (line, 0)


def test_a_private_key_is_removed_line_by_line() -> None:
    begin, end = ("-----" + f"{word} RSA PRIVATE KEY" + "-----" for word in ("BEGIN", "END"))
    text, count = redact(f"+before\n+{begin}\n+MIIEow\n+IBAAK\n+{end}\n+after")
    lines = text.split("\n")
    assert count == 1 and "MIIE" not in text and "IBAAK" not in text
    assert len(lines) == 6 and all(line.startswith("+") for line in lines)


def test_settings_lose_what_their_names_or_values_call_a_secret() -> None:
    plain = {
        "logger": {"kwargs": {"api_key": "short", "token": "t", "tags": ["a", f"hf_{A}"], "bos_token": "<s>"}},
        "data": {"path": "https://me:pass@host/x", "max_tokens": 5, "secret": None, "api_token": ""},
        "best_command": "lcp train logger.kwargs.api_key=short seed=1",
    }
    assert redact_values(plain) == {
        "logger": {"kwargs": {"api_key": HIDDEN, "token": HIDDEN, "tags": ["a", HIDDEN], "bos_token": "<s>"}},
        "data": {"path": f"https://{HIDDEN}@host/x", "max_tokens": 5, "secret": None, "api_token": ""},
        "best_command": f"lcp train logger.kwargs.api_key={HIDDEN} seed=1",
    }


def test_commands_lose_the_values_of_secret_options() -> None:
    command = "lcp serve --api_key 'my secret' --port 1; lcp train +a.password=x +tokenizer=byte trainer.max_tokens=5"
    expected = (
        f"lcp serve --api_key {HIDDEN} --port 1; lcp train +a.password={HIDDEN} +tokenizer=byte trainer.max_tokens=5"
    )
    assert redact_command(command) == expected


def test_a_long_text_takes_little_time() -> None:
    start = time.process_time()
    for text in ("a" * 300_000, "://" * 100_000, "password" * 40_000, "key='" * 60_000, "Bearer " * 40_000):
        redact(text)
    assert time.process_time() - start < 5
