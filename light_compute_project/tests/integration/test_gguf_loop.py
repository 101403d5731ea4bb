"""A GGUF file comes in, is fine-tuned on a chat log, and goes out as a GGUF file that llama.cpp reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core import checkpoint, tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.export.gguf import llama_cpp
from litgpt_core.export.gguf.exporting import export_gguf
from litgpt_core.export.gguf.header import read_gguf
from litgpt_core.export.gguf.importing import import_gguf
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.prompts import load_style, save_style, style_named


def make_file(folder: Path) -> Path:
    """A small Llama with a byte tokenizer and a chat style, as a GGUF file."""
    tokenizer = folder / "bytes"
    tokenizer.mkdir()
    tokenizers.train(tokenizers.ByteSettings(), []).save(tokenizer)
    model = GPT(
        GPTConfig(
            name="tiny", block_size=128, n_layer=2, n_head=4, n_query_groups=2, n_embd=64, intermediate_size=96,
            vocab_size=256, padding_multiple=256, norm_class_name="RMSNorm", bias=False, parallel_residual=False,
            rotary_percentage=1.0, mlp_class_name="LLaMAMLP",
        )
    )  # fmt: skip
    initialize(model, seed=1)
    made = save_directory(
        folder / "made", weights=model.state_dict(), config=model.config, tokenizer_dir=tokenizer, hyperparameters={}
    )
    save_style(made, style_named("human_assistant"))
    (made / "checksums.json").unlink()
    return export_gguf(made, folder / "in.gguf", type="f16", check=False).path


def test_in_finetuned_and_out_again(module_shell: Any) -> None:
    folder: Path = module_shell.folder
    came_in = import_gguf(make_file(folder), folder / "checkpoints" / "model").path
    rows = [
        {"user": f"What colour is the {colour} {thing}?", "assistant": f"The {thing} is {colour}.",
         "id": f"{colour}-{thing}", "conversation_id": f"{colour}-{thing}", "turn": 0}
        for colour in ("red", "blue", "green") for thing in ("car", "door", "cat", "ball")
    ]  # fmt: skip
    (folder / "chat_history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    module_shell.train(
        "+experiment=finetune_chat", "init_from=checkpoints/model", "logger=none", "trainer=deterministic",
        "trainer.max_steps=4", "trainer.eval_interval=4", "trainer.save_interval=4", "trainer.sample_tokens=0",
        "trainer.micro_batch_size=2", "optim.lr=3e-3", "run.name=tuned",
    )  # fmt: skip
    tuned = folder / "runs" / "tuned" / "final"
    before, after = checkpoint.load_weights(came_in), checkpoint.load_weights(tuned)
    assert before.keys() == after.keys()
    assert not torch.equal(before["lm_head.weight"].float(), after["lm_head.weight"].float())
    assert load_style(tuned) is not None

    made = export_gguf(tuned, folder / "out.gguf", type="f32")
    assert made.parity is not None and made.parity.kl < 1e-9
    first, last = read_gguf(folder / "in.gguf").metadata, read_gguf(made.path).metadata
    for key in ("general.architecture", "tokenizer.ggml.model", "tokenizer.chat_template"):
        assert first[key] == last[key], key
    assert list(first["tokenizer.ggml.tokens"]) == list(last["tokenizer.ggml.tokens"])
    if llama_cpp.reader_name() is None:
        pytest.skip("written and read back; xllamacpp (llama.cpp) is not installed")
    assert (made.parity.ids_equal, made.parity.greedy_equal) == (made.parity.texts, made.parity.tokens)
    assert made.parity.max_delta is not None and made.parity.max_delta < 1e-4
