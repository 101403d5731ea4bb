"""What one of n processes holds of a block whose matrices are divided among them (tensor parallelism).

    qkv     [ Q0 Q1 | K0 K1 | V0 V1 ]   rows      process 0: [ Q0 | K0 | V0 ]     query groups stay together
    fc, fc_1, fc_2                      rows      its share of the hidden units
    proj                                columns   of the heads and hidden units that it has; results are added up

So every process has a block of the same kind with n-th parts of heads, groups and hidden units, and the full width of
the residual stream: `sliced` is its config. On disk `qkv` stays whole, in LitGPT's order; `cuts` says how each tensor
of the whole block is divided. No torch here: the planner reads it, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from litgpt_core.core.errors import ConfigError
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.structure import structure


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How one tensor is divided: along `dim`, each group of `sizes` by itself."""

    dim: int
    sizes: tuple[int, ...]
    """They add up to the whole tensor."""


def obstacle(config: GPTConfig, n: int) -> str | None:
    """Why the blocks of a model cannot be divided among n processes; None if they can."""
    if n == 1:
        return None
    reasons = {
        "latent attention has one bottleneck for all heads": config.latent_attention is not None,
        "a mixture of experts would divide its experts instead": config.n_expert > 0,
        "queries and keys are normalised over all heads": config.norm_qk and config.norm_qk_type == "olmo2",
        f"{n} does not divide n_query_groups={config.n_query_groups}": config.n_query_groups % n > 0,
        f"{n} does not divide intermediate_size={config.intermediate_size}": config.intermediate_size % n > 0,
    }
    return next((reason for reason, there in reasons.items() if there), None)


def sliced(config: GPTConfig, n: int) -> GPTConfig:
    """The config of the blocks that each of n processes has; what is outside the blocks stays as it was.

    Raises:
        ConfigError: They cannot be divided.
    """
    if n == 1:
        return config
    reason = obstacle(config, n)
    if reason is not None:
        raise ConfigError(
            f"trainer.tensor_parallel_size={n}: {reason}",
            needed="a number that divides heads, query groups and hidden units of a dense model",
            fix="trainer.tensor_parallel_size=1",
        )
    return dataclasses.replace(
        config,
        n_head=config.n_head // n,
        n_query_groups=config.n_query_groups // n,
        head_size=config.head_size,
        intermediate_size=config.intermediate_size // n,
    )


def cuts(config: GPTConfig) -> dict[str, Cut]:
    """Name in the state dict -> how it is divided; tensors that every process has whole are not in it."""
    return dict(_cuts(config))


def _cuts(config: GPTConfig) -> Iterator[tuple[str, Cut]]:
    for path, linear in structure(config).linears():
        if linear.role == "head":
            continue
        if linear.adds_to_residual:
            yield f"{path}.weight", Cut(dim=1, sizes=(linear.columns,))
            continue
        rows = tuple(size for _, size in linear.row_groups) or (linear.rows,)
        for kind in ("weight", "bias") if linear.bias else ("weight",):
            yield f"{path}.{kind}", Cut(dim=0, sizes=rows)
