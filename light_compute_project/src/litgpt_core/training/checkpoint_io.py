"""Lightning's checkpoints as LitGPT directories.

The Trainer hands over one dictionary: weights, optimizer state, loop progress, callback and data position. The weights
become `lit_model.pth`, everything else `resume.pt` in the same directory, written atomically by
`checkpoint.save_directory`. Reading joins them again. So there is one checkpoint shape, and any step of any run works
with every command that reads LitGPT directories.

Of a run with adapters (`lora`), `lit_model.pth` holds the merged weights and `lit_model.pth.lora` the adapters. Reading
takes the adapters alone: the base weights are in the model already, from `init_from`.

Of quantization-aware training (`qat`), `lit_model.pth` holds the rounded weights, with which the model computes, and
`qat.pt` in the checkpoints of steps the weights behind them and the scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from litgpt_core import checkpoint as checkpoint_room
from litgpt_core.checkpoint import sharded
from litgpt_core.checkpoint.compressed import HEAD, WTE, CompressedCheckpoint, save_compressed
from litgpt_core.checkpoint.compressed_matrices import CompressedMatrix, IntegerMatrix
from litgpt_core.checkpoint.layout import ADAPTER
from litgpt_core.checkpoint.verification import is_sharded
from litgpt_core.core.redaction import redact_values
from litgpt_core.distributed.process_group import ProcessGroup
from litgpt_core.model import grid, lora
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.fake_quant import MARK, hidden_weights, plain_weights
from litgpt_core.model.gpt import GPT
from litgpt_core.model.grid import Grid
from litgpt_core.model.optional_settings import QatSettings
from litgpt_core.model.scale_search import search_scales
from litgpt_core.training.run_folder import RESUME_FILE

if TYPE_CHECKING:
    from litgpt_core.training.plan import Plan

QAT_FILE = "qat.pt"
WEIGHT_PREFIX = "model."
"""The LightningModule holds the network as `self.model`."""


class LitGPTDirectoryIO(CheckpointIO):
    """Writes and reads LitGPT checkpoint directories for the Trainer.

    Args:
        config: The model's configuration.
        tokenizer_dir: Folder with the tokenizer's files, copied into every checkpoint.
        hyperparameters: Plain values of the run's config, for `hyperparameters.yaml`.
        accumulate: Micro-batches per optimizer step.
        adapted: The model that is trained, if it has adapters.
        qat: Of quantization-aware training.
    """

    def __init__(
        self,
        *,
        config: GPTConfig,
        tokenizer_dir: Path,
        hyperparameters: dict[str, Any],
        accumulate: int = 1,
        adapted: GPT | None = None,
        qat: QatSettings | None = None,
    ) -> None:
        self.config, self.tokenizer_dir, self.hyperparameters = config, tokenizer_dir, hyperparameters
        self.accumulate, self.adapted, self.qat = accumulate, adapted, qat

    @classmethod
    def of(cls, plan: Plan, *, model: GPT) -> LitGPTDirectoryIO:
        """Of a run; with adapters it also writes what `litgpt merge_lora` reads."""
        config = plan.resolved.config
        hyperparameters = {**redact_values(config.plain), "model_config": plan.resolved.model.to_full_dict()}
        if config.lora is not None and config.init_from:
            base = checkpoint_room.resolve(Path(config.init_from).expanduser()).resolve()
            hyperparameters |= {**config.lora.to_litgpt(), "checkpoint_dir": str(base), "precision": "32-true"}
        return cls(
            config=plan.resolved.model,
            tokenizer_dir=plan.data.tokenizer_dir,
            hyperparameters=hyperparameters,
            accumulate=plan.resolved.accumulate,
            adapted=model if config.lora is not None else None,
            qat=config.qat,
        )

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write the directory `path`."""
        rest = {key: value for key, value in checkpoint.items() if key != "state_dict"}
        settle_batch_counters(rest["loops"]["fit_loop"]["epoch_loop.batch_progress"])
        weights = {k.removeprefix(WEIGHT_PREFIX): v for k, v in checkpoint["state_dict"].items()}
        self.write(Path(path), weights=weights, extra={RESUME_FILE: rest})

    def save_parts(self, checkpoint: dict[str, Any], path: Path, *, group: ProcessGroup) -> None:
        """Write the directory `path` with every process's part; all ranks call it.

        Raises:
            CheckpointError: On every rank, if any could not write.
        """
        (optimizer,) = checkpoint["optimizer_states"]
        tensors, rest_of_optimizer = sharded.flatten_state(optimizer)
        tensors |= {sharded.MODEL + k.removeprefix(WEIGHT_PREFIX): v for k, v in checkpoint["state_dict"].items()}
        rest = {key: value for key, value in checkpoint.items() if key != "state_dict"}
        rest["optimizer_states"] = [rest_of_optimizer]
        settle_batch_counters(rest["loops"]["fit_loop"]["epoch_loop.batch_progress"])
        asked = False

        def fill(folder: Path | None) -> sharded.Facts:
            nonlocal asked
            asked = True
            shared = group.broadcast(folder)
            return (
                {} if shared is None else sharded.write_shards(shared, tensors, group=group.gloo, gather=group.gather)
            )

        problem: Exception | None = None
        try:
            if group.is_rank_zero:
                checkpoint_room.save_directory(
                    path, weights=None, fill=fill, extra={RESUME_FILE: rest}, **self._companions()
                )
            else:
                fill(None)
        except Exception as error:
            problem = error
            if not asked:  # the others wait for the folder's name
                fill(None)
        group.raise_together(problem)

    def write(self, path: Path, *, weights: dict[str, Any], extra: dict[str, object] | None = None) -> None:
        """Write a directory from bare weights, adapters included; without `extra` it is what `final/` holds."""
        extra = dict(extra or {})
        if self.adapted is not None:
            extra[ADAPTER] = lora.adapters(self.adapted, weights)
            weights = lora.merged(self.adapted, weights)
        if self.qat is not None:
            if extra:
                extra[QAT_FILE] = hidden_weights(weights)
            weights = plain_weights(weights, bits=self.qat.bits)
        checkpoint_room.save_directory(path, weights=weights, extra=extra, **self._companions())

    def write_adapters(self, path: Path, *, weights: dict[str, Any]) -> None:
        """Write a directory with the adapters among `weights` and without merged ones, as `litgpt merge_lora` wants."""
        assert self.adapted is not None
        found = lora.adapters(self.adapted, weights)
        checkpoint_room.save_directory(path, weights=found, weights_name=ADAPTER, **self._companions())

    def write_compressed(self, path: Path, *, weights: dict[str, Any], record: dict[str, Any]) -> None:
        """Write a directory with the codes of a model of quantization-aware training, which the engine decodes.

        Args:
            path: The directory.
            weights: The state dict, with the scales.
            record: For `compression.yaml`.
        """
        assert self.qat is not None
        content = packed_content(weights, settings=self.qat, tied=self.config.tie_embeddings, record=record)
        save_compressed(path, content, **self._companions())

    def _companions(self) -> dict[str, Any]:
        tokenizer_dir, hyperparameters = self.tokenizer_dir, self.hyperparameters
        return {"config": self.config, "tokenizer_dir": tokenizer_dir, "hyperparameters": hyperparameters}

    def read_weights(self, directory: Path) -> dict[str, Any]:
        """What of a checkpoint's weights the model lacks: all of them, or the adapters."""
        if is_sharded(directory):
            return sharded.read_weights(directory)
        if self.qat is not None:
            hidden = checkpoint_room.load_extra(directory, QAT_FILE)
            assert isinstance(hidden, dict)
            return {**checkpoint_room.load_weights(directory), **hidden}
        if self.adapted is None:
            return dict(checkpoint_room.load_weights(directory))
        found = checkpoint_room.load_weights(directory / ADAPTER)
        lora.check_fit(found, self.adapted)
        return dict(found)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None, *, mmap: bool = False
    ) -> dict[str, Any]:
        """What the Trainer expects, from a directory that `newest_valid` has verified; `mmap` as for `load_extra`."""
        directory = Path(path)
        rest = self.load_rest(directory, mmap=mmap)
        if is_sharded(directory):
            parts = sharded.read_full(directory, prefix=sharded.OPTIMIZER)
            rest["optimizer_states"] = [sharded.unflatten_state(parts, rest["optimizer_states"][0])]
        weights = self.read_weights(directory)
        return {**rest, "state_dict": {WEIGHT_PREFIX + key: value for key, value in weights.items()}}

    def load_rest(self, directory: Path, *, mmap: bool = False) -> dict[str, Any]:
        """All but the weights (of a sharded checkpoint: but all large tensors), counters fitted to this start."""
        rest = checkpoint_room.load_extra(directory, RESUME_FILE, mmap=mmap)
        assert isinstance(rest, dict)
        batches = int(rest["global_step"]) * self.accumulate
        settle_batch_counters(rest["loops"]["fit_loop"]["epoch_loop.batch_progress"], batches=batches)
        return rest

    def remove_checkpoint(self, path: Any) -> None:
        """Nothing: `checkpoint.prune` decides what goes."""


def settle_batch_counters(progress: dict[str, Any], *, batches: int | None = None) -> None:
    """Make Lightning's batch counters say "between two batches", in place.

    A checkpoint is written when the next batch has been announced (`ready`) but not begun. Restored as it is, that
    batch would count twice, and every later validation would come one micro-batch early.

    Args:
        progress: Lightning's counters.
        batches: How many micro-batches are done; None believes the counters. A resumed run may cut the same global
            batch into another number of them.
    """
    for counters in (progress["total"], progress["current"]):
        for key in ("completed", "ready", "started", "processed"):
            counters[key] = counters["completed"] if batches is None else batches


def packed_content(
    weights: Mapping[str, Tensor], *, settings: QatSettings, tied: bool, record: Mapping[str, Any]
) -> CompressedCheckpoint:
    """The content of a compressed directory, from the state dict of a model with `FakeQuantLinear`.

    Output layer and embedding, one matrix where they are tied, are rounded to `settings.head` bits. What is
    not rounded becomes bfloat16, as the engine would load it.
    """
    weights = {name: tensor.detach().cpu() for name, tensor in weights.items()}
    matrices: dict[str, CompressedMatrix] = {}
    for name in [name for name in weights if name.endswith(MARK)]:
        path = name.removesuffix(f".{MARK}")
        matrices[path] = IntegerMatrix.of(weights.pop(f"{path}.weight").float(), weights.pop(name), bits=settings.bits)
    if settings.head is not None:
        for path in (HEAD,) if tied else (HEAD, WTE):
            matrices[path] = _nearest(weights.pop(f"{path}.weight").float(), bits=settings.head)
    if tied:
        weights.pop(f"{WTE}.weight" if HEAD in matrices else f"{HEAD}.weight", None)
    others = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    return CompressedCheckpoint(matrices=matrices, others=others, tied=tied, record=record)


def _nearest(weight: Tensor, *, bits: int) -> IntegerMatrix:
    """As the step `round` of `lcp compress` rounds the head."""
    kind, units = Grid(bits), grid.grouped(weight).reshape(-1, grid.GROUP)
    scales = kind.absmax_scales(units) if bits == 8 else search_scales(units, kind)
    return IntegerMatrix.of(weight, grid.stored_scales(scales.view(weight.size(0), -1)), bits=bits)
