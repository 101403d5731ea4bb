"""Tensor parallelism: n processes compute each block together, every one with its share of heads and hidden units.

        x --copy--> qkv --> attend --> proj --sum--> (+)       copy: gradients of the n processes are added up
        x --copy--> fc  --> gelu   --> proj --sum--> (+)       sum: results of the n processes are added up

After Shoeybi et al. 2019, Megatron-LM (arXiv 1909.08053). Between blocks all n processes hold the same numbers, so
norms, embeddings and the output layer work as ever. A process's share of a block is a block of its own, with the plain
names of the state dict (`model.tensor_slice`); FSDP2 shards it further over the processes that have the same share.

    2 x 2 processes      rank 0: share 0     rank 1: share 1     one pair computes one micro-batch together
                         rank 2: share 0     rank 3: share 1     ranks 0 and 2 shard share 0 between them

The slow reference is the undivided model: tests compare logits, gradients and whole runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_reduce, wait_tensor
from torch.distributed.tensor import DTensor
from torch.nn import functional

from litgpt_core.model.block import Block
from litgpt_core.model.gpt import GPT
from litgpt_core.model.tensor_slice import Cut, sliced


class _Copy(torch.autograd.Function):
    """The same numbers on; gradients are added up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: str) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _sum(gradient, ctx.group), None


class _Sum(torch.autograd.Function):
    """Numbers are added up; gradients go to all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: str) -> Tensor:
        return _sum(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _sum(x: Tensor, group: str) -> Tensor:
    wide = x.float() if x.device.type == "cpu" else x  # gloo adds up no narrow numbers
    started = all_reduce(wide.contiguous(), "sum", group)  # type: ignore[arg-type]
    total: Tensor = wait_tensor(started)  # type: ignore[no-untyped-call]
    return total.to(x.dtype)


class RowParallelLinear(nn.Linear):
    """A linear layer whose inputs are divided among processes: each has some columns, and the results are added up.

    Args:
        share: The layer with this process's columns.
        group: Name of the process group, which torch.compile takes as a constant.
    """

    def __init__(self, share: nn.Linear, group: str) -> None:
        super().__init__(1, 1, bias=False, device="meta")
        self.in_features, self.out_features = share.in_features, share.out_features
        self.weight, self.bias = share.weight, share.bias
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """(..., own I) -> (..., O), the same on all processes of the group."""
        y: Tensor = _Sum.apply(functional.linear(x, self.weight), self.group)
        return y if self.bias is None else y + self.bias


def divide_blocks(model: GPT, group: dist.ProcessGroup) -> None:
    """Replace every block of `model`, which has no values yet, by this process's share of it.

    Args:
        model: On the meta device. Its config stays that of the whole model.
        group: The processes that compute each block together.

    Raises:
        ConfigError: Heads, groups or hidden units cannot be divided.
    """
    small, name = sliced(model.config, dist.get_world_size(group)), group.group_name

    def copied(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return _Copy.apply(arguments[0], name), *arguments[1:]

    for layer, whole in enumerate(model.transformer.h):
        with model.device:
            block = Block(small, layer).train(whole.training)
        for part in (block.attn, block.mlp):
            part.register_forward_pre_hook(copied)
            assert isinstance(part.proj, nn.Linear)
            part.proj = RowParallelLinear(part.proj, name)
        model.transformer.h[layer] = block


def share_of(whole: Tensor, cut: Cut, *, rank: int, n: int) -> Tensor:
    """What process `rank` of n holds of a whole tensor."""
    groups = [part.chunk(n, dim=cut.dim)[rank] for part in torch.split(whole, list(cut.sizes), dim=cut.dim)]
    return groups[0] if len(groups) == 1 else torch.cat(groups, dim=cut.dim)


def joined(shares: Sequence[Tensor], cut: Cut) -> Tensor:
    """The inverse of `share_of`: the whole tensor from the shares of all processes, in order."""
    sizes = [size // len(shares) for size in cut.sizes]
    groups = zip(*(torch.split(share, sizes, dim=cut.dim) for share in shares), strict=True)
    return torch.cat([part for group in groups for part in group], dim=cut.dim)


def gather_shares(share: Tensor, cut: Cut, group: dist.ProcessGroup) -> Tensor:
    """The whole tensor, from the shares of the processes of a group; collective."""
    shares = [torch.empty_like(share, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size(group))]
    dist.all_gather(shares, share.contiguous(), group=group)
    return joined(shares, cut)


def sum_partial_gradients(model: GPT, group: dist.ProcessGroup) -> None:
    """Complete the gradients of norms of queries and keys: each process has that of its own heads. All in one sum."""
    norms = [p for name, p in model.named_parameters() if ".attn.norm_" in name]
    local = [_local(p.grad) for p in norms if p.grad is not None]
    if not local:
        return
    together = torch.cat([gradient.flatten() for gradient in local])
    dist.all_reduce(together, group=group)
    for gradient, total in zip(local, torch.split(together, [gradient.numel() for gradient in local]), strict=True):
        gradient.copy_(total.view_as(gradient))


def clip_gradients(model: GPT, cut: set[str], *, n: int, max_norm: float | None) -> Tensor:
    """The norm of all gradients of the whole model, the same on every process; collective.

    Args:
        model: Its blocks are divided among n processes, and everything is sharded.
        cut: Names of the parameters that are divided; others in the blocks are on n processes.
        n: Processes that compute a block together.
        max_norm: Gradients are scaled down to this norm; None: only measured.
    """
    once: list[Tensor] = []
    copied: list[Tensor] = []
    for name, p in model.named_parameters():
        if p.grad is not None:
            (copied if ".h." in name and name not in cut else once).append(_local(p.grad))
    total = _squares(once) + _squares(copied) / n
    dist.all_reduce(total)
    norm = total.sqrt()
    if max_norm is not None:
        torch._foreach_mul_([*once, *copied], (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


def _squares(tensors: list[Tensor]) -> Tensor:
    """The sum of all squares, a scalar; of shards without a row, too."""
    return torch.stack(torch._foreach_norm(tensors, dtype=torch.float32)).square().sum()


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
