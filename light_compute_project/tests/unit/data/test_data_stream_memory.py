"""Peak memory of preparing a corpus does not grow with it; measured in a process of its own, without torch."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

BOUND_MB = 600
GROWTH = 1.05
SCRIPT = """
import re, sys
from pathlib import Path
from litgpt_core.data.prepare import prepare
from litgpt_core.data.stream_settings import RowsSettings
from litgpt_core.tokenizers.settings import ByteSettings, SubwordSettings
kind, *paths = sys.argv[1:]
tokenizer = ByteSettings() if kind == "byte" else SubwordSettings(kind=kind, vocab_size=4096, max_train_bytes=2_000_000)
for path in paths:
    prepare(RowsSettings(path=path, cache_dir=path + ".cache", workers=1), tokenizer)
    print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
assert "torch" not in sys.modules
"""


def write_corpus(path: Path, megabytes: int) -> str:
    """Documents of about 4 kB: a thousand different ones, each with its number, so that none are equal."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randrange(2, 9))) for _ in range(5000)]
    texts = ["\n".join(" ".join(rng.choices(words, k=12)) for _ in range(55)) for _ in range(200)]
    with path.open("w") as file:
        for number in range(megabytes * 10**6 // 4_200):
            file.write(json.dumps({"text": f"document {number}\n{texts[number % 200]}"}) + "\n")
    return str(path)


def peaks(kind: str, paths: list[str]) -> list[float]:
    """MB after each corpus: the largest so far."""
    command = [sys.executable, "-P", "-c", SCRIPT, kind, *paths]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "RAYON_NUM_THREADS": "1"}
    )
    return [float(line) for line in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc of Linux has the peak of this program alone")
def test_memory_is_that_of_a_batch(tmp_path: Path) -> None:
    first = write_corpus(tmp_path / "first.jsonl", 8)  # so that what is loaded once does not count
    found = peaks("byte", [first, *(write_corpus(tmp_path / f"{size}.jsonl", size) for size in (8, 32))])
    assert max(found) < BOUND_MB and found[2] < GROWTH * found[1], found


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="/proc of Linux has the peak of this program alone")
def test_memory_is_flat_from_64_to_256_megabytes(tmp_path: Path) -> None:
    first = write_corpus(tmp_path / "first.jsonl", 64)  # so that what is loaded once does not count
    found = peaks("sentencepiece", [first, *(write_corpus(tmp_path / f"{size}.jsonl", size) for size in (64, 256))])
    print("peaks in MB:", [round(each) for each in found])
    assert max(found) < BOUND_MB and found[2] < GROWTH * found[1], found
