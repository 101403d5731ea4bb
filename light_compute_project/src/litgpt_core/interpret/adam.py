"""Adam (Kingma & Ba 2015) for a few small tensors: creating a `torch.optim` optimizer imports torch's compiler.

That import takes 4.5 s of a core on a 2-core AMD EPYC, more than any of the fits here. torch's is the slow reference.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Adam:
    """The update rule with torch's defaults, without weight decay.

    Args:
        parameters: Changed in place.
        lr: Step size; may be set between steps.
        betas: Decay of the averages of the gradient and of its square.
        eps: Added to the denominator.
    """

    def __init__(
        self, parameters: Sequence[Tensor], *, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self.parameters, self.lr, self.betas, self.eps = list(parameters), lr, betas, eps
        self.means = [torch.zeros_like(each) for each in self.parameters]
        self.squares = [torch.zeros_like(each) for each in self.parameters]
        self.steps = 0

    @torch.no_grad()
    def step(self, loss: Tensor) -> None:
        """One step down the gradient of a scalar."""
        self.steps += 1
        first, second = self.betas
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss, self.parameters)
        for parameter, gradient, mean, square in zip(self.parameters, gradients, self.means, self.squares, strict=True):
            mean.lerp_(gradient, 1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            spread = (square / (1 - second**self.steps)).sqrt().add_(self.eps)
            parameter.addcdiv_(mean, spread, value=-self.lr / (1 - first**self.steps))
