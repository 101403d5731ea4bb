"""Learning-rate schedules as pure functions of the step: no state, so a resumed run cannot disagree with an
undisturbed one.
"""

from __future__ import annotations

import math

from litgpt_core.optim.settings import ScheduleSettings


def learning_rate_factor(step: int, settings: ScheduleSettings, *, max_steps: int) -> float:
    """The factor on every group's peak rate for optimizer step `step`.

    Args:
        step: 0-based index of the optimizer step about to be taken.
        settings: Shape, warm-up, floor and decay share.
        max_steps: Steps of the whole run.

    Returns:
        Linear warm-up `(step + 1) / lr_warmup_steps` first, 1 at the peak, then by `kind`:

        - `constant`: 1.
        - `linear`, `cosine`: from 1 down to `min_lr_fraction` at the last step. The cosine is half a period
          (Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts).
        - `wsd`: 1, then linear to `min_lr_fraction` over the last `decay_fraction` of all steps (Hu et al. 2024, arXiv
          2404.06395).
    """
    warmup, floor = settings.lr_warmup_steps, settings.min_lr_fraction
    if step < warmup:
        return (step + 1) / warmup
    if settings.kind == "constant":
        return 1.0
    start = warmup
    if settings.kind == "wsd":
        start = max(warmup, max_steps - round(settings.decay_fraction * max_steps))
    progress = min(1.0, max(0.0, (step + 1 - start) / max(1, max_steps - start)))
    remaining = 0.5 * (1 + math.cos(math.pi * progress)) if settings.kind == "cosine" else 1 - progress
    return floor + (1 - floor) * remaining
