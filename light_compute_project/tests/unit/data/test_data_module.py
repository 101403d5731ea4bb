"""The Lightning data module: an endless loader whose position survives a restart inside a real Trainer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from litgpt_core.core.errors import ConfigError
from litgpt_core.data.text_data import TextData

lightning = pytest.importorskip("lightning")

from litgpt_core.data.module import OrdinalSampler, TokenDataModule  # noqa: E402


@pytest.fixture
def prepared(tmp_path: Path) -> TextData:
    for name, tokens in (("train.bin", 700), ("val.bin", 90)):
        np.arange(tokens, dtype="<u2").tofile(tmp_path / name)
    return TextData(tmp_path, {"dtype": "uint16", "tokenizer": {}})


def module(prepared: TextData, **changes: object) -> TokenDataModule:
    sizes = {"block_size": 8, "micro_batch_size": 2, "global_batch_size": 6, "eval_batch_size": 4, "seed": 3}
    return TokenDataModule(prepared, **{**sizes, **changes})


class Recorder(lightning.LightningModule):
    """Trains one number and writes down the first token of every row it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[int] = []
        self.validated: list[int] = []

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        self.seen += batch[0][:, 0].tolist()
        return (self.weight - 1) ** 2

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        self.validated += batch[1][batch[1] != -100].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data: TokenDataModule, folder: Path, *, steps: int, resume: Path | None = None) -> tuple[Recorder, Any]:
    model = Recorder()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        accumulate_grad_batches=3,
        use_distributed_sampler=False,
        check_val_every_n_epoch=None,
        val_check_interval=6,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, data, ckpt_path=resume, weights_only=True)
    return model, trainer


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_reads_what_an_uninterrupted_run_would(prepared: TextData, tmp_path: Path, workers: int) -> None:
    whole, _ = fit(module(prepared), tmp_path, steps=10)
    first, trainer = fit(module(prepared, num_workers=workers), tmp_path, steps=4)
    trainer.save_checkpoint(tmp_path / "at4.ckpt")
    assert trainer.datamodule.samples_seen == 24
    second_data = module(prepared, num_workers=workers)
    second, again = fit(second_data, tmp_path, steps=10, resume=tmp_path / "at4.ckpt")
    assert len(whole.seen) == 60
    assert first.seen + second.seen == whole.seen
    assert second_data.samples_seen == 60
    assert again.global_step == 10
    assert sorted(whole.validated[:89]) == list(range(1, 90))


def test_position_is_one_number_of_samples(prepared: TextData) -> None:
    data = module(prepared)
    assert data.state_dict() == {"samples": 0}
    data.load_state_dict({"samples": 12})
    assert data.state_dict() == {"samples": 12}
    loader = data.train_dataloader()
    fresh = module(prepared, micro_batch_size=6).train_dataloader()
    rows = [inputs[:, 0].tolist() for _, (inputs, _) in zip(range(9), fresh, strict=False)]
    assert [row for _, (inputs, _) in zip(range(3), loader, strict=False) for row in inputs[:, 0].tolist()] == rows[2]


def test_a_changed_micro_batch_keeps_the_order(prepared: TextData) -> None:
    def rows(micro: int) -> list[int]:
        data = module(prepared, micro_batch_size=micro)
        data.load_state_dict({"samples": 18})
        return [
            r for _, (x, _) in zip(range(12 // micro), data.train_dataloader(), strict=False) for r in x[:, 0].tolist()
        ]

    assert rows(1) == rows(2) == rows(3) == rows(6)


def test_sizes_that_do_not_fit_name_the_numbers(prepared: TextData) -> None:
    with pytest.raises(ConfigError, match=r"micro_batch_size=2 does not divide .*global_batch_size=7"):
        module(prepared, global_batch_size=7).train_dataloader()
    data = module(prepared)
    data.load_state_dict({"samples": 9})
    with pytest.raises(ConfigError, match=r"sample 9.*2 \* 1 = 2"):
        data.train_dataloader()


def test_the_sampler_has_no_length(prepared: TextData) -> None:
    assert [k for k, _ in zip(OrdinalSampler(5), range(3), strict=False)] == [5, 6, 7]
    with pytest.raises(TypeError):
        len(module(prepared).train_dataloader())
    assert len(module(prepared).val_dataloader()) == 3
