"""Every activation that can be recorded or changed: its name, shape, and where it is taken. Does not import torch.

A full name is a layer and a name, `2.z`, or a name alone outside the blocks, `logits`. `*.z` and `z` mean every layer.
The names of TransformerLens are accepted: `blocks.2.attn.hook_z` is `2.z`. Heads are written `L2H3`, MLPs `L2M`.

    wte, wpe --> embed = 0.resid_pre --> block 0 .. --> LAST.resid_post --> final --> logits

    block      resid_pre --> normed_1 --> q k v --> scores --> pattern --> z --> attn_raw --> attn_out
               resid_mid --> normed_2 --> pre --> neurons --> mlp_raw --> mlp_out          --> resid_post
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from litgpt_core.core.errors import ConfigError
from litgpt_core.core.text import nearest
from litgpt_core.model.config import GPTConfig

Where = Literal["input", "output", "attend", "route"]


@dataclass(frozen=True, kw_only=True)
class Activation:
    """One kind of activation."""

    name: str
    path: str
    """Module path below the block, or below the model."""
    where: Where
    """Input or output of the module, or a value inside its attention or its routing."""
    shape: str
    text: str
    alias: str = ""
    """TransformerLens's name, with N for the layer."""


OUTER = (
    Activation(
        name="wte", path="transformer.wte", where="output", shape="B T C", text="token embedding", alias="hook_embed"
    ),
    Activation(
        name="wpe", path="transformer.wpe", where="output", shape="T C", text="learned position", alias="hook_pos_embed"
    ),
    Activation(
        name="embed", path="transformer.h.0", where="input", shape="B T C", text="all embeddings: what block 0 reads"
    ),
    Activation(name="final", path="transformer.ln_f", where="output", shape="B T C", text="output of the last norm"),
    Activation(name="logits", path="lm_head", where="output", shape="B T V", text="logits before a final soft-cap"),
)

BLOCK = (
    Activation(
        name="resid_pre", path="", where="input", shape="B T C", text="residual stream before the block",
        alias="blocks.N.hook_resid_pre",
    ),
    Activation(name="normed_1", path="norm_1", where="output", shape="B T C", text="what attention reads"),
    Activation(
        name="q", path="attn", where="attend", shape="B nh T hs", text="queries, positions applied",
        alias="blocks.N.attn.hook_rot_q",
    ),
    Activation(
        name="k", path="attn", where="attend", shape="B G T hs", text="keys, positions applied",
        alias="blocks.N.attn.hook_rot_k",
    ),
    Activation(
        name="v", path="attn", where="attend", shape="B G T hs_v", text="values", alias="blocks.N.attn.hook_v"
    ),
    Activation(
        name="scores", path="attn", where="attend", shape="B nh T T", text="before softmax; -inf where masked",
        alias="blocks.N.attn.hook_attn_scores",
    ),
    Activation(
        name="pattern", path="attn", where="attend", shape="B nh T T", text="attention weights; rows sum to 1",
        alias="blocks.N.attn.hook_pattern",
    ),
    Activation(
        name="z", path="attn.proj", where="input", shape="B T nh hs_v", text="mixed values of each head",
        alias="blocks.N.attn.hook_z",
    ),
    Activation(name="attn_raw", path="attn", where="output", shape="B T C", text="attention before a post norm"),
    Activation(
        name="attn_out", path="post_attention_norm", where="output", shape="B T C", text="what attention adds",
        alias="blocks.N.hook_attn_out",
    ),
    Activation(
        name="resid_mid", path="norm_2", where="input", shape="B T C", text="residual stream between attention and MLP",
        alias="blocks.N.hook_resid_mid",
    ),
    Activation(name="normed_2", path="norm_2", where="output", shape="B T C", text="what the MLP reads"),
    Activation(
        name="pre", path="mlp.fc", where="output", shape="B T I", text="hidden units before the activation function",
        alias="blocks.N.mlp.hook_pre",
    ),
    Activation(
        name="neurons", path="mlp.proj", where="input", shape="B T I", text="hidden units, after a gate",
        alias="blocks.N.mlp.hook_post",
    ),
    Activation(
        name="router", path="mlp", where="route", shape="N n_expert", text="weight of each expert, 0 if not chosen"
    ),
    Activation(name="mlp_raw", path="mlp", where="output", shape="B T C", text="MLP before a post norm"),
    Activation(
        name="mlp_out", path="post_mlp_norm", where="output", shape="B T C", text="what the MLP adds",
        alias="blocks.N.hook_mlp_out",
    ),
    Activation(
        name="resid_post", path="", where="output", shape="B T C", text="residual stream after the block",
        alias="blocks.N.hook_resid_post",
    ),
)  # fmt: skip
LEGEND = (
    "B batch, T tokens, N = B * T, C n_embd, nh query heads, G groups of keys and values, hs head size, "
    "I hidden units, V vocabulary"
)


def present(config: GPTConfig, layer: int) -> list[Activation]:
    """The kinds of activation that a block of this model has."""
    experts = config.mlp_class_of(layer) == "LLaMAMoE"
    absent = {"pre", "neurons"} if experts else {"router"}
    if config.parallel_residual:
        absent.add("resid_mid")
    if config.shared_attention_norm:
        absent |= {"resid_mid", "normed_2"}
    return [kind for kind in BLOCK if kind.name not in absent]


def available(config: GPTConfig) -> dict[str, Activation]:
    """Full name -> what it is, for every activation of a model, in the order of the forward pass."""
    outer = {kind.name: kind for kind in OUTER if kind.name != "wpe" or config.position_embedding == "learned"}
    after = {name: outer.pop(name) for name in ("final", "logits")}
    blocks = {f"{layer}.{kind.name}": kind for layer in range(config.n_layer) for kind in present(config, layer)}
    return outer | blocks | after


def plain_name(name: str) -> str:
    """A name of TransformerLens as ours; any other stays as it is."""
    for kind in (*OUTER, *BLOCK):
        pattern = re.escape(kind.alias).replace("N", r"(\d+|\*)", 1)
        if kind.alias and (match := re.fullmatch(pattern, name)):
            return f"{match[1]}.{kind.name}" if match.groups() else kind.name
    return name


def expand(names: Iterable[str], config: GPTConfig) -> list[str]:
    """Full names for names, patterns and aliases, in the order of the forward pass.

    Raises:
        ConfigError: A name matches nothing; says whether the layer or the name is wrong.
    """
    known = available(config)
    found: set[str] = set()
    for given in names:
        name = plain_name(given)
        if "." not in name and name not in known:
            name = f"*.{name}"
        matching = [full for full in known if fnmatchcase(full, name)]
        if not matching:
            raise _unknown(given, name, config)
        found.update(matching)
    return [name for name in known if name in found]


def _unknown(given: str, name: str, config: GPTConfig) -> ConfigError:
    layer, _, kind = name.rpartition(".")
    kinds = sorted({full.rpartition(".")[2] for full in available(config)})
    if kind in kinds and layer.isdigit():
        return wrong_layer(given, int(layer), config)
    return ConfigError(
        f"this model has no activation {given!r}{nearest(kind, kinds)}",
        needed=f"LAYER.NAME or NAME, with a name of {', '.join(kinds)}",
        fix="lcp analyze RUN --names",
    )


def wrong_layer(given: str, layer: int, config: GPTConfig) -> ConfigError:
    """The error for a layer that the model does not have."""
    return ConfigError(
        f"{given}: there is no layer {layer}",
        needed=f"a layer from 0 to {config.n_layer - 1}; the model has {config.n_layer}",
        fix=f"layer {config.n_layer - 1} is the last one",
    )


@dataclass(frozen=True, order=True)
class Component:
    """A head, or the MLP of a layer."""

    layer: int
    head: int | None = None
    """None: the MLP."""

    def __str__(self) -> str:
        return f"L{self.layer}M" if self.head is None else f"L{self.layer}H{self.head}"


def components(config: GPTConfig) -> list[Component]:
    """Every head and MLP, layer by layer."""
    heads = (*range(config.n_head), None)
    return [Component(layer, head) for layer in range(config.n_layer) for head in heads]


def parse_component(text: str, config: GPTConfig) -> Component:
    """`L2H3` or `L2M`.

    Raises:
        ConfigError: It is written otherwise, or the model has no such layer or head.
    """
    match = re.fullmatch(r"L(\d+)(?:H(\d+)|M|MLP)", text.strip(), re.IGNORECASE)
    if match is None:
        raise ConfigError(f"{text!r} names no part of a model", needed="a head as L2H3, or an MLP as L2M", fix="L0H0")
    layer, head = int(match[1]), None if match[2] is None else int(match[2])
    if layer >= config.n_layer:
        raise wrong_layer(text, layer, config)
    if head is not None and head >= config.n_head:
        raise ConfigError(
            f"{text}: there is no head {head}",
            needed=f"a head from 0 to {config.n_head - 1}; every layer has {config.n_head}",
            fix=f"L{layer}H{config.n_head - 1} is the layer's last",
        )
    return Component(layer, head)


def table(config: GPTConfig | None = None) -> str:
    """The page of `--names`: every name, shape, alias and meaning, of one model or of all."""
    kinds = [*OUTER[:3], *BLOCK, *OUTER[3:]]
    if config is not None:
        here = {full.rpartition(".")[2] for full in available(config)}
        kinds = [kind for kind in kinds if kind.name in here]
    rows = [("name", "shape", "what", "name in TransformerLens")]
    rows += [
        (f"N.{kind.name}" if kind in BLOCK else kind.name, kind.shape.replace(" ", ", "), kind.text, kind.alias)
        for kind in kinds
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    ]
    return "\n".join(
        [line.rstrip() for line in lines] + ["", LEGEND, "N is a layer; * or no layer at all: every layer"]
    )
