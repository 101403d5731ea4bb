"""One transformer block: attention and MLP, each read from and added to the residual stream."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from litgpt_core.model.attention import CausalSelfAttention
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.latent_attention import MultiheadLatentAttention
from litgpt_core.model.mlp import GemmaMLP, GptNeoxMLP, LLaMAMLP
from litgpt_core.model.moe import LLaMAMoE
from litgpt_core.model.norm import build_norm
from litgpt_core.model.rope import RopeTable

MLPS: dict[str, type[nn.Module]] = {
    "GptNeoxMLP": GptNeoxMLP,
    "LLaMAMLP": LLaMAMLP,
    "GemmaMLP": GemmaMLP,
    "LLaMAMoE": LLaMAMoE,
}


class Block(nn.Module):
    """Sequential (Llama, GPT-2) or parallel (GPT-NeoX, Falcon), after `parallel_residual`:

        x --+-------------------------(+)--+-------------------------(+)-->
            '-norm_1-attn-[post norm]--'   '-norm_2-mlp-[post norm]---'

        x --+-----------------------------------(+)-->
            |-norm_1-attn-[post norm]------------|
            '-norm_2-mlp-[post norm]-------------'       shared_attention_norm: norm_1(x) for both, no norm_2

    Any norm may be switched off; dropout sits right before each (+).
    """

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()

        def norm(present: bool) -> nn.Module:
            return build_norm(config, config.n_embd) if present else nn.Identity()

        self.parallel = config.parallel_residual
        self.norm_1 = norm(config.norm_1)
        self.attn = MultiheadLatentAttention(config) if config.latent_attention else CausalSelfAttention(config)
        self.post_attention_norm = norm(config.post_attention_norm)
        self.norm_2 = None if config.shared_attention_norm else norm(config.norm_2)
        self.mlp = MLPS[config.mlp_class_of(layer)](config)
        self.post_mlp_norm = norm(config.post_mlp_norm)
        self.dropout = nn.Dropout(config.dropout)
        self.run: Callable[[Tensor, RopeTable | None], Tensor] | None = None
        """Computes the block where attention is the causal triangle without a cache; see `training.cpu_kernels`."""

    def forward(
        self, x: Tensor, rope: RopeTable | None, mask: Tensor | None, input_pos: Tensor | None = None
    ) -> Tensor:
        """(B, T, C) -> (B, T, C); the arguments are those of `CausalSelfAttention.forward`."""
        if self.run is not None and mask is None and input_pos is None:
            return self.run(x, rope)
        normed = self.norm_1(x)
        attended = x + self.dropout(self.post_attention_norm(self.attn(normed, rope, mask, input_pos)))
        if self.norm_2 is not None:
            normed = self.norm_2(x if self.parallel else attended)
        out: Tensor = attended + self.dropout(self.post_mlp_norm(self.mlp(normed)))
        return out
