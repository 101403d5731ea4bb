"""Any checkpoint of `litgpt_core.model`, one token at a time, on lists of floats: the same logits to about 1e-7.

    token --wte--> x --[+ wpe]--> block 0 .. n_layer-1 --ln_f--> lm_head --> logits of the next token

Sums are those of Python's floats, double precision, whatever the weights were stored in. Not here: sampling
(`sampling`), files (`weights`, `config`), text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import mul
from pathlib import Path

from litgpt_core.core.errors import CheckpointError
from litgpt_core.pure.arithmetic import Vector, plus, soft_cap
from litgpt_core.pure.attention import Attention, Cache, LatentAttention, Turn
from litgpt_core.pure.config import ModelConfig, read_config
from litgpt_core.pure.feed_forward import Function, feed_forward
from litgpt_core.pure.layers import Weights, norm
from litgpt_core.pure.rope import Rope
from litgpt_core.pure.weights import Tensor, read_weights

MOST_WEIGHTS = 50_000_000
"""A float takes 32 bytes in a list, and a token a second for every 15 to 25 million."""


class Block:
    """Attention and feed-forward network, one after the other or side by side; see `litgpt_core.model.block`."""

    def __init__(self, weights: Weights, config: ModelConfig, layer: int) -> None:
        def normed(name: str, *, wanted: bool) -> Function:
            return norm(weights, name, config) if wanted else _unchanged

        c = config
        self.parallel = c.parallel_residual
        self.norm_1 = normed("norm_1", wanted=c.norm_1)
        inner = weights.inside("attn")
        self.attn = LatentAttention(inner, c) if c.latent_attention else Attention(inner, c, layer)
        self.post_attention_norm = normed("post_attention_norm", wanted=c.post_attention_norm)
        self.norm_2 = None if c.shared_attention_norm else normed("norm_2", wanted=c.norm_2)
        self.mlp = feed_forward(weights.inside("mlp"), c, layer)
        self.post_mlp_norm = normed("post_mlp_norm", wanted=c.post_mlp_norm)

    def __call__(self, x: Vector, turn: Turn, cache: Cache) -> Vector:
        """(C) -> (C)"""
        normed = self.norm_1(x)
        attended = plus(x, self.post_attention_norm(self.attn(normed, turn, cache)))
        if self.norm_2 is not None:
            normed = self.norm_2(x if self.parallel else attended)
        return plus(attended, self.post_mlp_norm(self.mlp(normed)))


def _unchanged(x: Vector) -> Vector:
    return x


class GPT:
    """A model and the cache of one text."""

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
        count = sum(len(tensor.values) for tensor in {id(each): each for each in tensors.values()}.values())
        if count > MOST_WEIGHTS:
            raise CheckpointError(
                f"The model has {count:,} weights; plain Python would need {count * 32 / 1e9:.1f} GB.",
                needed=f"at most {MOST_WEIGHTS:,} weights",
                fix="generate without --engine pure",
            )
        weights = Weights(tensors, "", {})
        body = weights.inside("transformer")
        self.config = config
        self.wte = body.rows("wte.weight")
        self.wpe = body.rows("wpe.weight") if config.position_embedding == "learned" else None
        self.blocks = [Block(body.inside(f"h.{layer}"), config, layer) for layer in range(config.n_layer)]
        self.ln_f = norm(body, "ln_f", config)
        self.lm_head = weights.linear("lm_head")
        self.rope = Rope(config) if config.rope_n_elem else None
        self.clear()

    @classmethod
    def from_directory(cls, directory: Path) -> GPT:
        """The model of a checkpoint directory. Raises CheckpointError for what cannot be read."""
        return cls(read_config(directory), read_weights(directory / "lit_model.pth"))

    def clear(self) -> None:
        """Forget all tokens."""
        self.length = 0
        self.caches = [block.attn.empty_cache() for block in self.blocks]

    def logits(self, ids: Sequence[int]) -> Vector:
        """(padded_vocab_size) logits of the token after `ids`, at least one, which follow all earlier ones."""
        for token in ids[:-1]:
            self._hidden(token)
        return soft_cap(self.lm_head(self.ln_f(self._hidden(ids[-1]))), self.config.final_logit_softcapping)

    def _hidden(self, token: int) -> Vector:
        """(C): what the blocks make of one token, which joins the caches."""
        c, position = self.config, self.length
        if position >= c.block_size:
            raise ValueError(f"the window of {c.block_size} tokens is full")
        x = self.wte[token]
        if c.scale_embeddings:
            x = list(map(mul, x, repeat(math.sqrt(c.n_embd))))
        if self.wpe is not None:
            x = plus(x, self.wpe[position])
        turns: Sequence[Turn] = [None] * c.n_layer
        if self.rope is not None:
            tables = self.rope.at(position)
            turns = [tables[number] for number in self.rope.table_of]
        for block, turn, cache in zip(self.blocks, turns, self.caches, strict=True):
            x = block(x, turn, cache)
        self.length += 1
        return x
