"""Lightning's view of a prepared folder: a training loader that never ends and a position that survives a restart.

Not here: which token goes where (`dataset`), preparing (`prepare`), the loop (`training`). The only file outside
`training/` that imports lightning.

The position is one number, the samples whose gradient has been applied. It is computed from the trainer's step counter
when a checkpoint is written (which happens at optimizer-step boundaries only), so what workers have prefetched does not
matter, and a resumed run reads exactly the samples that an uninterrupted run would have read next.

The trainer must be built with `use_distributed_sampler=False` (each rank takes its share here),
`accumulate_grad_batches=micro_batches(...)`, `max_steps`, and `check_val_every_n_epoch=None` with an integer
`val_check_interval`, because an endless loader has no epochs. Optimizers of one step must count as one `global_step`.
"""

from __future__ import annotations

import itertools
import logging
import signal
from collections.abc import Iterator
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from litgpt_core.core.errors import ConfigError
from litgpt_core.data.batch_rule import check_batch
from litgpt_core.data.dataset import Batch, ValidationBatches
from litgpt_core.data.prepared import PreparedData
from litgpt_core.data.text_data import TextData

logger = logging.getLogger(__name__)


class OrdinalSampler(Sampler[int]):
    """Micro-batch ordinals from `start` without end. It has no length: the trainer's `max_steps` ends the run."""

    def __init__(self, start: int = 0) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


class TokenDataModule(lightning.LightningDataModule):
    """Training and validation loaders over one prepared folder.

    Args:
        prepared: What `prepare` returned.
        block_size: T, tokens per sample.
        micro_batch_size: Rows per forward pass and process.
        global_batch_size: Rows per optimizer step over all processes.
        eval_batch_size: Rows per validation batch and process.
        eval_tokens: At most about this many validation targets per evaluation; None evaluates the entire split.
        seed: Decides the training order.
        num_workers: Loader processes; 0 reads in the main process, which memory-mapped shards are fast enough for.
    """

    def __init__(
        self,
        prepared: PreparedData,
        *,
        block_size: int,
        micro_batch_size: int,
        global_batch_size: int,
        eval_batch_size: int,
        eval_tokens: int | None = None,
        seed: int = 1337,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.prepared = prepared
        self.block_size, self.seed, self.num_workers = block_size, seed, num_workers
        self.micro_batch_size, self.global_batch_size = micro_batch_size, global_batch_size
        self.eval_batch_size, self.eval_tokens = eval_batch_size, eval_tokens
        self._anchor_samples = 0  # samples seen when the trainer's step counter stood at _anchor_step
        self._anchor_step = 0
        self._restored = False

    @property
    def samples_seen(self) -> int:
        """Samples (rows over all processes) whose optimizer step is done, since the very first start of the run."""
        if self.trainer is None or self._restored:
            return self._anchor_samples
        return self._anchor_samples + (self.trainer.global_step - self._anchor_step) * self.global_batch_size

    def state_dict(self) -> dict[str, Any]:
        """The position, as {"samples": int}."""
        return {"samples": self.samples_seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a position; the next training loader starts there."""
        self._anchor_samples, self._restored = int(state_dict["samples"]), True

    def train_dataloader(self) -> DataLoader[Any]:
        """An endless loader of this rank's micro-batches from `samples_seen` on.

        Raises:
            ConfigError: The batch sizes do not fit the number of processes, or the restored position is between
            steps. DataError: The training split is shorter than one sample.
        """
        self._settle_anchor()
        rank, world_size = self._share()
        sizes = {"micro_batch_size": self.micro_batch_size, "world_size": world_size}
        check_batch(global_batch_size=self.global_batch_size, **sizes)
        at_once, samples = self.micro_batch_size * world_size, self.samples_seen
        if samples % at_once:
            raise ConfigError(
                f"the run is at sample {samples:,}, which is not a multiple of micro_batch_size * world_size = "
                f"{self.micro_batch_size} * {world_size} = {at_once}",
                needed="a position that this micro batch size and number of processes can start from",
                fix="resume with the micro batch size and the number of processes of the first run",
            )
        batches = self.prepared.train_batches(
            block_size=self.block_size, seed=self.seed, global_batch_size=self.global_batch_size, rank=rank, **sizes
        )
        self._log_passes()
        return self._loader(batches, OrdinalSampler(samples // at_once))

    def _log_passes(self) -> None:
        """Say how often each source of a mixture will be read in the whole run."""
        steps = self.trainer.max_steps if self.trainer is not None else -1
        if steps > 0 and isinstance(self.prepared, TextData):
            samples = steps * self.global_batch_size
            found = self.prepared.passes(samples=samples, block_size=self.block_size, seed=self.seed)
            if found:
                logger.info("data: passes over each source: %s", ", ".join(f"{n} {p:.3g}" for n, p in found.items()))

    def val_dataloader(self) -> DataLoader[Any]:
        """This rank's share of the validation windows; padding targets are -100 (see `ValBatches`)."""
        return self._loader(self._val_batches(self.eval_tokens), None)

    def whole_split(self) -> ValidationBatches:
        """This rank's share of the entire split, whatever `eval_tokens` is. Not a loader: that would use torch's global
        random state.
        """
        return self._val_batches(None)

    def _val_batches(self, max_tokens: int | None) -> ValidationBatches:
        rank, world_size = self._share()
        return self.prepared.val_batches(
            block_size=self.block_size,
            batch_size=self.eval_batch_size,
            max_tokens=max_tokens,
            rank=rank,
            world_size=world_size,
        )

    def _settle_anchor(self) -> None:
        """Tie a restored position to the step counter, which the trainer restores after it."""
        if self._restored:
            self._anchor_step = 0 if self.trainer is None else self.trainer.global_step
            self._restored = False

    def _share(self) -> tuple[int, int]:
        """(rank, world size) among the processes that read different data; with model parallelism fewer than all."""
        if self.trainer is None:
            return 0, 1
        share = self.trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
        return int(share["rank"]), int(share["num_replicas"])

    def _loader(self, dataset: Dataset[Batch], sampler: OrdinalSampler | None) -> DataLoader[Any]:
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(
            dataset,
            batch_size=None,  # the dataset returns complete micro-batches
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_ignore_signals,
            generator=torch.Generator(),  # for the workers' seeds: the global generator is that of dropout
            pin_memory=on_cuda,
        )


def _ignore_signals(worker: int) -> None:
    """SLURM signals every process of a job, loader workers too; a worker that died would end the run unsaved.

    A worker exits by itself within seconds when its main process is gone.
    """
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
