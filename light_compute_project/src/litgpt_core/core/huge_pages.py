"""Memory in huge pages, where the system has them: large arrays are read without misses of the address translation."""

from __future__ import annotations

import contextlib
import mmap


def huge_page_memory(size: int) -> mmap.mmap | bytearray:
    """`size` bytes of zeros, page-aligned; ordinary memory where there are no huge pages."""
    if not size or not hasattr(mmap, "MADV_HUGEPAGE"):
        return bytearray(size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # huge pages need private memory
    with contextlib.suppress(OSError):  # an operating system without huge pages is only slower
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
