"""Removes what looks like a key, a token or a password from text and settings before they are written down.

A best effort by patterns: keys of well-known services by their form, and values under names such as `password`. What it
knows is listed in docs/security.md. It errs to one side: an ordinary line of code or a tokenizer's special token stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[removed: looks like a secret]"

_NAME = (
    r"api_?key|secret|passw(?:or)?d|passphrase|credentials?|private_?key|account_?key|access_?key"
    r"|(?:access|auth|api|refresh|id|bot|session)_?token"
)
_PATTERNS = (
    # keys of services, by their form; every repetition behind a name is bounded, so that the time grows with the length
    re.compile(r"\b(?:sk|rk|pk)-[A-Za-z0-9_-]{20,}|\bhf_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}"),
    re.compile(
        r"\bgithub_pat_[A-Za-z0-9_]{30,}|\bA[KS]IA[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{35}|\bxox[abeprs]-[\w-]{10,}"
    ),
    re.compile(r"\bglpat-[\w-]{16,}|\bnpm_[A-Za-z0-9]{30,}|\bpypi-[\w-]{40,}|\b[sr]k_(?:live|test)_[A-Za-z0-9]{10,}"),
    re.compile(r"\bya29\.[\w-]{16,}|\bSG\.[\w-]{16,}\.[\w-]{16,}|\bdop_v1_[a-f0-9]{40,}"),
    re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"),
    re.compile(r"(?<=hooks\.slack\.com/services/)[\w/-]{16,}|(?<=discord\.com/api/webhooks/)[\w/-]{16,}"),
    # what follows a word that says so
    re.compile(r"(?i)(?P<name>\b(?:bearer|basic))(?P<between>\s+)(?P<value>[A-Za-z0-9._~+/-]{16,}={0,2})"),
    re.compile(r"(?P<name>\b(?:AccountKey|SharedAccessKey|sig))(?P<between>=)(?P<value>[A-Za-z0-9+/%_-]{20,}={0,2})"),
    re.compile(r"(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)|(?<=://)(?=[^/\s@\"']*\d)[\w.~-]{12,}(?=@)"),
    re.compile(
        rf"(?i)(?P<name>{_NAME})"
        r"(?P<between>\w{0,40}[\"']?\s{0,20}[:=]\s{0,20})"
        r"(?P<value>\"[^\"\n]{8,}\"|'[^'\n]{8,}'|(?=[A-Za-z_\-/+=]{0,200}\d)[\w\-/+=]{20,})"
    ),
    re.compile(
        r"(?i)(?P<name>passw(?:or)?d|passphrase)(?P<between>\w{0,40}[\"']?\s{0,20}[:=]\s{0,20})"
        r"(?P<value>(?=[^\s\"'(){}\[\],;]{0,200}\d)[^\s\"'(){}\[\],;]{8,})"
    ),
    # a random-looking value under `token` or `key`: 20 characters or more, digits and letters
    re.compile(
        r"(?i)(?P<name>\b\w*(?:token|key))(?P<between>[\"']?\s*[:=]\s*)"
        r"(?P<value>(?P<q>[\"'])(?=[^\"']{0,200}\d)(?=[^\"']{0,200}[a-z])[\w+/=~-]{16,}(?P=q))"
    ),
    re.compile(r"(?i)(?P<name>\btoken)(?P<between>\s*[:=]\s*)(?P<value>(?P<q>[\"'])[^\"'<>\[\]|\s]{8,}(?P=q))"),
    re.compile(r"(?i)(?P<name>wandb\.login)(?P<between>\(\s*)(?P<value>[\"'][0-9a-f]{40}[\"'])"),
)
_PRIVATE_KEY = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)(.*?)(-----END [A-Z ]*PRIVATE KEY-----)", re.DOTALL)
_SECRET_KEY = re.compile(rf"(?i)(?:.*_)?(?:{_NAME})|token|auth|authorization")


def redact(text: str) -> tuple[str, int]:
    """The text without what looks like a secret, and how many places that were."""
    count = 0

    def one(match: re.Match[str]) -> str:
        nonlocal count
        named = match.groupdict()
        if HIDDEN in match[0]:
            return match[0]
        count += 1
        return f"{named['name']}{named['between']}{HIDDEN}" if "name" in named else HIDDEN

    def key(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        marks = [line[:1] for line in match[2].split("\n")[1:]]  # a patch begins its lines with + or -
        return (
            match[1]
            + "".join(f"\n{mark if mark in '+- ' else ''}{HIDDEN}" for mark in marks[:-1])
            + (f"\n{marks[-1] if marks[-1] in '+- ' else ''}{match[3]}" if marks else match[3])
        )

    text = _PRIVATE_KEY.sub(key, text)
    for pattern in _PATTERNS:
        text = pattern.sub(one, text)
    return text, count


def redact_command(command: str) -> str:
    """A command line without secrets: also without the value of every `NAME=value` and `--NAME value` that says so."""
    pattern = rf"(?i)(?P<name>(?:--)?[\w.]*(?:{_NAME})|--token)(?P<between>=|\s+)(?P<value>'[^']*'|\"[^\"]*\"|\S+)"
    return redact(re.sub(pattern, rf"\g<name>\g<between>{HIDDEN}", command))[0]


def redact_values(value: Any, *, key: str = "") -> Any:
    """Settings without secrets: strings under a name that says so, and what `redact` finds in other strings.

    Args:
        value: Nested dicts, lists and plain values; returned anew.
        key: The name that `value` is under.
    """
    if isinstance(value, Mapping):
        return {name: redact_values(each, key=str(name)) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(each, key=key) for each in value]
    if not isinstance(value, str):
        return value
    if value and _SECRET_KEY.fullmatch(key):
        return HIDDEN
    return redact_command(value) if key.endswith("command") else redact(value)[0]
