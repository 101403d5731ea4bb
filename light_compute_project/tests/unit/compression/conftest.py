"""A small random model with unequal channels, its checkpoint directory, and two domains of text."""

from pathlib import Path

import pytest
import torch

from litgpt_core import tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.compression.state import WorkingModel
from litgpt_core.compression.texts import Domain
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize

SIZES = {"n_layer": 3, "n_head": 4, "n_embd": 64, "block_size": 32, "vocab_size": 256, "padding_multiple": 301}
LLAMA = {
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
    "intermediate_size": 128,
    "rotary_percentage": 1.0,
    "parallel_residual": False,
    "bias": False,
    "n_query_groups": 2,
    "tie_embeddings": True,
}
GPT2 = {"position_embedding": "learned", "parallel_residual": False, "gelu_approximate": "tanh", "tie_embeddings": True}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(family: dict) -> GPT:
    """Random weights; norms, biases and channels of unequal size, so that a method that forgets one is caught."""
    model = GPT(GPTConfig(**(SIZES | family))).eval()
    initialize(model, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.mul_(3 if parameter.dim() > 1 else 1).add_((0.05 if parameter.dim() > 1 else 0.3) * noise)
    return model


@pytest.fixture
def llama() -> WorkingModel:
    return WorkingModel(build(LLAMA))


@pytest.fixture
def make():
    """`make()` builds the same model again."""
    return lambda: WorkingModel(build(LLAMA))


@pytest.fixture
def gpt2() -> WorkingModel:
    return WorkingModel(build(GPT2))


@pytest.fixture
def windows() -> torch.Tensor:
    return torch.randint(0, 256, (6, 32), generator=torch.Generator().manual_seed(7))


@pytest.fixture
def domains() -> list[Domain]:
    generator = torch.Generator().manual_seed(9)
    rows = [torch.randint(97, 123, (2000,), generator=generator) for _ in range(4)]
    return [Domain("one", rows[0], rows[1]), Domain("two", rows[2], rows[3])]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    model = build(LLAMA)
    tokenizer = tokenizers.train(tokenizers.ByteSettings(), [])
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(tmp_path / "tokenizer")
    return save_directory(
        tmp_path / "runs" / "small" / "final",
        weights=model.state_dict(),
        config=model.config,
        tokenizer_dir=tmp_path / "tokenizer",
        hyperparameters={},
    )
