"""Hugging Face in and out with the scripts as typed: a trained model goes out, comes back, and is trained further."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core import checkpoint, tokenizers

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

PAGE = Path(__file__).resolve().parents[2] / "docs" / "huggingface.md"
SHORT = (
    "trainer.max_steps=4",
    "trainer.global_batch_size=4",
    "trainer.eval_interval=2",
    "trainer.save_interval=2",
    "trainer.eval_tokens=500",
    "trainer.sample_tokens=8",
    "trainer.compile=false",
    "logger=none",
)


@pytest.fixture(scope="module")
def text(module_shell: Any) -> Path:
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 7))) for _ in range(300)]
    file = module_shell.folder / "text.txt"
    file.write_text("\n".join(" ".join(rng.choices(words, k=9)) for _ in range(1500)))
    return Path(file)


def hub_folder(shell: Any, text: Path, name: str, model: Any) -> Path:
    """What a download leaves: the model as transformers saves it, and a tokenizer of 500 ids for 512 rows."""
    folder = shell.folder / name
    trained = tokenizers.train(tokenizers.SubwordSettings(kind="bpe", vocab_size=500), [text.read_text()])
    trained.save(folder)
    model.save_pretrained(folder)
    content = json.loads((folder / "tokenizer_config.json").read_text())
    del content["kind"]
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return Path(folder)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def test_a_folder_comes_in_is_trained_further_and_goes_out(module_shell: Any, text: Path) -> None:
    shell = module_shell
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, head_dim=32,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    model = transformers.Qwen3ForCausalLM(config).eval()
    folder = hub_folder(shell, text, "Qwen3-mini", model)
    said = shell.run(shell.command("import_huggingface.py", str(folder), "ckpt")).stdout
    assert "Qwen3ForCausalLM" in said and "500 tokens in 512 rows" in said
    ids = torch.randint(500, (2, 40))
    assert difference(checkpoint.load_model(shell.folder / "ckpt")(ids), model(ids).logits) <= 1e-5
    shell.run(shell.command("generate.py", "ckpt", "--prompt", "the ", "--max_new_tokens", "5"))

    pretrained = ("init_from=ckpt", "model=pretrained", "tokenizer=pretrained", "data=text", f"data.path={text}")
    shell.train(*pretrained, *SHORT, "run.name=further", "model.block_size=64", "optim.lr=1e-3")
    log = shell.rows("further")
    assert log[-1]["step"] == 4
    final = shell.folder / "runs" / "further" / "final"
    assert checkpoint.is_tied(final), "tied in the folder, tied in training"
    moved = checkpoint.load_weights(final)["transformer.wte.weight"]
    start = checkpoint.load_weights(shell.folder / "ckpt")["transformer.wte.weight"]
    assert moved.shape == start.shape == (512, 64) and 0 < (moved - start).abs().max() < 0.1
    again = shell.train(*pretrained, *SHORT, "run.name=further", "model.block_size=64", "optim.lr=1e-3", expect=2)
    assert "in use" in again.stderr
    resumed = shell.train(
        *pretrained, *SHORT, "run.name=further", "model.block_size=64", "optim.lr=1e-3", "run.resume=true",
        "trainer.max_steps=6",
    )  # fmt: skip
    assert "continuing from" in resumed.stderr

    said = shell.run(shell.command("export.py", "runs/further", "--format", "huggingface", "--out", "trained")).stdout
    assert "Qwen3ForCausalLM" in said
    out = transformers.AutoModelForCausalLM.from_pretrained(shell.folder / "trained").eval()
    ids = ids % 400
    assert difference(out(ids).logits, checkpoint.load_model(final)(ids)) <= 1e-5
    there, here = transformers.AutoTokenizer.from_pretrained(shell.folder / "trained"), tokenizers.load(final)
    sample = text.read_text()[:2000]
    assert there.encode(sample) == here.encode(sample)
    assert out.generate(ids[:1, :5], max_new_tokens=4, do_sample=False).shape[1] > 5


def test_what_upstreams_own_initialisation_writes_is_trained_further(module_shell: Any, text: Path) -> None:
    """A directory that LitGPT made: a padded vocabulary, no checksums, no tokenizer of a kind of ours."""
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import save_config

    folder = module_shell.folder / "from_litgpt"
    folder.mkdir()
    torch.manual_seed(0)
    model = GPT(Config.from_name("pythia-14m", n_layer=1, n_embd=64, n_head=4, padded_vocab_size=640, block_size=128))
    torch.save(model.state_dict(), folder / "lit_model.pth")
    save_config(model.config, folder)
    hub = hub_folder(module_shell, text, "tokenizer-only", transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=512, n_embd=16, n_layer=1, n_head=2, n_positions=32)))  # fmt: skip
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(hub / name, folder / name)
    module_shell.train(
        f"init_from={folder}", "model=pretrained", "tokenizer=pretrained", "data=text", f"data.path={text}", *SHORT,
        "run.name=litgpt", "model.block_size=32",
    )  # fmt: skip
    final = module_shell.folder / "runs" / "litgpt" / "final"
    assert checkpoint.load_weights(final)["lm_head.weight"].shape == (640, 64)
    upstream = GPT(Config.from_file(final / "model_config.yaml"))
    upstream.load_state_dict(torch.load(final / "lit_model.pth", weights_only=True))


def test_mistakes_are_named_and_cost_nothing(module_shell: Any, text: Path) -> None:
    shell = module_shell
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=512, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    )
    folder = hub_folder(shell, text, "cut", model)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    done = shell.run(shell.command("import_huggingface.py", str(folder), "from_cut"), expect=2)
    assert "model.safetensors" in done.stderr and "truncated" in done.stderr and "Traceback" not in done.stderr
    assert not (shell.folder / "from_cut").exists()
    done = shell.run(shell.command("export.py", "nothing", "--format", "huggingface", "--out", "x"), expect=2)
    assert "There is no model 'nothing'" in done.stderr
    done = shell.train("init_from=nothing", "model=pretrained", "tokenizer=pretrained", "data=text",
                       f"data.path={text}", "run.name=nothing", expect=2)  # fmt: skip
    assert "There is no model 'nothing'" in done.stderr and not (shell.folder / "runs" / "nothing").exists()


@pytest.mark.nightly
def test_every_command_of_the_page_runs_and_says_what_the_page_says(shell: Any) -> None:
    rng = random.Random(1)
    texts = shell.folder / "my_texts"
    texts.mkdir()
    for number in range(4):
        (texts / f"{number}.txt").write_text(" ".join("".join(rng.choices("etaoin", k=5)) for _ in range(3000)))
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    said = ""
    for line in filter(None, "\n".join(blocks).splitlines()):
        script, *arguments = shlex.split(line.removeprefix("uv run python light_compute_project/scripts/"))
        short = [*SHORT, f"data.cache_dir={shell.cache}"] if script == "train.py" else []
        said += shell.run(shell.command(script, *arguments, *short)).stdout
    shown = re.search(r"```text\n(smoke_model: .*?)```", page, re.DOTALL)
    assert shown and shown[1] in said
