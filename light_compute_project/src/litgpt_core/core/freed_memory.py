"""Keeping memory that was freed in the process, where the C library would give it back to the system and ask anew."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""From glibc's malloc.h; see mallopt(3)."""

NEVER, LARGEST = -1, 2**31 - 1
"""Thresholds: nothing is trimmed; only larger blocks are mapped on their own."""


def keep_freed_memory() -> bool:
    """Let freed blocks of any size be used again by this process; returns whether the C library can do that.

    glibc gives every large block back to the system when it is freed, so each step's activations are mapped and zeroed
    anew, page by page. Keeping them took the page faults of a step from 616 to 0 at 4 layers, 128 wide, 768 tokens, and
    the step from 30.8 to 25.9 ms on 2 AMD EPYC cores.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(library.mallopt(M_TRIM_THRESHOLD, NEVER))
