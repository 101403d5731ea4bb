"""A small random model with the byte tokenizer, and a checkpoint directory of it."""

import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from litgpt_core import tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.generation import kernel_build
from litgpt_core.generation.kernel_build import cached_library, find_compiler, load_kernel
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.tokenizers.base import Tokenizer

SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 24, "vocab_size": 256, "padding_multiple": 300}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def kernel() -> None:
    """Skips where the CPU kernel cannot be built: no Linux, no compiler. A compilation error is an error."""
    try:
        cached_library()
        find_compiler()
    except EnvironmentProblem as problem:
        pytest.skip(problem.given)
    load_kernel()


OLDER = {"without products of bfloat16": "-march=native -mno-avx512bf16", "without AVX-512": "-march=x86-64-v3"}
"""Older processors that this one can emulate, and the compiler flags."""


@pytest.fixture(params=["this processor", *OLDER])
def processor(request: pytest.FixtureRequest, kernel: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernel as built here, and as built for older processors."""
    if request.param not in OLDER:
        yield
        return
    if platform.machine() != "x86_64":
        pytest.skip("for x86-64")
    if request.param == "without products of bfloat16" and "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has none: it is tested as it is")
    load_kernel.cache_clear()
    flags = tuple(OLDER[request.param].split())
    monkeypatch.setattr(kernel_build, "_flags", lambda: (*kernel_build.FLAGS, *flags))
    yield
    load_kernel.cache_clear()


@pytest.fixture
def build() -> Callable[..., GPT]:
    """`build(**settings)`: a model whose logits are far enough apart that greedy choices are no ties."""

    def _build(**settings: object) -> GPT:
        model = GPT(GPTConfig(**(SMALL | settings))).eval()
        initialize(model, seed=3)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1 and "wte" not in name:
                    parameter.mul_(8)
        return model

    return _build


@pytest.fixture
def tokenizer() -> Tokenizer:
    return tokenizers.train(tokenizers.ByteSettings(), [])


@pytest.fixture
def directory(tmp_path: Path, build: Callable[..., GPT], tokenizer: Tokenizer) -> Path:
    model = build()
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(tmp_path / "tokenizer")
    return save_directory(
        tmp_path / "runs" / "small" / "final",
        weights=model.state_dict(),
        config=model.config,
        tokenizer_dir=tmp_path / "tokenizer",
        hyperparameters={},
    )
