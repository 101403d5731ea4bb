"""The programs to compare with, by name, and what each needs installed. No torch: the command line reads this first."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.programs import hf, litgpt, llamacpp, nanogpt, ours
from benchmarks.runner import RunSpec
from benchmarks.server_process import ServerSpec
from litgpt_core.core.errors import ConfigError, EnvironmentProblem

Peers = Mapping[str, Callable[..., RunSpec]]
"""Name -> function of the work and `label`."""

TRAIN_PEERS: Peers = {
    "bare": ours.bare,
    "nanogpt": partial(nanogpt.train, compiled=False),
    "nanogpt-compiled": partial(nanogpt.train, compiled=True),
    "litgpt": partial(litgpt.train, precision="32-true"),
    "litgpt-bf16": partial(litgpt.train, precision="bf16-mixed"),
    "hf": partial(hf.train, bf16=False),
    "hf-bf16": partial(hf.train, bf16=True),
    "hf-compiled": partial(hf.train, bf16=False, compiled=True),
    "hf-bf16-compiled": partial(hf.train, bf16=True, compiled=True),
}
GENERATE_PEERS: Peers = {
    "nanogpt": nanogpt.generate,
    "litgpt": partial(litgpt.generate, precision="32-true"),
    "litgpt-bf16": partial(litgpt.generate, precision="bf16-true"),
    "litgpt-bf16-compiled": partial(litgpt.generate, precision="bf16-true", compiled=True),
    "hf": partial(hf.generate, bf16=False),
    "hf-bf16": partial(hf.generate, bf16=True),
    "llamacpp-f16": partial(llamacpp.generate, kind="f16"),
    "llamacpp-q8_0": partial(llamacpp.generate, kind="q8_0"),
    "llamacpp-q4_0": partial(llamacpp.generate, kind="q4_0"),
}
SERVE_PEERS: Mapping[str, Callable[..., ServerSpec]] = {
    "llamacpp-f16": partial(llamacpp.serve, kind="f16"),
    "llamacpp-q8_0": partial(llamacpp.serve, kind="q8_0"),
}
"""Name -> function of the work, `label` and `slots`."""
PACKAGES = {"litgpt": ("litgpt",), "hf": ("transformers", "accelerate"), "llamacpp": ("xllamacpp", "gguf")}
"""Packages that a peer needs, by the first word of its name."""


def choose_peers(text: str, *, known: Iterable[str], nanogpt_dir: Path | None) -> tuple[str, ...]:
    """The peers that `--against` names, checked before anything starts.

    Args:
        text: Names separated by commas. The first word of several names, such as llamacpp, stands for all of them, and
            `all` for every peer.
        known: Every name there is.
        nanogpt_dir: The user's copy of nanoGPT.

    Raises:
        ConfigError: A name is unknown, or nanoGPT's folder is missing.
        EnvironmentProblem: A peer's package is not installed.
    """
    known = list(known)
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
    needed = "a folder that holds nanoGPT's " + ", ".join(nanogpt.FILES)
    fix = "--nanogpt_dir FOLDER (a clone of github.com/karpathy/nanoGPT), or leave nanogpt out of --against"
    if folder is None:
        raise ConfigError("--against nanogpt without --nanogpt_dir", needed=needed, fix=fix)
    if missing := [name for name in nanogpt.FILES if not (folder / name).is_file()]:
        raise ConfigError(f"--nanogpt_dir {folder}: no {', '.join(missing)} there", needed=needed, fix=fix)
    return folder.resolve()


def peer_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed versions of the packages that these peers need."""
    packages = {package for name in names for package in PACKAGES.get(_family(name), ())}
    return {package: importlib.metadata.version(package) for package in sorted(packages)}
