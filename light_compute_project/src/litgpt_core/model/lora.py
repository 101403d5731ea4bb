"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): y = W x + (alpha / r) * B A x, with W frozen.

                 .----------- W (frozen) -----------.
    x (..., I) --+                                  (+)--> y (..., O)
                 '--dropout-- A (r, I) -- B (O, r) --' * alpha / r        B begins as zeros: at first nothing changes

`qkv` is three layers in one. Each of query, key and value that is a target has its own A and B, concatenated in that
order:

    lora_A (targets * r, C)        lora_B (rows of the targets, r)

Names and shapes are LitGPT's: the adapters of a model are the entries of its state dict with `lora_` in their names.
The base weights keep their plain names, so that any checkpoint loads. Not here: files (`checkpoint`, `training`).

W may be packed integers (QLoRA, Dettmers et al. 2023, arXiv 2305.14314): dequantized where it is multiplied, forwards
and again backwards, and never kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import Place, copy_values
from litgpt_core.model.optional_settings import LoRASettings
from litgpt_core.model.quantized import PackedMatrix, QuantEmbedding, QuantLinear, packed_product
from litgpt_core.model.structure import structure

MARK = "lora_"
"""In the names of adapters' weights, and of no others."""

Parts = tuple[tuple[int, bool], ...]
"""Rows of a weight in order: how many, and whether they get an adapter."""


class Adapted(nn.Module):
    """A layer with A and B on some of its rows: what dense and packed layers have in common."""

    def _add(self, kept: Tensor, settings: LoRASettings, *, parts: Parts, columns: int) -> None:
        """Make A and B like the tensor `kept`, freeze everything else."""
        self.parts, self.scaling = parts, settings.alpha / settings.r
        self.rows = [size for size, adapted in parts if adapted]
        self.lora_dropout = nn.Dropout(settings.dropout)
        self.lora_A = nn.Parameter(kept.new_empty(len(self.rows) * settings.r, columns))
        self.lora_B = nn.Parameter(kept.new_zeros(sum(self.rows), settings.r))
        self.requires_grad_(False)
        self.lora_A.requires_grad_()
        self.lora_B.requires_grad_()

    def added(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O): alpha / r * B A x."""
        narrow = functional.linear(self.lora_dropout(x), self.lora_A)  # (..., targets * r)
        blocks = zip(narrow.chunk(len(self.rows), dim=-1), torch.split(self.lora_B, self.rows), strict=True)
        wide = [functional.linear(part, matrix) * self.scaling for part, matrix in blocks]
        return torch.cat(list(self._padded(wide, dim=-1)), dim=-1)

    @torch.no_grad()
    def difference(self, lora_a: Tensor | None = None, lora_b: Tensor | None = None) -> Tensor:
        """(O, I): what merging adds to W; of other values of the adapter, if they are given."""
        a, b = self.lora_A if lora_a is None else lora_a, self.lora_B if lora_b is None else lora_b
        blocks = zip(torch.split(b, self.rows), a.chunk(len(self.rows)), strict=True)
        return torch.cat(list(self._padded([(b @ a) * self.scaling for b, a in blocks], dim=0)), dim=0)

    def _padded(self, blocks: list[Tensor], *, dim: int) -> Iterator[Tensor]:
        """The blocks of adapted rows, with zeros for rows without an adapter."""
        remaining = iter(blocks)
        for size, adapted in self.parts:
            if adapted:
                yield next(remaining)
            else:
                shape = list(blocks[0].shape)
                shape[dim] = size
                yield blocks[0].new_zeros(shape)


class LoRALinear(Adapted, nn.Linear):
    """A linear layer with an adapter on some of its rows.

    Args:
        base: The layer it replaces; weight and bias are shared with it and frozen.
        settings: Rank, alpha, dropout.
        parts: Which rows of W get one.
    """

    def __init__(self, base: nn.Linear, settings: LoRASettings, *, parts: Parts) -> None:
        nn.Linear.__init__(self, 1, 1, bias=False, device="meta")
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self._add(base.weight.detach(), settings, parts=parts, columns=base.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)"""
        return functional.linear(x, self.weight, self.bias) + self.added(x)


class QuantLoRALinear(Adapted):
    """`LoRALinear` over a `QuantLinear`, whose packed matrix and bias it shares."""

    def __init__(self, base: QuantLinear, settings: LoRASettings, *, parts: Parts) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.matrix, self.bias = base.matrix, base.bias
        self._add(base.matrix.like, settings, parts=parts, columns=base.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)"""
        y = packed_product(x, self.matrix)
        return (y if self.bias is None else y + self.bias) + self.added(x)


def add_adapters(model: GPT, settings: LoRASettings, *, seed: int) -> None:
    """Add adapters to the target layers of `model`, freeze everything else.

    Args:
        model: Changed in place; it computes the same until an adapter is trained.
        settings: Which layers, rank, alpha, dropout.
        seed: Of A's values, uniform in +-1/sqrt(I), as `nn.Linear` begins.

    Raises:
        ConfigError: These adapters do not exist for a layer of this model.
    """
    check_adaptable(model.config, settings)
    model.requires_grad_(False)
    for path, parts in _chosen(model, settings):
        parent_path, _, name = path.rpartition(".")
        parent = model.get_submodule(parent_path)
        base = getattr(parent, name)
        adapted: LoRALinear | QuantLoRALinear
        if isinstance(base, QuantLinear):
            adapted = QuantLoRALinear(base, settings, parts=parts)
        else:
            assert isinstance(base, nn.Linear)
            adapted = LoRALinear(base, settings, parts=parts)
        setattr(parent, name, adapted.train(base.training))
    reset_adapters(model, seed=seed)


@torch.no_grad()
def reset_adapters(model: GPT, *, seed: int, place: Place = copy_values) -> None:
    """Give all adapters of `model` the values that they begin with; `place` as for `initialize`."""
    generator = torch.Generator().manual_seed(seed)
    for path, _ in structure(model.config).linears():
        module = model.get_submodule(path)
        if isinstance(module, LoRALinear | QuantLoRALinear):
            columns = module.lora_A.size(1)
            bound = 1 / math.sqrt(columns)
            values = torch.empty(module.lora_A.shape, device="cpu").uniform_(-bound, bound, generator=generator)
            place(module.lora_A, values)
            module.lora_B.zero_()


@torch.no_grad()
def narrow_frozen(model: GPT, dtype: torch.dtype) -> int:
    """Keep frozen weights under adapters in the blocks in `dtype` where no value changes, as those of a bfloat16 file.

    Autocast multiplies in `dtype` anyway; it would make a copy besides the float32 weights, for every pass. Merged
    weights are float32 as before.

    Returns:
        How many weights became narrow.
    """
    count = 0
    for module in model.transformer.h.modules():
        if isinstance(module, LoRALinear):
            narrow = module.weight.to(dtype)
            if torch.equal(narrow.to(module.weight.dtype), module.weight):
                module.weight = nn.Parameter(narrow, requires_grad=False)
                count += 1
    return count


def _chosen(model: GPT, settings: LoRASettings) -> list[tuple[str, Parts]]:
    """Layers that get an adapter: their path, and their rows."""
    targets = set(settings.targets)
    found: list[tuple[str, Parts]] = []
    for path, linear in structure(model.config).linears():
        if linear.row_groups:
            parts = tuple((rows, name in targets) for name, rows in linear.row_groups)
        else:
            target = {"attention": "projection", "router": "mlp"}.get(linear.role, linear.role)
            parts = ((linear.rows, target in targets),)
        if any(adapted for _, adapted in parts) and isinstance(model.get_submodule(path), nn.Linear | QuantLinear):
            found.append((path, parts))
    return found


def check_adaptable(config: GPTConfig, settings: LoRASettings) -> None:
    """Raise ConfigError where a model of this shape cannot have these adapters."""
    if config.latent_attention:
        raise ConfigError(
            "lora: this model has latent attention (DeepSeek)",
            needed="attention with one qkv layer; LitGPT has no adapters for it either",
            fix="train all weights: leave lora=default out",
        )
    if "head" in settings.targets and config.tie_embeddings:
        raise ConfigError(
            "lora.targets has head, but the model's output layer is tied to its embedding",
            needed="an output layer of its own: an adapter would untie the two",
            fix="lora.targets=[query,key,value,projection,mlp]",
        )


def adapters(model: nn.Module, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The adapters' weights, under LitGPT's names; `state` as for `merged`."""
    return {name: value for name, value in (model.state_dict() if state is None else state).items() if MARK in name}


def merged(model: GPT, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The state dict of the plain model that computes the same: W + (alpha / r) B A. `model` stays as it is.

    Args:
        model: With adapters.
        state: Its whole state dict, where `model` itself holds shards; None: the model's own.
    """
    state = model.state_dict() if state is None else state
    weights = {name: value for name, value in state.items() if MARK not in name}
    dense: dict[PackedMatrix, Tensor] = {}  # a tied matrix is one tensor under two names
    for path, module in model.named_modules():
        if isinstance(module, QuantLinear | QuantEmbedding | QuantLoRALinear):
            weights = {name: value for name, value in weights.items() if not name.startswith(f"{path}.matrix.")}
            if module.matrix not in dense:
                dense[module.matrix] = module.matrix.dequantize()
            weights[f"{path}.weight"] = dense[module.matrix]
        if isinstance(module, LoRALinear):
            difference = module.difference(*(state[f"{path}.{name}"] for name in ("lora_A", "lora_B")))
            weights[f"{path}.weight"] = weights[f"{path}.weight"].detach() + difference
        elif isinstance(module, QuantLoRALinear):
            weights[f"{path}.weight"] = weights[f"{path}.weight"] + module.difference()
    return weights


def load_adapters(model: GPT, weights: Mapping[str, Tensor]) -> None:
    """Copy adapters into a model that has them.

    Raises:
        CheckpointError: Names or shapes are those of other adapters.
    """
    check_fit(weights, model)
    model.load_state_dict(dict(weights), strict=False)


def check_fit(weights: Mapping[str, Tensor], model: GPT) -> None:
    """Raise CheckpointError unless `weights` are exactly the adapters that `model` has, by name and shape."""
    own = adapters(model)
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in weights.items()}:
        raise CheckpointError(
            f"the {len(weights)} adapter weights do not fit this model's {len(own)}",
            needed="adapters of the same base model and the same lora settings",
        )


def without_adapters(model: GPT) -> GPT:
    """`model` itself if it has no adapters, else another model with merged weights, on the same device."""
    if not adapters(model):
        return model
    with torch.random.fork_rng(devices=[]):
        plain = GPT(model.config)
    plain.load_state_dict(merged(model))
    return plain.to(device=model.device, dtype=model.dtype).train(model.training)
