"""Several ranks as threads of this process, connected by torch's backend for tests: collectives with real values."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

OnRanks = Callable[[int, Callable[[int], Any]], list[Any]]


@pytest.fixture
def on_ranks() -> OnRanks:
    """`on_ranks(n, work)`: what `work(rank)` returns on each of n ranks; raises what a rank raised."""

    def run(number: int, work: Callable[[int], Any]) -> list[Any]:
        import torch
        import torch.distributed as dist
        from torch.testing._internal.distributed import multi_threaded_pg as threaded

        results: list[Any] = [None] * number
        problems: list[BaseException] = []
        store = dist.HashStore()

        def rank_of(rank: int) -> None:
            dist.init_process_group("threaded", rank=rank, world_size=number, store=store)
            try:
                results[rank] = work(rank)
            except BaseException as error:
                problems.append(error)
                threaded.ProcessLocalGroup.exception_handle(error)
            finally:
                dist.destroy_process_group()

        torch._C._distributed_c10d._set_thread_isolation_mode(True)
        threaded._install_threaded_pg()
        try:
            threads = [threading.Thread(target=rank_of, args=(rank,)) for rank in range(number)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=60)
        finally:
            threaded.ProcessLocalGroup.reset()
            threaded._uninstall_threaded_pg()
            torch._C._distributed_c10d._set_thread_isolation_mode(False)
        if problems:
            raise problems[0]
        return results

    return run
