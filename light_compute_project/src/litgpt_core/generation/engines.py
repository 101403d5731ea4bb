"""Which engine a command line asks for, loaded: torch's, or plain Python's. torch is imported for the former only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litgpt_core.core.errors import ConfigError

if TYPE_CHECKING:
    from litgpt_core.generation.engine import Engine
    from litgpt_core.generation.pure_engine import PureEngine

WORKS_WITH: dict[str, tuple[object, ...]] = {
    "device": ("auto", "cpu"),
    "precision": ("auto", "32"),
    "compile": ("auto", "false"),
    "kv_cache": ("auto",),
    "speculative": ("off",),
    "num_beams": (1,),
    "contrastive_alpha": (None,),
}
"""Options of `lcp generate` and the values, the default first, that mean something in plain Python."""


def load_engine(checkpoint: str | Path | None, options: Mapping[str, Any]) -> Engine | PureEngine:
    """The engine for the options of `lcp generate`.

    Args:
        checkpoint: A name or path as for `checkpoint.choose`; None: the best candidate.
        options: The parsed options, `engine` among them.

    Raises:
        ConfigError: An option was given that plain Python would ignore.
        CheckpointError: The checkpoint cannot be read.
    """
    if options["engine"] == "pure":
        for name, allowed in WORKS_WITH.items():
            value = options.get(name, allowed[0])
            if value not in allowed:
                raise ConfigError(
                    f"--{name} {value} was given with --engine pure.",
                    needed="a CPU, full precision, and sampling or greedy decoding",
                    fix="leave out --engine pure",
                )
        from litgpt_core.generation.pure_engine import PureEngine

        return PureEngine(checkpoint)
    from litgpt_core.generation.kernel_build import begin_build

    device, compile_mode = options["device"], options["compile"]
    begin_build(device=device, compile=compile_mode)

    from litgpt_core.generation.engine import Engine  # imports torch, after --help and mistakes have been answered

    cache = {name: options[name] for name in ("kv_cache", "speculative")}
    return Engine.from_directory(checkpoint, device=device, dtype=options["precision"], compile=compile_mode, **cache)
