"""Integer grids: codes, scales, and the packed order that the kernel reads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from litgpt_core.core.errors import ConfigError
from litgpt_core.model import grid
from litgpt_core.model.grid import Grid
from litgpt_core.model.low_rank import LowRankLinear
from litgpt_core.model.quantized import PackedMatrix, QuantEmbedding, QuantLinear
from litgpt_core.model.sparse import check_pattern, pack_sparse, unpack_sparse

BLOCKS = {
    "zeros": torch.zeros(1, 32),
    "one spike": torch.eye(32)[:1] * 5,
    "negative spike": -torch.eye(32)[3:4] * 5,
    "negative zero": -torch.zeros(1, 32),
    "subnormal scale": torch.linspace(-1, 1, 32)[None] * 3e-7,
    "random": torch.randn(40, 32, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_codes_are_the_nearest_multiples_of_the_scale(bits, block):
    kind = Grid(bits)
    scales = grid.stored_scales(kind.absmax_scales(block))
    codes = kind.codes(block, scales)
    assert torch.equal(codes, codes.round()) and codes.min() >= kind.lowest and codes.max() <= kind.highest
    for row, scale in enumerate(scales):
        levels = torch.arange(kind.lowest, kind.highest + 1) * scale
        nearest = (block[row, :, None] - levels).abs().amin(dim=1)
        found = (block[row] - codes[row] * scale).abs()
        assert torch.allclose(found, nearest, rtol=1e-3, atol=float(scale.abs()) * 1e-3)


def test_the_largest_weight_has_the_outermost_code_as_in_q4_0():
    block = torch.tensor([[0.1] * 31 + [-4.0]])
    assert float(Grid(4).absmax_scales(block)) == 0.5 and float(Grid(4).absmax_scales(-block)) == -0.5
    assert int(Grid(4).codes(-block, torch.tensor([-0.5]))[0, -1]) == -8


@given(outputs=st.integers(1, 40), groups=st.integers(1, 3), bits=st.sampled_from([4, 8]), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_unpacking_gives_back_what_was_packed(outputs, groups, bits, seed):
    generator = torch.Generator().manual_seed(seed)
    kind = Grid(bits)
    codes = torch.randint(kind.lowest, kind.highest + 1, (outputs, groups * 32), generator=generator).to(torch.int8)
    scales = torch.randn(outputs, groups, generator=generator).half()
    packed, packed_scales = grid.pack(codes, scales, stored_bits=bits)
    assert packed.numel() == -(-outputs // 16) * 16 * groups * 32 * bits // 8
    found = grid.unpack(packed, packed_scales, outputs=outputs)
    assert torch.equal(found[0], codes) and torch.equal(found[1], scales)


def test_the_packed_order_is_the_documented_one():
    codes = (torch.arange(20 * 64).view(20, 64) % 16 - 8).to(torch.int8)
    four, scales = grid.pack(codes, torch.arange(40).view(20, 2), stored_bits=4)
    eight, _ = grid.pack(codes, torch.zeros(20, 2), stored_bits=8)
    for output, column in ((0, 0), (3, 5), (17, 40), (19, 63)):
        p, o, g, k = output // 16, output % 16, column // 32, column % 32
        assert int(eight.view(torch.int8)[p, g, k // 4, o, k % 4]) == int(codes[output, column])
        byte = int(four[p, g, k // 8, o, k % 4])
        assert (byte & 15 if k % 8 < 4 else byte >> 4) - 8 == int(codes[output, column])
        assert int(scales[p, g, o]) == output * 2 + g


def test_layers_over_a_packed_matrix_compute_with_its_dequantized_values():
    weight = torch.randn(21, 64, generator=torch.Generator().manual_seed(1))
    kind = Grid(4)
    scales = grid.stored_scales(kind.absmax_scales(grid.grouped(weight)))
    codes = kind.codes(grid.grouped(weight), scales).flatten(-2)
    matrix = PackedMatrix(*grid.pack(codes, scales, stored_bits=4), rows=21)
    assert torch.equal(matrix.dequantize(), grid.dequantize(codes, scales))
    ids, x = torch.tensor([[0, 20], [7, 16]]), torch.randn(3, 64)
    assert torch.equal(QuantEmbedding(matrix)(ids), matrix.dequantize()[ids])
    bias = torch.randn(21)
    assert torch.allclose(QuantLinear(matrix, bias=bias)(x), x @ matrix.dequantize().T + bias, atol=1e-5)
    rounded = grid.dequantize(*grid.activation_codes(x))
    assert 0 < float((rounded - x).abs().max()) <= float(x.abs().max()) / 254 * 1.01
    imitated = QuantLinear(matrix, int8_activations=True)(x)
    assert torch.allclose(imitated, rounded @ matrix.dequantize().T, atol=1e-5)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (2, 8)])
def test_sparse_packing_is_exact_and_smaller(n, m):
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(2))
    blocks = weight.view(6, -1, m)
    keep = torch.zeros_like(blocks).scatter_(-1, blocks.abs().topk(n, dim=-1).indices, 1.0)
    pruned = (blocks * keep).view(6, 32).bfloat16()
    pruned[2] = 0  # blocks with fewer than n
    values, places = pack_sparse(pruned, n=n, m=m)
    assert torch.equal(unpack_sparse(values, places, n=n, m=m), pruned)
    assert values.nbytes + places.nbytes < pruned.nbytes
    with pytest.raises(ValueError, match="more than"):
        pack_sparse(torch.ones(6, 32), n=n, m=m)


def test_what_cannot_be_packed_or_saves_nothing_is_refused():
    with pytest.raises(ConfigError, match="3:4"):
        check_pattern(3, 4, columns=64, name="x")
    with pytest.raises(ConfigError, match="a rank below 16"):
        LowRankLinear(torch.zeros(16, 32), torch.zeros(32, 16))
    with pytest.raises(ConfigError, match="5 bits"):
        Grid(5)
