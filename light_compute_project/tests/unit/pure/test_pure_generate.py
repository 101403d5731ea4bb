"""Seeded text of the plain-Python model is the engine's, and it needs no torch to come about."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from litgpt_core import tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.generation import Engine, SamplingSettings
from litgpt_core.generation.engines import load_engine
from litgpt_core.generation.pure_engine import PureEngine
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.pure.rng import Rng
from litgpt_core.pure.sampling import Sampling, sample

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "generate.py"
SETTINGS = [
    SamplingSettings(temperature=0.0),
    SamplingSettings(),
    SamplingSettings(temperature=0.7, top_k=20),
    SamplingSettings(temperature=1.3, top_p=0.8),
    SamplingSettings(temperature=1.1, top_k=30, top_p=0.9, min_p=0.02),
    SamplingSettings(temperature=2.0, min_p=0.1),
    SamplingSettings(repetition_penalty=1.3, frequency_penalty=0.4, presence_penalty=-0.3),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 256 bytes whose logits are far apart, with a window of 24 tokens."""
    config = GPTConfig(n_layer=2, n_head=4, n_query_groups=2, n_embd=32, block_size=24, vocab_size=256)
    model = GPT(config)
    initialize(model, seed=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "wte" not in name:
                parameter.mul_(6)
    folder = tmp_path_factory.mktemp("model")
    tokenizers.train(tokenizers.ByteSettings(), []).save(folder / "tokenizer")
    weights = model.state_dict()
    return save_directory(
        folder / "final", weights=weights, config=config, tokenizer_dir=folder / "tokenizer", hyperparameters={}
    )


@pytest.mark.parametrize("seed", [0, 1, 1337, 2**40 + 5, -3])
def test_random_numbers_are_torchs(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rng = Rng(seed)
    expected = [
        number for _ in range(12) for number in torch.rand(64, generator=generator, dtype=torch.float64).tolist()
    ]
    assert [rng.random() for _ in expected] == expected  # 768 numbers: the state is made anew after 312


def test_without_a_seed_numbers_differ() -> None:
    assert Rng(None).random() != Rng(None).random()


@pytest.mark.parametrize("sampling", SETTINGS, ids=lambda each: str(dataclasses.asdict(each)))
def test_seeded_text_is_the_engines(directory: Path, sampling: SamplingSettings) -> None:
    """60 tokens with a window of 24, so that the window slides, from prompts shorter and longer than it."""
    engine, pure = Engine.from_directory(directory, device="cpu", dtype="32", compile="false"), PureEngine(directory)
    for prompt, seed in (("def ", 1), ("", 2), ("x = [1, 2, 3, 4, 5, 6, 7, 8, 9]", 3)):
        limits = {"max_new_tokens": 60, "sampling": sampling, "seed": seed, "stop_ids": ()}
        text = "".join(pure.generate_text_stream(prompt, **limits))  # type: ignore[arg-type]
        assert text == engine.generate_text(prompt, **limits)  # type: ignore[arg-type]
        assert pure.stats.new_tokens == 60


def test_stop_texts_and_stop_ids_end_it(directory: Path) -> None:
    pure = PureEngine(directory)
    limits = {"max_new_tokens": 40, "sampling": SamplingSettings(), "seed": 1}
    whole = "".join(pure.generate_text_stream("def ", stop_ids=(), **limits))  # type: ignore[arg-type]
    stop = whole[3:5]
    cut = "".join(pure.generate_text_stream("def ", stop_ids=(), stop=(stop,), **limits))  # type: ignore[arg-type]
    assert cut == whole[: whole.index(stop)]
    first = "".join(pure.generate_text_stream("def ", stop_ids=range(256), **limits))  # type: ignore[arg-type]
    assert first == ""


def test_logits_without_numbers_are_an_error() -> None:
    for bad in (float("nan"), float("inf")):
        for logits in ([bad, 1.0], [1.0, bad]):
            with pytest.raises(CheckpointError, match="NaN or infinite"):
                sample(logits, Sampling(), uniform=0.5)
    assert sample([1.0, -float("inf")], Sampling(), uniform=0.999) == 0


def test_options_that_would_be_ignored_are_refused() -> None:
    wrong = {"num_beams": 3, "contrastive_alpha": 0.5, "device": "cuda", "precision": "bf16", "compile": "true"}
    for name, value in wrong.items():
        with pytest.raises(ConfigError, match=f"--{name}"):
            load_engine(Path("nowhere"), {"engine": "pure", name: value})


def test_the_script_never_imports_torch(directory: Path) -> None:
    """generate.py --engine pure in a process of its own prints the engine's text."""
    code = (
        "import runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: sys.exit(end.code or ('torch was imported' if 'torch' in sys.modules else 0))"
    )
    options = ("--engine", "pure", "--prompt", "def ", "--max_new_tokens", "20", "--seed", "7", "--no-stop_at_eos")
    command = [sys.executable, "-c", code, str(SCRIPT), str(directory), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    engine = Engine.from_directory(directory, device="cpu", dtype="32", compile="false")
    sampling = SamplingSettings(temperature=0.8, top_k=50)
    text = engine.generate_text("def ", max_new_tokens=20, sampling=sampling, seed=7, stop_ids=())
    assert done.stdout == f"def {text}\n"
    assert "20 tokens, " in done.stderr
