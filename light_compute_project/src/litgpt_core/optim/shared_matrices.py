"""One function of whole matrices, its work divided among the processes that hold them or shards of them.

Every process takes its own few matrices, and no matrix is computed twice:

    replicas (DDP)   every process has all matrices: it computes its own, then all gather the results
    shards (FSDP2)   every process has some rows of every matrix: rows go to the process whose matrix it is, which
                     computes, and rows of the result come back

So a step's work falls with the number of processes, and with shards only a few matrices are whole at once. The slow
reference, which gathers every matrix everywhere, is in `muon`; `division` says how many are taken at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from litgpt_core.optim.settings import matrices_at_once

Function = Callable[[Tensor], Tensor]
"""(N, rows, columns) -> (N, rows, columns), each matrix by itself."""


def sharding_group(parameter: Tensor) -> dist.ProcessGroup | None:
    """The processes among which the rows of a matrix are sharded; None if it is not sharded, or otherwise."""
    if not isinstance(parameter, DTensor):
        return None
    sharded = [n for n, placement in enumerate(parameter.placements) if not placement.is_replicate()]
    if len(sharded) != 1 or parameter.placements[sharded[0]] != Shard(0):
        return None
    group = parameter.device_mesh.get_group(sharded[0])
    assert isinstance(group, dist.ProcessGroup)
    return group


def of_replicas(
    number: int, matrix: Callable[[int], Tensor], function: Function, *, group: dist.ProcessGroup
) -> Iterator[Tensor]:
    """`function` of matrices that every process could make, one result after the other, the same on every process.

    Args:
        number: Of matrices.
        matrix: Makes the i-th, (rows, columns); called for this process's own only.
        function: Its result has one dtype.
        group: The processes.
    """
    n, rank = dist.get_world_size(group), dist.get_rank(group)
    first = matrix(min(rank, number - 1))
    count = matrices_at_once(*first.shape, count=number, processes=n)
    del first
    for begin in range(0, number, n * count):
        mine = range(begin + rank * count, begin + (rank + 1) * count)
        own = function(torch.stack([matrix(min(i, number - 1)) for i in mine]))  # all send equally much
        everything = own.new_empty(n * count, *own.shape[1:])
        dist.all_gather_into_tensor(_bytes(everything), _bytes(own.contiguous()), group=group)
        del own
        yield from everything.unbind()[: number - begin]


def of_shards(
    shards: list[Tensor],
    function: Function,
    *,
    rows: int,
    dtype: torch.dtype,
    group: dist.ProcessGroup,
    device: torch.device,
) -> Tensor:
    """This process's rows of `function` of every matrix.

    Args:
        shards: This process's rows of N matrices of equal size, as FSDP2 divides them: (own rows, columns) each.
        function: Of whole matrices; its result has `dtype`.
        rows: Of a whole matrix.
        dtype: In which rows are sent; what `function` casts its argument to.
        group: The processes.
        device: Where the group's backend sends and the products run; shards in the host's memory go there and back.

    Returns:
        (N, own rows, columns), on the device of the shards.
    """
    n, rank, columns = dist.get_world_size(group), dist.get_rank(group), shards[0].size(1)
    each = -(-rows // n)
    heights = [max(0, min(each, rows - each * k)) for k in range(n)]
    count = -(-len(shards) // n)  # matrices of a process
    owned = [len(shards[j * count : (j + 1) * count]) for j in range(n)]
    to_owner = [matrices * heights[rank] * columns for matrices in owned]
    from_all = [owned[rank] * height * columns for height in heights]
    sent = torch.stack(shards).to(device=device, dtype=dtype).flatten()
    received = _exchange(sent, to_owner, from_all, group=group)
    del sent
    if owned[rank]:
        parts = [p.view(owned[rank], -1, columns) for p in torch.split(received, from_all) if p.numel()]
        whole = torch.cat(parts, dim=1)
        del received, parts
        result = function(whole)
        del whole
        received = torch.cat([p.flatten() for p in torch.split(result, heights, dim=1)])
        del result
    mine = _exchange(received, from_all, to_owner, group=group)
    return mine.view(len(shards), heights[rank], columns).to(shards[0].device)


def _exchange(numbers: Tensor, given: list[int], taken: list[int], *, group: dist.ProcessGroup) -> Tensor:
    """Send `given[j]` numbers to process j, receive `taken[j]` from it."""
    received = numbers.new_empty(sum(taken))
    width = numbers.element_size()
    dist.all_to_all_single(
        _bytes(received), _bytes(numbers), [width * n for n in taken], [width * n for n in given], group=group
    )
    return received


def _bytes(tensor: Tensor) -> Tensor:
    """As bytes, which every backend can send: gloo knows no bfloat16."""
    return tensor.view(-1).view(torch.uint8)
