"""`model=pretrained` and `tokenizer=pretrained`: from the given paths to checkpoint directories.

The config knows only what was written; here the disk is looked at. Loading the weights is `inputs.py`'s.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from litgpt_core import checkpoint
from litgpt_core.config.train_config import TrainConfig
from litgpt_core.model.config import ModelSettings
from litgpt_core.tokenizers.directory import JSON_FILE, MODEL_FILE
from litgpt_core.tokenizers.settings import PretrainedSettings, TokenizerSettings

logger = logging.getLogger(__name__)


def find_pretrained(config: TrainConfig) -> TrainConfig:
    """The same config with every path or name of a pretrained model or tokenizer replaced by the directory it means.

    A model whose directory stores the embedding and the output layer as one tensor stays tied.

    Raises:
        CheckpointError: Nothing of the kind is there, or it is damaged.
    """
    return dataclasses.replace(
        config,
        init_from=None if config.init_from is None else str(_directory(config.init_from)),
        model=_model(config.model, fresh=config.init_from is None),
        tokenizer=_tokenizer(config.tokenizer),
    )


def _directory(text: str) -> Path:
    """What a path means, or else a name as `chat.py` and the server's page know models by."""
    path = Path(text).expanduser()
    if path.exists() or path.is_absolute():
        return checkpoint.resolve(path)
    return checkpoint.find_model(text).directory


def _model(settings: ModelSettings, *, fresh: bool) -> ModelSettings:
    if settings.source != "pretrained" or settings.path is None:
        return settings
    directory = _directory(settings.path)
    if fresh:
        logger.warning(
            "the model has the shape of %s and fresh weights; init_from=%s loads its own", directory, directory
        )
    fields = {"tie_embeddings": checkpoint.is_tied(directory), **settings.fields}
    return dataclasses.replace(settings, path=str(directory), fields=fields)


def _tokenizer(settings: TokenizerSettings) -> TokenizerSettings:
    if not isinstance(settings, PretrainedSettings) or settings.path is None:
        return settings
    given = Path(settings.path).expanduser()
    bare = any((given / name).is_file() for name in (JSON_FILE, MODEL_FILE))
    return dataclasses.replace(settings, path=str(given if bare else _directory(settings.path)))
