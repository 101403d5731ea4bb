"""Which models the C++ training kernels compute, and putting them into a model's blocks.

    model --obstacle?--> ordinary PyTorch (one line in the log)
      '--none--> every Block.run = CpuBlock (cpu_block.py), which calls kernels/train.cpp

The kernels are for float32 weights on a CPU, one process or several. Products are in float32, or in bfloat16 under
autocast where the processor has AVX512-BF16; with AMX they are multiplied by its tile registers.
Built like the kernel of generation, with its compiler and its cache (`generation/kernel_build`).
"""

from __future__ import annotations

import ctypes
import functools
import logging
from dataclasses import MISSING, fields
from pathlib import Path

import torch
from torch import nn

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.generation import kernel_build
from litgpt_core.model.attention import CausalSelfAttention
from litgpt_core.model.block import Block
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.mlp import GemmaMLP, GptNeoxMLP, LLaMAMLP
from litgpt_core.model.norm import RMSNorm
from litgpt_core.training import cpu_structs
from litgpt_core.training.cpu_block import MULTIPLE, CpuBlock, PlaceOfGradient
from litgpt_core.training.cpu_loss import CpuLoss
from litgpt_core.training.cpu_memory import StepMemory

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).with_name("kernels")
HEAD_MULTIPLE = 16

SUPPORTED_MODULES = (
    *(Block, CausalSelfAttention, GptNeoxMLP, LLaMAMLP, GemmaMLP),
    *(RMSNorm, nn.LayerNorm, nn.Linear, nn.Identity, nn.Dropout),
)
"""Exactly these types: a subclass may compute something else."""

_FIELDS = """
name hf_config block_size n_layer n_embd vocab_size padding_multiple padded_vocab_size norm_class_name norm_eps norm_qk
norm_qk_type n_head head_size n_query_groups attn_bias attention_scores_scalar rope_base rotary_percentage
rope_condense_ratio rope_adjustments intermediate_size bias mlp_class_name gelu_approximate scale_embeddings
lm_head_bias final_logit_softcapping rope_local_base_freq rope_indices position_embedding tie_embeddings
init_projection parallel_residual moe_intermediate_size norm_topk_prob routed_scaling_factor
"""
SUPPORTED_FIELDS = frozenset(_FIELDS.split())
"""Fields of GPTConfig that the kernels implement, or that do not matter inside blocks. Any other must have its default,
so that a new field of the model cannot be ignored silently."""


def training_source() -> kernel_build.KernelSource:
    """The C++ of the training kernels; vectors and threads are shared with the kernel of generation."""
    return kernel_build.KernelSource(
        name="train",
        main="train.cpp",
        folders=(SOURCES, kernel_build.SOURCES),
        without="trainer.cpu_kernels=false, which needs no compiler",
    )


@functools.cache
def load_training_kernels() -> ctypes.CDLL:
    """The library, built first if it is not cached. Raises EnvironmentProblem, as `kernel_build.load_kernel` does."""
    library = kernel_build.load_library(training_source())
    cpu_structs.declare(library)
    return library


def obstacle(model: GPT) -> str | None:
    """Why the kernels do not compute the blocks of this model, or None."""
    return config_obstacle(model.config) or _unsupported_part(model)


def config_obstacle(c: GPTConfig) -> str | None:
    """Why the kernels do not compute the blocks of such a model, or None."""
    for item in fields(c):
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        value = getattr(c, item.name)
        if item.name not in SUPPORTED_FIELDS and value not in (default, None):
            return f"{item.name}={value!r} is not supported"
    wrong = {
        "parallel_residual=true": c.parallel_residual,
        "norm_qk_type=olmo2": c.norm_qk and c.norm_qk_type == "olmo2",
        f"mlp_class_name={c.mlp_class_name}": c.mlp_class_name == "LLaMAMoE",
        f"head_size={c.head_size}, no multiple of {HEAD_MULTIPLE},": c.head_size % HEAD_MULTIPLE != 0,
    }
    sizes = {
        "n_embd": c.n_embd,
        "intermediate_size with biases": c.intermediate_size if c.bias else 0,
        "the width of queries": c.n_head * c.head_size,
        "the width of queries, keys and values": (c.n_head + 2 * c.n_query_groups) * c.head_size,
    }
    wrong |= {f"{name}={size}, no multiple of {MULTIPLE},": size % MULTIPLE != 0 for name, size in sizes.items()}
    for given, is_wrong in wrong.items():
        if is_wrong:
            return f"{given} is not supported"
    return None


def _unsupported_part(model: GPT) -> str | None:
    for name, module in model.transformer.h.named_modules():
        if name and type(module) not in SUPPORTED_MODULES:
            return f"{type(module).__name__} (transformer.h.{name}) is not supported"
    for name, parameter in model.transformer.h.named_parameters():
        plain = type(parameter.data) is torch.Tensor and parameter.is_contiguous() and parameter.requires_grad
        if not plain or parameter.device.type != "cpu" or parameter.dtype != torch.float32:
            return (
                f"transformer.h.{name}, which is not a trained, contiguous float32 tensor on the CPU, is not supported"
            )
    return None


def use_kernels(model: GPT, *, place: PlaceOfGradient | None = None) -> CpuLoss:
    """Let the kernels compute every block of `model`, until `leave_kernels`.

    Args:
        model: To be trained.
        place: Where gradients of blocks go, if not into memory of their own.

    Returns:
        The loss, to be used in place of `model.loss.cross_entropy`.

    Raises:
        EnvironmentProblem: They do not compute this model, or cannot be built here.
    """
    if reason := obstacle(model):
        raise EnvironmentProblem(reason, fix="trainer.cpu_kernels=false")
    library, memory = load_training_kernels(), StepMemory()
    for block in model.transformer.h:
        assert isinstance(block, Block)
        block.run = CpuBlock(block, library=library, memory=memory, place=place)
    return CpuLoss(model, library=library, memory=memory, multiple=MULTIPLE)


def kernels_if_possible(model: GPT, *, checkpointing: str, place: PlaceOfGradient | None = None) -> CpuLoss | None:
    """`use_kernels`, or None and a line in the log that says why not.

    Args:
        model: To be trained.
        checkpointing: `trainer.activation_checkpointing`; the kernels keep all that they need.
        place: As in `use_kernels`.
    """
    try:
        if checkpointing != "none":
            raise EnvironmentProblem(f"trainer.activation_checkpointing={checkpointing} is not supported")
        loss = use_kernels(model, place=place)
    except EnvironmentProblem as problem:
        logger.info("blocks are computed by PyTorch; not by the training kernels: %s", problem.given)
        return None
    logger.info("blocks and loss are computed by the training kernels, in place of PyTorch's compiler")
    return loss


def leave_kernels(model: GPT) -> None:
    """Undo `use_kernels`; also frees the kernels' memory."""
    for block in model.transformer.h:
        if isinstance(block, Block):
            block.run = None
