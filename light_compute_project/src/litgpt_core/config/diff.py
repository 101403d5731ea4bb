"""Compare two composed configs, key by key, or by one hash. Plain values in, plain lines out."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_ABSENT = object()

LATER_SECTIONS = ("qat", "distill")
"""Sections that configs of earlier versions lack: null says the same."""

PLACES = ("run", "logger")
"""Sections of a training config that say where a run lies and what is logged where; no number depends on them."""


def flatten(plain: dict[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, prefix=f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str]]:
    """Keys whose values differ, each with a readable line `key: old -> new`."""
    old, new = flatten(before), flatten(after)
    result = []
    for key in [*old, *(k for k in new if k not in old)]:
        a, b = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if a != b:
            result.append((key, f"{key}: {_show(a)} -> {_show(b)}"))
    return result


def without_empty_sections(plain: dict[str, Any]) -> dict[str, Any]:
    """The config without those of `LATER_SECTIONS` that are null or absent, which is the same."""
    return {key: value for key, value in plain.items() if key not in LATER_SECTIONS or value is not None}


def computing_sha256(plain: dict[str, Any]) -> str:
    """SHA-256 (hex) of the settings that decide what is computed: the config without `PLACES`."""
    kept = {key: value for key, value in without_empty_sections(plain).items() if key not in PLACES}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def is_place(key: str) -> bool:
    """Whether a dotted key lies in one of `PLACES`."""
    return key.split(".", 1)[0] in PLACES


def _show(value: Any) -> str:
    return "(absent)" if value is _ABSENT else repr(value)
