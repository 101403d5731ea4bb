"""Record and change activations of a model while it runs; nothing stays behind.

    with trace(model, ["*.z", "2.pattern"]) as seen:
        logits = model(ids)
    seen["2.pattern"]                                                   # (B, nh, T, T)

    with trace(model, edit={"1.z": lambda z: without_head(z, 3)}):
        changed = model(ids)

Hooks are registered on the modules that `names` lists; what lies inside `attend` (queries, keys, values, scores,
pattern) is read by setting the attention module's `attend` attribute, and routing weights by its `route`. Recording
never changes an output: the model's own kernels compute it, and a pattern is computed once more to be read. Only an
edited pattern or score takes the written-out path. Not safe where another thread uses the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from litgpt_core.core.errors import ConfigError
from litgpt_core.interpret.access import block_of
from litgpt_core.interpret.names import Activation, available, expand
from litgpt_core.model.attend import attend, repeat_groups, soft_cap
from litgpt_core.model.block import Block
from litgpt_core.model.gpt import GPT
from litgpt_core.model.moe import LLaMAMoE

Edit = Callable[[Tensor], Tensor]
Activations = dict[str, Tensor]


@contextmanager
def trace(
    model: GPT,
    names: Iterable[str] = (),
    *,
    edit: Mapping[str, Edit] | None = None,
    detach: bool = True,
) -> Iterator[Activations]:
    """Record activations of the forward passes inside the `with`; a second pass overwrites the first.

    Args:
        model: Not its compiled form, whose graph would not see the hooks.
        names: What to record; see `names`.
        edit: Name or pattern -> a function of the activation that returns what takes its place, of the same shape.
            What is recorded is the edited activation.
        detach: False keeps the graph, so that gradients with respect to recorded activations can be computed.

    Yields:
        A dict that the forward pass fills.

    Raises:
        ConfigError: An activation does not exist in this model, or the model is compiled.
    """
    if not isinstance(model, GPT):
        raise ConfigError(
            f"a {type(model).__name__} cannot be traced", needed="the GPT itself, before torch.compile", fix="model"
        )
    known = available(model.config)
    record = set(expand(names, model.config))
    edits = {full: change for name, change in (edit or {}).items() for full in expand([name], model.config)}
    seen: Activations = {}

    def pass_on(name: str, value: Tensor) -> Tensor:
        if name in edits:
            changed = edits[name](value)
            if changed.shape != value.shape:
                raise ConfigError(
                    f"the edit of {name} returned shape {tuple(changed.shape)}", needed=f"{tuple(value.shape)}"
                )
            value = changed
        if name in record:
            seen[name] = value.detach() if detach else value
        return value

    with ExitStack() as stack:
        inside: dict[str, set[str]] = {}
        for name in (
            each for each in known if each in record or each in edits
        ):  # hooks of one module run in this order
            if known[name].where in ("attend", "route"):
                inside.setdefault(name.partition(".")[0], set()).add(name)
            else:
                stack.callback(_hook(model, name, known[name], pass_on).remove)
        for layer, wanted in inside.items():
            _open_inside(stack, block_of(model, int(layer)), layer, wanted, edits, pass_on)
        yield seen


def module_of(model: GPT, name: str, kind: Activation) -> nn.Module:
    """The module on whose input or output an activation is read."""
    layer = name.partition(".")[0]
    if not layer.isdigit():
        return model.get_submodule(kind.path)
    block = block_of(model, int(layer))
    path = "mlp.fc_1" if kind.path == "mlp.fc" and not hasattr(block.mlp, "fc") else kind.path
    return block.get_submodule(path) if path else block


def _hook(model: GPT, name: str, kind: Activation, pass_on: Callable[[str, Tensor], Tensor]) -> Any:
    module = module_of(model, name, kind)
    heads = model.config.n_head if kind.name == "z" else 0

    def change(value: Tensor) -> Tensor:
        if not heads:
            return pass_on(name, value)
        return pass_on(name, value.view(*value.shape[:-1], heads, -1)).flatten(-2)

    if kind.where == "output":
        return module.register_forward_hook(lambda _module, _args, output: change(output))
    return module.register_forward_pre_hook(lambda _module, args: (change(args[0]), *args[1:]))


def _open_inside(
    stack: ExitStack,
    block: Block,
    layer: str,
    wanted: set[str],
    edits: Mapping[str, Edit],
    pass_on: Callable[[str, Tensor], Tensor],
) -> None:
    """Set the attention's `attend` and the MoE's `route` for as long as the stack is open."""
    router = f"{layer}.router"
    if router in wanted:
        mlp = block.mlp
        assert isinstance(mlp, LLaMAMoE)
        stack.callback(_restore, mlp, "route", mlp.__dict__.get("route"))
        mlp.__dict__["route"] = partial(_route, mlp.route, mlp.config.n_expert, partial(pass_on, router))
    if wanted - {router}:
        attention: Any = block.attn
        stack.callback(_restore, attention, "attend", attention.__dict__["attend"])
        written_out = bool({f"{layer}.scores", f"{layer}.pattern"} & set(edits))
        shown = bool({f"{layer}.scores", f"{layer}.pattern"} & wanted)
        attention.attend = partial(
            _attend, attention.attend or attend, lambda name, value: pass_on(f"{layer}.{name}", value),
            written_out=written_out, shown=shown,
        )  # fmt: skip


def _restore(module: nn.Module, name: str, before: object) -> None:
    if before is None and name == "route":
        del module.__dict__[name]
    else:
        module.__dict__[name] = before


def _attend(
    inner: Callable[..., Tensor],
    pass_on: Callable[[str, Tensor], Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    written_out: bool,
    shown: bool,
    **options: Any,
) -> Tensor:
    """`attend` with its parts passed through `pass_on`."""
    q, k, v = pass_on("q", q), pass_on("k", k), pass_on("v", v)
    pattern = _pattern(q, k, pass_on, **options) if shown else None
    if not written_out or pattern is None:
        return inner(q, k, v, **options)
    return pattern.to(v.dtype) @ repeat_groups(q, k, v)[1]


def _pattern(
    q: Tensor,
    k: Tensor,
    pass_on: Callable[[str, Tensor], Tensor],
    *,
    mask: Tensor | None,
    scale: float,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    """(B, nh, T, S) attention weights, written out; the arguments are those of `attend`, dropout is left out."""
    scores = q @ repeat_groups(q, k, k)[0].mT * scale
    if softcap is not None:
        scores = soft_cap(scores, softcap)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    seen = mask if mask.dtype == torch.bool else mask == 0
    scores = pass_on("scores", scores.masked_fill(~seen, float("-inf")))
    wide = torch.promote_types(scores.dtype, torch.float32)
    return pass_on("pattern", functional.softmax(scores, dim=-1, dtype=wide))


def _route(
    inner: Callable[[Tensor], tuple[Tensor, Tensor]], n_expert: int, pass_on: Edit, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """The MoE's `route` with its weights passed through `pass_on` as (N, n_expert); an edit may change weights only."""
    weights, chosen = inner(tokens)
    dense = pass_on(
        torch.zeros(len(tokens), n_expert, dtype=weights.dtype, device=weights.device).scatter(1, chosen, weights)
    )
    return dense.gather(1, chosen), chosen
