"""A compressed directory as a GGUF file: the same codes, bit for bit, and the same tokens in llama.cpp."""

from pathlib import Path

import pytest
import torch

from litgpt_core.checkpoint.compressed import read_compressed
from litgpt_core.compression.apply import compress
from litgpt_core.compression.recipe import load_recipe
from litgpt_core.export.gguf import llama_cpp
from litgpt_core.export.gguf.exporting import export_gguf
from litgpt_core.export.gguf.header import read_gguf
from litgpt_core.export.gguf.importing import read_model
from litgpt_core.export.huggingface.exporting import export_directory
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.sampling_settings import SamplingSettings


@pytest.fixture(params=["int4", "int8"])
def compressed(request, directory: Path, tmp_path: Path) -> Path:
    return compress(directory, load_recipe(request.param), tmp_path / request.param).directory


def test_the_file_holds_the_codes_that_the_directory_has(compressed: Path, tmp_path: Path):
    made = export_gguf(compressed, tmp_path / "model.gguf", check=False)
    main = "Q4_0" if compressed.name == "int4" else "Q8_0"
    kinds = {tensor.name: tensor.type.name for tensor in read_gguf(made.path).tensors.values()}
    assert made.type == main and made.other_types == ()
    assert (
        kinds["token_embd.weight"] == "Q8_0" and kinds["blk.1.attn_q.weight"] == kinds["blk.2.ffn_down.weight"] == main
    )
    assert {kind for name, kind in kinds.items() if "norm" not in name} == {main, "Q8_0"}
    content, again = read_compressed(compressed), read_model(made.path).state_dict()
    for path, matrix in content.matrices.items():
        rows = again[f"{path}.weight"].float()
        assert torch.equal(rows, matrix.dense()[: len(rows)]), path


def test_another_type_and_another_format_take_the_dequantized_weights(compressed: Path, tmp_path: Path):
    made = export_gguf(compressed, tmp_path / "model.gguf", type="f32", check=False)
    assert made.type == "F32"
    weights = read_model(made.path).state_dict()
    exact = read_compressed(compressed).matrices["transformer.h.0.mlp.proj"].dense()
    assert torch.allclose(weights["transformer.h.0.mlp.proj.weight"], exact, rtol=2**-8, atol=0)
    assert export_directory(compressed, tmp_path / "folder").architecture == "LlamaForCausalLM"


@pytest.mark.nightly
@pytest.mark.skipif(llama_cpp.reader_name() is None, reason="xllamacpp (llama.cpp) is not installed")
def test_llama_cpp_decodes_the_same_tokens(compressed: Path, tmp_path: Path):
    made = export_gguf(compressed, tmp_path / "model.gguf")
    engine, prompt = Engine.from_directory(compressed, device="cpu"), [3, 77, 200]
    ours = engine.generate(prompt, max_new_tokens=28, sampling=SamplingSettings(temperature=0), stop_ids=())
    theirs = llama_cpp.ask(made.path, texts=[], prompt=prompt, n_tokens=28, prefixes=[], special=False)
    assert theirs.greedy == ours
