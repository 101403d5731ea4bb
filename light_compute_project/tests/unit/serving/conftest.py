"""A small model in a folder of its own, and a server over it in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from starlette.testclient import TestClient

from litgpt_core import tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.generation.sampling_settings import SamplingSettings
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.prompts import save_style, style_named
from litgpt_core.serving.app import create_app
from litgpt_core.serving.models import ModelPool
from litgpt_core.serving.settings import ServerSettings

SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 96, "vocab_size": 256, "padding_multiple": 300}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """`make_model("name", seed=1, style="human_assistant")`: a checkpoint directory below tmp_path/models."""

    def _make(name: str, *, seed: int = 1, style: str | None = "human_assistant", tied: bool = False) -> Path:
        model = GPT(GPTConfig(**SMALL, tie_embeddings=tied)).eval()
        initialize(model, seed=seed)
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if parameter.dim() > 1 and "wte" not in parameter_name:
                    parameter.mul_(8)
        files = tmp_path / f"tokenizer with {style}"
        files.mkdir(exist_ok=True)
        tokenizers.train(tokenizers.ByteSettings(), []).save(files)
        if style is not None:
            save_style(files, style_named(style))
        return save_directory(
            tmp_path / "models" / name,
            weights=model.state_dict(),
            config=model.config,
            tokenizer_dir=files,
            hyperparameters={},
        )

    return _make


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., ServerSettings]:
    """`settings(slots=2)`: of a server that logs into tmp_path and decodes greedily."""

    def _settings(**words: object) -> ServerSettings:
        usual = {
            "chat_log": tmp_path / "chat_history.jsonl",
            "log_file": None,
            "default_tokens": 12,
            "sampling": SamplingSettings(temperature=0.0),
            "device": "cpu",
            "precision": "32",
            "slots": 4,
            "hosts": ("testserver",),
        }
        return ServerSettings(**(usual | words))

    return _settings


@pytest.fixture
def client(tmp_path: Path, make_model, settings) -> Iterator[Callable[..., TestClient]]:
    """`client(api_key=...)`: a client of a started server whose default model is `chatty`."""
    make_model("chatty")
    opened = []

    def _client(**words: object) -> TestClient:
        chosen = settings(**words)
        app = create_app(chosen, ModelPool(chosen, model="chatty", roots=(tmp_path / "models",)))
        test_client = TestClient(app, raise_server_exceptions=False)
        test_client.__enter__()
        opened.append(test_client)
        return test_client

    yield _client
    for test_client in opened:
        test_client.__exit__(None, None, None)
