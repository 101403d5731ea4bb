"""A checkpoint directory as its parts, for exports to a single file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from litgpt_core import tokenizers
from litgpt_core.checkpoint import load_model, locate
from litgpt_core.checkpoint.layout import MODEL_CONFIG, TOKENIZER_FILES
from litgpt_core.tokenizers import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from litgpt_core.model.gpt import GPT


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Model, tokenizer and files of a checkpoint."""

    directory: Path
    model: GPT
    """In the dtype of the file."""
    tokenizer: Tokenizer

    @classmethod
    def read(cls, checkpoint: str | Path | None) -> Parts:
        """Raises CheckpointError or TokenizerError for a checkpoint that is missing or damaged."""
        directory = locate(checkpoint)
        return cls(
            directory=directory, model=load_model(directory, dequantize=True), tokenizer=tokenizers.load(directory)
        )

    def weights(self) -> dict[str, Tensor]:
        """The state dict; a tied weight under both names."""
        return {name: tensor.detach().contiguous() for name, tensor in self.model.state_dict().items()}

    def parameters(self) -> int:
        """Number of weights; a tied one counts once."""
        return sum(tensor.numel() for tensor in {each.data_ptr(): each for each in self.weights().values()}.values())

    def files(self) -> dict[str, bytes]:
        """Config and tokenizer, by file name."""
        names = [MODEL_CONFIG, *TOKENIZER_FILES]
        return {name: (self.directory / name).read_bytes() for name in names if (self.directory / name).is_file()}
