"""One optimizer that runs Muon on matrices and AdamW on the rest, because a Trainer's automatic loop takes one
optimizer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix's momentum by the nearest semi-
orthogonal matrix, found approximately by five quintic Newton-Schulz steps. Matrices of one shape are stacked and
orthogonalised together; several processes divide them among themselves (`shared_matrices`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from litgpt_core.optim.settings import matrices_at_once
from litgpt_core.optim.shared_matrices import of_replicas, of_shards, sharding_group

NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Jordan et al.'s quintic: steep at zero, so that small singular values rise fast; the result lies within about
[0.7, 1.2].
"""


def orthogonalise(matrices: Tensor, *, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """Replace each matrix by an approximation of the nearest semi-orthogonal one (U V^T of its singular value
    decomposition).

    Args:
        matrices: (N, rows, columns).
        steps: Newton-Schulz steps.
        dtype: The products' type; bfloat16 suffices where the hardware is fast at it.

    Returns:
        (N, rows, columns) in `dtype`.
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    x: Tensor = matrices.to(dtype)
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)  # a x + (b gram + c gram^2) x
    result: Tensor = x.mT if tall else x
    return result


class MuonAdamW(torch.optim.Optimizer):
    """Muon for groups with `muon=True`, AdamW for the others.

    Args:
        groups: Parameter groups; each gives `lr`, `weight_decay` and `muon`, Muon groups `momentum`, the others `betas`
            and `eps`.
        dtype: Type of the Newton-Schulz products.
        replicas: Processes that hold the same whole weights and gradients (DDP) and divide the products among them.
        divided: False has every process compute every update, also of shards: the reference for the divided work.

    Muon's step is `-lr * sqrt(max(1, rows / columns)) * orthogonalise(momentum * m + g)` (Nesterov form); decay is
    decoupled in both.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        dtype: torch.dtype = torch.float32,
        replicas: dist.ProcessGroup | None = None,
        divided: bool = True,
    ) -> None:
        defaults = {"lr": 1e-3, "weight_decay": 0.0, "muon": False, "momentum": 0.95, "betas": [0.9, 0.95], "eps": 1e-8}
        super().__init__(list(groups), defaults)
        self.dtype, self.replicas, self.divided = dtype, replicas, divided

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            if group["weight_decay"]:
                torch._foreach_mul_(_parts(parameters), 1 - group["lr"] * group["weight_decay"])
            (self._muon if group["muon"] else self._adamw)(group, parameters)
        return loss

    def _muon(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for p in parameters:
            state = self.state[p]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(p)
            by_shape[p.shape].append(p)
        momentum = group["momentum"]
        for shape, same in by_shape.items():
            rate = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
            for some in self._taken_together(same):
                gradients = _gradients(some)
                buffers = _parts([self.state[p]["momentum_buffer"] for p in some])
                torch._foreach_lerp_(buffers, gradients, 1 - momentum)
                for parameter, update in zip(
                    _parts(some), self._updates(gradients, buffers, momentum, like=some), strict=True
                ):
                    parameter.add_(update, alpha=-rate)

    def _taken_together(self, same: list[Tensor]) -> Iterator[list[Tensor]]:
        """Matrices of one shape, in groups: of sharded ones as many as all processes take at once."""
        sharing = sharding_group(same[0]) if self.divided else None
        if sharing is None:
            yield same
            return
        processes = dist.get_world_size(sharing)
        size = processes * matrices_at_once(*same[0].shape, count=len(same), processes=processes)
        yield from (same[begin : begin + size] for begin in range(0, len(same), size))

    def _updates(
        self, gradients: list[Tensor], buffers: list[Tensor], momentum: float, *, like: list[Tensor]
    ) -> Iterable[Tensor]:
        """What this process holds of every matrix's update."""
        function = partial(orthogonalise, dtype=self.dtype)
        group = sharding_group(like[0])
        if self.divided and group is None and self.replicas is not None:

            def nesterov(i: int) -> Tensor:
                return torch.lerp(gradients[i], buffers[i], momentum)

            return of_replicas(len(like), nesterov, function, group=self.replicas)
        every = list(torch._foreach_lerp(gradients, buffers, momentum))
        if self.divided and group is not None and isinstance(like[0], DTensor):
            device = torch.device(like[0].device_mesh.device_type)
            rows = like[0].size(0)
            return of_shards(every, function, rows=rows, dtype=self.dtype, group=group, device=device).unbind()
        return _parts_of(function(torch.stack(_whole(every, like))), like)

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        for p in parameters:
            state = self.state[p]
            if not state:
                state["step"] = 0
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            state["step"] = int(state["step"]) + 1  # a tensor where `FlatOptimizer` saved it
        gradients = _gradients(parameters)
        first = _parts([self.state[p]["exp_avg"] for p in parameters])
        second = _parts([self.state[p]["exp_avg_sq"] for p in parameters])
        step = self.state[parameters[0]]["step"]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, value=1 - beta2)
        denominators = torch._foreach_sqrt(second)
        torch._foreach_div_(denominators, (1 - beta2**step) ** 0.5)
        torch._foreach_add_(denominators, group["eps"])
        torch._foreach_addcdiv_(_parts(parameters), first, denominators, value=-group["lr"] / (1 - beta1**step))


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return _parts([p.grad for p in parameters if p.grad is not None])


# ---- weights that are sharded over processes (DTensors): every process steps its part. A matrix's update needs the
# whole matrix; the reference gathers it, computes it everywhere, and cuts it again


def _parts(tensors: list[Tensor]) -> list[Tensor]:
    """What this process holds of each, as views; tensors that are whole as they are."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]


def _whole(parts: list[Tensor], like: list[Tensor]) -> list[Tensor]:
    """Gather matrices that are laid out as `like` is."""
    return [
        DTensor.from_local(part, p.device_mesh, p.placements, shape=p.shape, stride=p.stride()).full_tensor()
        if isinstance(p, DTensor)
        else part
        for part, p in zip(parts, like, strict=True)
    ]


def _parts_of(whole: Tensor, like: list[Tensor]) -> list[Tensor]:
    """Cut every matrix of a stack (N, rows, columns) as the N tensors of `like` are cut."""
    return [
        distribute_tensor(matrix, p.device_mesh, p.placements, src_data_rank=None).to_local().to(p.to_local().device)
        if isinstance(p, DTensor)
        else matrix
        for matrix, p in zip(whole.unbind(0), like, strict=True)
    ]
