"""What the folder of a run says to somebody who did not carry it out: is it done, and what came out of it."""

from __future__ import annotations

import math
from typing import Any

from litgpt_core.config.compose import TrainConfig
from litgpt_core.training.run_folder import RunFolder, has_reached_end


def is_done(config: TrainConfig) -> bool:
    """Whether a run's folder holds the finished run of these settings."""
    stop, folder = config.trainer.stop, RunFolder(config.run.folder)
    recorded = folder.read_config().get("trainer") or {}
    same = stop.epochs is not None and recorded.get("epochs") == stop.epochs
    return has_reached_end(
        folder,
        max_steps=int(recorded["max_steps"]) if same else stop.max_steps,
        early_stop={"patience": stop.patience, "min_delta": stop.min_delta},
    )


def result_of(config: TrainConfig) -> dict[str, Any]:
    """The numbers of a finished run; nothing before."""
    summary = RunFolder(config.run.folder).read_summary()
    whole, final, best = (summary.get(key) or {} for key in ("whole_split", "final", "best"))
    found = {
        "val_loss": whole.get("val_loss"),
        "val_bpb": whole.get("val_bpb"),
        "best_val_loss": best.get("val_loss"),
        "step": final.get("step"),
        "tokens": final.get("tokens"),
        "train_s": summary.get("train_s"),
        "n_params": summary.get("n_params"),
    }
    return {key: value for key, value in found.items() if value is not None and math.isfinite(value)}
