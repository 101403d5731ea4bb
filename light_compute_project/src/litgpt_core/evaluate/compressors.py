"""What general compressors make of the same bytes, as numbers that people know: zstd -19 and xz."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from collections.abc import Sequence

from litgpt_core.data.document import Document


def compressor_bits(documents: Sequence[Document]) -> dict[str, float]:
    """Name of a compressor -> bits per byte of all texts in one file, headers included.

    zstd is a program of the machine and left out where it is not installed. One file is to the compressors' advantage:
    a model begins anew with each text.
    """
    raw = "".join(document.text for document in documents).encode("utf-8")
    sizes = {"xz": len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME))}
    if (program := shutil.which("zstd")) is not None:
        done = subprocess.run([program, "-19", "--no-progress", "-c"], input=raw, capture_output=True, check=False)
        if done.returncode == 0:
            sizes = {"zstd -19": len(done.stdout), **sizes}
    return {name: 8 * size / len(raw) for name, size in sizes.items()}
