"""The GPT: LitGPT's architecture, config fields and weight names, reimplemented in small files.

Where to look: `config` (every setting), `gpt` (embed -> blocks -> logits), `block`, `attention` and
`latent_attention`, `attend` (softmax), `mask`, `mlp`, `moe`, `norm`, `rope`, `kv_cache`, `init` (all initialisation),
`cost` (parameters and FLOPs without building anything), `registry` (LitGPT's named configs).

`GPT` and `GPTConfig` are exported lazily: reading a config must not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from litgpt_core.core.lazy import lazy_names

if TYPE_CHECKING:
    from litgpt_core.model.config import GPTConfig as GPTConfig
    from litgpt_core.model.gpt import GPT as GPT

__all__, __getattr__, __dir__ = lazy_names(__name__, {"config": "GPTConfig", "gpt": "GPT"})
