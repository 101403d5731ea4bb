"""What an exported file is checked by: one record for all formats, kept alongside the file.

    ids        texts whose token ids are equal, of all texts
    greedy     tokens that both choose, of all tokens; a choice between logits within the tolerance counts as equal
    max_delta  largest difference of log-probabilities (reader) or logits (weights read back)
    kl         mean of KL(original || file) over the positions of the sample text, in nats
    bits       bits per byte of the sample text, before and after

Two readers are used: our own, which reads the file back as a model, and an independent one where it is installed. A
file that fails is not kept.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litgpt_core.core.errors import CheckpointError, TokenizerError
from litgpt_core.core.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

    from litgpt_core.model.gpt import GPT
    from litgpt_core.tokenizers import Tokenizer

SAMPLE_NAME = "the parity sample, English and Python"
SAMPLE = '''The ships left the harbour at dawn, and nobody on the pier could say when they would return. "It depends on
the wind," said the oldest of them, "and on what the others find." She had counted 27 sails; in 1998 there were 103.

def moving_average(values, width=3):
    """Mean of the last `width` values, one result for each value."""
    total, result = 0.0, []
    for index, value in enumerate(values):
        total += value
        if index >= width:
            total -= values[index - width]
        result.append(total / min(index + 1, width))
    return result

A model that predicts the next token of such a text well has learnt words, their endings, and which names come again.
Much of what it cannot know is in the numbers, and in the names of people; most of the rest is grammar.
'''
_POSITIONS = 256
"""Tokens of the sample that are compared, at most."""

_UNUSUAL = (
    "½ ² ٣ Ⅷ", "a\tb\r\nc\n\n  d", "don't I'LL we've", "日本語 テスト", "👩‍👩‍👧 émigré Größe", "</s> <s> <unk>",
    "a" * 50, "  lead", "trail  ", "x = y**2  # 12345 3.14", "\u00a0x\u2003y", "x", "\n", "¿?…—", "１２３ ４",
    "a\u0301 e\u0301", "\x01\x7f", "\n\n\n\n", "<b>html</b>  \t x", "", "3.14159", "CamelCase_snake_case", "'quoted'",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The result of comparing one file with the checkpoint that it was made from."""

    format: str
    reader: str
    """The independent reader and its version; empty if none is installed."""
    missing: str = ""
    """What to install for an independent reader, if there was none."""
    texts: int = 0
    ids_equal: int = 0
    tokens: int = 0
    greedy_equal: int = 0
    greedy_identical: int | None = None
    """Tokens that are the same without regard to the tolerance, where that was counted."""
    max_delta: float | None = None
    """Independent reader against the file's own weights: largest difference of log-probabilities, the top tokens'."""
    max_logit_delta: float
    """File read back against the original: largest difference of logits."""
    logit_scale: float
    """Largest logit, in absolute value."""
    kl: float
    bits_before: float
    bits_after: float
    text: str = SAMPLE_NAME
    failures: tuple[str, ...] = field(default=())

    def lines(self) -> list[str]:
        """What is printed."""
        said = []
        if self.reader:
            checks = [f"{self.ids_equal} of {self.texts} texts the same ids"] if self.texts else []
            if self.tokens:
                ties = 0 if self.greedy_identical is None else self.greedy_equal - self.greedy_identical
                within = f" ({ties} of them as near to the best as rounding reaches)" if ties > 0 else ""
                checks.append(f"{self.greedy_equal} of {self.tokens} tokens the same{within}")
            if self.max_delta is not None:
                checks.append(f"largest difference of log-probabilities {self.max_delta:.2g}")
            said.append(f"checked with {self.reader}: {'; '.join(checks) or 'every number the same'}")
        else:
            said.append(f"not checked by another program: {self.missing}")
        said.append(
            f"read back: largest difference of logits {self.max_logit_delta:.2g} (of {self.logit_scale:.3g}), "
            f"KL {self.kl:.2g} nats, bits per byte {self.bits_before:.4f} -> {self.bits_after:.4f} ({self.text})"
        )
        return said

    def refuse(self, file: Path) -> None:
        """Raise CheckpointError if the comparison failed. `file` is its future name."""
        if self.failures:
            raise CheckpointError(
                f"{file.name} would not compute what the checkpoint computes: {'; '.join(self.failures)}.",
                needed="equal results",
                fix="report this, with the checkpoint's model_config.yaml",
            )

    def keep(self, file: Path) -> Path:
        """Write the record alongside the file."""
        record = record_of(file)
        write_json(record, {key: value for key, value in asdict(self).items() if key != "failures"})
        return record


MARK = b'"max_logit_delta"'
"""In every record."""


def record_of(file: Path) -> Path:
    """Where the record of a file is."""
    return file.with_name(f"{file.name}.parity.json")


def sample_texts(tokenizer: Tokenizer, *, count: int = 200) -> list[str]:
    """Texts that the tokenizer can encode: unusual ones, and random parts of the sample."""
    rng = random.Random(0)
    texts = list(_UNUSUAL)
    while len(texts) < count:
        start = rng.randrange(len(SAMPLE))
        part = SAMPLE[start : start + rng.randrange(1, 90)]
        texts.append("".join(rng.sample(part, len(part))) if len(texts) % 4 == 0 else part)
    return [text for text in (encodable(text, tokenizer) for text in texts[:count]) if text]


def encodable(text: str, tokenizer: Tokenizer) -> str:
    """The characters of a text that a tokenizer has: all but for characters' own tokenizers."""
    try:
        tokenizer.encode(text)
        return text
    except TokenizerError:
        return "".join(character for character in text if _has(character, tokenizer))


def _has(character: str, tokenizer: Tokenizer) -> bool:
    try:
        tokenizer.encode(character)
        return True
    except TokenizerError:
        return False


def sample_ids(tokenizer: Tokenizer, *, longest: int) -> tuple[list[int], int]:
    """Ids of the sample text, at most `longest`, after bos or eos; and how many bytes the ids after the first make."""
    first = tokenizer.bos_id if tokenizer.use_bos and tokenizer.bos_id is not None else tokenizer.eos_id
    ids = tokenizer.encode(encodable(SAMPLE, tokenizer))[: min(_POSITIONS, longest) - 1]
    return [first, *ids], max(1, len(tokenizer.decode(ids).encode("utf-8")))


def compare_logits(original: Tensor, file: Tensor, ids: Sequence[int], *, n_bytes: int) -> dict[str, Any]:
    """`max_logit_delta`, `logit_scale`, `kl`, `bits_before`, `bits_after` from logits, (T, V) each, for `ids`."""
    import math

    import torch

    with torch.no_grad():
        before, after = original.double().log_softmax(-1), file.double().log_softmax(-1)
        targets = torch.tensor(ids[1:])[:, None]
        losses = [-each[:-1].gather(1, targets).sum().item() / math.log(2) / n_bytes for each in (before, after)]
        return {
            "max_logit_delta": (original - file).abs().max().item(),
            "logit_scale": original.abs().max().item(),
            "kl": max(0.0, (before.exp() * (before - after)).sum(-1).mean().item()),
            "bits_before": losses[0],
            "bits_after": losses[1],
        }


def logits_of(model: GPT, ids: Sequence[int], *, rows: int) -> Tensor:
    """(T, rows) in float32."""
    import torch

    with torch.no_grad():
        found: Tensor = model(torch.tensor([list(ids)]))[0, :, :rows].float()
        return found


def greedy_equal(model: GPT, prompt: Sequence[int], chosen: Sequence[int], *, rows: int, tolerance: float) -> int:
    """How many of the tokens after `prompt` that a reader chose the model would choose too.

    A choice between log-probabilities that differ by at most twice the `tolerance` counts as equal.
    """
    ours = logits_of(model, [*prompt, *chosen][:-1], rows=rows)[len(prompt) - 1 :].log_softmax(-1)
    return sum((row.max() - row[token]).item() <= 2 * tolerance for row, token in zip(ours, chosen, strict=True))
