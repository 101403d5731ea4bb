"""Text generation from a checkpoint directory: sampling, the engine with its KV cache, streaming, continuous batching,
and a C++ kernel for CPUs. Uses neither the Trainer nor the configs.

    from litgpt_core.generation import Engine, SamplingSettings
    engine = Engine.from_directory(Path("runs/baseline"))
    print(engine.generate_text("def ", max_new_tokens=100, sampling=SamplingSettings(temperature=0.8, top_k=50)))

Names are imported lazily.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from litgpt_core.core.lazy import lazy_names

if TYPE_CHECKING:
    from litgpt_core.generation.engine import Engine as Engine
    from litgpt_core.generation.request import Delta as Delta
    from litgpt_core.generation.request import GenerationRequest as GenerationRequest
    from litgpt_core.generation.sampling_settings import SamplingSettings as SamplingSettings
    from litgpt_core.generation.stream import StreamDecoder as StreamDecoder

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "engine": "Engine",
        "request": "Delta GenerationRequest",
        "sampling_settings": "SamplingSettings",
        "stream": "StreamDecoder",
    },
)
