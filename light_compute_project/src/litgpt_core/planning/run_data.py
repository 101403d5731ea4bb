"""The prepared data of a config, and how many steps its epochs are."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from litgpt_core import checkpoint
from litgpt_core.config.train_config import TrainConfig
from litgpt_core.data.prepare import prepare
from litgpt_core.data.prepared import PreparedData


def prepare_for(config: TrainConfig, *, begun_with: str | None = None) -> PreparedData:
    """The prepared folder that a config, whose pretrained parts were found, trains on.

    A resumed run on a chat log, which may have grown, uses the folder with the fingerprint `begun_with` if it exists.

    Raises:
        DataError, TokenizerError, CheckpointError: What is wrong with the corpus, the tokenizer or the prompt style.
    """
    return prepare(
        config.data,
        config.tokenizer,
        block_size=config.model.build(vocab_size=2).block_size,
        init_from=checkpoint.resolve(Path(config.init_from).expanduser()) if config.init_from else None,
        fingerprint=begun_with,
    )


def with_steps_of_epochs(config: TrainConfig, data: PreparedData) -> TrainConfig:
    """The config with `trainer.max_steps` as `trainer.epochs` makes it, in the recorded values too."""
    stop = config.trainer.stop
    if stop.epochs is None:
        return config
    per_step = config.trainer.batch.global_batch_size * config.model.build(vocab_size=data.vocab_size).block_size
    steps = max(1, math.ceil(stop.epochs * data.epoch_tokens / per_step))
    trainer = dataclasses.replace(config.trainer, stop=dataclasses.replace(stop, max_steps=steps))
    plain = {**config.plain, "trainer": {**config.plain["trainer"], "max_steps": steps}}
    return dataclasses.replace(config, trainer=trainer, plain=plain)
