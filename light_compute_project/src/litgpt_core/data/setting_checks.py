"""What settings of data have in common: checks of their values, for messages that name every problem at once.

Standard library only, as `settings` is.
"""

from __future__ import annotations

import codecs
import re
from typing import Any, Literal

from litgpt_core.core.errors import ConfigError

DecodeErrors = Literal["strict", "replace"]


def common_problems(data: Any, *, kind: str) -> list[str]:
    """Problems of the fields that every kind of data has."""
    problems = []
    if data.kind != kind:
        problems.append(f"kind={data.kind!r} must be {kind!r} here")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", data.name):
        problems.append(f"name={data.name!r} must be at most 64 letters, digits, '_', '-', '.': it names a folder")
    if not 0 < data.val_fraction <= 0.5:
        problems.append(f"val_fraction={data.val_fraction} must be above 0 and at most 0.5")
    if not data.cache_dir:
        problems.append("cache_dir is empty; set e.g. data.cache_dir=data")
    if getattr(data, "verify", "stat") not in ("stat", "full"):
        problems.append(f"verify={data.verify!r} must be 'stat' or 'full'")
    if data.split_seed < 0:
        problems.append(f"split_seed={data.split_seed} must not be negative")
    return problems


def stream_problems(data: Any) -> list[str]:
    """Problems of the fields that corpora of any size have."""
    problems = []
    if data.workers < 0:
        problems.append(f"workers={data.workers} must not be negative; 0 takes one per core")
    if getattr(data, "order", "full") not in ("full", "blocks"):
        problems.append(f"order={data.order!r} must be 'full' or 'blocks'")
    problems += packing_problems(data)
    if data.fast_tokenizer not in ("never", "auto"):
        problems.append(f"fast_tokenizer={data.fast_tokenizer!r} must be 'never' or 'auto'")
    if getattr(data, "chunk_bytes", 0) < 0 or getattr(data, "stream_above", 0) < 0:
        problems.append("chunk_bytes and stream_above must not be negative")
    if getattr(data, "val_bytes", 1) < 1:
        problems.append(f"val_bytes={data.val_bytes} must be at least 1")
    return problems


def engine_problems(data: Any) -> list[str]:
    """Problems of the fields that say what runs a preparation."""
    problems = []
    for key, allowed in (
        ("engine", ("local", "datatrove")),
        ("executor", ("local", "slurm", "ray")),
        ("near_duplicates", ("keep", "remove")),
    ):
        if getattr(data, key) not in allowed:
            problems.append(f"{key}={getattr(data, key)!r} must be {' or '.join(map(repr, allowed))}")
    if data.engine == "local" and data.near_duplicates == "remove":
        problems.append("near_duplicates=remove needs engine=datatrove, whose MinHash it is")
    if data.engine == "local" and data.executor in ("slurm", "ray"):
        problems.append(f"executor={data.executor} needs engine=datatrove")
    if data.executor == "slurm" and not data.slurm.get("partition"):
        problems.append("executor=slurm needs slurm.partition=NAME")
    if data.executor != "slurm" and data.slurm:
        problems.append("slurm has no effect without executor=slurm")
    return problems + _ray_problems(data)


def _ray_problems(data: Any) -> list[str]:
    """Of the options for executor=ray."""
    if data.executor != "ray":
        return ["ray has no effect without executor=ray"] if data.ray else []
    unknown = sorted(set(data.ray) - {"address", "cpus_per_task", "mem_per_cpu_gb", "workers"})
    problems = [f"ray.{key} must be address, cpus_per_task, mem_per_cpu_gb or workers" for key in unknown]
    for key in ("cpus_per_task", "mem_per_cpu_gb", "workers"):
        value = data.ray.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
            problems.append(f"ray.{key}={value!r} must be a number above 0")
    return problems


def packing_problems(data: Any) -> list[str]:
    """Problems of `data.packing`, where there is such a setting."""
    packing = getattr(data, "packing", "windows")
    if packing not in ("windows", "best_fit"):
        return [f"packing={packing!r} must be 'windows' or 'best_fit'"]
    if packing == "best_fit" and data.order != "full":
        return ["order=blocks has no effect with packing=best_fit; set order=full"]
    return []


def split_problems(split: str) -> list[str]:
    """What is wrong with `data.split`."""
    return [] if split in ("document", "tail") else [f"split={split!r} must be 'document' or 'tail'"]


def encoding_problem(name: object) -> str:
    """What is wrong with an entry of `data.encodings`; empty for a text encoding that files have."""
    if not isinstance(name, str):
        return f"{name!r} is not a name"
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return f"{name!r} is not a text encoding that Python knows"
    if not getattr(found, "_is_text_encoding", True) or found.name in _NO_FILE_ENCODINGS:
        return f"{name!r} is not an encoding of text files"
    return ""


_NO_FILE_ENCODINGS = frozenset(
    (
        "charmap",
        "idna",
        "mbcs",
        "oem",
        "palmos",
        "punycode",
        "raw-unicode-escape",
        "undefined",
        "unicode-escape",
        "utf-7",
    )
)
"""Python's codecs for program text, host names and the like: they fail on text, or read escapes in it."""


def raise_all(problems: list[str], *, kind: str) -> None:
    """One ConfigError with every problem, if there is one."""
    if problems:
        given = f"data={kind}: " + "; ".join(problems)
        raise ConfigError(
            given, needed="every setting within its range", fix=f"see configs/data/{kind}.yaml, docs/data.md"
        )
