"""A directory that litgpt made generates here what it generates there, and the other way round."""

from pathlib import Path

import pytest
import torch
import yaml

from litgpt_core.checkpoint import save_directory, verify
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.sampling import GREEDY

pytestmark = pytest.mark.parity

FAMILIES = {
    "pythia": {"rotary_percentage": 0.25},
    "llama": {
        "norm_class_name": "RMSNorm",
        "mlp_class_name": "LLaMAMLP",
        "intermediate_size": 96,
        "n_query_groups": 2,
        "bias": False,
        "parallel_residual": False,
        "rotary_percentage": 1.0,
    },
    "gemma": {
        "name": "Gemma-tiny",
        "norm_class_name": "RMSNorm",
        "mlp_class_name": "GemmaMLP",
        "intermediate_size": 96,
        "scale_embeddings": True,
        "n_query_groups": 1,
        "bias": False,
        "parallel_residual": False,
        "rotary_percentage": 1.0,
    },
}


def upstream_tokens(directory: Path, prompt: list[int], *, n: int) -> list[int]:
    """Greedy tokens by litgpt's own code from the files in `directory`."""
    from litgpt.config import Config
    from litgpt.generate.base import generate
    from litgpt.model import GPT

    with torch.device("cpu"):
        model = GPT(Config.from_file(directory / "model_config.yaml")).eval()
    model.load_state_dict(torch.load(directory / "lit_model.pth", weights_only=True))
    model.set_kv_cache(batch_size=1)
    ids = generate(model, torch.tensor(prompt), len(prompt) + n, temperature=0.0, include_prompt=False)
    return [int(token) for token in ids]


@pytest.fixture(params=FAMILIES, ids=str)
def upstream_directory(request, tmp_path, tokenizer) -> Path:
    """What litgpt saves: weights, config and tokenizer, no checksums."""
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import save_config

    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 48, "vocab_size": 256, "padding_multiple": 64}
    model = GPT(Config(**(sizes | FAMILIES[request.param])))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    folder = tmp_path / "from_litgpt"
    folder.mkdir()
    tokenizer.save(folder)
    torch.save(model.state_dict(), folder / "lit_model.pth")
    save_config(model.config, folder)
    return folder


def test_both_write_the_same_from_each_others_directories(upstream_directory, tokenizer, tmp_path):
    prompt = tokenizer.encode("def main():")
    verify(upstream_directory)
    engine = Engine.from_directory(upstream_directory, device="cpu", dtype="32")
    ours = engine.generate(prompt, max_new_tokens=30, sampling=GREEDY, stop_ids=())
    assert ours == upstream_tokens(upstream_directory, prompt, n=30)
    assert len(set(ours)) > 3, "a model that repeats itself shows nothing"

    back = save_directory(
        tmp_path / "from_here",
        weights=engine.model.state_dict(),
        config=engine.model.config,
        tokenizer_dir=upstream_directory,
        hyperparameters={},
    )
    assert yaml.safe_load((back / "model_config.yaml").read_text())["n_layer"] == 2
    assert upstream_tokens(back, prompt, n=30) == ours


def test_upstreams_tokenizer_reads_the_directory(upstream_directory, tokenizer):
    from litgpt.tokenizer import Tokenizer as UpstreamTokenizer

    assert UpstreamTokenizer(upstream_directory).encode("def main():").tolist() == tokenizer.encode("def main():")
