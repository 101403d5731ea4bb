"""Evaluations on Weights & Biases: one run each, in the group of the training that was measured."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litgpt_core.evaluate.run_data import run_folder_of
from litgpt_core.evaluate.table import score_rows

logger = logging.getLogger(__name__)

FACTS = ("checkpoint", "weights_sha256", "command", "recorded_at", "seed")
"""Of a record, shown as the run's config."""


def log_to_wandb(records: Sequence[dict[str, Any]]) -> int:
    """Put records, as `session.evaluate` returns them, on the dashboards that their runs name; how many it took."""
    from litgpt_core.training.wandb_results import log_evaluation

    taken = 0
    for record in records:
        folder = run_folder_of(Path(record["checkpoint"]))
        if folder is None:
            logger.warning("%s is no run's checkpoint: no dashboard is named for it", record["checkpoint"])
            continue
        taken += log_evaluation(
            folder,
            name=f"evaluate {record['name']}",
            scores=scores(record),
            table=score_rows([record]),
            facts={key: record[key] for key in FACTS if key in record},
        )
    return taken


def scores(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a record by short names: `bits_per_byte`, `SUITE/accuracy`, `core`."""
    found = {f"{suite}/accuracy": float(one["accuracy"]["value"]) for suite, one in record["suites"].items()}
    if "bytes" in record:
        found["bits_per_byte"] = float(record["bytes"]["bits_per_byte"])
    if record.get("core"):
        found["core"] = float(record["core"]["core"])
    return found
