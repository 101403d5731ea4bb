"""What travels to a rented machine, and what stays: decided from git, the config and the run folder; then copied.

    code/       files that git tracks, as they are in the working tree; nothing else of the checkout
    code/light_compute_project/data/NAME-HASH/    the prepared data, where they exist, told by their fingerprint
    inputs/     the corpus or conversations that the config names, and `init_from`
    runs/NAME/  the run so far: config, rows of metrics, the newest complete checkpoint and the best one
    manifest.json   commit, changed files, fingerprint; checksums.json: size and SHA-256 of every file

`.git`, `.venv`, other runs and other data stay here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from litgpt_core.config.compose import TrainConfig
from litgpt_core.core.checkout import PROJECT_DIR, in_checkout
from litgpt_core.core.directories import new_directory
from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.core.files import sha256_of
from litgpt_core.core.replaceable import CHECKSUMS
from litgpt_core.core.source_code import git_state
from litgpt_core.data.settings import cache_folder

MANIFEST = "manifest.json"
STATE_FILES = ("config.yaml", "environment.json", "code.diff", "metrics.jsonl", "before.json", "log.jsonl")
"""Of a run folder, besides checkpoints: what a continued run needs, or a reader would miss."""


@dataclass(frozen=True)
class ParcelItem:
    """One file that travels."""

    source: Path
    target: str
    """Relative path in the parcel."""

    @property
    def kind(self) -> str:
        """`code`, `data`, `inputs` or `runs`."""
        first = self.target.split("/", 1)[0]
        return "data" if self.target.startswith(DATA_TARGET) else first


DATA_TARGET = "code/light_compute_project/data/"


@dataclass(kw_only=True)
class Contents:
    """What travels and what is to be known of it."""

    items: list[ParcelItem] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    """Settings by which the training finds what travelled; `$LCP_HERE` is the parcel's folder there."""
    commit: str = ""
    changed: list[str] = field(default_factory=list)
    """Tracked files that differ from the commit."""
    fingerprint: str = ""
    """Of the prepared data; empty: they are prepared on the machine."""
    notes: list[str] = field(default_factory=list)

    def bytes_of(self, kind: str) -> int:
        """Size of one kind."""
        return sum(item.source.stat().st_size for item in self.items if item.kind == kind)


def survey(config: TrainConfig, *, dirty: bool = False) -> Contents:
    """Decide what travels; nothing is copied, no file is read but git's index and small records.

    Raises:
        EnvironmentProblem: This is an installed package, or git is missing.
        ConfigError: Tracked files are changed and `dirty` is not given, or an input is missing.
    """
    found = Contents()
    _code(found, dirty=dirty)
    _data(found, config)
    _base(found, config)
    _run(found, config)
    return found


def pack(contents: Contents, folder: Path, *, texts: dict[str, str]) -> None:
    """Copy everything into `folder`, whole or not at all; a parcel that is there is replaced.

    Args:
        contents: Of `survey`.
        folder: The parcel.
        texts: More files by relative path: `node.sh`.
    """
    manifest = {
        "commit": contents.commit,
        "changed": contents.changed,
        "data_fingerprint": contents.fingerprint,
        "overrides": contents.overrides,
    }
    with new_directory(folder) as work:
        for item in contents.items:
            target = work / item.target
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(item.source, target)
        for name, text in {**texts, MANIFEST: json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"}.items():
            (work / name).write_text(text, encoding="utf-8")
        files = sorted(path for path in work.rglob("*") if path.is_file())
        listed = {
            path.relative_to(work).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
            for path in files
        }
        (work / CHECKSUMS).write_text(json.dumps(listed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# ---- code


def _code(found: Contents, *, dirty: bool) -> None:
    if not in_checkout():
        raise EnvironmentProblem(
            "renting a machine needs a checkout of the repository; this is an installed package",
            needed="a clone: its tracked files are what travels",
            fix="the same command in a clone",
        )
    root = PROJECT_DIR.parent
    names = [name for name in _git("ls-files", "-z").split("\0") if name]
    found.commit = str(git_state().get("commit", ""))
    found.changed = [name for name in _git("diff", "--name-only", "-z", "HEAD").split("\0") if name]
    if found.changed and not dirty:
        shown = ", ".join(found.changed[:5]) + (", ..." if len(found.changed) > 5 else "")
        raise ConfigError(
            f"{len(found.changed)} tracked files differ from the last commit: {shown}",
            needed="a clean working tree, so that the run can be repeated from its commit",
            fix="git commit, or --dirty to send the files as they are",
        )
    for name in names:
        path = root / name
        if path.is_file() and not path.is_symlink():
            found.items.append(ParcelItem(path, f"code/{name}"))


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(PROJECT_DIR.parent), "-c", "core.quotePath=false", *arguments],
            capture_output=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as problem:
        raise EnvironmentProblem(
            f"git could not say which files are tracked: {problem}", needed="git, and a clone of the repository"
        ) from problem
    return done.stdout.decode("utf-8", "surrogateescape")


# ---- data


def _data(found: Contents, config: TrainConfig) -> None:
    """The corpus, and the prepared folder where it is known without reading the corpus."""
    data = config.data
    if data.cache_dir != "data":
        found.overrides.append("data.cache_dir=data")  # of the checkout there
    prepared = prepared_folder(config)
    if prepared is not None:
        found.fingerprint = prepared[1]
        found.items += list(_below(prepared[0], DATA_TARGET + prepared[0].name))
    else:
        found.notes.append("the data are not prepared here: they will be prepared on the machine, while it is paid for")
    path = getattr(data, "path", None)
    if path is not None:
        source = Path(str(path)).expanduser()
        if not source.exists():
            raise ConfigError(f"data.path={path} does not exist", needed="a file or a folder")
        target = f"inputs/corpus/{source.resolve().name}"
        found.items += list(_below(source, target))
        found.overrides.append(f"data.path=$LCP_HERE/{target}")
    if data.kind == "tiny_shakespeare":
        found.items += [
            ParcelItem(file, DATA_TARGET + file.name)
            for file in sorted(cache_folder(data).glob("tiny*shakespeare*.txt"))
        ]
    if data.kind == "custom":
        found.notes.append(
            "data=custom calls your own function: what it reads must be tracked by git, or be downloaded"
        )


def prepared_folder(config: TrainConfig) -> tuple[Path, str] | None:
    """The prepared folder of a config and its fingerprint, if it is known without reading the corpus."""
    from litgpt_core.data.prepared import folder_problem, read_meta
    from litgpt_core.data.prepared_folder import content_settings, find_folder, tokenizer_identity
    from litgpt_core.data.settings import ChatDataSettings
    from litgpt_core.data.unchanged import find_unchanged, inputs_state

    data = config.data
    if isinstance(data, ChatDataSettings):
        return None  # its fingerprint needs every conversation read
    state = inputs_state(data)
    if state is not None:
        unchanged = find_unchanged(data, config.tokenizer, state)
        return None if unchanged is None else (unchanged, str(read_meta(unchanged)["fingerprint"]))
    for folder in sorted(cache_folder(data).glob(f"{data.name}-*")):
        if folder.is_dir() and not folder_problem(folder):
            meta = read_meta(folder)
            same = meta.get("data_settings") == content_settings(data)
            same = same and _same_tokenizer(meta.get("tokenizer_settings"), tokenizer_identity(config.tokenizer))
            if same and find_folder(data, fingerprint=str(meta["fingerprint"])) == folder:
                return folder, str(meta["fingerprint"])
    return None


def _same_tokenizer(recorded: object, wanted: dict[str, object]) -> bool:
    return isinstance(recorded, dict) and all(recorded.get(key) == value for key, value in wanted.items())


def _base(found: Contents, config: TrainConfig) -> None:
    if not config.init_from:
        return
    from litgpt_core.checkpoint.search import resolve

    source = resolve(Path(config.init_from).expanduser())
    found.items += list(_below(source, "inputs/base"))
    found.overrides.append("init_from=$LCP_HERE/inputs/base")


# ---- the run so far


def _run(found: Contents, config: TrainConfig) -> None:
    """What of an existing run folder continues it: the newest complete checkpoint, the best one, and its rows."""
    folder = config.run.folder.expanduser().resolve()
    name = config.run.name
    if not (folder / "config.yaml").is_file():
        return
    from litgpt_core.checkpoint.retention import BEST, newest_valid

    found.items += [
        ParcelItem(folder / file, f"runs/{name}/{file}") for file in STATE_FILES if (folder / file).is_file()
    ]
    newest = newest_valid(folder / "checkpoints")
    best = folder / "checkpoints" / BEST
    kept = {path.resolve() for path in (newest, best) if path is not None and path.exists()}
    for checkpoint in sorted(kept):
        found.items += list(_below(checkpoint, f"runs/{name}/checkpoints/{checkpoint.name}"))
    if newest is None:
        found.notes.append(f"{folder} has no complete checkpoint: the run starts at the first step")


def _below(source: Path, target: str) -> Iterator[ParcelItem]:
    """Files of a folder, or the file itself; links to files count as what they point to, links to folders not."""
    if source.is_file():
        yield ParcelItem(source, target)
        return
    for path in sorted(source.rglob("*")):
        if path.is_file():
            yield ParcelItem(path, f"{target}/{path.relative_to(source).as_posix()}")
