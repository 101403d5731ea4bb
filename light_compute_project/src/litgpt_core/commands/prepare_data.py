"""Read a corpus, train its tokenizer, write token shards for training: `lcp data data=... tokenizer=...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from litgpt_core.core.command_line import program_of, wants_help


def main(arguments: Sequence[str]) -> int:
    """Compose data and tokenizer settings as training does, prepare, print what was made."""
    from litgpt_core.config.source import option_names

    if wants_help(arguments):
        sys.stdout.write(_usage(option_names("data"), option_names("tokenizer"), option_names("experiment")))
        return 0
    _refuse_other_settings(arguments)
    from litgpt_core.config.compose import load
    from litgpt_core.data.prepare import prepare

    config = load(arguments)
    prepared = prepare(config.data, config.tokenizer)
    lines = {
        "folder": str(prepared.directory),
        "train": f"{prepared.train_tokens:,} tokens",
        "val": f"{prepared.val_tokens:,} tokens, {prepared.val_bytes:,} bytes",
        "vocabulary": f"{prepared.vocab_size:,} ids ({prepared.meta['tokenizer']['kind']}), stored as {prepared.dtype}",
        "to beat": ", ".join(f"{name} {loss:.4f}" for name, loss in prepared.references.items())
        + " nats per val token",
    }
    sys.stdout.writelines(f"{name:<12}{value}\n" for name, value in lines.items())
    return 0


def _usage(data: list[str], tokenizers: list[str], experiments: list[str]) -> str:
    return (
        f"usage: {program_of('data')} [data=NAME] [data.KEY=VALUE ...] [tokenizer=NAME] [tokenizer.KEY=VALUE ...] "
        "[+experiment=NAME]\n\n"
        f"  data        {', '.join(data)}\n"
        f"  tokenizer   {', '.join(tokenizers)}\n"
        f"  experiment  {', '.join(experiments)}   (its data and tokenizer are prepared)\n\n"
        "Training prepares what it needs by itself; this does it beforehand.\n"
        "Settings: configs/data/, configs/tokenizer/. "
        f"Example: {program_of('data')} data=text data.path=my_texts tokenizer=bpe\n"
    )


def _refuse_other_settings(arguments: Sequence[str]) -> None:
    from litgpt_core.core.errors import ConfigError

    keys = {text: text.lstrip("+~").partition("=")[0].split(".")[0] for text in arguments}
    others = [text for text, key in keys.items() if key not in ("data", "tokenizer", "experiment")]
    if others:
        raise ConfigError(
            f"{', '.join(others)} has no effect on the prepared data",
            needed="data, tokenizer or experiment settings only",
            fix=f"{program_of('data')} --help",
        )
