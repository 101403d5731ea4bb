"""What the C++ kernel does not support: mixtures of experts, latent attention, wrapped layers."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from litgpt_core.model.attention import CausalSelfAttention
from litgpt_core.model.block import Block
from litgpt_core.model.low_rank import LowRankLinear
from litgpt_core.model.mlp import GemmaMLP, GptNeoxMLP, LLaMAMLP
from litgpt_core.model.norm import RMSNorm
from litgpt_core.model.quantized import PackedMatrix, QuantEmbedding, QuantLinear

if TYPE_CHECKING:
    from litgpt_core.model.gpt import GPT

SUPPORTED_MODULES = (
    *(Block, CausalSelfAttention, GptNeoxMLP, LLaMAMLP, GemmaMLP, RMSNorm),
    *(nn.LayerNorm, nn.Linear, nn.Identity, nn.Dropout, nn.ModuleList, QuantLinear, PackedMatrix),
    LowRankLinear,
)
"""Exactly these types: a subclass may compute something else."""

_FIELDS = """
name hf_config block_size n_layer n_embd vocab_size padding_multiple padded_vocab_size norm_class_name norm_eps norm_qk
norm_qk_type post_attention_norm post_mlp_norm parallel_residual shared_attention_norm n_head head_size n_query_groups
attn_bias attention_scores_scalar sliding_window_size sliding_window_indices attention_logit_softcapping rope_base
rotary_percentage rope_condense_ratio rope_adjustments rope_interleave intermediate_size bias mlp_class_name
gelu_approximate scale_embeddings lm_head_bias final_logit_softcapping norm_1 norm_2 rope_local_base_freq rope_indices
dropout position_embedding tie_embeddings init_projection
"""
SUPPORTED_FIELDS = frozenset(_FIELDS.split())
"""Fields of GPTConfig that the kernel implements, or that do not matter for inference. Any other field must have its
default, so that a new field of the model cannot be ignored silently."""


def structure_obstacle(model: GPT) -> str | None:
    """Why the kernel does not support this architecture, or None; the device does not matter."""
    for item in fields(model.config):
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        value = getattr(model.config, item.name)
        if item.name not in SUPPORTED_FIELDS and value not in (default, None):
            return f"it does not support {item.name}={value!r}"
    for name, module in model.transformer.h.named_modules():
        if type(module) not in SUPPORTED_MODULES:
            return f"it does not support {type(module).__name__} (transformer.h.{name})"
    ends = [
        type(model.lm_head) in (nn.Linear, QuantLinear),
        type(model.transformer.wte) in (nn.Embedding, QuantEmbedding),
        type(model.transformer.ln_f) in SUPPORTED_MODULES,
    ]
    if not all(ends):
        return "it does not support the type of the head, the embedding or the last norm"
    for block in model.transformer.h:
        mlp = block.mlp
        if isinstance(mlp, LLaMAMLP) and type(mlp.fc_1) is not type(mlp.fc_2):
            return "it does not support an MLP in which only one of fc_1 and fc_2 has integer weights, or a low rank"
    return None


def weights_obstacle(model: GPT) -> str | None:
    """Why the kernel cannot read the weights in place, or None."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    kinds = {(parameter.device.type, parameter.dtype) for parameter in matrices} | {(model.device.type, model.dtype)}
    if kinds not in ({("cpu", torch.float32)}, {("cpu", torch.bfloat16)}):
        return "it needs all weights on the CPU in one dtype, float32 or bfloat16"
    if not all(type(parameter.data) is Tensor and parameter.is_contiguous() for parameter in matrices):
        return "it needs plain, contiguous weights"
    return None
