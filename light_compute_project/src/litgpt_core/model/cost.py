"""Parameters and FLOPs of a model, from its config alone: nothing is built, torch is not imported.

Counting rule: one multiplication and one addition are 2 FLOPs; the backward pass costs twice the forward pass. For one
token, with N = weights of the matrices it is multiplied with (lm_head yes, table look-ups no, of a mixture of experts
only the chosen ones):

    forward    2 * N + sum over layers of 2 * n_head * (hs_qk + hs_v) * S     S keys are read: min(T, sliding window)
    training   3 * forward
               = 6 * N + 12 * n_layer * n_head * hs * T                        without windows and latent attention

That is the formula of the PaLM paper (Chowdhery et al. 2022, appendix B), as in nanoGPT: attention is counted as if
every token read all T, although the causal mask lets it read half on average, so that utilisation compares with
published numbers. Norms, activations, rope and softmax are left out, as everywhere. Not here: which parameters there
are (`structure`), what a device can do (`core/machine`), what memory training takes (`planning/memory`).
"""

from __future__ import annotations

from collections import Counter

from litgpt_core.model.config import GPTConfig
from litgpt_core.model.structure import block_parameters, layer_structure, outer_parameters


def flops_per_token(config: GPTConfig, *, seq_length: int) -> float:
    """Forward and backward FLOPs for one token of a sequence of `seq_length` tokens."""
    return 3.0 * forward_flops_per_token(config, seq_length=seq_length)


def forward_flops_per_token(config: GPTConfig, *, seq_length: int) -> float:
    """Forward FLOPs for one token of a sequence of `seq_length` tokens."""
    keys = sum(min(seq_length, config.window_of(layer) or seq_length) for layer in range(config.n_layer))
    attention = 2.0 * config.n_head * (config.qk_head_dim + config.v_head_dim) * keys
    return 2.0 * matmul_parameters(config) + attention


def matmul_parameters(config: GPTConfig) -> int:
    """Matrix weights that one token is multiplied with: no biases, norms, tables or unused experts, but lm_head."""
    blocks = sum(
        linear.rows * linear.columns
        for layer in range(config.n_layer)
        for linear in layer_structure(config, layer).linears
        if linear.expert is None or linear.expert < config.n_expert_per_token  # experts are of one size
    )
    return blocks + config.n_embd * config.padded_vocab_size


def count_parameters(config: GPTConfig, *, embedding: bool = True) -> int:
    """All trained numbers, as `GPT.num_parameters`; `embedding=False`: only the blocks and the last norm."""
    blocks = sum(n * sum(p.size for p in block_parameters(config, layer)) for layer, n in block_kinds(config))
    outer = [p for p in outer_parameters(config) if embedding or p.name.startswith("transformer.ln_f")]
    return blocks + sum(p.size for p in outer)


def block_kinds(config: GPTConfig) -> list[tuple[int, int]]:
    """(a layer, how many layers have blocks of its shape): blocks differ in the class of their MLP only."""
    first: dict[str, int] = {}
    for layer in range(config.n_layer):
        first.setdefault(config.mlp_class_of(layer), layer)
    kinds = Counter(config.mlp_class_of(layer) for layer in range(config.n_layer))
    return [(layer, kinds[kind]) for kind, layer in first.items()]
