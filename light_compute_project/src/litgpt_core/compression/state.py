"""The model while a recipe works on it: float32 weights, and the matrices that have their stored form already."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from litgpt_core.checkpoint.compressed import HEAD, WTE, CompressedCheckpoint
from litgpt_core.checkpoint.compressed_matrices import CompressedMatrix
from litgpt_core.model.gpt import GPT
from litgpt_core.model.structure import ModelStructure, structure


@dataclass
class WorkingModel:
    """Changed in place by the steps.

    Attributes:
        model: float32, in evaluation mode; a stored matrix has its dequantized values in it.
        matrices: Module path -> its stored form.
        notes: What a step found out, for the record.
        unrounded: Module path -> weights of an integer matrix before it was rounded; None unless a step trains them.
    """

    model: GPT
    matrices: dict[str, CompressedMatrix] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unrounded: dict[str, Tensor] | None = None

    @property
    def parts(self) -> ModelStructure:
        """The parts of the model as it is now."""
        return structure(self.model.config)

    @property
    def tied(self) -> bool:
        """Whether head and embedding are one matrix."""
        return self.model.lm_head.weight is self.model.transformer.wte.weight

    @torch.no_grad()
    def untie(self) -> None:
        """Give the head a matrix of its own."""
        config = dataclasses.replace(self.model.config, tie_embeddings=False)
        with torch.random.fork_rng(devices=[]):
            model = GPT(config)
        model.load_state_dict(self.model.state_dict())
        self.model = model.eval()

    def linear(self, path: str) -> nn.Linear:
        """A linear layer by its module path."""
        module = self.model.get_submodule(path)
        assert isinstance(module, nn.Linear)
        return module

    @torch.no_grad()
    def store(self, path: str, matrix: CompressedMatrix) -> None:
        """Fix the stored form of a matrix, and give the model its values."""
        self.matrices[path] = matrix
        module = self.model.get_submodule(path)
        assert isinstance(module, nn.Linear | nn.Embedding)
        module.weight.copy_(matrix.dense())

    def content(self, *, dtype: torch.dtype, record: dict[str, object]) -> CompressedCheckpoint:
        """What a compressed directory stores; weights without a stored form in `dtype`."""
        stored = {f"{path}.weight" for path in self.matrices}
        if self.tied:
            stored |= {f"{HEAD}.weight"} | ({f"{WTE}.weight"} if HEAD in self.matrices else set())
        others = {name: value.to(dtype) for name, value in self.model.state_dict().items() if name not in stored}
        return CompressedCheckpoint(matrices=self.matrices, others=others, tied=self.tied, record=record)

    def weights(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """A plain state dict in `dtype`; tied names share one tensor."""
        found = {name: value.to(dtype) for name, value in self.model.state_dict().items()}
        if self.tied:
            found[f"{HEAD}.weight"] = found[f"{WTE}.weight"]
        return found
