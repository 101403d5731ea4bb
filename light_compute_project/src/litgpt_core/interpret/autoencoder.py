"""A top-k sparse autoencoder of one layer's residual stream (Makhzani & Frey 2013; Gao et al. 2024).

    f = top k of relu(W_enc (x - b) + b_enc)        x' = W_dec f + b        columns of W_dec have length 1

Reported on text that was not trained on: the active features per token (L0), the unexplained variance, dead features,
and what it costs to put x' in x's place: loss recovered is 1 for no loss, 0 for no better than the mean of x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from litgpt_core.interpret.adam import Adam
from litgpt_core.interpret.decompose import frozen_norm
from litgpt_core.interpret.losses import hidden_losses
from litgpt_core.interpret.neurons import example
from litgpt_core.interpret.resume import activation, hidden_from
from litgpt_core.interpret.subject import Subject
from litgpt_core.model.gpt import GPT

WINDOWS, STEPS, BATCH, RATE = 32, 200, 512, 2e-3
BATCH_WINDOWS = 8
"""Of text that run at once."""
WIDER, ACTIVE = 2, 16
"""Features per dimension of the residual stream; k."""
SHOWN = 12


class TopKAutoencoder(nn.Module):
    """See the module.

    Args:
        width: C.
        features: F.
        k: Active features at most.
        seed: Of the start; the encoder starts as the decoder's transpose.
    """

    def __init__(self, width: int, *, features: int, k: int, seed: int = 0) -> None:
        super().__init__()
        self.k = min(k, features)
        start = torch.randn(features, width, generator=torch.Generator().manual_seed(seed))
        start = functional.normalize(start, dim=-1)
        self.encoder, self.decoder = nn.Parameter(start.clone()), nn.Parameter(start.clone())  # (F, C) each
        self.encoder_bias, self.centre = nn.Parameter(torch.zeros(features)), nn.Parameter(torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    scale: Tensor

    def strongest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C) -> values and numbers of the k strongest features, (N, k) each."""
        values = functional.relu((x / self.scale - self.centre) @ self.encoder.mT + self.encoder_bias)
        best = values.topk(self.k, dim=-1)
        return best.values, best.indices

    def encode(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., F), at most k of them above 0."""
        values, numbers = self.strongest(x.flatten(0, -2))
        features = values.new_zeros(len(values), len(self.encoder)).scatter(-1, numbers, values)
        return features.view(*x.shape[:-1], -1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C): `encode(x)` times the decoder, without the products by 0."""
        values, numbers = self.strongest(x.flatten(0, -2))
        decoded = functional.embedding_bag(numbers, self.decoder, per_sample_weights=values, mode="sum")
        return ((decoded + self.centre) * self.scale).view_as(x)


def train(x: Tensor, *, features: int, k: int, steps: int = STEPS, seed: int = 0) -> TopKAutoencoder:
    """Fit one to rows (N, C) by Adam; rows are scaled to a mean square of 1 per dimension."""
    model = TopKAutoencoder(x.size(1), features=features, k=k, seed=seed)
    model.scale.copy_(x.square().mean().sqrt().clamp(min=1e-8))
    rows, generator = x / model.scale, torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.centre.copy_(rows.mean(dim=0))
    optimizer = Adam(list(model.parameters()), lr=RATE)
    for step in range(steps):
        chosen = rows[torch.randint(len(rows), (min(BATCH, len(rows)),), generator=generator)] * model.scale
        with torch.enable_grad():
            loss = (model(chosen) - chosen).div(model.scale).square().mean()
        optimizer.lr = RATE * min(1.0, 5 * (1 - step / steps))
        optimizer.step(loss)
        with torch.no_grad():
            model.decoder.copy_(functional.normalize(model.decoder, dim=-1))
    return model.requires_grad_(False)


@torch.no_grad()
def continued_loss(model: GPT, residual: Tensor, targets: Tensor, layer: int) -> float:
    """Mean loss in nats of targets (N, T), from the residual stream (N, T, C) behind block `layer` on."""
    hidden = torch.cat([hidden_from(model, part, layer + 1) for part in torch.split(residual, BATCH_WINDOWS)])
    return float(hidden_losses(model, hidden, targets).mean())


@torch.no_grad()
def residuals(model: GPT, ids: Tensor, layer: int) -> Tensor:
    """(N, T) ids -> (N, T, C), the residual stream behind block `layer`."""
    return torch.cat([activation(model, part, f"{layer}.resid_post") for part in torch.split(ids, BATCH_WINDOWS)])


def view(subject: Subject) -> dict[str, Any]:
    """Train one on two thirds of some windows of held-out text, measure it on the others, show its features."""
    model, layer = subject.model, subject.middle_layer
    windows = subject.some_windows(WINDOWS)
    cut = max(1, len(windows) * 2 // 3)
    x = residuals(model, windows[:, :-1], layer)
    features = WIDER * model.config.n_embd
    steps = max(1, round(STEPS * subject.effort))
    coder = train(x[:cut].flatten(0, 1), features=features, k=ACTIVE, steps=steps, seed=subject.seed)
    with torch.no_grad():
        held_out = x[cut:]
        codes = coder.encode(held_out)  # (N, T, F)
        error = (coder(held_out) - held_out).square().sum()
        spread = (held_out - held_out.flatten(0, 1).mean(dim=0)).square().sum()
    mean = x[:cut].flatten(0, 1).mean(dim=0).expand_as(held_out)
    test = windows[cut:]
    plain, spliced, ablated = (
        continued_loss(model, replaced, test[:, 1:], layer) for replaced in (held_out, coder(held_out), mean)
    )
    fires = (codes > 0).flatten(0, 1).float().mean(dim=0)
    return {
        "layer": layer, "features": features, "k": coder.k, "steps": steps,
        "training_tokens": x[:cut, :, 0].numel(), "test_tokens": held_out[..., 0].numel(),
        "l0": float((codes > 0).sum(dim=-1).float().mean()),
        "unexplained_variance": float(error / spread),
        "dead_share": float((fires == 0).float().mean()),
        "loss": plain, "spliced_loss": spliced, "mean_loss": ablated,
        "loss_recovered": (ablated - spliced) / (ablated - plain) if ablated > plain else None,
        "shown": _features(subject, coder, codes, test[:, :-1], fires),
    }  # fmt: skip


def _features(
    subject: Subject, coder: TopKAutoencoder, codes: Tensor, windows: Tensor, fires: Tensor
) -> list[dict[str, Any]]:
    """Features that fire on 0.2 to 5 % of the tokens, the strongest first, with examples and promoted tokens."""
    model = subject.model
    strength = codes.flatten(0, 1).amax(dim=0) * ((fires > 0.002) & (fires < 0.05))
    found = []
    for feature in strength.topk(min(SHOWN, len(strength))).indices.tolist():
        if strength[feature] == 0:
            continue
        best = codes[..., feature].max(dim=1)
        rows = best.values.argsort(descending=True)[:4].tolist()
        gain, _ = frozen_norm(model.transformer.ln_f, torch.ones(model.config.n_embd))
        raised = model.lm_head.weight[: model.config.vocab_size] @ gain(coder.decoder[feature])
        found.append(
            {
                "feature": feature, "fires": float(fires[feature]),
                "raises": subject.token_texts(raised.topk(6).indices),
                "examples": [
                    example(subject, windows[row], int(best.indices[row])) | {"activation": float(best.values[row])}
                    for row in rows if best.values[row] > 0
                ],
            }
        )  # fmt: skip
    return found
