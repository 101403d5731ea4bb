"""What `generate.py` builds on its first start is there at the second: the CPU kernel, and torch.compile's code."""

from __future__ import annotations

from pathlib import Path

import pytest

from litgpt_core import tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.core.machine import compile_obstacle
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize

pytestmark = pytest.mark.skipif(compile_obstacle("cpu") is not None, reason="nothing is compiled without a compiler")


@pytest.fixture
def checkpoint(shell) -> Path:
    """One layer of random weights with the byte tokenizer."""
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=32, block_size=32, vocab_size=256))
    initialize(model, seed=1)
    tokenizer = shell.folder / "tokenizer"
    tokenizer.mkdir()
    tokenizers.train(tokenizers.ByteSettings(), []).save(tokenizer)
    path = shell.folder / "model"
    return save_directory(
        path, weights=model.state_dict(), config=model.config, tokenizer_dir=tokenizer, hyperparameters={}
    )


def built(shell) -> dict[str, int]:
    """Libraries in the user's cache folder and when they were written."""
    cache = Path(shell.environment["HOME"]) / ".cache" / "light_compute_project"
    return {str(path.relative_to(cache)): path.stat().st_mtime_ns for path in cache.rglob("*.so")}


@pytest.mark.parametrize(
    ("word", "place"), [("auto", "kernels/"), pytest.param("true", "inductor/", marks=pytest.mark.nightly)]
)
def test_the_second_start_compiles_nothing(shell, checkpoint, word, place):
    shell.environment.pop("XDG_CACHE_HOME", None)
    shell.environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    arguments = ("--max_new_tokens", "20", "--device", "cpu", "--compile", word, "--no-stop_at_eos")
    command = shell.command("generate.py", str(checkpoint), "--prompt", "def ", *arguments)
    first = shell.run(command)
    after_first = built(shell)
    assert any(name.startswith(place) for name in after_first)
    second = shell.run(command)
    assert built(shell) == after_first
    assert second.stdout == first.stdout
