"""All trainable numbers of a model in one buffer, and the optimizer that steps them as such.

A small model's step is many small tensors, and each costs a call. Here the float32 master weights, their gradients and
the optimizer's means are one buffer each, of which every parameter is a view. Groups are slices, and so are the stacks
of equally shaped matrices that Muon orthogonalises together:

    master    [ matrices 384x128 | 384x128 | 128x512 ... | tables | vectors ]   float32, what is saved
    working   [ the same numbers in bfloat16                                ]   what forward and backward compute with
    gradient  [ the same order, float32; micro-batches are added up here    ]

With bfloat16 the forward pass reads a working copy of the model, made once from the master after every step (mixed
precision with master weights: Micikevicius et al. 2018, arXiv 1710.03740). The updates are those of `torch.optim.AdamW`
and of `MuonAdamW`, the references that the tests compare with; a checkpoint of one continues in the other.

For one process on one device, where every parameter gets a gradient in every step: no sharded strategies, and no
mixture of experts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from litgpt_core.optim.muon import orthogonalise


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where one parameter lies in the buffers."""

    parameter: nn.Parameter
    start: int
    shape: torch.Size

    @property
    def stop(self) -> int:
        """One past its last number."""
        return self.start + self.shape.numel()


class FlatParameters:
    """Moves a model's trainable parameters into one buffer and keeps a working copy of the model.

    Args:
        model: Its parameters become views of the master buffer; names, shapes and values stay.
        groups: Parameter groups as `optim.build.parameter_groups` sorts them; the buffer has their order, and within a
            group equal shapes lie side by side.
        dtype: What forward and backward compute with. float32 needs no copy: then `working` is the model itself.

    Attributes:
        working: The model to compute losses with.
        master, gradient: The float32 buffers, (P,) for P trainable numbers.
    """

    def __init__(self, model: nn.Module, groups: list[dict[str, Any]], *, dtype: torch.dtype) -> None:
        ordered = [p for group in groups for p in sorted(group["params"], key=lambda p: tuple(p.shape))]
        self.slots, start = [], 0
        for parameter in ordered:
            self.slots.append(Slot(parameter=parameter, start=start, shape=parameter.shape))
            start += parameter.numel()
        self.by_parameter = {slot.parameter: slot for slot in self.slots}
        with torch.no_grad():
            self.master = torch.cat([p.detach().reshape(-1).float() for p in ordered])
            for slot in self.slots:
                slot.parameter.data = self.master[slot.start : slot.stop].view(slot.shape)
        self.gradient = torch.zeros_like(self.master)
        self._places = {slot.parameter: self.gradient[slot.start : slot.stop].view(slot.shape) for slot in self.slots}
        self.dtype = dtype
        if dtype == torch.float32:
            self.working, self._copy = model, self.master
            self._leaves = ordered
        else:
            self._copy = self.master.to(dtype)
            self.working, self._leaves = self._make_working_copy(model)
        self._added = False

    def _make_working_copy(self, model: nn.Module) -> tuple[nn.Module, list[nn.Parameter]]:
        working = copy.deepcopy(model)
        of_original = {
            slot.parameter: nn.Parameter(self._copy[slot.start : slot.stop].view(slot.shape)) for slot in self.slots
        }
        for original, twin in zip(model.modules(), working.modules(), strict=True):
            for name, parameter in original._parameters.items():
                if parameter is not None:
                    twin._parameters[name] = of_original[parameter]
        return working, [of_original[slot.parameter] for slot in self.slots]

    def publish(self) -> None:
        """Bring the working copy up to the master weights."""
        if self._copy is not self.master:
            self._copy.copy_(self.master)

    def forget_gradients(self) -> None:
        """The next gradients begin a new sum."""
        self._added = False
        for leaf in self._leaves:
            leaf.grad = None

    def place(self, parameter: nn.Parameter) -> Tensor:
        """The part of `gradient` that is this parameter's, shaped like it."""
        return self._places[parameter]

    def place_of_gradient(self, parameter: nn.Parameter) -> Tensor | None:
        """`place` for a backward pass to write to, so that nothing is copied when gradients are collected; a new view.

        None where the gradient must go elsewhere: it is to be added to what is there, or to be converted.
        """
        if self._added or parameter.grad is not None or self._copy is not self.master:
            return None
        return self._places[parameter].detach()  # of a view that is in use elsewhere, autograd would make a copy

    @torch.no_grad()
    def collect_gradients(self) -> None:
        """Add what the backward pass left in the working copy to `gradient`, in float32."""
        missing = [slot.shape for slot, leaf in zip(self.slots, self._leaves, strict=True) if leaf.grad is None]
        if missing:
            raise RuntimeError(f"{len(missing)} parameters got no gradient, the first of shape {tuple(missing[0])}")
        new = [leaf.grad.reshape(-1) for leaf in self._leaves if leaf.grad is not None]
        begin, size = self.gradient.data_ptr(), self.gradient.element_size()
        elsewhere = [
            (slot, grad)
            for slot, grad in zip(self.slots, new, strict=True)
            if grad.data_ptr() != begin + size * slot.start
        ]
        if self._added:
            self.gradient.add_(torch.cat(new))
        elif len(elsewhere) < len(new):
            for slot, grad in elsewhere:
                self.gradient[slot.start : slot.stop].copy_(grad)
        elif new[0].dtype == self.gradient.dtype:
            torch.cat(new, out=self.gradient)
        else:
            self.gradient.copy_(torch.cat(new))
        self._added = True
        for leaf in self._leaves:
            leaf.grad = None

    @torch.no_grad()
    def clip(self, max_norm: float | None) -> Tensor:
        """Scale the gradient to a global norm of at most `max_norm`; returns the norm before, a scalar."""
        norm: Tensor = torch.linalg.vector_norm(self.gradient)
        if max_norm is not None:
            self.gradient.mul_(torch.clamp(max_norm / (norm + 1e-6), max=1.0))
        return norm


class FlatOptimizer(torch.optim.Optimizer):
    """AdamW or Muon with AdamW over `FlatParameters`.

    Args:
        flat: The buffers.
        groups: The groups that `flat` was made with; a group with `muon=True` is stepped by Muon.
        dtype: Type of Muon's Newton-Schulz products.

    State per parameter is that of the references, as views: `exp_avg`, `exp_avg_sq` and `step`, or `momentum_buffer`.
    """

    def __init__(self, flat: FlatParameters, groups: list[dict[str, Any]], *, dtype: torch.dtype) -> None:
        defaults = {"lr": 1e-3, "weight_decay": 0.0, "muon": False, "momentum": 0.95, "betas": [0.9, 0.95], "eps": 1e-8}
        super().__init__(groups, defaults)
        self.flat, self.dtype = flat, dtype
        self._first, self._second = torch.zeros_like(flat.master), torch.zeros_like(flat.master)
        self._steps = [torch.zeros((), dtype=torch.float32, device=flat.master.device) for _ in self.param_groups]
        for group, steps in zip(self.param_groups, self._steps, strict=True):
            for parameter in group["params"]:
                self.state[parameter] = self._views(flat.by_parameter[parameter], muon=group["muon"], steps=steps)

    def _views(self, slot: Slot, *, muon: bool, steps: Tensor) -> dict[str, Tensor]:
        first = self._first[slot.start : slot.stop].view(slot.shape)
        if muon:
            return {"momentum_buffer": first}
        return {"exp_avg": first, "exp_avg_sq": self._second[slot.start : slot.stop].view(slot.shape), "step": steps}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Begin a new sum of gradients."""
        self.flat.forget_gradients()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step from `flat.gradient` and publish it; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, steps in zip(self.param_groups, self._steps, strict=True):
            if group["muon"]:
                self._muon(group)
            else:
                self._adamw(group, steps)
        self.flat.publish()
        return loss

    def _adamw(self, group: dict[str, Any], steps: Tensor) -> None:
        part = self._slice(group)
        adamw(
            [self.flat.master[part]],
            [self.flat.gradient[part]],
            [self._first[part]],
            [self._second[part]],
            [],
            [steps],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _muon(self, group: dict[str, Any]) -> None:
        part = self._slice(group)
        if group["weight_decay"]:
            self.flat.master[part].mul_(1 - group["lr"] * group["weight_decay"])
        momentum = group["momentum"]
        self._first[part].lerp_(self.flat.gradient[part], 1 - momentum)
        nesterov = torch.lerp(self.flat.gradient[part], self._first[part], momentum)
        for stack, shape in self._stacks(group):
            within = slice(stack.start - part.start, stack.stop - part.start)
            update = orthogonalise(nesterov[within].view(-1, *shape), dtype=self.dtype)
            rate = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
            self.flat.master[stack].add_(update.reshape(-1).to(self.flat.master.dtype), alpha=-rate)

    def _slice(self, group: dict[str, Any]) -> slice:
        slots = [self.flat.by_parameter[p] for p in group["params"]]
        return slice(min(slot.start for slot in slots), max(slot.stop for slot in slots))

    def _stacks(self, group: dict[str, Any]) -> Iterator[tuple[slice, torch.Size]]:
        """Runs of equally shaped matrices."""
        slots = sorted((self.flat.by_parameter[p] for p in group["params"]), key=lambda slot: slot.start)
        begin = 0
        for index, slot in enumerate(slots):
            if index + 1 == len(slots) or slots[index + 1].shape != slot.shape:
                yield slice(slots[begin].start, slot.stop), slot.shape
                begin = index + 1

    def state_dict(self) -> dict[str, Any]:
        """State per parameter; each gets a step count of its own, as the references have it."""
        saved = super().state_dict()
        for index, state in saved["state"].items():
            if "step" in state:
                saved["state"][index] = {**state, "step": state["step"].clone()}
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy a state into the buffers; it may come from `torch.optim.AdamW` or `MuonAdamW` over the same groups."""
        ours = [p for group in self.param_groups for p in group["params"]]
        theirs = [index for group in state_dict["param_groups"] for index in group["params"]]
        if len(ours) != len(theirs):
            raise ValueError(f"the state is of {len(theirs)} parameters, the model has {len(ours)}")
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({key: value for key, value in saved.items() if key in group and key != "params"})
        for parameter, index in zip(ours, theirs, strict=True):
            saved_state = state_dict["state"].get(index, {})
            for key, view in self.state[parameter].items():
                value = saved_state.get(key, 0.0)
                view.copy_(value if isinstance(value, Tensor) else torch.as_tensor(float(value)))
        self.flat.publish()
