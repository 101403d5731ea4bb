"""Integer grids for weights: codes q and one scale per output and group of 32 inputs; a weight is q * scale.

    bits   codes         bytes of 512 weights                     the same numbers as
    8      -127 .. 127   512 + 32 of scales: 8.5 bits a weight    GGUF's q8_0
    4        -8 .. 7     256 + 32:           4.5 bits             GGUF's q4_0
    3        -4 .. 3     as 4 bits: a coarser grid, not a smaller file
    2        -2 .. 1     as 4 bits

Scales are float16. Packed weights have the order in which the CPU kernel reads them, on disk too: strips of 16 outputs,
and in a strip, group after group, the codes of all 16 outputs for 4 inputs, then for the next 4:

    8 bits  (P, G, 8, 16, 4) uint8   [p, g, c, o, j]: output 16 p + o, input 32 g + 4 c + j, as two's complement
    4 bits  (P, G, 4, 16, 4) uint8   low half: q + 8 of input 32 g + 8 c + j; high half: of input 32 g + 8 c + 4 + j
    scales  (P, G, 16) float16

Outputs beyond the last are zeros, and so are inputs beyond the last in the last group. Shapes: O outputs, K inputs,
G = ceil(K / 32) groups, P = ceil(O / 16) strips.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from litgpt_core.core.errors import ConfigError

GROUP = 32
"""Inputs that share a scale."""
STRIP = 16
"""Outputs of a strip."""


@dataclass(frozen=True)
class Grid:
    """The codes of one number of bits."""

    bits: int

    def __post_init__(self) -> None:
        if self.bits not in (2, 3, 4, 8):
            raise ConfigError(f"There is no grid of {self.bits} bits.", needed="bits of 2, 3, 4 or 8", fix="bits: 4")

    @property
    def lowest(self) -> int:
        """The smallest code."""
        return -127 if self.bits == 8 else -(2 ** (self.bits - 1))

    @property
    def highest(self) -> int:
        """The largest code."""
        return int(2 ** (self.bits - 1)) - 1

    @property
    def stored_bits(self) -> int:
        """Bits that a code takes in a file."""
        return 8 if self.bits == 8 else 4

    def absmax_scales(self, groups: Tensor) -> Tensor:
        """(..., 32) weights -> (...,) scales that map the weight of largest size to the outermost code, as GGUF does.

        With an even number of codes that is the lowest one, so the scale has the opposite sign of that weight.
        """
        place = groups.abs().argmax(dim=-1, keepdim=True)
        largest = groups.gather(-1, place).squeeze(-1)
        return largest.abs() / self.highest if self.bits == 8 else largest / self.lowest

    def codes(self, groups: Tensor, scales: Tensor) -> Tensor:
        """(..., 32) weights and (...,) scales -> (..., 32) nearest codes, as floats; zeros where the scale is 0."""
        inverse = torch.where(scales == 0, 0.0, 1.0 / torch.where(scales == 0, 1.0, scales))
        return (groups * inverse.unsqueeze(-1)).round().clamp(self.lowest, self.highest)


def stored_scales(scales: Tensor) -> Tensor:
    """Scales as float32 after rounding to float16, beyond whose range nothing is lost but the last digit."""
    return scales.to(torch.float16).float().clamp(-65504.0, 65504.0)


def n_groups(columns: int) -> int:
    """G, the last one perhaps incomplete."""
    return -(-columns // GROUP)


def grouped(weight: Tensor) -> Tensor:
    """(O, K) -> (O, G, 32), filled up with zeros"""
    if rest := weight.size(-1) % GROUP:
        weight = functional.pad(weight, (0, GROUP - rest))
    return weight.reshape(*weight.shape[:-1], weight.size(-1) // GROUP, GROUP)


def dequantize(codes: Tensor, scales: Tensor) -> Tensor:
    """(O, K) codes and (O, G) scales -> (O, K) float32 weights."""
    return (grouped(codes.float()) * scales.float().unsqueeze(-1)).flatten(-2)[..., : codes.size(-1)]


def pack(codes: Tensor, scales: Tensor, *, stored_bits: int) -> tuple[Tensor, Tensor]:
    """(O, K) codes and (O, G) scales -> packed codes and scales; see the module.

    Args:
        codes: Whole numbers of any dtype.
        scales: Rounded to float16.
        stored_bits: 8 or 4.
    """
    outputs, columns = codes.shape
    strips, groups = -(-outputs // STRIP), n_groups(columns)
    rows = torch.zeros(strips * STRIP, groups * GROUP, dtype=torch.int8)
    rows[:outputs, :columns] = codes.to(torch.int8)
    parts = rows.view(strips, STRIP, groups, GROUP // 4, 4).permute(0, 2, 3, 1, 4)  # (P, G, 8, 16, 4)
    padded = torch.zeros(strips * STRIP, groups, dtype=torch.float16)
    padded[:outputs] = scales.to(torch.float16)
    packed_scales = padded.view(strips, STRIP, groups).transpose(1, 2).contiguous()
    if stored_bits == 8:
        return parts.contiguous().view(torch.uint8), packed_scales
    halves = (parts + 8).to(torch.uint8).reshape(strips, groups, GROUP // 8, 2, STRIP, 4)
    return (halves[:, :, :, 0] | halves[:, :, :, 1] << 4).contiguous(), packed_scales


def unpack(packed: Tensor, packed_scales: Tensor, *, outputs: int, columns: int | None = None) -> tuple[Tensor, Tensor]:
    """Packed codes and scales -> (O, K) int8 codes and (O, G) float16 scales; K is 32 G without `columns`."""
    parts = decoded(packed).permute(0, 3, 1, 2, 4)  # (P, 16, G, 8, 4)
    codes = parts.reshape(-1, parts.size(2) * GROUP)
    return codes[:outputs, :columns], packed_scales.transpose(1, 2).reshape(-1, packed_scales.size(1))[:outputs]


def decoded(packed: Tensor) -> Tensor:
    """(..., 8 or 4, n, 4) packed bytes -> (..., 8, n, 4) int8 codes."""
    if packed.size(-3) == GROUP // 4:
        return packed.view(torch.int8)
    halves = torch.stack((packed & 15, packed >> 4), dim=-3)  # (..., 4, 2, n, 4)
    return (halves.to(torch.int8) - 8).flatten(-4, -3)


def activation_codes(x: Tensor) -> tuple[Tensor, Tensor]:
    """(..., K) -> (..., K) whole numbers in -127..127 and (..., G) scales: how the CPU kernel rounds activations."""
    groups = grouped(x.float())
    largest = groups.abs().amax(dim=-1)
    scales = largest / 127.0
    inverse = torch.where(largest == 0, 0.0, 127.0 / torch.where(largest == 0, 1.0, largest))
    return (groups * inverse.unsqueeze(-1)).round().flatten(-2)[..., : x.size(-1)], scales
