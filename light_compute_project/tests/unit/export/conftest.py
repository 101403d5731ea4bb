"""Hugging Face folders made here: random weights in every known architecture, with a small trained tokenizer."""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core import tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROWS = 320
"""Embedding rows: more than the 300 ids of the tokenizer."""

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_COMMON = {
    "vocab_size": ROWS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2}
_GPT2 = {"vocab_size": ROWS, "n_positions": 128, "n_embd": 64, "n_layer": 2, "n_head": 4}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {**_GPT2, "bos_token_id": 0, "eos_token_id": 0}),
    "gpt2-untied": (
        "GPT2",
        {
            **_GPT2,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "tie_word_embeddings": False,
            "n_inner": 100,
            "activation_function": "gelu",
        },
    ),
    "llama3": ("Llama", {**_GROUPED, "rope_theta": 500000.0, "rope_scaling": LLAMA3_ROPE, "head_dim": 32}),
    "llama-tied-linear": (
        "Llama",
        {**_COMMON, "tie_word_embeddings": True, "rope_scaling": {"type": "linear", "factor": 4.0}},
    ),
    "llama-biased": ("Llama", {**_GROUPED, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("Mistral", {**_GROUPED, "sliding_window": 16}),
    "qwen2": ("Qwen2", {**_GROUPED, "rope_theta": 1000000.0}),
    "qwen2-windowed": (
        "Qwen2",
        {**_GROUPED, "use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {**_GROUPED, "head_dim": 32, "rope_theta": 1000000.0, "tie_word_embeddings": True}),
    "pythia": ("GPTNeoX", {**_COMMON, "rotary_pct": 0.25}),
    "neox-serial": (
        "GPTNeoX",
        {**_COMMON, "rotary_pct": 1.0, "use_parallel_residual": False, "hidden_act": "gelu_pytorch_tanh"},
    ),
    "phi": ("Phi", {**_COMMON, "partial_rotary_factor": 0.5}),
    "phi3": ("Phi3", {**_GROUPED, "sliding_window": 20, "original_max_position_embeddings": 128}),
    "gemma": ("Gemma", {**_GROUPED, "head_dim": 16}),
    "gemma2": ("Gemma2", {**_GROUPED, "head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 24}),
    "gemma3": ("Gemma3Text", {**_GROUPED, "head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 24}),
}
"""Name -> (transformers' class without its ending, settings). One for each branch of the name maps."""

CLASSES = {"GPT2": "GPT2LMHeadModel", "Gemma3Text": "Gemma3ForCausalLM"}

TEXT = "def main():\n    return [x ** 2 for x in range(10)]  # a comment\n\nclass Größe:\n    pass\n"


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE with 300 ids."""
    folder = tmp_path_factory.mktemp("tokenizer")
    trained = tokenizers.train(tokenizers.SubwordSettings(kind="bpe", vocab_size=300), [TEXT * 20])
    trained.save(folder)
    return folder


@pytest.fixture
def architectures() -> dict[str, tuple[str, dict[str, Any]]]:
    """`ARCHITECTURES`."""
    return ARCHITECTURES


@pytest.fixture
def ids() -> torch.Tensor:
    """(2, 48) token ids, more than any window."""
    return torch.randint(ROWS, (2, 48), generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Theirs:
    """A model of transformers, and the folder that it was saved to."""

    model: Any
    path: Path

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.model(ids).logits


@pytest.fixture
def make_folder(tmp_path: Path, tokenizer_dir: Path) -> Callable[..., Theirs]:
    """`make_folder(name)`: a folder as transformers saves it, weights far enough from zero to matter."""
    transformers = pytest.importorskip("transformers")

    def make(name: str, *, folder: str = "theirs", settings: dict[str, Any] | None = None, **save: Any) -> Theirs:
        kind, known = ARCHITECTURES[name]
        config = getattr(transformers, f"{kind}Config")(**deepcopy(known | (settings or {})))
        config._attn_implementation = "eager"
        torch.manual_seed(1)
        model = getattr(transformers, CLASSES.get(kind, f"{kind}ForCausalLM"))(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        path = tmp_path / folder
        model.save_pretrained(path, **save)
        for file in tokenizer_dir.iterdir():
            (path / file.name).write_bytes(file.read_bytes())
        return Theirs(model, path)

    return make


@pytest.fixture
def save_ours(tmp_path: Path, tokenizer_dir: Path) -> Callable[..., Path]:
    """`save_ours(**settings)`: a checkpoint directory of ours with random weights."""

    def save(*, folder: str = "ours", tokenizer: Path = tokenizer_dir, **settings: Any) -> Path:
        model = GPT(GPTConfig(**({"block_size": 128, "vocab_size": 300, "padding_multiple": 64} | settings)))
        initialize(model, seed=2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.05)
        return save_directory(
            tmp_path / folder,
            weights=model.state_dict(),
            config=model.config,
            tokenizer_dir=tokenizer,
            hyperparameters={},
        )

    return save
