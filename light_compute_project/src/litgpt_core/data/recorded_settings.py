"""Settings of data in records: which of them decide a prepared folder, and what older records lack. No imports."""

from __future__ import annotations

from typing import Any

LATER_SETTINGS = {
    "decode_errors": "strict",
    "document_separator": "",
    "text_key": "",
    "group_near_duplicates": True,
    "verify": "stat",
    "stream_above": 256_000_000,
    "workers": 0,
    "order": "full",
    "packing": "windows",
    "engine": "local",
    "executor": "local",
    "slurm": {},
    "ray": {},
    "near_duplicates": "keep",
    "cache_bytes": 20_000_000_000,
    "fast_tokenizer": "never",
}
"""Settings that were added with a default that changes nothing: at that value they are not part of the fingerprint."""


def with_later_settings(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """A recorded config as this version would have written it: settings of `data` that it lacks have that default."""
    recorded = before.get("data")
    if not isinstance(recorded, dict):
        return before
    missing = {
        key: value for key, value in LATER_SETTINGS.items() if key in now.get("data", {}) and key not in recorded
    }
    return before | {"data": recorded | missing}


LOCATIONS = (
    "cache_dir",
    "path",
    "url",
    "timeout_s",
    "verify",
    "workers",
    "engine",
    "executor",
    "slurm",
    "ray",
    "cache_bytes",
    "fast_tokenizer",
)
"""Settings that say where things are or how they are made, not what they are: not part of the fingerprint, because the
corpus hash is.
"""

USES = ("order", "packing")
"""Settings that say how a prepared folder is used: not part of its fingerprint, but of what a run must keep."""
