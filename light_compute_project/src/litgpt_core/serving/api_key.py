"""The server's API key: from a file, the environment, or the command line, where `ps` shows it to everybody."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from litgpt_core.core.errors import ConfigError

logger = logging.getLogger(__name__)

KEY_VARIABLE = "LIGHT_COMPUTE_API_KEY"
_MOST_BYTES = 4096


def chosen_key(given: str | None, file: Path | None, variable: str | None) -> str | None:
    """The key; None if there is none anywhere.

    Args:
        given: Of the command line. Used with a warning.
        file: Holds the key and nothing else; white space around it is removed.
        variable: The value of `LIGHT_COMPUTE_API_KEY`; the other two overrule it.

    Raises:
        ConfigError: Both a key and a file were given, or the file cannot be read or holds no key.
    """
    if file is not None:
        if given is not None:
            raise ConfigError("--api_key and --api_key_file were given together.", needed="one of them")
        return _read(file)
    if given is not None:
        logger.warning(
            "--api_key shows the key to other users of this machine; safer: --api_key_file, or %s", KEY_VARIABLE
        )
        return given
    return variable


def _read(file: Path) -> str:
    fix = (
        f"write the key into a file that only you can read: umask 077; python -c 'import secrets; "
        f"print(secrets.token_urlsafe())' > {file}"
    )
    try:
        with file.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
            mode = os.fstat(stream.fileno()).st_mode
        key = content.decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is not text"
        raise ConfigError(
            f"The key file {file} cannot be read: {reason}.", needed="a file with the key", fix=fix
        ) from None
    if not key or len(content) > _MOST_BYTES or any(c.isspace() for c in key):
        raise ConfigError(f"The key file {file} does not hold one key.", needed="one line, without spaces", fix=fix)
    if os.name == "posix" and mode & 0o077:
        logger.warning("other users can read the key file %s; to change it: chmod 600 %s", file, file)
    return key
