"""Tokenizers and prompt styles in GGUF files: out, in again, and in llama.cpp where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from litgpt_core import tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.core.errors import CheckpointError, TokenizerError
from litgpt_core.export.gguf import exporting, llama_cpp
from litgpt_core.export.gguf.chat_template import jinja_of, modelfile, template_of
from litgpt_core.export.gguf.exporting import export_gguf
from litgpt_core.export.gguf.importing import import_gguf
from litgpt_core.export.gguf.pretokenizers import PRETOKENIZERS
from litgpt_core.export.parity import SAMPLE, sample_texts
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.prompts import Message, save_style, style_named
from litgpt_core.prompts.template import TemplateStyle
from litgpt_core.prompts.turn_style import TurnStyle

OWN_WORDS = ("gpt2", "llama3", "qwen2")
"""Values of `tokenizer.words` that llama.cpp knows."""
needs_llama_cpp = pytest.mark.skipif(llama_cpp.reader_name() is None, reason="xllamacpp (llama.cpp) is not installed")


def model_with(tokenizer: Path, directory: Path) -> Path:
    """A tiny llama with this tokenizer."""
    size = tokenizers.load(tokenizer).vocab_size
    model = GPT(
        GPTConfig(
            block_size=128, n_layer=1, n_head=2, n_embd=32, intermediate_size=64, vocab_size=size,
            norm_class_name="RMSNorm", bias=False, parallel_residual=False, rotary_percentage=1.0,
            mlp_class_name="LLaMAMLP",
        )
    )  # fmt: skip
    initialize(model, seed=1)
    return save_directory(
        directory, weights=model.state_dict(), config=model.config, tokenizer_dir=tokenizer, hyperparameters={}
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each kind that GGUF can hold, and byte-level BPEs as other projects make them."""
    root = tmp_path_factory.mktemp("tokenizers")
    text = SAMPLE * 3 + "日本語 Größe émigré ½ 12345 </s>\r\n\t"
    made = {
        "char": tokenizers.train(tokenizers.CharSettings(), [text]),
        "byte": tokenizers.train(tokenizers.ByteSettings(), []),
        "sentencepiece": tokenizers.train(tokenizers.SubwordSettings(kind="sentencepiece", vocab_size=420), [text]),
    }
    for words in OWN_WORDS:
        settings = tokenizers.SubwordSettings(kind="bpe", vocab_size=400, words=words)  # type: ignore[arg-type]
        made[words] = tokenizers.train(settings, [text])
    folders = {}
    for name, tokenizer in made.items():
        folders[name] = root / name
        tokenizer.save(folders[name])
    for name in ("gpt-2", "smollm", "llama-bpe", "qwen2"):
        known = PRETOKENIZERS[name]
        key = "qwen2 from elsewhere" if name == "qwen2" else name
        folders[key] = byte_level(root / key, known.json, known.ignore_merges, text)
    return folders


def byte_level(folder: Path, words: dict[str, Any], ignore_merges: bool, text: str) -> Path:
    """A byte-level BPE with two special tokens, trained with the library."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    built = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    frame = json.loads(built.to_str())
    built = Tokenizer.from_str(json.dumps({**frame, "pre_tokenizer": words}))
    built.decoder = decoders.ByteLevel()
    ends = [AddedToken(name, special=True, normalized=False) for name in ("<|endoftext|>", "<|im_end|>")]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    built.train_from_iterator(
        [text], trainers.BpeTrainer(vocab_size=400, special_tokens=ends, initial_alphabet=alphabet, show_progress=False)
    )
    folder.mkdir()
    built.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


OTHERS = ("char", "byte", "sentencepiece", "gpt-2", "smollm", "llama-bpe", "qwen2 from elsewhere")


@pytest.mark.parametrize("name", [*OTHERS, *OWN_WORDS])
def test_a_tokenizer_goes_out_and_in_with_the_same_ids(name: str, trained: dict[str, Path], tmp_path: Path):
    """llama.cpp compares 200 texts inside `export_gguf`, where it is installed."""
    made = export_gguf(model_with(trained[name], tmp_path / "ours"), tmp_path / "m.gguf", type="f32")
    assert made.parity is not None
    if made.parity.reader:
        assert made.parity.ids_equal == made.parity.texts > 150
    import_gguf(made.path, tmp_path / "back")
    before, after = tokenizers.load(trained[name]), tokenizers.load(tmp_path / "back")
    assert (after.vocab_size, after.eos_id, after.bos_id) == (before.vocab_size, before.eos_id, before.bos_id)
    for text in sample_texts(before):
        special = "</s>" in text or "<" in text  # ours do not parse special tokens in text, foreign ones do
        if not (special and before.kind != "foreign"):
            assert after.encode(text) == before.encode(text), text
        assert after.decode(before.encode(text)) == text


@needs_llama_cpp
@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("sentencepiece", "add_space_prefix", True),
        ("smollm", "pre", "gpt-2"),
        ("llama-bpe", "pre", "qwen2"),
        ("char", "add_space_prefix", True),
    ],
)
def test_a_wrong_field_is_noticed(name: str, key: str, value: object, trained, tmp_path: Path, monkeypatch):
    write = exporting.write_gguf

    def changed(path, metadata, tensors):
        own = {**metadata, f"tokenizer.ggml.{key}": value}
        return write(path, {name: each for name, each in own.items() if each is not None}, tensors)

    monkeypatch.setattr(exporting, "write_gguf", changed)
    with pytest.raises(CheckpointError, match=r"llama\.cpp"):
        export_gguf(model_with(trained[name], tmp_path / "ours"), tmp_path / "m.gguf", type="f32")


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bpe"])
def test_what_llama_cpp_would_cut_differently_is_refused(kind: str, tmp_path: Path):
    settings = tokenizers.SubwordSettings(kind=kind, vocab_size=520 if kind == "wordpiece" else 300)  # type: ignore[arg-type]
    tokenizers.train(settings, [SAMPLE * 4]).save(tmp_path / "tok")
    with pytest.raises(TokenizerError, match=kind if kind != "bpe" else "cuts text into words") as caught:
        export_gguf(model_with(tmp_path / "tok", tmp_path / "ours"), tmp_path / "m.gguf")
    assert "sentencepiece" in caught.value.needed
    assert kind != "bpe" or "tokenizer.words=qwen2" in caught.value.fix
    assert not (tmp_path / "m.gguf").exists()


# --- prompt styles

CONVERSATION = [
    Message(role="system", content="Be brief."),
    Message(role="user", content='Say "hi" \\ {{ x }}'),
    Message(role="assistant", content="hi"),
    Message(role="user", content="Größe?\nAgain."),
]


@pytest.mark.parametrize(
    "name", ["human_assistant", "chatml", "smollm2", "llama2", "llama3", "gemma", "alpaca", "phi-3"]
)
@pytest.mark.parametrize("length", [2, 4])
@pytest.mark.parametrize("system", [True, False])
def test_a_style_as_a_template_gives_the_same_text(name: str, length: int, system: bool):
    style = style_named(name)
    assert isinstance(style, TurnStyle)
    messages = CONVERSATION[:length] if system else CONVERSATION[1:length]
    if not style.takes_system():
        messages = [each for each in messages if each.role != "system"]
    template = TemplateStyle(template=jinja_of(style), source="test", tokens={"bos_token": "<b>", "eos_token": "<e>"})

    def ids(segments):
        merged, kinds = "", []
        for segment in segments:
            kinds += [len(merged)] if segment.begin_of_text or segment.end_of_text else []
            merged += "" if segment.begin_of_text or segment.end_of_text else segment.text
        return merged, kinds

    assert ids(template.prompt_segments(messages)) == ids(style.prompt_segments(messages))


def test_one_begin_of_text_is_enough(trained: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "tok"
    folder.mkdir()
    for file in trained["gpt-2"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"add_bos_token": True, "bos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = tokenizers.load(folder)
    source = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    style = TemplateStyle(template=source, source="test", tokens={"bos_token": "<|im_end|>"})
    found = template_of(style, tokenizer)
    assert found is not None
    again = TemplateStyle(template=found, source="test", tokens={"bos_token": "<|im_end|>"})
    assert not any(each.begin_of_text for each in again.prompt_segments([Message(role="user", content="a")]))
    tokenizer.use_bos = False
    assert template_of(style, tokenizer) == source


def test_the_style_of_a_chat_is_in_the_file_and_in_the_modelfile(trained: dict[str, Path], tmp_path: Path):
    folder = model_with(trained["sentencepiece"], tmp_path / "ours")
    save_style(folder, style_named("human_assistant"))
    made = export_gguf(folder, tmp_path / "chat.gguf", check=False)
    ollama = made.modelfile.read_text()
    assert ollama.startswith("FROM ./chat.gguf\nTEMPLATE")
    assert "Human: {{ .Prompt }}\nAssistant: " in ollama
    assert 'PARAMETER stop "\\nHuman:"' in ollama
    assert "PARAMETER num_ctx 128" in ollama
    import_gguf(made.path, tmp_path / "back")
    from litgpt_core.prompts import load_style

    style = load_style(tmp_path / "back")
    assert style is not None
    question = [Message(role="user", content="Who?")]
    assert style.prompt(question) == style_named("human_assistant").prompt(question)


def test_a_base_model_has_no_chat_template(tmp_path: Path):
    assert "{{ .Prompt }}" in modelfile(tmp_path / "x.gguf", None, context=64)


@needs_llama_cpp
def test_llama_cpp_renders_the_same_prompt(trained: dict[str, Path], tmp_path: Path):
    pytest.importorskip("xllamacpp")
    folder = model_with(trained["sentencepiece"], tmp_path / "ours")
    save_style(folder, style_named("chatml"))
    made = export_gguf(folder, tmp_path / "chat.gguf", check=False)
    model = llama_cpp.LlamaCpp(made.path, context=64)
    messages = [{"role": each.role, "content": each.content} for each in CONVERSATION]
    found = model.post("/apply-template", {"messages": messages})["prompt"]
    assert found == style_named("chatml").prompt(CONVERSATION)
