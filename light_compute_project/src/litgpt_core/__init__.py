"""Light Compute Project's core: model, tokenizers, data, training, checkpoints and generation, beside an untouched
LitGPT.

    from litgpt_core import GPT, GPTConfig, Engine, train, load_config

Names are imported on first use, so that `import litgpt_core` loads neither torch nor anything else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litgpt_core.config.compose import load as load_config
    from litgpt_core.data.batch import get_batch as get_batch
    from litgpt_core.generation.engine import Engine as Engine
    from litgpt_core.model.block import Block as Block
    from litgpt_core.model.config import GPTConfig as GPTConfig
    from litgpt_core.model.gpt import GPT as GPT
    from litgpt_core.training.estimate import estimate_loss as estimate_loss
    from litgpt_core.training.start import train as train

    __version__: str

_HOME = {
    "Block": ("model.block", "Block"),
    "Engine": ("generation.engine", "Engine"),
    "GPT": ("model.gpt", "GPT"),
    "GPTConfig": ("model.config", "GPTConfig"),
    "estimate_loss": ("training.estimate", "estimate_loss"),
    "get_batch": ("data.batch", "get_batch"),
    "load_config": ("config.compose", "load"),
    "train": ("training.start", "train"),
}
__all__ = [  # a string each, because type checkers read this list
    "GPT",
    "Block",
    "Engine",
    "GPTConfig",
    "__version__",
    "estimate_loss",
    "get_batch",
    "load_config",
    "train",
]


def __getattr__(name: str) -> object:
    """Import the module that holds `name` when it is first asked for (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("light-compute-project")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOME[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
