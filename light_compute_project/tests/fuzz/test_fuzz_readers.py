"""Every reader of files of others, on mutated files: it reads them or raises one of our errors, soon."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from litgpt_core import checkpoint, tokenizers
from litgpt_core.checkpoint import sharded
from litgpt_core.checkpoint.discovery import discover
from litgpt_core.config.litgpt_keys import read as read_litgpt_config
from litgpt_core.core.parsing import ParsingError, read_json, read_yaml
from litgpt_core.core.torch_file import TorchFileError, check_torch_file
from litgpt_core.data.conversations import read_conversations
from litgpt_core.data.settings import ChatDataSettings
from litgpt_core.export.gguf.header import read_gguf
from litgpt_core.export.gguf.layout import TENSOR_TYPES
from litgpt_core.export.gguf.writing import NewTensor, write_gguf
from litgpt_core.export.huggingface.exporting import export_directory
from litgpt_core.export.huggingface.importing import import_folder
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.prompts import Message, load_style
from litgpt_core.serving.chat_log import ExchangeLog
from litgpt_core.tokenizers.settings import ByteSettings, CharSettings, SubwordSettings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses alarms and resource limits of POSIX")

TEXT = "the cat sat on the mat, the dog too; 12 cats\n" * 20
CONFIG = GPTConfig(
    name="tiny",
    n_layer=1,
    n_head=2,
    n_embd=16,
    block_size=16,
    vocab_size=290,
    padded_vocab_size=290,
    norm_class_name="RMSNorm",
    mlp_class_name="LLaMAMLP",
    intermediate_size=24,
    bias=False,
    rotary_percentage=1.0,
    parallel_residual=False,
)
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %}{{ m['content'] | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)

Fuzz = Callable[[Path, Callable[[Path], object]], int]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory of a model with one layer and a trained tokenizer, without checksums."""
    folder = tmp_path_factory.mktemp("corpus")
    settings = SubwordSettings(kind="bpe", vocab_size=260)
    tokenizers.train(settings, [TEXT]).save(folder / "tokenizer")
    (folder / "tokenizer" / "chat_template.jinja").write_text(TEMPLATE)
    torch.manual_seed(0)
    checkpoint.save_directory(
        folder / "model",
        weights=GPT(CONFIG).state_dict(),
        config=CONFIG,
        tokenizer_dir=folder / "tokenizer",
        hyperparameters={"seed": 1, "nested": {"a": [1, 2]}},
    )
    (folder / "model" / "checksums.json").unlink()  # with it, every change is found before anything is read
    return folder / "model"


def _read_checkpoint(folder: Path) -> None:
    discover([folder.parent])
    checkpoint.verify(folder)
    checkpoint.load_model(folder)
    tokenizers.load(folder)


def test_checkpoint_directory(fuzz: Fuzz, model: Path) -> None:
    assert fuzz(model, _read_checkpoint) > 3


def test_weights_in_both_formats(fuzz: Fuzz, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    weights = {"a.weight": torch.ones(3, 4), "b": torch.zeros(2, dtype=torch.bfloat16)}
    torch.save(weights, corpus / "new.pth")
    torch.save({"model": weights, "step": 3, "betas": (0.9, 0.95)}, corpus / "extra.pth")
    torch.save(weights, corpus / "old.bin", _use_new_zipfile_serialization=False)

    def read(folder: Path) -> None:
        for name in ("new.pth", "extra.pth"):
            checkpoint.load_weights(folder / name)
        for file in sorted(folder.iterdir()):
            try:
                check_torch_file(file)
            except TorchFileError:
                continue
            torch_load_never_hangs(file)

    assert fuzz(corpus, read) > 10


def torch_load_never_hangs(file: Path) -> None:
    """What passes the check may be damaged for torch, but takes no time."""
    from litgpt_core.core.errors import CheckpointError
    from litgpt_core.export.huggingface.folder import _load_old_torch

    if file.suffix == ".bin":
        try:
            _load_old_torch(file)
        except CheckpointError:
            return


def test_sharded_checkpoint(fuzz: Fuzz, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    sharded.write_shards(corpus, {"model/a": torch.ones(3, 4)}, group=None, gather=lambda value: [value])
    assert fuzz(corpus, lambda folder: sharded.read_full(folder, prefix=sharded.MODEL)) > 10


def test_huggingface_folder(fuzz: Fuzz, model: Path, tmp_path: Path) -> None:
    corpus = export_directory(model, tmp_path / "corpus").path
    (corpus / "checksums.json").unlink()
    target = tmp_path / "imported"
    assert fuzz(corpus, lambda folder: import_folder(folder, target, force=True)) > 3


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "char", "byte", "sentencepiece", "foreign"])
def test_tokenizer(fuzz: Fuzz, tmp_path: Path, kind: str) -> None:
    corpus = tmp_path / "corpus"
    own = {"char": CharSettings(), "byte": ByteSettings()}
    name = "bpe" if kind == "foreign" else kind
    size = {"sentencepiece": 300, "wordpiece": 520}.get(kind, 260)
    settings = own.get(name) or SubwordSettings(kind=name, vocab_size=size)  # type: ignore[arg-type]
    tokenizers.train(settings, [TEXT]).save(corpus)
    if kind == "foreign":
        config = json.loads((corpus / "tokenizer_config.json").read_text())
        del config["kind"]
        (corpus / "tokenizer_config.json").write_text(json.dumps(config))
        (corpus / "generation_config.json").write_text('{"eos_token_id": [0, 1]}')

    def read(folder: Path) -> None:
        tokenizer = tokenizers.load(folder)
        ids = tokenizer.encode("the cat 12")
        tokenizer.decode(ids)
        [tokenizer.token_bytes(token_id) for token_id in ids]

    assert fuzz(corpus, read) > 5


def test_chat_template(fuzz: Fuzz, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "chat_template.jinja").write_text(TEMPLATE)
    (corpus / "tokenizer_config.json").write_text('{"eos_token": {"content": "</s>"}, "bos_token": "<s>"}')
    (corpus / "model_config.yaml").write_text("name: tiny\n")
    talk = [Message(role="system", content="s"), Message(role="user", content="hello")]

    def read(folder: Path) -> None:
        style = load_style(folder)
        if style is not None:
            style.prompt(talk)
            style.stop_strings()

    assert fuzz(corpus, read) > 2


def test_configs(fuzz: Fuzz, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "model_config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(CONFIG)))
    (corpus / "litgpt.yaml").write_text("model_name: pythia-14m\ntrain:\n  lr_warmup_steps: 10\n  max_tokens: 3e9\n")
    (corpus / "anchors.yaml").write_text("a: &a {x: 1, y: [1e3, 0x10, 2020-01-01]}\nb: {<<: *a, z: *a}\n")
    (corpus / "any.json").write_text('{"a": [1, 2.5, null, true, "x"], "b": {"c": {}}}')

    def read(folder: Path) -> None:
        GPTConfig.from_checkpoint(folder)
        read_litgpt_config(folder / "litgpt.yaml")
        for parse, name in ((read_yaml, "anchors.yaml"), (read_json, "any.json"), (read_yaml, "any.json")):
            try:
                parse(folder / name)
            except ParsingError as problem:
                assert len(str(problem)) < 2_000

    assert fuzz(corpus, read) > 10


def test_chat_log_and_conversations(fuzz: Fuzz, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    log = ExchangeLog(corpus / "log.jsonl")
    row = {"timestamp": "2026-01-01", "user": "a", "assistant": "b", "id": "1", "conversation_id": "1", "turn": 1}
    (log.path).write_text("".join(json.dumps({**row, "id": str(n), "turn": n}) + "\n" for n in range(3)))
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    (corpus / "openai.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    (corpus / "sharegpt.jsonl").write_text(json.dumps({"conversations": turns}) + "\n")
    for leftover in corpus.glob(".*"):
        leftover.unlink()

    def read(folder: Path) -> None:
        ExchangeLog(folder / "log.jsonl")
        read_conversations(ChatDataSettings(path=str(folder)))

    assert fuzz(corpus, read) > 10


def test_gguf(fuzz: Fuzz, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    metadata = {"general.architecture": "llama", "llama.block_count": 1, "a.float": 0.5, "a.bool": True}
    metadata |= {"tokenizer.ggml.tokens": ["a", "b", "</s>"], "a.numbers": [1, 2, 3]}
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    tensors = [
        NewTensor(name="a.weight", shape=(4, 6), type=TENSOR_TYPES[0], make=lambda: values.reshape(-1).view(np.uint8)),
        NewTensor(name="b.weight", shape=(6,), type=TENSOR_TYPES[0], make=lambda: values[0].view(np.uint8)),
    ]
    write_gguf(corpus / "model.gguf", metadata, tensors)

    def read(folder: Path) -> None:
        file = read_gguf(folder / "model.gguf")
        for tensor in file.tensors.values():
            file.raw(tensor)

    assert fuzz(corpus, read) > 10
