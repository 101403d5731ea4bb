"""The codes of a compressed directory as the package compressed-tensors stores them, "pack-quantized": none is changed.

    X.weight_packed  int32 (O, K * bits / 32)   code + 2^(bits - 1), the first input in the lowest bits
    X.weight_scale   float16 (O, K / 32)
    X.weight_shape   int64 (2,)

transformers reads it where that package is installed. Only linear layers of blocks have integers there: embedding and
output layer are dequantized, and so is a layer whose columns transformers stores in another order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from litgpt_core.checkpoint.compressed_matrices import IntegerMatrix
from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.huggingface.rules import Rule, WeightLayout
from litgpt_core.model import grid

FORMAT = "pack-quantized"


def packed_rules(rules: Sequence[Rule], matrices: Mapping[str, Any]) -> dict[str, int]:
    """Names of their weights that keep their codes -> bits.

    Args:
        rules: Of all weights.
        matrices: Of the compressed directory, by module path.

    Raises:
        CheckpointError: There are none.
    """
    found: dict[str, int] = {}
    for rule in rules:
        whole = [matrices.get(name.removesuffix(".weight")) for name in rule.ours]
        integers = [m for m in whole if isinstance(m, IntegerMatrix) and m.columns % grid.GROUP == 0]
        bits = {matrix.facts["bits"] for matrix in integers}
        if len(integers) < len(whole) or len(bits) > 1 or ".h." not in rule.ours[0]:
            continue
        if rule.layout in (WeightLayout.SAME, WeightLayout.JOINED, WeightLayout.SPLIT, WeightLayout.INTERLEAVED):
            found |= dict.fromkeys(rule.theirs, bits.pop())
    if not found:
        raise CheckpointError(
            "No matrix of this checkpoint can keep its codes.",
            needed="a directory that `lcp compress RUN int4` or int8 made, of an architecture with linear layers",
            fix="--format huggingface",
        )
    return found


def packed_weights(rule: Rule, matrices: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of one of `packed_rules`, under their names."""
    parts = [matrices[name.removesuffix(".weight")] for name in rule.ours]
    codes, scales = zip(*(matrix.unpacked() for matrix in parts), strict=True)
    bits, tensors = parts[0].facts["bits"], {}
    for name, q, s in zip(rule.theirs, rule.to_theirs(codes), rule.to_theirs(scales), strict=True):
        tensors[f"{name}_packed"] = pack_words(q, bits=bits)
        tensors[f"{name}_scale"] = s.to(torch.float16).contiguous()
        tensors[f"{name}_shape"] = torch.tensor(q.shape)
    return tensors


def pack_words(codes: Tensor, *, bits: int) -> Tensor:
    """(O, K) signed codes -> (O, K * bits / 32) int32."""
    per_word = 32 // bits
    unsigned = (codes.long() + 2 ** (bits - 1)).view(codes.size(0), -1, per_word)
    words = (unsigned << torch.arange(per_word) * bits).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def quantization_config(packed: Mapping[str, int], linears: Sequence[str], *, head: str) -> dict[str, Any]:
    """`quantization_config` of config.json.

    Args:
        packed: See `packed_rules`.
        linears: Their names of the weights of all linear layers.
        head: That of the output layer, which is not among them where it is the embedding.
    """
    layers = {name.removesuffix(".weight"): bits for name, bits in packed.items()}
    paths = dict.fromkeys(name.removesuffix(".weight") for name in [*linears, head])
    ignored = [path for path in paths if path not in layers]
    groups = {}
    for number, bits in enumerate(sorted(set(layers.values()))):
        names = [path for path, own in layers.items() if own == bits]
        groups[f"group_{number}"] = {
            "targets": ["Linear"] if len(names) == len(layers) else names,
            "input_activations": None,
            "output_activations": None,
            "weights": {
                "num_bits": bits,
                "type": "int",
                "symmetric": True,
                "strategy": "group",
                "group_size": grid.GROUP,
                "dynamic": False,
            },
        }
    return {
        "quant_method": "compressed-tensors",
        "format": FORMAT,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ignored,
    }
