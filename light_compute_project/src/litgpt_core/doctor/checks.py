"""Checks of an installation: machine, packages, LitGPT, configs, git. Nothing is changed.

`examine` yields findings as they come; `scripts/doctor.py` prints them.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Iterator
from pathlib import Path

from litgpt_core.core.errors import LightComputeError
from litgpt_core.doctor.kernel_rate import check_kernel
from litgpt_core.doctor.machine import (
    Finding,
    check_machine,
    check_packages,
    check_python,
    check_runs,
    check_torch,
    finding,
    start_torch,
)
from litgpt_core.upstream.git import Git
from litgpt_core.upstream.pin import import_folder, installed_package
from litgpt_core.upstream.state import open_repository, refuse_unless_ready
from litgpt_core.upstream.verify import verify

_WANDB_HOST = "api.wandb.ai"
_DAMAGED = "see light_compute_project/docs/upstream.md"


def examine(root: Path | None, *, folder: Path) -> Iterator[Finding]:
    """Every check, in the order of the report.

    Args:
        root: Top folder of the checkout; None: the package is installed from a wheel, and nothing of a checkout is
            checked.
        folder: The working directory, in which `runs/` will be.
    """
    torch = start_torch()
    yield from check_python(root)
    yield from check_packages(root)
    if root is not None:
        yield from check_litgpt(root)
    yield from check_machine(root or folder)
    yield check_runs(folder)
    yield check_wandb()
    if root is not None:
        yield from check_git(root)
    yield check_configs()
    yield from check_torch(torch)
    yield from check_kernel()


def render(item: Finding) -> str:
    """One finding as a line, with the fix below it."""
    line = f"{item.level:<5} {item.name:<16} {item.found}"
    return f"{line}\n      {'':<16} try: {item.fix}" if item.fix else line


def check_litgpt(root: Path) -> Iterator[Finding]:
    """The installed wheel and a synced tree against their tags, and which of them an import takes."""
    for result in verify(root):
        first, *rest = (line.strip() for line in result.render().splitlines())
        found = first.split(maxsplit=1)[1]
        if result.differences:
            found += f"; {len(result.differences)} files differ, the first: {rest[0]}"
        yield finding("LitGPT", found, level="ok" if result.good else "fail", fix=result.fix or _DAMAGED)
    try:
        installed, taken = installed_package().folder, import_folder()
    except LightComputeError:
        return  # said above
    if taken is None or taken.resolve() != installed.resolve():
        found = f"`import litgpt` takes {taken}, not the verified wheel"
        yield finding("LitGPT", found, level="warn", fix="unset PYTHONPATH, and start scripts by their path")


def check_wandb() -> Finding:
    """Whether Weights & Biases will log online. Both are fine: no key is required."""
    if mode := os.environ.get("WANDB_MODE"):
        return finding("W&B", f"WANDB_MODE={mode}")
    if os.environ.get("WANDB_API_KEY"):
        return finding("W&B", "key in WANDB_API_KEY: runs are logged online")
    for name in (".netrc", "_netrc"):
        path = Path.home() / name
        try:
            if path.is_file() and netrc.netrc(str(path)).authenticators(_WANDB_HOST):
                return finding("W&B", f"key in {name}: runs are logged online")
        except (OSError, netrc.NetrcParseError) as error:
            return finding("W&B", f"{name} cannot be read: {error}", level="warn", fix="uv run wandb login")
    return finding("W&B", "no key: runs are logged offline (uv run wandb login changes that)")


def check_configs() -> Finding:
    """Whether the default config and every experiment compose and pass the check."""
    from litgpt_core.config.compose import load
    from litgpt_core.config.source import option_names, placeholders

    names, wrong = sorted(option_names("experiment")), []
    for name in ["", *names]:
        try:
            load([f"+experiment={name}", *placeholders(name)] if name else [])
        except LightComputeError as error:
            wrong.append(f"{name or 'train.yaml'}: {error.given.splitlines()[0]}")
    if wrong:
        return Finding(
            level="fail", name="configs", found="; ".join(wrong), fix="git diff light_compute_project/configs"
        )
    return Finding(level="ok", name="configs", found=f"train.yaml and {len(names)} experiments compose")


def check_git(root: Path) -> Iterator[Finding]:
    """The checkout: whether git works, what is in progress, and whether a rule ignores a file of this project."""
    try:
        git = open_repository(root)
    except LightComputeError as error:
        yield finding("git", error.given, level="warn", fix=error.fix or "git clone, if you want to commit")
        return
    try:
        branch = refuse_unless_ready(git, clean=False)
        yield finding("git", f"on {branch}, {git.text('rev-parse', '--short', 'HEAD')}")
    except LightComputeError as error:
        yield finding("git", error.given, level="warn", fix=error.fix)
    if hidden := hidden_files(git):
        found = f"ignores {len(hidden)} files of this project, the first: {hidden[0]}"
        fix = "remove the rule, or add !NAME to light_compute_project/.gitignore"
        yield finding(".gitignore", found, level="fail", fix=fix)
    else:
        yield finding(".gitignore", "ignores no file of this project")


def hidden_files(git: Git) -> list[str]:
    """Files of this project that a rule ignores, each with the rule; a new file next to them would not be committed."""
    top = git.root / "light_compute_project"
    names = [
        path.relative_to(git.root).as_posix()
        for folder in ("configs", "docs", "metrics", "scripts", "src", "tests", "upstream")
        for path in (top / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".md", ".json", ".png") and path.is_file() and not path.name.startswith(".")
    ]
    if not names:
        return []
    try:
        found = git.run("check-ignore", "--no-index", "--verbose", "-z", "--stdin", stdin="\0".join(names).encode())
    except LightComputeError:
        return []  # exit code 1: no rule fits any of them
    fields = found.decode("utf-8", "surrogateescape").split("\0")
    rows = zip(fields[0::4], fields[1::4], fields[2::4], fields[3::4], strict=False)
    return [f"{path} ({source}:{line}: {rule})" for source, line, rule, path in rows if not rule.startswith("!")]
