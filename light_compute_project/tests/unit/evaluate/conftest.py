"""Small random models with byte tokenizers, in memory: their logits are far apart, so that scores differ."""

from collections.abc import Callable

import pytest
import torch

from litgpt_core import tokenizers
from litgpt_core.evaluate.gpt_scorer import GPTScorer
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.tokenizers.base import Tokenizer

SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 24, "vocab_size": 257, "padding_multiple": 300}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def byte_tokenizer() -> Tokenizer:
    return tokenizers.train(tokenizers.ByteSettings(), [])


@pytest.fixture(scope="session")
def make_scorer(byte_tokenizer: Tokenizer) -> Callable[..., GPTScorer]:
    """`make_scorer(seed=3, name="a", **config)`."""

    def make(*, seed: int = 3, name: str = "model", batch_tokens: int = 8192, **settings: object) -> GPTScorer:
        model = GPT(GPTConfig(**(SMALL | settings))).eval()
        initialize(model, seed=seed)
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if parameter.dim() > 1 and "wte" not in parameter_name:
                    parameter.mul_(8)
        return GPTScorer(model, byte_tokenizer, name=name, batch_tokens=batch_tokens)

    return make
