"""Text generation from a checkpoint directory: sampling, the engine with its KV cache, streaming, continuous batching,
and a C++ kernel for CPUs. Uses neither the Trainer nor the configs.

    from litgpt_core.generation import Engine, SamplingSettings
    engine = Engine.from_directory(Path("runs/baseline"))
    print(engine.generate_text("def ", max_new_tokens=100, sampling=SamplingSettings(temperature=0.8, top_k=50)))

Names are imported lazily.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litgpt_core.generation.engine import Engine as Engine
    from litgpt_core.generation.request import Delta as Delta
    from litgpt_core.generation.request import GenerationRequest as GenerationRequest
    from litgpt_core.generation.sampling_settings import SamplingSettings as SamplingSettings
    from litgpt_core.generation.stream import StreamDecoder as StreamDecoder

_HOME = {
    "Engine": "engine",
    "GenerationRequest": "request",
    "Delta": "request",
    "SamplingSettings": "sampling_settings",
    "StreamDecoder": "stream",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    """Import the module that defines `name` on first access (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
