"""Who can be raced against, and what each needs to be here. Light: the command line reads it before anything else."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.errors import ConfigError, EnvironmentProblem

TRAIN_PEERS = (
    "bare",
    "nanogpt",
    "nanogpt-compiled",
    "litgpt",
    "litgpt-bf16",
    "hf",
    "hf-bf16",
    "hf-compiled",
    "hf-bf16-compiled",
)
GENERATE_PEERS = (
    "nanogpt",
    "litgpt",
    "litgpt-bf16",
    "litgpt-bf16-compiled",
    "hf",
    "hf-bf16",
    "llamacpp-f16",
    "llamacpp-q8_0",
)
PACKAGES = {"litgpt": ("litgpt",), "hf": ("transformers", "accelerate"), "llamacpp": ("xllamacpp", "gguf")}
"""What each peer needs installed, by the first word of its name."""
NANOGPT_FILES = ("train.py", "model.py", "configurator.py")


def choose_peers(text: str, *, known: Sequence[str], nanogpt_dir: Path | None) -> tuple[str, ...]:
    """The peers that `--against` names, checked before anything is started.

    Args:
        text: Names with commas between them. A family's name that is no peer's, such as llamacpp, means all of its
            kind, and `all` means everybody.
        known: Every name there is.
        nanogpt_dir: The user's copy of nanoGPT.

    Raises:
        ConfigError: A name is unknown or stands twice, or nanoGPT's folder is not there.
        EnvironmentProblem: A peer's package is not installed.
    """
    names: list[str] = []
    for name in (part.strip() for part in text.split(",") if part.strip()):
        meant = [n for n in known if n == name] or [n for n in known if name in ("all", _family(n))]
        if not meant:
            raise ConfigError(
                f"--against {name}", needed="any of " + ", ".join(known), fix=f"--against {known[-1]}, or --against all"
            )
        names += [n for n in meant if n not in names]
    for name in names:
        if _family(name) == "nanogpt":
            check_nanogpt(nanogpt_dir)
        if missing := [p for p in PACKAGES.get(_family(name), ()) if importlib.util.find_spec(p) is None]:
            raise EnvironmentProblem(
                f"--against {name}: not installed here: {', '.join(missing)}",
                needed="the peers' packages",
                fix="uv sync --group peers, or leave it out of --against",
            )
    return tuple(names)


def _family(name: str) -> str:
    return name.split("-")[0]


def check_nanogpt(folder: Path | None) -> Path:
    """The user's folder, if it is nanoGPT.

    Raises:
        ConfigError: No folder was named, or files are missing in it.
    """
    needed = "a folder that holds nanoGPT's " + ", ".join(NANOGPT_FILES)
    fix = "--nanogpt_dir FOLDER (a clone of github.com/karpathy/nanoGPT), or leave nanogpt out of --against"
    if folder is None:
        raise ConfigError("--against nanogpt without --nanogpt_dir", needed=needed, fix=fix)
    if missing := [name for name in NANOGPT_FILES if not (folder / name).is_file()]:
        raise ConfigError(f"--nanogpt_dir {folder}: no {', '.join(missing)} there", needed=needed, fix=fix)
    return folder.resolve()


def peer_versions(names: Sequence[str]) -> dict[str, str]:
    """Installed versions of the packages that these peers need."""
    packages = {package for name in names for package in PACKAGES.get(_family(name), ())}
    return {package: importlib.metadata.version(package) for package in sorted(packages)}
