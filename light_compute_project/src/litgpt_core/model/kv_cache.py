"""Keys and values of all tokens so far, so that generating one token costs one token's work.

    slot        0    1    2    3    4  ...  S - 1
    k, v       [p0] [p1] [p2] [p3] [ ]      [ ]       forward(input_pos=[3]) writes slot 3 and returns all S slots, or
    mask        1    1    1    1    0        0        the first `live`; the mask (see mask.py) hides what is not written

A static size keeps shapes constant (friendly to torch.compile); `live` keeps a token's cost that of the tokens so far,
not that of the whole window. Sliding-window layers use the same full-length cache:
the window is in the mask, so no ring buffer is needed. For inference only: no gradient flows through a cache.

`Int8KVCache` stores 8-bit codes and one scale per token and head: half of bfloat16's memory and a little more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class KVCache(nn.Module):
    """One layer's keys (B, G, S, hs) and values (B, G, S, hs_v), outside the state dict."""

    k: Tensor
    v: Tensor

    def __init__(
        self,
        k_shape: tuple[int, int, int, int],
        v_shape: tuple[int, int, int, int],
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("k", torch.zeros(k_shape, device=device, dtype=dtype), persistent=False)
        self.register_buffer("v", torch.zeros(v_shape, device=device, dtype=dtype), persistent=False)

        self.first = 0
        self.live: int | None = None
        self.fresh = False

    def forward(self, input_pos: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write T new tokens of B sequences and return all their slots, or the first `live`: (B, G, S, hs) twice.

        Args:
            input_pos: (T,), or (B, T) where sequences are at different positions.
            k: (B, G, T, hs).
            v: (B, G, T, hs_v).

        The sequences are B neighbours, from `first` on. With `fresh` there are no earlier tokens: what was given is
        returned.
        """
        keys, values = self._write(self.k, input_pos, k), self._write(self.v, input_pos, v)
        return (k, v) if self.fresh else (keys, values)

    def tensors(self) -> list[Tensor]:
        """All that is stored, each (B, G, S, ...)."""
        return [self.k, self.v]

    @torch.no_grad()
    def _write(self, slots: Tensor, input_pos: Tensor, new: Tensor) -> Tensor:
        n = new.size(0)
        view = slots[self.first : self.first + n]
        if input_pos.dim() == 1:
            view.index_copy_(2, input_pos, new.to(slots.dtype))
        else:
            rows = torch.arange(n, device=slots.device)
            view[rows[:, None], :, input_pos] = new.to(slots.dtype).transpose(1, 2)  # (B, T, G, hs)
        return view[:, :, : self.live].to(new.dtype)


class Int8KVCache(KVCache):
    """Keys and values in 8 bits: code * scale, scale = largest size of a token's vector / 127."""

    k_scales: Tensor
    v_scales: Tensor

    def __init__(
        self,
        k_shape: tuple[int, int, int, int],
        v_shape: tuple[int, int, int, int],
        *,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(k_shape, v_shape, device=device, dtype=torch.int8)
        for name, shape in (("k_scales", k_shape), ("v_scales", v_shape)):
            self.register_buffer(name, torch.zeros((*shape[:3], 1), device=device), persistent=False)

    def forward(self, input_pos: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """See `KVCache`; what is returned has been rounded, the new tokens too."""
        keys = self._rounded(self.k, self.k_scales, input_pos, k)
        values = self._rounded(self.v, self.v_scales, input_pos, v)
        n = k.size(2)
        return (keys[:, :, :n], values[:, :, :n]) if self.fresh else (keys, values)

    def tensors(self) -> list[Tensor]:
        """See `KVCache`."""
        return [self.k, self.v, self.k_scales, self.v_scales]

    def _rounded(self, slots: Tensor, scales: Tensor, input_pos: Tensor, new: Tensor) -> Tensor:
        codes, scale = token_codes(new)
        return (self._write(slots, input_pos, codes) * self._write(scales, input_pos, scale)).to(new.dtype)


def token_codes(x: Tensor) -> tuple[Tensor, Tensor]:
    """(..., hs) -> (..., hs) whole numbers in -127..127 and (..., 1) scales, float32."""
    x = x.float()
    largest = x.abs().amax(dim=-1, keepdim=True)
    inverse = torch.where(largest == 0, 0.0, 127.0 / torch.where(largest == 0, 1.0, largest))
    return (x * inverse).round(), largest / 127.0
