"""Trade computing for memory: keep less of each block for the backward pass and compute the rest again.

    none        forward keeps what every operation's derivative needs
    selective   keeps a block's input and what its large matrix products and fused attention gave; norms, activations,
                rotations, attention scores and dropout are computed again: no large product twice
    full        keeps a block's input only; the whole block is computed again: about a third more work

Recomputing repeats the same operations on the same numbers, dropout's draws included, so gradients are those of `none`
bit for bit. What a block keeps is exchanged by its class alone: names in the state dict, the parameters and the
optimizer are untouched, a block may be compiled before or after, and equal blocks still share one compiled graph.

Peak of forward and backward in MB of live tensors (counted by `live_memory.py`) at 8 layers of 256, 4 heads, context
256, 8 sequences, vocabulary 256, float32, uncompiled:

                                 none   selective   every second block in full   full
    GPT-NeoX, fused attention     336         216                          185     74
    GPT-NeoX, written out         353         203                          193     76
    Llama, fused attention        422         251                          229     88
    Llama, written out            439         238                          237     90
    seconds a step (first row)   0.94        0.91                         0.95   1.01     medians of 5, 2 busy cores

Every second block in full keeps a little less than `selective` and repeats half of all products; its blocks come in
two kinds, so in two compiled graphs. Hence the choice.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from litgpt_core.model.block import Block
from litgpt_core.model.gpt import GPT
from litgpt_core.model.rope import RopeTable

Mode = Literal["none", "selective", "full"]

_aten = torch.ops.aten
KEPT = frozenset(
    {
        _aten.mm.default,
        _aten.addmm.default,
        _aten._scaled_dot_product_flash_attention.default,
        _aten._scaled_dot_product_flash_attention_for_cpu.default,
        _aten._scaled_dot_product_efficient_attention.default,
        _aten._scaled_dot_product_cudnn_attention.default,
    }
)
"""Operations whose results `selective` keeps. `bmm` is absent: written-out attention's scores (B, nh, T, T) are the
largest thing a block holds and cheap to compute again.
"""


def checkpoint_blocks(model: GPT, mode: Mode) -> None:
    """Let every block of `model` keep what `mode` says, in place; doing it twice is doing it once.

    Args:
        model: What losses are computed with, on any device, in any dtype.
        mode: `none` brings back blocks that keep everything.
    """
    for block in model.transformer.h:
        block.__class__ = _CLASSES[mode]
        if isinstance(block, FullyCheckpointedBlock | SelectivelyCheckpointedBlock):
            block.draws = any(isinstance(part, nn.Dropout) and part.p > 0.0 for part in block.modules())


class FullyCheckpointedBlock(Block):
    """A block that keeps its input only."""

    draws: bool
    """Whether anything in it draws random numbers, its adapters included, which must be the same the second time."""

    def forward(
        self, x: Tensor, rope: RopeTable | None, mask: Tensor | None, input_pos: Tensor | None = None
    ) -> Tensor:
        """(B, T, C) -> (B, T, C), as `Block.forward`; without gradients it is that."""
        if not torch.is_grad_enabled() or input_pos is not None:
            return super().forward(x, rope, mask, input_pos)
        again = super().forward
        out: Tensor = checkpoint(again, x, rope, mask, use_reentrant=False, preserve_rng_state=self.draws)
        return out


class SelectivelyCheckpointedBlock(Block):
    """A block that keeps its input and the results of `KEPT`."""

    draws: bool
    """As above."""

    def forward(
        self, x: Tensor, rope: RopeTable | None, mask: Tensor | None, input_pos: Tensor | None = None
    ) -> Tensor:
        """(B, T, C) -> (B, T, C), as `Block.forward`; without gradients it is that."""
        if not torch.is_grad_enabled() or input_pos is not None:
            return super().forward(x, rope, mask, input_pos)
        again = super().forward
        out: Tensor = checkpoint(
            again,
            x,
            rope,
            mask,
            use_reentrant=False,
            preserve_rng_state=self.draws,
            context_fn=partial(create_selective_checkpoint_contexts, _keep),
        )
        return out


def _keep(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT else CheckpointPolicy.PREFER_RECOMPUTE


_CLASSES: dict[Mode, type[Block]] = {
    "none": Block,
    "selective": SelectivelyCheckpointedBlock,
    "full": FullyCheckpointedBlock,
}
