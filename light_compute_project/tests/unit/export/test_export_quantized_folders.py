"""Quantized Hugging Face folders: made here as each format is published, imported as the numbers they stand for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from litgpt_core.checkpoint import load_model
from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.huggingface.importing import import_folder

Made = tuple[dict[str, Tensor], Tensor]
"""Parts by the ending of their names, and the (O, K) weights that they stand for."""


def words(codes: Tensor, *, bits: int) -> Tensor:
    """(rows, columns) codes without sign -> (rows, columns * bits / 32) int32, the first in the lowest bits."""
    grouped = codes.long().reshape(len(codes), -1, 32 // bits)
    packed = sum(grouped[..., at] << (bits * at) for at in range(32 // bits))
    assert isinstance(packed, Tensor)
    return torch.where(packed >= 2**31, packed - 2**32, packed).int()


def asymmetric(weight: Tensor, *, bits: int, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (O, K), zeros and scales (O, G), of groups of inputs."""
    grouped = weight.float().reshape(len(weight), -1, group)
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    scales = ((high - low) / (2**bits - 1)).half()
    zeros = (-low / scales.float()).round().clamp(0, 2**bits - 1).long()
    codes = ((grouped / scales.float()[..., None]).round() + zeros[..., None]).clamp(0, 2**bits - 1).long()
    return codes.flatten(1), zeros, scales


def stands_for(codes: Tensor, zeros: Tensor, scales: Tensor, groups: Tensor) -> Tensor:
    return (codes - zeros[:, groups]).float() * scales.float()[:, groups]


def gptq(weight: Tensor, *, bits: int = 4, stored: int = 1, act_order: bool = False) -> Made:
    codes, zeros, scales = asymmetric(weight, bits=bits, group=32)
    groups = torch.arange(weight.size(1)) // 32
    if act_order:
        groups = groups[torch.randperm(len(groups), generator=torch.Generator().manual_seed(1))]
    parts = {
        ".qweight": words(codes, bits=bits).T.contiguous(),  # packed along the inputs
        ".qzeros": words(((zeros - stored) % 2**bits).T, bits=bits),
        ".scales": scales.T.contiguous(),
        ".g_idx": groups.int(),
    }
    return parts, stands_for(codes, zeros, scales, groups)


def awq(weight: Tensor) -> Made:
    codes, zeros, scales = asymmetric(weight, bits=4, group=32)
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # the code that stands at each place of a word

    def packed(columns: Tensor) -> Tensor:
        return words(columns.reshape(len(columns), -1, 8)[..., order].flatten(1), bits=4)

    parts = {".qweight": packed(codes.T), ".qzeros": packed(zeros.T), ".scales": scales.T.contiguous()}
    return parts, stands_for(codes, zeros, scales, torch.arange(weight.size(1)) // 32)


def pack(weight: Tensor, *, bits: int, zero: bool = False) -> Made:
    codes, zeros, scales = asymmetric(weight, bits=bits, group=32)
    half = 2 ** (bits - 1)
    if not zero:
        zeros = torch.full_like(zeros, half)
    parts = {
        ".weight_packed": words(codes, bits=bits),
        ".weight_scale": scales,
        ".weight_shape": torch.tensor(weight.shape),
    }
    if zero:
        parts[".weight_zero_point"] = words(zeros.T, bits=bits).T.contiguous()
    return parts, stands_for(codes, zeros, scales, torch.arange(weight.size(1)) // 32)


def int8_rows(weight: Tensor) -> Made:
    scales = (weight.float().abs().amax(1, keepdim=True) / 127).bfloat16()
    codes = (weight.float() / scales.float()).round().clamp(-127, 127).to(torch.int8)
    return {".weight": codes, ".weight_scale": scales}, codes.float() * scales.float()


def float8(weight: Tensor) -> Made:
    scale = (weight.float().abs().max() / 448).reshape(1)
    codes = (weight.float() / scale).to(torch.float8_e4m3fn)
    return {".weight": codes, ".weight_scale": scale}, codes.float() * scale


def bnb_8(weight: Tensor) -> Made:
    scale = weight.float().abs().amax(1)
    codes = (weight.float() / scale[:, None] * 127).round().to(torch.int8)
    parts = {".weight": codes, ".SCB": scale, ".weight_format": torch.tensor(0, dtype=torch.uint8)}
    return parts, codes.float() * (scale / 127)[:, None]


def bnb_4(weight: Tensor, *, nested: bool, kind: str = "nf4") -> Made:
    table = torch.tensor([-1.0, -0.7, -0.5, -0.4, -0.3, -0.2, -0.1, 0, 0.08, 0.16, 0.25, 0.34, 0.44, 0.56, 0.72, 1.0])
    blocks = weight.float().reshape(-1, 64)
    scales = blocks.abs().amax(1)
    state: dict[str, Any] = {"quant_type": kind, "blocksize": 64, "dtype": "float32", "shape": list(weight.shape)}
    parts: dict[str, Tensor] = {".weight.quant_map": table}
    if nested:
        coarse, offset = torch.linspace(-1, 1, 256), float(scales.mean())
        outer = (scales - offset).reshape(-1).split(256)
        largest = torch.stack([part.abs().max() for part in outer])
        inner = [((part / top)[:, None] - coarse).abs().argmin(1) for part, top in zip(outer, largest, strict=True)]
        parts |= {".weight.absmax": torch.cat(inner).byte(), ".weight.nested_absmax": largest}
        parts[".weight.nested_quant_map"] = coarse
        scales = torch.cat([coarse[at] * top for at, top in zip(inner, largest, strict=True)]) + offset
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
    else:
        parts[".weight.absmax"] = scales
    codes = ((blocks / scales[:, None])[..., None] - table).abs().argmin(-1)
    flat = codes.flatten()
    parts[".weight"] = (flat[0::2] << 4 | flat[1::2]).byte()[:, None]
    parts[f".weight.quant_state.bitsandbytes__{kind}"] = torch.tensor(
        list(json.dumps(state).encode()), dtype=torch.uint8
    )
    return parts, (table[codes] * scales[:, None]).reshape(weight.shape)


PACKED = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
BITS_4 = {"quant_method": "bitsandbytes", "load_in_4bit": True}
STATE = ".weight.quant_state.bitsandbytes__nf4"
FORMATS: dict[str, tuple[Callable[[Tensor], Made], dict[str, Any]]] = {
    "gptq, 4 bits": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 32}),
    "gptq, 8 bits, in order of activations": (
        lambda weight: gptq(weight, bits=8, act_order=True),
        {"quant_method": "gptq", "bits": 8, "group_size": 32, "desc_act": True},
    ),
    "gptq, second format": (
        lambda weight: gptq(weight, stored=0),
        {"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"},
    ),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}),
    "compressed-tensors, 4 bits": (lambda w: pack(w, bits=4), PACKED),
    "compressed-tensors, 8 bits, zeros": (lambda w: pack(w, bits=8, zero=True), PACKED),
    "compressed-tensors, int8": (int8_rows, {"quant_method": "compressed-tensors", "format": "int-quantized"}),
    "compressed-tensors, float8": (float8, {"quant_method": "compressed-tensors", "format": "float-quantized"}),
    "bitsandbytes, 8 bits": (bnb_8, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    "bitsandbytes, nf4": (lambda w: bnb_4(w, nested=False), BITS_4),
    "bitsandbytes, nf4 nested": (lambda w: bnb_4(w, nested=True), {"load_in_4bit": True}),
    "bitsandbytes, fp4": (lambda w: bnb_4(w, nested=False, kind="fp4"), BITS_4),
}  # fmt: skip


@pytest.fixture
def quantized(make_folder: Any) -> Callable[[str], tuple[Any, dict[str, Tensor]]]:
    """`quantized(name)`: a Llama's folder in that format, and its weights as they should be read."""

    def make(name: str) -> tuple[Any, dict[str, Tensor]]:
        quantize, settings = FORMATS[name]
        theirs = make_folder("llama3")
        file = theirs.path / "model.safetensors"
        stored: dict[str, Tensor] = {}
        expected: dict[str, Tensor] = {}
        for key, weight in load_file(file).items():
            if ".layers." not in key or weight.dim() < 2:
                stored[key] = expected[key] = weight
                continue
            parts, expected[key] = quantize(weight)
            stored |= {key.removesuffix(".weight") + ending: part.contiguous() for ending, part in parts.items()}
        save_file(stored, file, metadata={"format": "pt"})
        config = json.loads((theirs.path / "config.json").read_text())
        (theirs.path / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
        return theirs, expected

    return make


@pytest.mark.parametrize("name", FORMATS)
def test_a_quantized_folder_is_read_as_the_numbers_it_stands_for(
    name: str, quantized: Any, ids: Tensor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs, expected = quantized(name)
    made = import_folder(theirs.path, tmp_path / "ours")
    assert "what quantizing them lost is lost" in caplog.text
    theirs.model.load_state_dict(expected)
    model = load_model(made.path)
    assert model.dtype == torch.float32
    with torch.no_grad():
        difference = (model(ids) - theirs.logits(ids)).abs().max() / theirs.logits(ids).abs().max()
    assert difference <= 1e-5
    assert "quantization_config" not in json.loads((made.path / "config.json").read_text())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quant_method": "hqq"}, "quantised by hqq"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "quantised by fp8"),
        ({"quant_method": "gptq", "bits": 3}, "bits=3"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "checkpoint_format='marlin'"),
        ({"quant_method": "awq", "version": "gemv"}, "version='gemv'"),
        ({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}, "format='nvfp4-pack-quantized'"),
        ({"quant_method": "gptq", "bits": 4}, "but none is"),
    ],
    ids=str,
)
def test_other_formats_are_refused_by_name(
    settings: dict[str, Any], said: str, make_folder: Any, tmp_path: Path
) -> None:
    theirs = make_folder("llama3")
    config = json.loads((theirs.path / "config.json").read_text())
    (theirs.path / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    with pytest.raises(CheckpointError, match=said.replace("(", r"\(")):
        import_folder(theirs.path, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("gptq, 4 bits", lambda parts: {".scales": parts[".scales"][:, :-1]}),
        ("gptq, 4 bits", lambda parts: {".g_idx": parts[".g_idx"] + 10**6}),
        ("awq", lambda parts: {".qzeros": parts[".qzeros"][:1, :1]}),
        ("compressed-tensors, 4 bits", lambda parts: {".weight_shape": torch.tensor([64, 10**9])}),
        ("compressed-tensors, 4 bits", lambda parts: {".weight_shape": torch.tensor([64])}),
        ("bitsandbytes, nf4", lambda parts: {STATE: torch.tensor([91], dtype=torch.uint8)}),
        ("bitsandbytes, nf4", lambda parts: {".weight.absmax": parts[".weight.absmax"][:3]}),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_named(name: str, damage: Any, quantized: Any, tmp_path: Path) -> None:
    theirs, _ = quantized(name)
    file, layer = theirs.path / "model.safetensors", "model.layers.1.mlp.up_proj"
    stored = load_file(file)
    parts = {key.removeprefix(layer): tensor for key, tensor in stored.items() if key.startswith(layer)}
    save_file(stored | {layer + key: part.contiguous() for key, part in damage(parts).items()}, file)
    with pytest.raises(CheckpointError, match=layer.replace(".", r"\.")):
        import_folder(theirs.path, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
