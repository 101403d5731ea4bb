"""Read a corpus, train its tokenizer, write token shards for training: `lcp data data=... tokenizer=...`.

`lcp data inspect PATH` and `lcp data convert FOLDER --to FORMAT OUT` are in `inspect_data` and `convert_data`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from litgpt_core.core.command_line import program_of, wants_help


def main(arguments: Sequence[str]) -> int:
    """Compose data and tokenizer settings as training does, prepare, print what was made."""
    if arguments[:1] == ["inspect"]:
        from litgpt_core.commands.inspect_data import main as inspect

        return inspect(arguments[1:])
    if arguments[:1] == ["convert"]:
        from litgpt_core.commands.convert_data import main as convert

        return convert(arguments[1:])
    from litgpt_core.config.source import option_names

    arguments = arguments[1:] if arguments[:1] == ["prepare"] else arguments
    if wants_help(arguments):
        sys.stdout.write(_usage(option_names("data"), option_names("tokenizer"), option_names("experiment")))
        return 0
    dry_run = [word for word in arguments if word in ("--dry_run", "--dry-run")]
    arguments = [word for word in arguments if word not in dry_run]
    _refuse_other_settings(arguments)
    from litgpt_core.config.compose import load

    config = load(arguments)
    if dry_run:
        from litgpt_core.data.stream.dry_run import dry_run_lines

        lines = dry_run_lines(config.data, config.tokenizer)
    else:
        from litgpt_core.data.prepare import prepare, summary_lines

        lines = summary_lines(prepare(config.data, config.tokenizer))
    sys.stdout.writelines(f"{name:<12}{value}\n" for name, value in lines.items())
    return 0


def _usage(data: list[str], tokenizers: list[str], experiments: list[str]) -> str:
    return (
        f"usage: {program_of('data')} [data=NAME] [data.KEY=VALUE ...] [tokenizer=NAME] [tokenizer.KEY=VALUE ...] "
        "[+experiment=NAME] [--dry_run]\n"
        f"       {program_of('data')} inspect PATH       what is in a corpus or a prepared folder\n"
        f"       {program_of('data')} convert FOLDER OUT --to FORMAT      shards for another project\n\n"
        f"  data        {', '.join(data)}\n"
        f"  tokenizer   {', '.join(tokenizers)}\n"
        f"  experiment  {', '.join(experiments)}   (its data and tokenizer are prepared)\n"
        "  --dry_run   chunks, tokens, disk and minutes of a large corpus; writes nothing\n\n"
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
