"""How many bytes of tensors are alive at once while some code runs: counted, not sampled, so without noise.

Every storage that an operation makes is counted from its making until its last holder lets go, whoever that is: a
Python name, autograd's saved tensors, a checkpoint's cache. It works as well on fake tensors, which have shapes but no
memory. It does not see what the inside of one operation, a compiled graph or the allocator takes besides.
"""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that watches every operation.

    Attributes:
        live: Bytes that are alive of what was made within.
        peak: The most bytes that were alive at once.
        largest: Numbers (elements) in the largest single tensor that an operation made, views apart.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = self.largest = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Carry the operation out and count what is new."""
        kwargs = kwargs or {}
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._meet(leaf, ours=False)
        out = func(*args, **kwargs)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._meet(leaf, ours=True)
        return out

    def _meet(self, tensor: Tensor, *, ours: bool) -> None:
        """Count a tensor's storage once; what comes in from outside counts nothing."""
        storage = tensor.untyped_storage()
        if id(storage) in self._known:
            return
        size = storage.nbytes() if ours else 0
        self._known.add(id(storage))
        weakref.finalize(storage, self._forget, id(storage), size).atexit = False
        self.live += size
        self.peak = max(self.peak, self.live)
        if ours:
            self.largest = max(self.largest, size // tensor.element_size())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
