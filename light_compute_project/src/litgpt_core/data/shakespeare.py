"""Tiny Shakespeare: copied from a mirror or downloaded once, checked against its hash, kept in `<cache_dir>/downloads`.

LIGHT_COMPUTE_DATA_MIRROR may name a folder, a file:// address or an http(s) address that holds `tiny_shakespeare.txt`
or `input.txt`; machines without a network use it.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from litgpt_core.core.errors import DataError
from litgpt_core.data.document import Corpus, Document, make_corpus, source_facts
from litgpt_core.data.settings import TinyShakespeareSettings, cache_folder

logger = logging.getLogger(__name__)

MIRROR_VARIABLE = "LIGHT_COMPUTE_DATA_MIRROR"
FILE_NAME = "tiny_shakespeare.txt"
MIRROR_NAMES = (FILE_NAME, "input.txt")
DOWNLOADS = "downloads"
_MIRROR_HINT = f"set {MIRROR_VARIABLE}=FOLDER where FOLDER holds {FILE_NAME} (or input.txt)"


def read_tiny_shakespeare(data: TinyShakespeareSettings) -> Corpus:
    """One document, the entire file: from the cache, else the mirror, else `data.url`.

    Raises:
        DataError: The file is not found, the network does not respond, or the bytes are not the expected ones.
    """
    document = Document("tiny_shakespeare", FILE_NAME, _file_bytes(data).decode("utf-8"))
    return make_corpus([document], [source_facts("tiny_shakespeare", [document])])


def _file_bytes(data: TinyShakespeareSettings) -> bytes:
    cached = cache_folder(data) / DOWNLOADS / FILE_NAME
    if cached.is_file():
        raw = cached.read_bytes()
        if not _wrong(raw, data):
            return raw
        logger.warning("data: %s is not the expected file (%s); fetching it again", cached, _wrong(raw, data))
    mirror = os.environ.get(MIRROR_VARIABLE, "").strip()
    folder = _mirror_folder(mirror)
    if folder is not None:
        return _checked(*_from_folder(folder), data)
    raw, origin = _from_mirror_address(mirror, data) if mirror else (_download(data.url, data), data.url)
    _checked(raw, origin, data)
    _keep(cached, raw)
    return raw


def _wrong(raw: bytes, data: TinyShakespeareSettings) -> str:
    """What is wrong with the bytes, or an empty string."""
    digest = hashlib.sha256(raw).hexdigest()
    if len(raw) == data.size_bytes and digest == data.sha256:
        return ""
    return f"{len(raw):,} bytes with sha256 {digest}"


def _checked(raw: bytes, origin: str, data: TinyShakespeareSettings) -> bytes:
    problem = _wrong(raw, data)
    if problem:
        raise DataError(
            f"{origin} is not the expected file: {problem}",
            needed=f"{data.size_bytes:,} bytes with sha256 {data.sha256}",
            fix=f"{_MIRROR_HINT}; run again if a download was cut short",
        )
    return raw


def _mirror_folder(mirror: str) -> Path | None:
    parts = urlsplit(mirror)
    if not mirror or parts.scheme in ("http", "https"):
        return None
    if parts.scheme == "file":
        return Path(urllib.request.url2pathname(parts.path))
    return Path(mirror).expanduser()


def _from_folder(folder: Path) -> tuple[bytes, str]:
    for name in MIRROR_NAMES:
        path = folder / name
        try:
            return path.read_bytes(), str(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}", fix=_MIRROR_HINT) from error
    raise DataError(
        f"{MIRROR_VARIABLE}={folder} holds neither {MIRROR_NAMES[0]} nor {MIRROR_NAMES[1]}",
        needed="a folder, file:// or http(s):// address with one of them",
        fix=f"{_MIRROR_HINT}, or unset {MIRROR_VARIABLE}",
    )


def _from_mirror_address(mirror: str, data: TinyShakespeareSettings) -> tuple[bytes, str]:
    for name in MIRROR_NAMES:
        address = f"{mirror.rstrip('/')}/{name}"
        try:
            return _download(address, data), address
        except DataError as error:
            if not isinstance(error.__cause__, urllib.error.HTTPError) or name == MIRROR_NAMES[-1]:
                raise
    raise AssertionError("unreachable: the last name either returned or raised")


def _download(url: str, data: TinyShakespeareSettings) -> bytes:
    logger.info("data: fetching %s", url)
    try:
        with urllib.request.urlopen(url, timeout=data.timeout_s) as response:
            return bytes(response.read(data.size_bytes + 1))  # one byte more than expected shows a wrong file
    except urllib.error.HTTPError as error:
        raise DataError(f"{url} returned {error.code} {error.reason}", fix=_MIRROR_HINT) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        slow = isinstance(error, TimeoutError) or isinstance(reason, TimeoutError)
        why = f"no response within data.timeout_s={data.timeout_s:g} s" if slow else f"{reason}"
        raise DataError(
            f"cannot fetch {url}: {why}",
            needed="a network, or the file on this machine",
            fix=f"{_MIRROR_HINT}; data=python_source needs no download",
        ) from error


def _keep(path: Path, raw: bytes) -> None:
    """Write the checked file atomically: another process sees no file or a complete one."""
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(raw)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(
            f"cannot write {path}: {error.strerror}",
            needed="a folder for downloads and prepared data that can be written",
            fix="data.cache_dir=/another/folder",
        ) from error
