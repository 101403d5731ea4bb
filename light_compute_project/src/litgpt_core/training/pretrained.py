"""`model=pretrained` and `tokenizer=pretrained`: from the given paths to checkpoint directories.

The config knows only what was written; here the disk is looked at. Loading the weights is `inputs.py`'s.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from litgpt_core import checkpoint
from litgpt_core.config.compose import compose, normalise_overrides
from litgpt_core.config.source import Source, needs_checkpoint
from litgpt_core.config.train_config import TrainConfig
from litgpt_core.model.config import ModelSettings
from litgpt_core.model.optional_settings import DistillSettings
from litgpt_core.tokenizers.file_names import JSON_FILE, MODEL_FILE
from litgpt_core.tokenizers.settings import PretrainedSettings, TokenizerSettings
from litgpt_core.training.run_folder import RunFolder

logger = logging.getLogger(__name__)


def find_pretrained(config: TrainConfig) -> TrainConfig:
    """The same config with every path or name of a pretrained model, tokenizer or teacher replaced by its directory.

    A model whose directory stores the embedding and the output layer as one tensor stays tied.

    Raises:
        CheckpointError: Nothing of the kind is there, or it is damaged.
    """
    return dataclasses.replace(
        config,
        init_from=None if config.init_from is None else str(checkpoint.locate(config.init_from)),
        model=_model(config.model, fresh=config.init_from is None),
        tokenizer=_tokenizer(config.tokenizer),
        distill=_distill(config.distill),
    )


def with_base(overrides: Sequence[str]) -> list[str]:
    """`overrides`, as `as_overrides` returns them, with the `init_from` that an experiment on a checkpoint needs and
    nobody has given: that of the run which is to be continued, else the best candidate.

    Raises:
        CheckpointError: There is no model.
    """
    if not any(map(needs_checkpoint, Source(overrides).chosen("experiment"))):
        return list(overrides)
    plain = compose(normalise_overrides(overrides))
    if plain.get("init_from") or (plain.get("model") or {}).get("path"):
        return list(overrides)
    run = plain["run"]
    before = RunFolder(Path(str(run.get("dir"))) / str(run.get("name"))).read_config() if run.get("resume") else {}
    if (base := before.get("init_from")) is None:
        chosen = checkpoint.choose()
        logger.info("init_from is not given. %s", chosen.reasons[0])
        base = chosen.found.directory.as_posix()
    return [*overrides, f"init_from={base}"]


def _model(settings: ModelSettings, *, fresh: bool) -> ModelSettings:
    if settings.source != "pretrained" or settings.path is None:
        return settings
    directory = checkpoint.locate(settings.path)
    if fresh:
        logger.warning(
            "the model has the shape of %s and fresh weights; init_from=%s loads its own", directory, directory
        )
    fields = {"tie_embeddings": checkpoint.is_tied(directory), **settings.fields}
    return dataclasses.replace(settings, path=str(directory), fields=fields)


def _distill(settings: DistillSettings | None) -> DistillSettings | None:
    if settings is None or settings.teacher is None:
        return settings
    return dataclasses.replace(settings, teacher=str(checkpoint.locate(settings.teacher)))


def _tokenizer(settings: TokenizerSettings) -> TokenizerSettings:
    if not isinstance(settings, PretrainedSettings) or settings.path is None:
        return settings
    given = Path(settings.path).expanduser()
    bare = any((given / name).is_file() for name in (JSON_FILE, MODEL_FILE))
    return dataclasses.replace(settings, path=str(given if bare else checkpoint.locate(settings.path)))
