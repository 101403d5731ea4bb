"""Tuned lens (Belrose et al. 2023): before the logit lens, one affine map per layer into the last layer's basis.

Each map starts as the ridge regression from the layer's residual stream to the last one's, which has a closed form, and
is then trained on the divergence from the model's own prediction. Half of the windows of held-out text are for fitting,
the other half for what is reported.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from litgpt_core.interpret.adam import Adam
from litgpt_core.interpret.lens import MOST_LOGITS, Prediction, divergence, layer_names, read_out
from litgpt_core.interpret.subject import Subject
from litgpt_core.interpret.tracing import trace
from litgpt_core.model.gpt import GPT

WINDOWS = 16
STEPS, BATCH, RATE = 15, 256, 1e-3
BUDGET_FLOPS = 1e11
"""Work for all steps of all layers; a large vocabulary gets fewer steps, or the regression alone."""
RIDGE = 1e-2


def ridge(x: Tensor, y: Tensor, *, penalty: float = RIDGE) -> tuple[Tensor, Tensor]:
    """The affine map from (N, C) to (N, C) with the least squared error: weight (C, C) and bias (C,).

    The map is the identity plus a correction; `penalty`, in units of the mean variance of x, pulls the correction to 0.
    """
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    a, b = (x - mean_x).double(), (y - mean_y - (x - mean_x)).double()
    gram = a.mT @ a
    gram.diagonal().add_(penalty * gram.diagonal().mean() + 1e-12)
    weight = torch.linalg.solve(gram, a.mT @ b).to(x.dtype) + torch.eye(x.size(1), dtype=x.dtype)
    return weight, mean_y - mean_x @ weight


def train_translator(
    model: GPT, x: Tensor, final: Tensor, *, steps: int = STEPS, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Weight and bias of one layer's map: ridge regression, then Adam on the divergence.

    Args:
        model: Its norm and head read the result.
        x: (N, C) residual stream of the layer.
        final: (N, C) of the last block.
        steps: Of Adam; 0 leaves the regression.
        seed: Of the batches.
    """
    weight, bias = (each.clone().requires_grad_() for each in ridge(x, final))
    optimizer = Adam([weight, bias], lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(x), (min(BATCH, len(x)),), generator=generator)
        with torch.no_grad():
            target = read_out(model, final[chosen]).log_softmax(dim=-1)
        with torch.enable_grad():
            loss = divergence(target, read_out(model, x[chosen] @ weight + bias).log_softmax(dim=-1)).mean()
        optimizer.step(loss)
    return weight.detach(), bias.detach()


@torch.no_grad()
def mean_divergence(
    model: GPT, residual: Tensor, prediction: Prediction, translator: tuple[Tensor, Tensor] | None
) -> float:
    """Mean KL(model's prediction || prediction from this layer) in nats, over (N, C) rows."""
    moved = residual if translator is None else residual @ translator[0] + translator[1]
    return float(prediction.divergence(read_out(model, moved))[0].mean())


def view(subject: Subject) -> dict[str, Any]:
    """Divergence of logit lens and tuned lens from the model's prediction, at every layer but the last."""
    model = subject.model
    length = min(128, model.config.block_size)
    windows = subject.some_windows(WINDOWS)[:, :length]
    names = layer_names(model)
    with torch.no_grad(), trace(model, names) as seen:
        model.hidden(windows)
    half = len(windows) // 2
    fitting = {name: value[:half].flatten(0, 1) for name, value in seen.items()}
    c = model.config
    tested = (len(windows) - half) * length
    stride = -(-tested * 2 * len(names) * c.vocab_size // MOST_LOGITS)
    testing = {name: value[half:].flatten(0, 1)[::stride] for name, value in seen.items()}
    with torch.no_grad():
        prediction = Prediction(read_out(model, testing[names[-1]]))
    step_flops = 6.0 * BATCH * c.n_embd * c.padded_vocab_size * c.n_layer
    steps = min(STEPS, int(BUDGET_FLOPS * subject.effort / step_flops))
    plain, tuned, best = [], [], []
    prompt = subject.prompt_ids()
    with torch.no_grad(), trace(model, names) as of_prompt:
        model.hidden(prompt)
    for name in names[:-1]:
        translator = train_translator(model, fitting[name], fitting[names[-1]], steps=steps, seed=subject.seed)
        plain.append(mean_divergence(model, testing[name], prediction, None))
        tuned.append(mean_divergence(model, testing[name], prediction, translator))
        with torch.no_grad():
            likely = read_out(model, of_prompt[name][0] @ translator[0] + translator[1]).argmax(dim=-1)
        best.append(subject.token_texts(likely))
    layers = ["embedding", *(f"layer {n}" for n in range(len(names) - 2))]
    return {
        "layers": layers,
        "logit_lens": plain,
        "tuned_lens": tuned,
        "prompt": subject.token_texts(prompt[0]),
        "tokens": best,
        "steps": steps,
        "fitting_tokens": half * length,
        "testing_tokens": len(prediction.probabilities),
    }
