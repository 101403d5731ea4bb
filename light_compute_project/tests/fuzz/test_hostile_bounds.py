"""Hostile files cost one clear error, a second of processor time and 50 MB: a row for each reader and kind of file."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core import checkpoint, tokenizers
from litgpt_core.core.errors import LightComputeError
from litgpt_core.data.conversations import read_conversations
from litgpt_core.data.settings import ChatDataSettings
from litgpt_core.export.gguf.header import read_gguf
from litgpt_core.export.huggingface.exporting import export_directory
from litgpt_core.export.huggingface.importing import import_folder
from litgpt_core.model.config import GPTConfig
from litgpt_core.prompts import Message, load_style
from litgpt_core.serving.chat_log import ExchangeLog
from litgpt_core.tokenizers.settings import SubwordSettings

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
pytestmark = pytest.mark.skipif(not CLEAR.exists(), reason="the kernel of Linux measures the peak of a part")

MOST_BYTES, MOST_S = 50_000_000, 1.0
TEXT = "the cat sat on the mat, the dog too; 12 cats\n" * 20
DEEP = "[" * 200_000 + "]" * 200_000
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
Read = Callable[[Path], object]
Spoil = Callable[[Path], object]


def memory(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def check(read: Read, folder: Path, *, refused: bool) -> None:
    CLEAR.write_text("5")  # the peak begins anew
    before, start = memory("VmRSS"), time.process_time()
    problem: LightComputeError | None = None
    try:
        read(folder)
    except LightComputeError as raised:
        problem = raised
    seconds, grown = time.process_time() - start, memory("VmHWM") - before
    assert (problem is not None) == refused, problem
    assert len(str(problem)) < 2_000
    assert grown <= MOST_BYTES, f"{grown / 1e6:.0f} MB"
    assert seconds <= MOST_S, f"{seconds:.1f} s"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory, read once so that every library is imported."""
    from litgpt_core.model.gpt import GPT

    folder = tmp_path_factory.mktemp("hostile")
    config = GPTConfig(
        name="tiny", n_layer=1, n_head=2, n_embd=16, block_size=16, vocab_size=290, padded_vocab_size=290
    )
    tokenizers.train(SubwordSettings(kind="bpe", vocab_size=260), [TEXT]).save(folder / "tokenizer")
    torch.manual_seed(0)
    checkpoint.save_directory(
        folder / "model",
        weights=GPT(config).state_dict(),
        config=config,
        tokenizer_dir=folder / "tokenizer",
        hyperparameters={"seed": 1},
    )
    (folder / "model" / "checksums.json").unlink()
    read_checkpoint(folder / "model")
    return folder / "model"


def read_checkpoint(folder: Path) -> None:
    checkpoint.verify(folder)
    checkpoint.load_model(folder)
    tokenizers.load(folder).encode("the cat")


def spoiled(model: Path, tmp_path: Path, spoil: Spoil) -> Path:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    spoil(folder)
    return folder


def put(name: str, content: str | bytes) -> Spoil:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def change(name: str, edit: Callable[[Any], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        edit(content)
        (folder / name).write_text(json.dumps(content))

    return spoil


def torch_file(program: bytes, *, method: int = zipfile.ZIP_STORED, storage: bytes = b"\0" * 16) -> bytes:
    """A weights file whose pickle is `program`."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", method) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/data/0", storage)
        archive.writestr("archive/version", b"3\n")
    return raw.getvalue()


def doubling(n: int) -> bytes:
    """A pickle of tuples that hold the one before twice: 2^n elements for whoever walks through it."""
    return b"\x80\x02)" + b"q\x00h\x00\x86" * n + b"."


def endless_shape() -> bytes:
    """A state of one tensor with 2^50 elements in a storage of 16 bytes, every stride 0."""
    weights = {"transformer.wte.weight": torch.zeros(1).expand(2**25, 2**25)}
    raw = io.BytesIO()
    torch.save(weights, raw)
    return raw.getvalue()


WEIGHTS = {
    "tuples that double": torch_file(doubling(5_000)),
    "tuples in tuples": torch_file(b"\x80\x02)" + b"\x85" * 2_000_000 + b"."),
    "a billion zeros, compressed": torch_file(b"\x80\x02}.", method=zipfile.ZIP_DEFLATED, storage=bytes(300_000_000)),
    "a text of its own length": torch_file(b"\x80\x02X\xff\xff\xff\x7f."),
    "memory by opcode": torch_file(b"\x80\x02" + b"j\xff\xff\xff\x7f" * 10 + b"."),
    "an endless shape": endless_shape(),
    "no archive": b"\x80\x02" + doubling(10_000),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights(model: Path, tmp_path: Path, kind: str) -> None:
    check(read_checkpoint, spoiled(model, tmp_path, put("lit_model.pth", WEIGHTS[kind])), refused=True)


CONFIGS: dict[str, Spoil] = {
    "deep": put("model_config.yaml", DEEP),
    "aliases that multiply": put("model_config.yaml", BOMB),
    "a billion layers": put("model_config.yaml", "name: tiny\nn_layer: 1000000000\nn_head: 2\nn_embd: 16\n"),
    "widths without end": put("model_config.yaml", f"name: tiny\nn_layer: 1\nn_head: 1\nn_embd: {10**18}\n"),
    "a number of a million digits": put("model_config.yaml", "name: tiny\nn_layer: " + "9" * 1_000_000 + "\n"),
    "a million keys": put("model_config.yaml", "".join(f"k{n}: 1\n" for n in range(1_000_000))),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_configs(model: Path, tmp_path: Path, kind: str) -> None:
    check(GPTConfig.from_checkpoint, spoiled(model, tmp_path, CONFIGS[kind]), refused=True)


def grow(content: Any) -> None:
    content["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}] * 8,
    }


def far_id(content: Any) -> None:
    content["model"]["vocab"]["<far>"] = 4_000_000_000


def backtrack(content: Any) -> None:
    content["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": r"(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }


TOKENIZERS: dict[str, Spoil] = {
    "deep": put("tokenizer.json", DEEP),
    "replacements that multiply": change("tokenizer.json", grow),
    "an id far away": change("tokenizer.json", far_id),
    "a merge list of numbers": change("tokenizer.json", lambda content: content["model"].update(merges=[1] * 100_000)),
    "settings without end": put("tokenizer_config.json", '{"a":' * 100_000),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokenizers(model: Path, tmp_path: Path, kind: str) -> None:
    folder = spoiled(model, tmp_path, TOKENIZERS[kind])
    check(lambda folder: tokenizers.load(folder).encode("a" * 50), folder, refused=True)


@pytest.mark.parametrize("plain", [False, True])
def test_a_character_that_a_vocabulary_without_unknown_token_lacks(tmp_path: Path, plain: bool) -> None:
    folder = tmp_path / "words"
    tokenizers.train(SubwordSettings(kind="unigram", vocab_size=260), [TEXT]).save(folder)
    change("tokenizer.json", lambda content: content.update(pre_tokenizer=None))(folder)
    change("tokenizer.json", lambda content: content["model"].update(unk_id=None, byte_fallback=False))(folder)
    tokenizer = tokenizers.load(folder)
    encode = (lambda text: tokenizer.encode_plain_batch([text])) if plain else tokenizer.encode
    with pytest.raises(LightComputeError, match="unk_id"):
        encode("the cat \u4e2d<|endoftext|>")


def test_an_expression_that_never_ends(model: Path, tmp_path: Path) -> None:
    """It is fine for short texts; for a long one it is refused or answered soon."""
    folder = spoiled(model, tmp_path, change("tokenizer.json", backtrack))
    start = time.process_time()
    try:
        tokenizers.load(folder).encode("a" * 200 + "b")
    except LightComputeError as problem:
        assert len(str(problem)) < 2_000
    assert time.process_time() - start < MOST_S


TEMPLATES = {
    "a loop": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "a text that doubles": "{% set n = namespace(t='x') %}"
    "{% for a in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}{{ n.t }}",
    "a product": "{{ 'x' * 10000000000 }}",
    "brackets": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "a power": "{{ 10 ** (10 ** 9) }}",
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_templates(model: Path, tmp_path: Path, kind: str) -> None:
    folder = spoiled(model, tmp_path, put("chat_template.jinja", TEMPLATES[kind]))

    def read(folder: Path) -> None:
        style = load_style(folder)
        assert style is not None
        style.prompt([Message(role="user", content="hello")])

    check(read, folder, refused=True)


def safetensors_header(header: bytes, *, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header


HUGE = json.dumps({"w": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 2**64 - 1]}}).encode()
FOLDERS: dict[str, Spoil] = {
    "a header beyond the file": put("model.safetensors", safetensors_header(b"{}", length=2**62)),
    "a deep header": put("model.safetensors", safetensors_header(b'{"a":' * 200_000)),
    "an endless tensor": put("model.safetensors", safetensors_header(HUGE)),
    "a deep config": put("config.json", DEEP),
    "a billion layers": change("config.json", lambda content: content.update(n_layer=10**9, num_hidden_layers=10**9)),
    "a tokenizer that multiplies": change("tokenizer.json", grow),
}


@pytest.fixture(scope="module")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = export_directory(model, tmp_path_factory.mktemp("exported") / "hf").path
    (folder / "checksums.json").unlink()
    import_folder(folder, folder.parent / "back")
    return folder


@pytest.mark.parametrize("kind", FOLDERS)
def test_huggingface_folders(exported: Path, tmp_path: Path, kind: str) -> None:
    folder = spoiled(exported, tmp_path, FOLDERS[kind])
    check(lambda folder: import_folder(folder, tmp_path / "imported"), folder, refused=True)


def gguf_text(text: bytes, *, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def gguf(n_tensors: int, n_keys: int, body: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_keys) + body


ARRAY, STRING = 9, 8
GGUF = {
    "tensors without end": gguf(2**62, 0),
    "keys without end": gguf(0, 2**62),
    "a name of its own length": gguf(0, 1, gguf_text(b"a", length=2**62)),
    "arrays in arrays": gguf(0, 1, gguf_text(b"a") + struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * 100_000),
    "an array without end": gguf(0, 1, gguf_text(b"a") + struct.pack("<IIQ", ARRAY, STRING, 2**60)),
    "a shape that overflows": gguf(1, 0, gguf_text(b"w") + struct.pack("<IQQIQ", 2, 2**40, 2**40, 0, 0)),
}


@pytest.mark.parametrize("kind", GGUF)
def test_gguf(tmp_path: Path, kind: str) -> None:
    (tmp_path / "model.gguf").write_bytes(GGUF[kind])
    check(lambda folder: read_gguf(folder / "model.gguf"), tmp_path, refused=True)


LINES = {
    "deep": DEEP,
    "a number of a million digits": '{"messages": ' + "9" * 1_000_000 + "}",
    "a million keys": json.dumps({"messages": [{f"k{n}": 1 for n in range(300_000)}]}),
    "keys in keys": '{"messages":' * 100_000,
}


@pytest.mark.parametrize("kind", LINES)
def test_conversations(tmp_path: Path, kind: str) -> None:
    """Lines that cannot be used are left out and counted."""
    (tmp_path / "talk.jsonl").write_text(LINES[kind] + "\n")
    check(
        lambda folder: read_conversations(ChatDataSettings(path=str(folder))), tmp_path, refused=False
    )  # left out, counted


@pytest.mark.parametrize("kind", LINES)
def test_the_chat_log(tmp_path: Path, kind: str) -> None:
    (tmp_path / "log.jsonl").write_text(LINES[kind] + "\n")
    check(lambda folder: ExchangeLog(folder / "log.jsonl"), tmp_path, refused=False)  # what is not a record is not read


def test_a_compressed_file_that_multiplies(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "talk.jsonl.gz", "wb", compresslevel=9) as file:
        for _ in range(400):
            file.write(b" " * 1_000_000)
    check(lambda folder: read_conversations(ChatDataSettings(path=str(folder))), tmp_path, refused=True)


def test_pickles_are_not_built_in_any_protocol(model: Path, tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple[Any, ...]:
            return sys.exit, (3,)

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        program = torch_file(pickle.dumps(Bad(), protocol=protocol))
        folder = spoiled(model, tmp_path / str(protocol), put("lit_model.pth", program))
        check(read_checkpoint, folder, refused=True)
