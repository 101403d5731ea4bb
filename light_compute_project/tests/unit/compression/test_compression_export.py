"""A compressed directory as a GGUF file: the same codes, bit for bit, and the same tokens in llama.cpp."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from litgpt_core.checkpoint import load_model
from litgpt_core.checkpoint.compressed import read_compressed
from litgpt_core.compression.apply import compress
from litgpt_core.compression.recipe import load_recipe
from litgpt_core.core.errors import CheckpointError
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


def unpacked(words: torch.Tensor, *, bits: int) -> torch.Tensor:
    """(O, W) int32 -> (O, W * 32 / bits) signed codes, one number at a time as the format's description says."""
    places = [words.long() >> bits * i & 2**bits - 1 for i in range(32 // bits)]
    return torch.stack(places, dim=-1).flatten(-2) - 2 ** (bits - 1)


def test_the_format_of_compressed_tensors_holds_the_same_codes(compressed: Path, tmp_path: Path):
    folder, bits = export_directory(compressed, tmp_path / "packed", packed=True).path, int(compressed.name[-1])
    config, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    content = read_compressed(compressed).matrices
    qkv = torch.cat(
        [
            unpacked(tensors[f"model.layers.1.self_attn.{name}_proj.weight_packed"], bits=bits)
            * tensors[f"model.layers.1.self_attn.{name}_proj.weight_scale"].float().repeat_interleave(32, dim=1)
            for name in "qkv"
        ]
    )
    assert torch.equal(qkv, content["transformer.h.1.attn.qkv"].dense())
    assert tensors["model.layers.0.mlp.down_proj.weight_shape"].tolist() == [64, 128]
    described = config["quantization_config"]
    assert described["config_groups"]["group_0"]["weights"]["num_bits"] == bits and described["ignore"] == ["lm_head"]
    assert not any(name.endswith("proj.weight") for name in tensors) and config["torch_dtype"] == "float16"
    with pytest.raises(CheckpointError, match="is not compressed"):
        export_directory(tmp_path / "runs" / "small", tmp_path / "other", packed=True)


@pytest.mark.nightly
def test_transformers_computes_the_same_with_the_package(compressed: Path, tmp_path: Path):
    pytest.importorskip("compressed_tensors", reason="the package compressed-tensors is not installed")
    transformers = pytest.importorskip("transformers")
    folder = export_directory(compressed, tmp_path / "packed", packed=True).path
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.randint(97, 122, (1, 16))
    with torch.no_grad():
        expected = load_model(compressed, dtype=torch.float32, dequantize=True)(ids)
        assert float((theirs(ids).logits - expected).abs().max()) < 5e-3 * float(expected.abs().max())


@pytest.mark.nightly
@pytest.mark.skipif(llama_cpp.reader_name() is None, reason="xllamacpp (llama.cpp) is not installed")
def test_llama_cpp_decodes_the_same_tokens(compressed: Path, tmp_path: Path):
    made = export_gguf(compressed, tmp_path / "model.gguf")
    engine, prompt = Engine.from_directory(compressed, device="cpu"), [3, 77, 200]
    ours = engine.generate(prompt, max_new_tokens=28, sampling=SamplingSettings(temperature=0), stop_ids=())
    theirs = llama_cpp.ask(made.path, texts=[], prompt=prompt, n_tokens=28, prefixes=[], special=False)
    assert theirs.greedy == ours
