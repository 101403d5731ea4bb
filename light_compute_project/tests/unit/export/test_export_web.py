"""One HTML page: its engine in node against torch for every family, tokenizers, chat format, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core import checkpoint, tokenizers
from litgpt_core.core.errors import CheckpointError, TokenizerError
from litgpt_core.export.blocks import BlockMatrices, CheckpointSource
from litgpt_core.export.parity import SAMPLE
from litgpt_core.export.web import content, definition, exporting
from litgpt_core.export.web.checking import TOLERANCE, run_page
from litgpt_core.export.web.conversation import conversation_of
from litgpt_core.export.web.definition import in_javascript, steps_of
from litgpt_core.export.web.exporting import export_web
from litgpt_core.generation import Engine
from litgpt_core.generation.sampling import SamplingSettings
from litgpt_core.model.config import GPTConfig
from litgpt_core.prompts import save_style, style_named

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")

LLAMA: dict[str, Any] = {
    "n_layer": 2, "n_head": 4, "n_embd": 64, "norm_class_name": "RMSNorm", "mlp_class_name": "LLaMAMLP",
    "intermediate_size": 96, "bias": False, "parallel_residual": False, "rotary_percentage": 1.0,
}  # fmt: skip
GEMMA = {**LLAMA, "mlp_class_name": "GemmaMLP", "gelu_approximate": "tanh", "scale_embeddings": True, "head_size": 16,
         "post_attention_norm": True, "post_mlp_norm": True, "tie_embeddings": True}  # fmt: skip
WINDOWS = {"sliding_window_size": 8, "sliding_window_indices": [1, 0]}
MODELS: dict[str, dict[str, Any]] = {
    "qwen3, tied, as the baseline": {**LLAMA, "norm_qk": True, "norm_eps": 1e-6, "tie_embeddings": True},
    "llama, groups, condensed": {**LLAMA, "n_query_groups": 2, "head_size": 20, "rope_condense_ratio": 4},
    "qwen2, biases, widths no multiple of 32": {**LLAMA, "attn_bias": True, "n_embd": 72, "intermediate_size": 88},
    "interleaved": {**LLAMA, "rope_interleave": True, "rotary_percentage": 0.5},
    "olmo 2": {**LLAMA, "norm_qk": True, "norm_qk_type": "olmo2", "norm_1": False, "norm_2": False,
               "post_attention_norm": True, "post_mlp_norm": True},
    "olmo": {"name": "OLMo-x", "n_layer": 2, "n_head": 4, "n_embd": 64, "bias": False, "parallel_residual": False},
    "gpt2": {"n_layer": 2, "n_head": 4, "n_embd": 64, "parallel_residual": False, "gelu_approximate": "tanh",
             "position_embedding": "learned", "tie_embeddings": True},
    "gpt-neox": {"n_layer": 2, "n_head": 4, "n_embd": 64, "rotary_percentage": 0.25, "bias": True},
    "phi": {"n_layer": 2, "n_head": 4, "n_embd": 64, "rotary_percentage": 0.5, "bias": True, "lm_head_bias": True,
            "shared_attention_norm": True},
    "gemma 2": {**GEMMA, **WINDOWS, "name": "Gemma-2-x", "attention_logit_softcapping": 50.0,
                "final_logit_softcapping": 30.0, "attention_scores_scalar": 24},
    "gemma 3": {**GEMMA, **WINDOWS, "name": "Gemma-3-x", "norm_qk": True, "rope_base": 1000000,
                "rope_local_base_freq": 10000.0, "rope_indices": [1, 0]},
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_the_engine_computes_the_same_in_node(name: str, save_ours: Any, tmp_path: Path) -> None:
    """Logits, ids of 200 texts, greedy tokens, and its two ways to multiply: compared by the export itself."""
    made = export_web(save_ours(**MODELS[name]), tmp_path / "model.html")
    parity = made.parity
    assert parity is not None and parity.max_delta is not None
    assert parity.reader.startswith("node v")
    assert parity.max_delta <= TOLERANCE / 3
    assert (parity.greedy_equal, parity.tokens, parity.ids_equal) == (40, 40, parity.texts)
    assert parity.texts >= 190


TOKENIZERS = {
    "sentencepiece": tokenizers.SubwordSettings(kind="sentencepiece", vocab_size=400),
    "sentencepiece with bos": tokenizers.SubwordSettings(kind="sentencepiece", vocab_size=400, add_bos_token=True),
    "char": tokenizers.CharSettings(),
    "byte": tokenizers.ByteSettings(),
    "bpe": tokenizers.SubwordSettings(kind="bpe", vocab_size=400),
    "bpe gpt2": tokenizers.SubwordSettings(kind="bpe", vocab_size=400, words="gpt2"),
    "bpe llama3": tokenizers.SubwordSettings(kind="bpe", vocab_size=400, words="llama3"),
    "bpe qwen2": tokenizers.SubwordSettings(kind="bpe", vocab_size=400, words="qwen2"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, settings in TOKENIZERS.items():
        folders[name] = tmp_path_factory.mktemp("tokenizer")
        tokenizers.train(settings, [SAMPLE * 3]).save(folders[name])
    return folders


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_own_tokenizer_gives_equal_ids(name: str, trained: Any, save_ours: Any, tmp_path: Path) -> None:
    size = tokenizers.load(trained[name]).vocab_size
    ours = save_ours(tokenizer=trained[name], **LLAMA | {"n_layer": 1, "vocab_size": size})
    made = export_web(ours, tmp_path / "model.html")
    assert made.parity is not None
    assert made.parity.ids_equal == made.parity.texts >= 150


def test_kinds_that_merge_otherwise_are_refused(save_ours: Any, tmp_path: Path) -> None:
    folder = tmp_path / "unigram"
    tokenizers.train(tokenizers.SubwordSettings(kind="unigram", vocab_size=300), [SAMPLE * 3]).save(folder)
    with pytest.raises(TokenizerError, match="unigram"):
        export_web(save_ours(tokenizer=folder, **LLAMA), tmp_path / "model.html")


def test_random_numbers_are_those_of_torch_and_sampled_text_is_the_engines(save_ours: Any, tmp_path: Path) -> None:
    assert NODE is not None
    ours = save_ours(**LLAMA)
    made = export_web(ours, tmp_path / "model.html", check=False)
    job = {"texts": [], "ids": [5], "prompt": [5, 6, 7], "most": 40, "how": {"temperature": 0.8, "topK": 50, "seed": 3}}
    chosen = run_page(NODE, made.path, job)["chosen"]
    source = CheckpointSource.read(ours)
    matrices = BlockMatrices(source.weights, own={}, tied=False, bits=8)
    for path in content.matrices_of(source.config):
        matrices[path]
    again = source.model_of(matrices.used())
    engine = Engine(again, source.tokenizer)
    sampling = SamplingSettings(temperature=0.8, top_k=50)
    assert chosen == list(engine.generate([5, 6, 7], max_new_tokens=40, sampling=sampling, seed=3))


# --- chat


def test_a_conversation_begins_with_the_ids_of_the_style(save_ours: Any, tmp_path: Path) -> None:
    for name in ("human_assistant", "chatml", "llama2", "gemma"):
        ours = save_ours(folder=name, **LLAMA | {"n_layer": 1})
        save_style(ours, style_named(name))
        (ours / "checksums.json").unlink()
        made = export_web(ours, tmp_path / f"{name}.html")  # compares two first turns
        assert made.parity is not None and made.parity.reader
        assert '"chat":{"first"' in made.path.read_text(encoding="utf-8")


def test_what_is_between_turns_is_found(tokenizer_dir: Path) -> None:
    tokenizer = tokenizers.load(tokenizer_dir)
    chat = conversation_of(style_named("chatml"), tokenizer)
    assert chat is not None
    assert chat["first"] == [{"text": "<|im_start|>user\n\ue000<|im_end|>\n<|im_start|>assistant\n"}]
    assert chat["next"] == [
        {"text": "<|im_end|>"},
        {"text": "\n<|im_start|>user\n\ue000<|im_end|>\n<|im_start|>assistant\n"},
    ]
    human = conversation_of(style_named("human_assistant"), tokenizer)
    assert human is not None
    assert human["next"] == [{"id": tokenizer.eos_id}, {"text": "\nHuman: \ue000\nAssistant: "}]
    assert human["stopStrings"] == ["\nHuman:"]
    assert conversation_of(None, tokenizer) is None
    assert conversation_of(style_named("plain"), tokenizer) is None


# --- tokenizer.json -> JavaScript


def test_patterns_are_written_for_javascript() -> None:
    space = definition._SPACE
    assert in_javascript(r"\s+(?!\S)") == f"[{space}]+(?![^{space}])"
    assert in_javascript(r" ?[^\s\p{L}]+\.") == rf" ?[^{space}\p{{L}}]+\."
    assert in_javascript("(?i:'s|'t|'re|'ve|'m|'ll|'d)|x").startswith("'(?:[sStTmMdD]|")
    with pytest.raises(TokenizerError, match="ignores case"):
        in_javascript("(?i:x)")
    assert steps_of(None) == []
    with pytest.raises(TokenizerError, match="Whitespace"):
        steps_of({"type": "Whitespace"})


# --- pages that are not kept


def test_a_page_that_computes_something_else_is_not_kept(save_ours: Any, tmp_path: Path, monkeypatch: Any) -> None:
    ours = save_ours(**LLAMA)
    before = content.settings_of
    monkeypatch.setattr(exporting, "settings_of", lambda config: {**before(config), "eps": 0.5})
    with pytest.raises(CheckpointError, match="log-probabilities differ"):
        export_web(ours, tmp_path / "model.html")
    monkeypatch.setattr(exporting, "settings_of", lambda config: {**before(config), "layers": None})
    with pytest.raises(CheckpointError, match="fails in node"):
        export_web(ours, tmp_path / "model.html")
    assert not list(tmp_path.glob("*.html"))


def test_what_the_engine_lacks_is_refused_by_name(save_ours: Any, tmp_path: Path) -> None:
    experts = {**LLAMA, "mlp_class_name": "LLaMAMoE", "n_expert": 4, "n_expert_per_token": 2}
    with pytest.raises(CheckpointError, match="mixture of experts"):
        export_web(save_ours(**experts), tmp_path / "model.html")
    latent = {"q_lora_rank": 16, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
    with pytest.raises(CheckpointError, match="latent attention"):
        content.refuse_unsupported(GPTConfig(**LLAMA, latent_attention=latent))


def test_nothing_in_a_vocabulary_ends_the_page(save_ours: Any, tmp_path: Path) -> None:
    made = export_web(save_ours(**LLAMA | {"name": "</script><b>"}), tmp_path / "model.html", check=False)
    text = made.path.read_text(encoding="utf-8")
    data = text.split('id="model">')[1].split("</script>")[0]
    assert json.loads(data)["vocabulary"]["eos"] == 0
    assert "<b>" not in text
    assert text.count("<title>") == 1
    assert "http" not in text.replace("http-equiv", "")


def test_a_file_of_another_kind_is_not_replaced(save_ours: Any, tmp_path: Path) -> None:
    (tmp_path / "model.html").write_text("<p>mine</p>")
    with pytest.raises(CheckpointError, match="not overwritten"):
        export_web(save_ours(**LLAMA), tmp_path / "model.html", force=True)


def test_half_precision_scales_survive(save_ours: Any, tmp_path: Path) -> None:
    """Weights near the smallest float16 numbers: scales that are not normal numbers."""
    ours = save_ours(**LLAMA)
    weights = checkpoint.load_weights(ours, mmap=False)
    small = {name: each * 1e-4 if name.endswith("fc_1.weight") else each for name, each in weights.items()}
    torch.save(small, ours / "lit_model.pth")
    (ours / "checksums.json").unlink()
    made = export_web(ours, tmp_path / "model.html")
    assert made.parity is not None and (made.parity.max_delta or 1) <= TOLERANCE / 3
