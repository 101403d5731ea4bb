"""Ablation: how much worse does the model predict held-out text without one head, or without one MLP?

    delta = mean loss with the part replaced - mean loss, over the same windows; its standard error is that of the
            paired differences

`mean` puts the part's mean over the text in its place (Wang et al. 2022), which keeps what the rest of the model
receives on average; `zero` removes it, as a saved checkpoint without it does, and is further from anything seen in
training. In a large model only the parts with the largest first-order estimate, -gradient * (part - mean), are run.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from litgpt_core.interpret.losses import hidden_losses, mean_and_error
from litgpt_core.interpret.names import Component, components
from litgpt_core.interpret.resume import hidden_from
from litgpt_core.interpret.subject import Subject
from litgpt_core.interpret.tracing import trace
from litgpt_core.model.cost import forward_flops_per_token
from litgpt_core.model.gpt import GPT

Method = Literal["mean", "zero"]
WINDOWS = 16
LENGTH = 128
"""Tokens of a window that are read."""
BUDGET_FLOPS = 1e12
"""Work for all parts together; beyond it, only the parts that matter most by the first-order estimate are run."""


class Ablation:
    """One model on some text, ready to be run without parts.

    Args:
        model: Without gradients.
        windows: (N, T + 1) ids.
        method: What takes a part's place.
    """

    def __init__(self, model: GPT, windows: Tensor, *, method: Method = "mean") -> None:
        self.model, self.windows, self.method = model, windows, method
        with torch.no_grad(), trace(model, ["*.z", "*.mlp_raw", "*.resid_pre"]) as seen:
            self.losses = self._losses(model.hidden(windows[:, :-1]))  # (N,)
        self.residuals = {name: value for name, value in seen.items() if name.endswith("resid_pre")}
        self.means = {name: value.mean(dim=(0, 1)) for name, value in seen.items() if name not in self.residuals}

    def without(self, part: Component) -> Tensor:
        """Mean loss (N,) of each window without one part, in nats."""
        name = f"{part.layer}.{'mlp_raw' if part.head is None else 'z'}"
        place = self.means[name] if self.method == "mean" else torch.zeros_like(self.means[name])

        def replace(value: Tensor) -> Tensor:
            if part.head is None:
                return place.expand_as(value)
            return torch.cat(
                [
                    value[..., : part.head, :],
                    place[part.head].expand_as(value[..., :1, :]),
                    value[..., part.head + 1 :, :],
                ],
                dim=-2,
            )

        with torch.no_grad(), trace(self.model, edit={name: replace}):
            return self._losses(hidden_from(self.model, self.residuals[f"{part.layer}.resid_pre"], part.layer))

    def delta(self, part: Component) -> tuple[float, float]:
        """How much the loss rises without one part, in nats per token, and the standard error."""
        return mean_and_error(self.without(part) - self.losses)

    def estimates(self) -> dict[Component, float]:
        """First-order estimates of all deltas, in nats per token, from one backward pass."""
        names = ["*.z", "*.mlp_raw"]
        start = {"embed": lambda x: x.detach().requires_grad_()}
        with torch.enable_grad(), trace(self.model, names, edit=start, detach=False) as seen:
            loss = self._losses(self.model.hidden(self.windows[:, :-1])).mean()
            gradients = dict(zip(seen, torch.autograd.grad(loss, list(seen.values())), strict=True))
        found = {}
        for part in components(self.model.config):
            name = f"{part.layer}.{'mlp_raw' if part.head is None else 'z'}"
            place = self.means[name] if self.method == "mean" else torch.zeros_like(self.means[name])
            product = (gradients[name] * (place - seen[name].detach())).sum(dim=-1)  # (N, T) or (N, T, nh)
            found[part] = float(product.sum() if part.head is None else product[..., part.head].sum())
        return found

    def _losses(self, hidden: Tensor) -> Tensor:
        return hidden_losses(self.model, hidden, self.windows[:, 1:]).mean(dim=1)


def view(subject: Subject) -> dict[str, Any]:
    """Every head and MLP (or the most important ones of a large model), the largest effect first."""
    windows = subject.some_windows(WINDOWS)[:, : LENGTH + 1]
    run = Ablation(subject.model, windows)
    everyone = components(subject.model.config)
    passes = forward_flops_per_token(subject.model.config, seq_length=LENGTH) * windows[:, 1:].numel() / 2
    affordable = max(8, math.floor(BUDGET_FLOPS * subject.effort / passes))
    chosen = everyone
    if affordable < len(everyone):
        estimates = run.estimates()
        chosen = sorted(everyone, key=lambda part: -abs(estimates[part]))[:affordable]
    found = [(part, *run.delta(part)) for part in chosen]
    found.sort(key=lambda row: -row[1])
    return {
        "method": run.method,
        "loss": float(run.losses.mean()),
        "windows": len(windows),
        "tokens": windows[:, 1:].numel(),
        "bytes_per_token": subject.bytes_per_token,
        "tested": len(chosen),
        "parts": len(everyone),
        "components": [
            {"name": str(part), "layer": part.layer, "head": part.head, "delta": delta, "error": error}
            for part, delta, error in found
        ],
    }
