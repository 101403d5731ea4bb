"""The complete model: token ids in, logits out.

    idx (B, T) --wte--> x (B, T, C) --[+ wpe]--> block 0 .. n_layer-1 --ln_f--> hidden --lm_head--> logits (B, T, V)
                                                   ^ rope and masks, made once for all blocks

State-dict names and shapes are LitGPT's, so its checkpoints load here and ours there. Not here: initial values
(`init`), the loss (`litgpt_core.model.loss`), fast generation (`litgpt_core.generation`).

    model = GPT(GPTConfig(n_layer=2, n_head=4, n_embd=64, block_size=64, vocab_size=256))
    initialize(model, seed=1337)
    logits = model(torch.randint(256, (8, 64)))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.model.attend import soft_cap
from litgpt_core.model.attention import CausalSelfAttention
from litgpt_core.model.block import Block
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.latent_attention import MultiheadLatentAttention
from litgpt_core.model.low_rank import LowRankLinear
from litgpt_core.model.mask import build_masks, segment_masks
from litgpt_core.model.norm import build_norm
from litgpt_core.model.quantized import QuantLinear
from litgpt_core.model.rope import RopeTable, RotaryEmbedding


class Transformer(nn.Module):
    """Everything between ids and logits: embeddings, blocks, last norm."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.padded_vocab_size, config.n_embd)
        self.wpe: nn.Embedding | None = None
        if config.position_embedding == "learned":
            self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.rope = RotaryEmbedding(config) if config.rope_n_elem else None
        self.dropout = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = build_norm(config, config.n_embd)
        self.windowed = [config.window_of(layer) is not None for layer in range(config.n_layer)]
        self.rope_indices = config.rope_indices or [0] * config.n_layer
        self.cache_length: int | None = None
        """Slots of the KV cache that attention reads; None without a cache."""
        self.fresh = False
        """The next tokens are the first of their sequences: attention is causal among them, and reads no cache."""

    def forward(self, idx: Tensor, input_pos: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """(B, T) int64 -> (B, T, C)"""
        c = self.config
        self._check_length(idx, input_pos)
        if segments is not None:
            masks, positions = segment_masks(c, segments)
        else:
            positions = torch.arange(idx.size(1), device=idx.device) if input_pos is None else input_pos
            masks = build_masks(c, positions, n_slots=None if input_pos is None or self.fresh else self.cache_length)
        x: Tensor = self.wte(idx)  # (B, T, C)
        if c.scale_embeddings:
            x = x * torch.full((), c.n_embd**0.5, dtype=x.dtype, device=x.device)  # rounded as Gemma's was in training
        if self.wpe is not None:
            x = x + self.wpe(positions)
        x = self.dropout(x)
        if c.attention_logit_softcapping is None:
            kind = x.device.type
            mixed = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
            masks = masks.as_numbers(torch.get_autocast_dtype(kind) if mixed else x.dtype)
        tables: list[RopeTable | None] = [None] if self.rope is None else [*self.rope(positions)]
        for layer, block in enumerate(self.h):
            mask = masks.windowed if self.windowed[layer] else masks.full
            x = block(x, tables[self.rope_indices[layer]], mask, input_pos)
        normed: Tensor = self.ln_f(x)
        return normed

    def _check_length(self, idx: Tensor, input_pos: Tensor | None) -> None:
        length = idx.size(1)
        if self.config.block_size < length:
            raise ConfigError(
                f"{length} tokens were given to a model with block_size={self.config.block_size}.",
                needed="at most block_size tokens",
                fix=f"a shorter input, or model.block_size={length} before training",
            )
        if input_pos is not None and self.cache_length is None:
            raise RuntimeError("input_pos needs a KV cache: call set_kv_cache() first")


class GPT(nn.Module):
    """A decoder-only language model.

    With `config.tie_embeddings` the head and the token embedding are one parameter under both names; loading, moving
    and materialising the model keep it so.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.lm_head = nn.Linear(config.n_embd, config.padded_vocab_size, bias=config.lm_head_bias)
        self.transformer = Transformer(config)
        if config.tie_embeddings:
            self.tie_weights()
            self.register_load_state_dict_pre_hook(_expect_tied)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_post_hook(_tie_again)  # type: ignore[no-untyped-call]

    def forward(self, idx: Tensor, *, input_pos: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Logits of the next token, at every position.

        Args:
            idx: (B, T) int64 token ids, T <= block_size.
            input_pos: (T,) int64 positions of these tokens, when a KV cache holds those before; see `set_kv_cache`.
                (B, T) where sequences are at different positions.
            segments: (B, T) int64: rows hold several sequences, which do not attend to each other; see `segments.py`.
                Not with `input_pos`.

        Returns:
            (B, T, padded_vocab_size). Columns from `config.vocab_size` on belong to no token.

        Raises:
            ConfigError: T is larger than block_size.
            RuntimeError: `input_pos` without a KV cache.
        """
        return self.head(self.hidden(idx, input_pos=input_pos, segments=segments))

    def hidden(self, idx: Tensor, *, input_pos: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, T, C): the last norm's output, for losses that compute logits in chunks."""
        x: Tensor = self.transformer(idx, input_pos, segments)
        return x

    def head(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., padded_vocab_size), soft-capped if the config requires it."""
        logits: Tensor = self.lm_head(hidden)
        cap = self.config.final_logit_softcapping
        return logits if cap is None else soft_cap(logits, cap)

    # --- text

    @torch.no_grad()
    def generate(
        self,
        idx: Tensor,
        max_new_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """The textbook loop: one whole forward pass for every new token. `generation.Engine` is many times faster.

        Args:
            idx: (B, T) int64 prompts, at least one token each; only the last block_size tokens are seen.
            max_new_tokens: N, tokens to append.
            temperature: Divides the logits; 0 always takes the most likely token.
            top_k: Sample from this many most likely tokens only; None: from all.
            seed: Of the samples; None: torch's global random state.

        Returns:
            (B, T + N), the prompts first.
        """
        if (
            idx.ndim != 2
            or not idx.size(1)
            or max_new_tokens < 0
            or temperature < 0
            or (top_k is not None and top_k < 1)
        ):
            raise ConfigError(
                f"generate() of idx {tuple(idx.shape)}, {max_new_tokens=}, {temperature=}, {top_k=}",
                needed="idx (B, T) with T >= 1, max_new_tokens >= 0, temperature >= 0, top_k >= 1",
            )
        generator = None if seed is None else torch.Generator(device=idx.device).manual_seed(seed)
        was_training = self.training
        self.eval()
        for _ in range(max_new_tokens):
            logits = self(idx[:, -self.config.block_size :])[:, -1, : self.config.vocab_size].float()  # (B, V)
            if temperature == 0:
                chosen = logits.argmax(dim=-1, keepdim=True)
            else:
                if top_k is not None and top_k < logits.size(-1):
                    least = logits.topk(top_k).values[:, -1:]
                    logits = logits.masked_fill(logits < least, -torch.inf)
                weights = (logits / temperature).softmax(dim=-1)
                chosen = torch.multinomial(weights, num_samples=1, generator=generator)
            idx = torch.cat([idx, chosen], dim=1)
        self.train(was_training)
        return idx

    # --- KV cache

    def set_kv_cache(
        self,
        batch_size: int,
        *,
        max_seq_length: int,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make empty caches, so that `forward(idx, input_pos=...)` works. Replaces existing ones.

        Args:
            batch_size: Most sequences at once.
            max_seq_length: Slots per sequence, prompt and continuation together; at most block_size.
            device: Default: where the weights are.
            dtype: Default: the weights' dtype; torch.int8: see `kv_cache.Int8KVCache`.
        """
        if batch_size < 1 or not 1 <= max_seq_length <= self.config.block_size:
            raise ConfigError(
                f"A KV cache for batch_size={batch_size} and max_seq_length={max_seq_length} cannot be made.",
                needed=f"batch_size >= 1 and 1 <= max_seq_length <= block_size={self.config.block_size}",
            )
        device, dtype = device or self.device, dtype or self.dtype
        for attention in self._attentions():
            attention.build_kv_cache(batch_size, max_seq_length, device=device, dtype=dtype)
        self.transformer.cache_length = max_seq_length

    @contextmanager
    def cache_rows(self, first: int, *, fresh: bool = False) -> Iterator[None]:
        """Calls in the block feed the sequences of the caches from `first` on.

        Args:
            first: Row of the caches, from 0.
            fresh: They are given the first tokens of these sequences, positions 0, 1, ...
        """
        self._select(first, fresh=fresh)
        try:
            yield
        finally:
            self._select(0, fresh=False)

    def _select(self, first: int, *, fresh: bool) -> None:
        for attention in self._attentions():
            assert attention.kv_cache is not None, "set_kv_cache comes first"
            attention.kv_cache.first, attention.kv_cache.fresh = first, fresh
        self.transformer.fresh = fresh

    def limit_cache(self, live: int) -> None:
        """The next calls read only the first `live` slots of every cache, and are given positions below it."""
        for attention in self._attentions():
            assert attention.kv_cache is not None, "set_kv_cache comes first"
            attention.kv_cache.live = live
        self.transformer.cache_length = live

    def clear_kv_cache(self) -> None:
        """Free the caches; `forward` works without `input_pos` as before."""
        for attention in self._attentions():
            attention.kv_cache = None
        self.transformer.cache_length = None

    def _attentions(self) -> Iterator[CausalSelfAttention | MultiheadLatentAttention]:
        kinds = (CausalSelfAttention, MultiheadLatentAttention)
        return (module for module in self.modules() if isinstance(module, kinds))

    # --- parameters

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._reference.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights and activations; integer weights do not count."""
        return self._reference.dtype

    @property
    def _reference(self) -> Tensor:
        head: nn.Module = self.lm_head  # compressed models have other kinds
        if isinstance(head, QuantLinear):
            return head.matrix.like
        reference = head.up if isinstance(head, LowRankLinear) else head.weight
        assert isinstance(reference, Tensor)
        return reference

    def num_parameters(self, *, embedding: bool = True) -> int:
        """How many numbers are trained; a tied weight counts once.

        With `embedding=False` only the blocks and the last norm: no wte, wpe or lm_head, tied or not.
        """
        if embedding:
            return sum(p.numel() for p in self.parameters())
        body = (self.transformer.h, self.transformer.ln_f)
        return sum(p.numel() for part in body for p in part.parameters())

    def tie_weights(self) -> None:
        """Make the head's weight the token embedding's."""
        if isinstance(self.lm_head, nn.Linear) and isinstance(self.transformer.wte, nn.Embedding):
            self.lm_head.weight = self.transformer.wte.weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GPT:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.config.tie_embeddings:  # `to_empty` gives each module a tensor of its own
            self.tie_weights()
        return self


def _tie_again(module: GPT, _: object) -> None:
    """After loading: `assign=True` has replaced the shared tensor by two."""
    module.tie_weights()


def _expect_tied(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    expect_tied(state_dict, prefix=prefix)


def expect_tied(state_dict: dict[str, Any], *, prefix: str = "") -> None:
    """Before loading into tied weights: fill in a missing one of the two, refuse two that differ (CheckpointError)."""
    keys = (f"{prefix}lm_head.weight", f"{prefix}transformer.wte.weight")
    present = [key for key in keys if key in state_dict]
    if len(present) == 1:
        state_dict.update(dict.fromkeys(keys, state_dict[present[0]]))
    elif len(present) == 2:
        head, table = (state_dict[key] for key in keys)
        if head is not table and not head.is_meta and not table.is_meta and not torch.equal(head, table):
            raise CheckpointError(
                "lm_head.weight and transformer.wte.weight differ in this checkpoint, so they cannot be one parameter.",
                needed="a checkpoint of a tied model, or an untied model",
                fix="model.tie_embeddings=false",
            )
