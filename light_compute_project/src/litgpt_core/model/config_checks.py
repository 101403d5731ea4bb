"""What a `GPTConfig` must satisfy. Two pure functions return problems; a third raises all of them as one error.

Not here: derived fields (`config`). The checks see the values as the user gave them, before any are derived.
"""

from __future__ import annotations

import difflib
import logging
import types
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, get_args, get_origin

from litgpt_core.core.errors import ConfigError

if TYPE_CHECKING:
    from litgpt_core.model.config import GPTConfig

logger = logging.getLogger(__name__)

UNSET: Any = None
"""The value of a field that is still to be derived (typed Any, because it is an int in a finished config)."""

LATENT_KEYS = ("q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
LLAMA3_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_seq_len")
YARN_KEYS = ("factor", "beta_fast", "beta_slow", "original_max_seq_len")
YARN_OPTIONAL = ("mscale", "mscale_all_dim")


class Problem(NamedTuple):
    """One problem: a sentence, and the override that fixes it (may be empty)."""

    text: str
    fix: str = ""


def raise_problems(name: str, problems: list[Problem]) -> None:
    """Raise one ConfigError for all of them, or return if there are none."""
    if not problems:
        return
    label = f" {name!r}" if name else ""
    given = (
        problems[0].text
        if len(problems) == 1
        else "".join(f"\n  {i}. {p.text}" for i, p in enumerate(problems, start=1))
    )
    raise ConfigError(
        f"The model{label} cannot be built: {given}",
        needed="settings that fit each other",
        fix=" ".join(dict.fromkeys(p.fix for p in problems if p.fix)),
    )


def latent_dims(latent_attention: dict[str, Any]) -> dict[str, int]:
    """The five sizes of latent attention as ints (all present: the checks have passed)."""
    return {key: int(latent_attention[key]) for key in LATENT_KEYS}


# --- types


def type_problems(config: GPTConfig, hints: Mapping[str, Any]) -> list[Problem]:
    """Fields whose value is not of the type in `hints`, e.g. a number that YAML read as text."""
    problems = []
    for name, hint in hints.items():
        value = getattr(config, name)
        if get_origin(hint) is Literal:
            choices = [str(choice) for choice in get_args(hint)]
            if value not in choices:
                near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.3) or choices[:1]
                problems.append(
                    Problem(
                        f"{name}={value!r} is unknown, choose from {', '.join(choices)}.", f"model.{name}={near[0]}"
                    )
                )
        elif not _fits(value, hint):
            want = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint)
            problems.append(Problem(f"{name}={value!r} is of type {type(value).__name__}, not {want}."))
    return problems


def _fits(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if origin is list:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


# --- values


def value_problems(config: GPTConfig) -> list[Problem]:
    """Well-typed values that cannot be built or would silently do something else."""
    if too_large := list(_upper_bounds(config)):
        return too_large  # the other checks loop over some of these numbers
    parts = (_sizes, _heads, _layer_lists, _rope, _latent, _mlp)
    return [problem for part in parts for problem in part(config)]


_MOST = {
    "n_layer": 10_000,
    "n_head": 100_000,
    "n_query_groups": 100_000,
    "head_size": 1_000_000,
    "n_embd": 1_000_000,
    "block_size": 100_000_000,
    "vocab_size": 100_000_000,
    "padded_vocab_size": 100_000_000,
    "padding_multiple": 100_000_000,
    "intermediate_size": 100_000_000,
    "moe_intermediate_size": 100_000_000,
    "n_expert": 100_000,
}
_MOST_EXPERT_LAYERS = 1_000_000
"""Far above every model that exists, so that a config of somebody else neither hangs nor fills the memory."""


def _upper_bounds(c: GPTConfig) -> Iterator[Problem]:
    for name, most in _MOST.items():
        value = getattr(c, name, None)
        if value is not None and value > most:
            yield Problem(f"{name}={_short(value)} is more than {most:,}.", f"model.{name}=4")
    if max(c.n_expert or 0, 1) * c.n_layer > _MOST_EXPERT_LAYERS:
        yield Problem(f"n_layer x n_expert is more than {_MOST_EXPERT_LAYERS:,}.", "model.n_expert=4")
    for name, size in (c.latent_attention or {}).items():
        if isinstance(size, int) and size > 1_000_000:
            yield Problem(f"latent_attention.{name}={_short(size)} is more than 1,000,000.")


def _short(value: int) -> str:
    return f"{value:.3g}" if abs(value) < 10**300 else "a huge number"


def _sizes(c: GPTConfig) -> Iterator[Problem]:
    for name in ("block_size", "n_layer", "n_embd", "vocab_size", "padding_multiple", "n_head"):
        if getattr(c, name) < 1:
            yield Problem(
                f"{name}={getattr(c, name)} must be at least 1.",
                f"model.{name}={'256' if name == 'block_size' else '4'}",
            )
    optional = (
        "padded_vocab_size",
        "head_size",
        "n_query_groups",
        "intermediate_size",
        "moe_intermediate_size",
        "sliding_window_size",
    )
    for name in (*optional, "attention_scores_scalar"):
        value = getattr(c, name)
        if value is not None and value < 1:
            yield Problem(f"{name}={value} must be at least 1.", f"model.{name}=null")
    for name in ("attention_logit_softcapping", "final_logit_softcapping"):
        value = getattr(c, name)
        if value is not None and value <= 0:
            yield Problem(f"{name}={value} must be positive.", f"model.{name}=null")
    if not 0.0 <= c.dropout < 1.0:
        yield Problem(f"dropout={c.dropout} must be at least 0 and less than 1.", "model.dropout=0.1")
    if c.norm_eps <= 0:
        yield Problem(f"norm_eps={c.norm_eps} must be positive.", "model.norm_eps=1.0e-5")
    if c.shared_attention_norm and not c.parallel_residual:
        yield Problem("shared_attention_norm=true needs parallel_residual=true.", "model.parallel_residual=true")


def _heads(c: GPTConfig) -> Iterator[Problem]:
    if c.n_head < 1 or c.n_embd < 1:
        return
    if c.head_size is UNSET and c.n_embd % c.n_head:
        divisors = [d for d in range(1, c.n_embd + 1) if c.n_embd % d == 0]
        near = min(divisors, key=lambda d: (c.n_embd // d % 2, abs(d - c.n_head)))  # even heads first: rope turns pairs
        yield Problem(f"n_embd={c.n_embd} is not a multiple of n_head={c.n_head}.", f"model.n_head={near}")
    groups = c.n_query_groups
    if groups is not UNSET and groups >= 1 and c.n_head % groups:
        near = min((d for d in range(1, c.n_head + 1) if c.n_head % d == 0), key=lambda d: abs(d - groups))
        yield Problem(
            f"n_head={c.n_head} is not a multiple of n_query_groups={groups}.", f"model.n_query_groups={near}"
        )


def _head_size(c: GPTConfig) -> int | None:
    """Given or derived; None if it cannot be derived, which `_heads` reports."""
    if c.head_size is UNSET:
        return c.n_embd // c.n_head if c.n_head >= 1 and c.n_embd % c.n_head == 0 else None
    return c.head_size


def _layer_lists(c: GPTConfig) -> Iterator[Problem]:
    lists = (("sliding_window_indices", "sliding_window_size"), ("rope_indices", "rope_local_base_freq"))
    for name, needs in lists:
        marks: list[int] | None = getattr(c, name)
        if marks is None:
            continue
        if getattr(c, needs) is None:
            yield Problem(f"{name} is set, but {needs} is not, so it would be ignored.", f"model.{name}=null")
        if len(marks) < c.n_layer:
            yield Problem(f"{name} has {len(marks)} entries for n_layer={c.n_layer} layers.", f"model.{name}=null")
        if not set(marks) <= {0, 1}:
            yield Problem(f"{name}={marks} may hold only 0 and 1.", f"model.{name}=null")


def _rope(c: GPTConfig) -> Iterator[Problem]:
    if not 0.0 <= c.rotary_percentage <= 1.0:
        yield Problem(
            f"rotary_percentage={c.rotary_percentage} must be between 0 and 1.", "model.rotary_percentage=1.0"
        )
    for name in ("rope_base", "rope_condense_ratio"):
        if getattr(c, name) < 1:
            yield Problem(
                f"{name}={getattr(c, name)} must be at least 1.",
                f"model.{name}={'10000' if name == 'rope_base' else '1'}",
            )
    if c.rope_local_base_freq is not None and c.rope_local_base_freq <= 0:
        yield Problem(
            f"rope_local_base_freq={c.rope_local_base_freq} must be positive.", "model.rope_local_base_freq=10000"
        )
    if c.position_embedding == "learned":
        for name in ("rope_adjustments", "rope_local_base_freq", "latent_attention"):
            if getattr(c, name) is not None:
                yield Problem(f"{name} needs position_embedding=rope.", "model.position_embedding=rope")
    elif c.latent_attention is None and (head_size := _head_size(c)) is not None:
        rotated = int(c.rotary_percentage * head_size)
        if rotated % 2:
            fix = "model.rotary_percentage=1.0" if head_size % 2 == 0 else f"model.n_embd={c.n_head * (head_size + 1)}"
            yield Problem(
                f"rotary_percentage={c.rotary_percentage} of head_size={head_size} is {rotated}: rope turns pairs.", fix
            )
    yield from _rope_adjustments(c.rope_adjustments)


def _rope_adjustments(adjustments: dict[str, Any] | None) -> Iterator[Problem]:
    if adjustments is None:
        return
    known = {*LLAMA3_KEYS, *YARN_KEYS, *YARN_OPTIONAL}
    if unknown := [key for key in adjustments if key not in known]:
        yield Problem(
            f"rope_adjustments has unknown keys: {', '.join(map(str, unknown))}; known are {', '.join(sorted(known))}."
        )
    kinds = {"llama3": LLAMA3_KEYS, "yarn": YARN_KEYS}
    own = {kind: [key for key in keys if key not in ("factor", "original_max_seq_len")] for kind, keys in kinds.items()}
    used = [kind for kind in kinds if any(key in adjustments for key in own[kind])]
    if len(used) == 2:
        yield Problem(
            "rope_adjustments mixes llama3 (low/high_freq_factor) and yarn (beta_fast/slow) keys.",
            "model.rope_adjustments=null",
        )
    for kind in used:
        if missing := [key for key in kinds[kind] if key not in adjustments]:
            yield Problem(
                f"rope_adjustments of kind {kind} lacks {', '.join(missing)}.",
                f"+model.rope_adjustments.{missing[0]}=8192",
            )


def _latent(c: GPTConfig) -> Iterator[Problem]:
    if c.latent_attention is None:
        return
    if missing := [key for key in LATENT_KEYS if not isinstance(c.latent_attention.get(key), int)]:
        yield Problem(
            f"latent_attention lacks whole numbers for {', '.join(missing)}.",
            f"+model.latent_attention.{missing[0]}=64",
        )
    elif c.latent_attention["qk_rope_head_dim"] % 2:
        yield Problem(
            "latent_attention.qk_rope_head_dim must be even: rope turns pairs.",
            "model.latent_attention.qk_rope_head_dim=32",
        )
    if c.n_query_groups not in (None, c.n_head):
        yield Problem("latent_attention has one key/value head per query head.", "model.n_query_groups=null")
    for name in ("norm_qk", "sliding_window_size"):
        if getattr(c, name):
            yield Problem(
                f"{name} is not used by latent_attention.", f"model.{name}={'false' if name == 'norm_qk' else 'null'}"
            )


def _mlp(c: GPTConfig) -> Iterator[Problem]:
    moe = c.mlp_class_name == "LLaMAMoE"
    if c.gelu_approximate not in ("none", "tanh"):
        yield Problem(
            f"gelu_approximate={c.gelu_approximate!r} is unknown, choose none or tanh.", "model.gelu_approximate=tanh"
        )
    if c.mlp_class_name == "LLaMAMLP" and c.intermediate_size is UNSET:
        yield Problem(
            "LLaMAMLP needs intermediate_size.", f"model.intermediate_size={max(64, round(c.n_embd * 8 / 3 / 64) * 64)}"
        )
    if c.first_k_dense_replace is not None and not moe:
        yield Problem("first_k_dense_replace needs mlp_class_name=LLaMAMoE.", "model.first_k_dense_replace=null")
    if not moe:
        return
    if c.n_expert < 1:
        yield Problem(f"LLaMAMoE with n_expert={c.n_expert} has no experts.", "model.n_expert=8")
    elif not 1 <= c.n_expert_per_token <= c.n_expert:
        yield Problem(
            f"n_expert_per_token={c.n_expert_per_token} must be between 1 and n_expert={c.n_expert}.",
            "model.n_expert_per_token=1",
        )
    if c.n_shared_expert and c.moe_intermediate_size is None:
        yield Problem("n_shared_expert needs moe_intermediate_size.", f"model.moe_intermediate_size={c.n_embd}")
    if c.n_expert_groups is not None and c.n_expert >= 1:
        yield from _grouped_routing(c, c.n_expert_groups)


def _grouped_routing(c: GPTConfig, groups: int) -> Iterator[Problem]:
    if groups < 2 or c.n_expert % groups:
        yield Problem(
            f"n_expert_groups={groups} must be at least 2 and divide n_expert={c.n_expert}.",
            "model.n_expert_groups=null",
        )
        return
    per_group = c.n_expert // groups
    if c.n_topk_groups is None or not 1 <= c.n_topk_groups <= groups:
        yield Problem(
            f"n_topk_groups={c.n_topk_groups} must be between 1 and n_expert_groups={groups}.", "model.n_topk_groups=1"
        )
    elif c.n_expert_per_token > c.n_topk_groups * per_group:
        yield Problem(
            f"n_expert_per_token={c.n_expert_per_token} is more than {c.n_topk_groups} groups of {per_group} experts.",
            f"model.n_topk_groups={groups}",
        )
    best = c.n_topk_scores_per_group
    if best is None or not 1 <= best <= per_group:
        yield Problem(
            f"n_topk_scores_per_group={best} must be between 1 and the {per_group} experts of a group.",
            "model.n_topk_scores_per_group=1",
        )
