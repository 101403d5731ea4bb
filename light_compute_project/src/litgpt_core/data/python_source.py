"""The Python sources of installed packages as a corpus: real text on every machine without a download.

Files come from each distribution's RECORD, which excludes caches and files that are not part of the wheel, and from
exact versions, so that every machine reads the same bytes. Nothing is imported or executed from these packages.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import logging

from litgpt_core.core.errors import DataError
from litgpt_core.data.document import Corpus, Document, make_corpus, source_facts
from litgpt_core.data.settings import PythonSourceSettings

logger = logging.getLogger(__name__)


def read_python_source(data: PythonSourceSettings) -> Corpus:
    """Every non-empty `.py` file of the named distributions, up to `max_file_bytes` each.

    Raises:
        DataError: A distribution is absent, has another version, lists no files, or a file is missing or not UTF-8.
            Problems of several distributions are reported together.
    """
    _check_versions(data.packages)
    documents: list[Document] = []
    facts = []
    for package, version in sorted(data.packages.items()):
        found = _read_distribution(package, max_file_bytes=data.max_file_bytes)
        if not found:
            raise DataError(
                f"the distribution {package} {version} holds no .py file of at most {data.max_file_bytes:,} bytes",
                needed="packages with Python sources",
                fix=f"remove {package} from data.packages",
            )
        documents += found
        facts.append(source_facts(package, found, version=version))
    return make_corpus(documents, facts)


def _check_versions(packages: dict[str, str]) -> None:
    problems = []
    for package, needed in sorted(packages.items()):
        try:
            installed = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{package} is not installed, {needed} is needed")
            continue
        if installed != needed:
            problems.append(f"{package} {installed} is installed, {needed} is needed")
    if problems:
        raise DataError(
            "python_source: " + "; ".join(problems),
            needed="exactly these versions, so that every machine trains on the same bytes",
            fix="uv sync; outside the repository: pip install "
            + " ".join(f"{package}=={version}" for package, version in sorted(packages.items()))
            + "   (or set data.packages.<name>=<installed version>: another corpus; losses cannot be compared)",
        )


def _read_distribution(package: str, *, max_file_bytes: int) -> list[Document]:
    distribution = importlib.metadata.distribution(package)
    if distribution.files is None:
        raise DataError(
            f"the installed {package} has no list of its files (RECORD)",
            needed="a package installed from a wheel",
            fix="uv sync --reinstall-package " + package,
        )
    documents, left_out, edited = [], [], []
    for entry in sorted(distribution.files, key=lambda path: path.as_posix()):
        if entry.suffix != ".py" or ".." in entry.parts:
            continue
        raw = _read_entry(entry, package)
        if len(raw) > max_file_bytes:
            left_out.append(f"{entry.as_posix()} ({len(raw):,} bytes)")
        elif raw.strip():
            documents.append(Document(package, entry.as_posix(), _decode(raw, entry)))
            if _differs_from_record(entry, raw):
                edited.append(entry.as_posix())
    if left_out:
        logger.debug("data: left out of %s, above %s bytes: %s", package, f"{max_file_bytes:,}", ", ".join(left_out))
    if edited:
        logger.warning(
            "data: %d file(s) of %s were edited after installation (first: %s); other machines have another corpus",
            len(edited),
            package,
            edited[0],
        )
    return documents


def _read_entry(entry: importlib.metadata.PackagePath, package: str) -> bytes:
    try:
        return bytes(entry.read_binary())
    except OSError as error:
        raise DataError(
            f"cannot read {entry.as_posix()} of the installed {package}: {error.strerror}",
            needed="the package as its wheel installed it",
            fix="uv sync --reinstall-package " + package,
        ) from error


def _decode(raw: bytes, entry: importlib.metadata.PackagePath) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{entry.as_posix()} is not UTF-8 (byte {error.start})",
            needed="Python sources in UTF-8",
            fix="lower data.max_file_bytes or remove this package from data.packages",
        ) from error


def _differs_from_record(entry: importlib.metadata.PackagePath, raw: bytes) -> bool:
    if entry.hash is None or entry.hash.mode != "sha256":
        return False
    return base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).rstrip(b"=").decode() != entry.hash.value
