"""Forward and backward of one block by the C++ kernels (`kernels/block.hpp`), as one operation of autograd.

    x (B, T, C) --lc_block_forward--> out (B, T, C)          kept: qkv, mixed values, hidden units, ... (Kept)
    gradient of out --lc_block_backward--> gradients of x and of every weight

The backward pass changes what was kept for it, so it runs once for each forward pass.

The slow implementation that the tests compare with is `Block.forward`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from litgpt_core.model.attention import CausalSelfAttention
from litgpt_core.model.block import Block
from litgpt_core.model.mlp import GptNeoxMLP, LLaMAMLP
from litgpt_core.model.norm import RMSNorm
from litgpt_core.model.rope import RopeTable
from litgpt_core.training import cpu_structs as structs
from litgpt_core.training.cpu_memory import StepMemory

ALIGNMENT = 64
MULTIPLE = 32
"""Sizes of matrices must be multiples of two vectors, which are 16 or 32 numbers; 32 suits every processor. Hidden
units are filled up."""
KEPT_CALLS = 16
"""Sizes of batches whose structs are kept."""


def products_in_bfloat16() -> bool:
    """Whether autocast asks for them; where the processor has none, the kernels compute in float32, more exactly."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


PlaceOfGradient = Callable[[nn.Parameter], Tensor | None]
"""Where a parameter's gradient is wanted: a new view, shaped like the parameter; None for memory of its own."""


@dataclass(frozen=True)
class _Call:
    """What calls of the kernels have in common as long as sizes and addresses stay."""

    struct: structs.BlockStruct
    scratch_forward: int
    scratch_backward: int


class CpuBlock:
    """Computes a block; to be its `run`.

    Args:
        block: Of a kind that `cpu_kernels.obstacle` does not refuse.
        library: The kernels.
        memory: Shared by all blocks of the model.
        place: Where gradients go.
    """

    def __init__(
        self, block: Block, *, library: ctypes.CDLL, memory: StepMemory, place: PlaceOfGradient | None = None
    ) -> None:
        self.library, self.memory = library, memory
        self._place = place
        self._calls: dict[tuple[int | bool, ...], _Call] = {}
        attention, mlp = block.attn, block.mlp
        assert isinstance(attention, CausalSelfAttention) and isinstance(mlp, (GptNeoxMLP, LLaMAMLP))
        self.config, self.scale = attention.config, attention.scale
        gated = isinstance(mlp, LLaMAMLP)
        self._norms = {
            "norm_1": block.norm_1,
            "norm_q": attention.norm_q,
            "norm_k": attention.norm_k,
            "norm_2": block.norm_2,
        }
        self._matrices: dict[str, nn.Module | None] = {
            "qkv": attention.qkv,
            "proj": attention.proj,
            "fc": mlp.fc_1 if isinstance(mlp, LLaMAMLP) else mlp.fc,
            "fc_value": mlp.fc_2 if isinstance(mlp, LLaMAMLP) else None,
            "mlp_proj": mlp.proj,
        }
        gelu = "gelu_tanh" if mlp.approximate == "tanh" else "gelu"
        self._activation = structs.ACTIVATIONS["silu" if self.config.mlp_class_name == "LLaMAMLP" else gelu]
        self._gated = gated
        parts = {name: part for name, part in (self._norms | self._matrices).items() if part is not None}
        self._parameters = [
            (name, kind, parameter)
            for name, part in parts.items()
            for kind in ("weight", "bias")
            if isinstance(parameter := getattr(part, kind, None), nn.Parameter)
        ]

    def __call__(self, x: Tensor, rope: RopeTable | None) -> Tensor:
        """(B, T, C) -> (B, T, C), causal attention among the T tokens."""
        out: Tensor = _BlockFunction.apply(
            self, torch.is_grad_enabled(), x, rope, *(parameter for *_, parameter in self._parameters)
        )
        return out

    def _call(self, x: Tensor, rope: RopeTable | None, *, threads: int, bfloat16: bool) -> _Call:
        """Sizes and addresses for one call; training may have moved the weights since the last one."""
        addresses = [parameter.data_ptr() for *_, parameter in self._parameters]
        tables = () if rope is None else (rope[0].data_ptr(), rope[1].data_ptr())
        key = (x.size(0), x.size(1), threads, bfloat16, *tables, *addresses)
        if key not in self._calls:
            if len(self._calls) == KEPT_CALLS:
                self._calls.clear()
            struct = self._describe(x, rope, bfloat16=bfloat16)
            sizes = [self.library.lc_train_scratch(byref(struct), threads, backward) for backward in (0, 1)]
            self._calls[key] = _Call(struct, *sizes)
        return self._calls[key]

    def _describe(self, x: Tensor, rope: RopeTable | None, *, bfloat16: bool) -> structs.BlockStruct:
        c = self.config
        hidden = c.intermediate_size
        pairs = 0 if rope is None else rope[0].size(-1)
        struct = structs.BlockStruct(
            *(x.size(0), x.size(1), x.size(2), c.n_head, c.n_query_groups, c.head_size, pairs, hidden),
            *(self._gated, self._activation, c.norm_class_name == "RMSNorm", bfloat16),
            self.scale,
        )
        for name, norm in self._norms.items():
            if norm is not None:
                offset = 1.0 if isinstance(norm, RMSNorm) and norm.add_unit_offset else 0.0
                setattr(struct, name, structs.NormStruct(1, None, None, c.norm_eps, offset))
        for name, kind, parameter in self._parameters:
            setattr(getattr(struct, name), kind, parameter.data_ptr())
        if rope is not None:
            struct.cosine, struct.sine = (table.data_ptr() for table in rope)
        return struct

    def keep(self, tokens: int, buffer: Tensor | None = None) -> tuple[Tensor, structs.Kept]:
        """Memory for what the backward pass reads, new if it is not given, and its addresses."""
        c = self.config
        sizes = {
            "statistics_1": 2,
            "statistics_2": 2,
            "qkv": (c.n_head + 2 * c.n_query_groups) * c.head_size,
            "mixed": c.n_head * c.head_size,
            "partitions": c.n_head,
            "middle": c.n_embd,
            "hidden": -(-c.intermediate_size // MULTIPLE) * MULTIPLE * (2 if self._gated else 1),
        }
        begins, end = {}, 0
        for name, size in sizes.items():
            begins[name] = end
            end += -(-tokens * size // ALIGNMENT) * ALIGNMENT
        buffer = self.memory.take(end) if buffer is None else buffer
        address = buffer.data_ptr()
        return buffer, structs.Kept(*(address + 4 * begins[name] for name in structs.KEPT))

    def forward(
        self, x: Tensor, rope: RopeTable | None, *, backward_follows: bool, bfloat16: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The block's output, and what was kept if a backward pass follows."""
        threads = torch.get_num_threads()
        call = self._call(x, rope, threads=threads, bfloat16=bfloat16)
        buffer, kept = self.keep(x.size(0) * x.size(1))
        out = torch.empty_like(x)
        scratch = self.memory.scratch(call.scratch_forward)
        self.library.lc_block_forward(
            byref(call.struct), byref(kept), x.data_ptr(), out.data_ptr(), scratch.data_ptr(), threads
        )
        if backward_follows:
            return out, buffer
        self.memory.give(buffer)
        return out, None

    def backward(
        self, x: Tensor, rope: RopeTable | None, buffer: Tensor, gradient: Tensor, *, bfloat16: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Gradients of x and of the parameters, in their order; gives the buffer back."""
        threads = torch.get_num_threads()
        call = self._call(x, rope, threads=threads, bfloat16=bfloat16)
        _, kept = self.keep(x.size(0) * x.size(1), buffer)
        x_gradient = torch.empty_like(x)
        to = structs.BlockGradient()
        gradients = []
        for name, kind, parameter in self._parameters:
            place = None if self._place is None else self._place(parameter)
            gradients.append(torch.empty_like(parameter) if place is None else place)
            setattr(getattr(to, name), kind, gradients[-1].data_ptr())
        scratch = self.memory.scratch(call.scratch_backward)
        self.library.lc_block_backward(
            *(byref(call.struct), byref(kept), x.data_ptr(), gradient.data_ptr(), x_gradient.data_ptr()),
            *(byref(to), scratch.data_ptr(), threads),
        )
        self.memory.give(buffer)
        return x_gradient, gradients


class _BlockFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernel: CpuBlock, backward_follows: bool, x: Tensor, rope: RopeTable | None, *parameters: Tensor
    ) -> Tensor:
        x, ctx.bfloat16 = x.contiguous(), products_in_bfloat16()
        out, ctx.buffer = kernel.forward(x, rope, backward_follows=backward_follows, bfloat16=ctx.bfloat16)
        if backward_follows:
            ctx.save_for_backward(x)
            ctx.kernel, ctx.rope = kernel, rope
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.buffer is None:
            raise RuntimeError("the training kernels keep nothing for a second backward pass of the same forward pass")
        (x,) = ctx.saved_tensors
        buffer, ctx.buffer = ctx.buffer, None
        x_gradient, gradients = ctx.kernel.backward(x, ctx.rope, buffer, gradient.contiguous(), bfloat16=ctx.bfloat16)
        return (None, None, x_gradient, None, *gradients)
