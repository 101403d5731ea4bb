"""The checked config of one training run, as `compose.py` makes it and every part of the run reads it."""

from __future__ import annotations

import dataclasses
from typing import Any

from litgpt_core.config.evaluation import SuiteCurveSettings
from litgpt_core.config.loggers import LoggerSettings
from litgpt_core.config.run import RunSettings
from litgpt_core.config.trainer import TrainerSettings
from litgpt_core.data.settings import DataSettings
from litgpt_core.model.config import ModelSettings
from litgpt_core.model.distillation_settings import DistillSettings
from litgpt_core.model.lora_settings import LoRASettings
from litgpt_core.model.qat_settings import QatSettings
from litgpt_core.optim.settings import OptimSettings
from litgpt_core.tokenizers.settings import TokenizerSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything one training run needs to know."""

    seed: int
    """Seeds initialisation, sample order and dropout."""
    init_from: str | None
    """Checkpoint directory whose weights the run starts from; null: fresh weights."""
    run: RunSettings
    model: ModelSettings
    tokenizer: TokenizerSettings
    data: DataSettings
    optim: OptimSettings
    trainer: TrainerSettings
    logger: LoggerSettings
    lora: LoRASettings | None
    qat: QatSettings | None
    distill: DistillSettings | None
    evaluation: SuiteCurveSettings
    plain: dict[str, Any] = dataclasses.field(repr=False)
    """The composed config as plain values, which `config.yaml` and the dashboard record."""


def dump(plain: dict[str, Any]) -> str:
    """A composed config as YAML, in the order of the groups."""
    import yaml

    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
