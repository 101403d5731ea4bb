"""Properties that a trained model must have on this machine: complete files, finite and causal logits, a cache that
changes nothing, a tokenizer that gives its text back, reproducible text. For `lcp smoke MODEL`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from litgpt_core import checkpoint, tokenizers
from litgpt_core.core.errors import TokenizerError
from litgpt_core.doctor.results import CheckFailed, CheckResult, run_check
from litgpt_core.model.gpt import GPT

LENGTH = 24
"""Tokens that the model is looked at with; fewer where its context is shorter."""
TOLERANCE = 1e-4
"""Largest difference of float32 logits that is rounding, relative to the largest logit."""


class CheckpointChecks:
    """The checks of one checkpoint directory, in float32 on the CPU.

    Args:
        directory: As `checkpoint.locate` finds it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._model: GPT | None = None

    @property
    def model(self) -> GPT:
        """Loaded when it is first used."""
        if self._model is None:
            self._model = checkpoint.load_model(self.directory, dtype=torch.float32, dequantize=True)
        return self._model

    def run(self) -> Iterator[CheckResult]:
        """Every check, one result after the other."""
        checks: dict[str, Callable[[], str]] = {
            "files": self.files,
            "logits": self.logits,
            "causal mask": self.causality,
            "KV cache": self.cache,
            "tokenizer": self.tokenizer,
            "text": self.text,
        }
        return (run_check(name, body) for name, body in checks.items())

    def files(self) -> str:
        """Every file is there, and its hash is the recorded one."""
        checkpoint.verify(self.directory)
        return f"complete: {self.directory.as_posix()}"

    def _tokens(self) -> torch.Tensor:
        config = self.model.config
        length = min(LENGTH, config.block_size)
        return torch.randint(config.vocab_size, (1, length), generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def logits(self) -> str:
        """Finite, for one token and for several; the same in two passes."""
        tokens = self._tokens()
        for some in (tokens[:, :1], tokens):
            found = self.model(some)
            if not bool(found.isfinite().all()):
                raise CheckFailed(f"logits of {some.shape[1]} tokens are not finite")
            if not torch.equal(found, self.model(some)):
                raise CheckFailed(f"two passes over {some.shape[1]} tokens differ")
        return f"{self.model.num_parameters():,} parameters, finite and the same in two passes"

    @torch.no_grad()
    def causality(self) -> str:
        """Another last token leaves the logits before it as they are."""
        tokens = self._tokens()
        other = tokens.clone()
        other[0, -1] = (other[0, -1] + 1) % self.model.config.vocab_size
        before, after = self.model(tokens)[:, :-1], self.model(other)[:, :-1]
        worst = float((before - after).abs().max() / before.abs().max())
        if worst > TOLERANCE:
            raise CheckFailed(f"a past logit moved by {worst:.1e} of the largest")
        return f"past logits moved by at most {worst:.0e} of the largest"

    @torch.no_grad()
    def cache(self) -> str:
        """Prefill, then one token at a time, gives the logits of one full pass."""
        tokens, model = self._tokens(), self.model
        full, length = model(tokens), tokens.shape[1]
        model.set_kv_cache(1, max_seq_length=length)
        try:
            chunks = [(0, length // 2), *((at, at + 1) for at in range(length // 2, length))]
            steps = torch.cat([model(tokens[:, a:b], input_pos=torch.arange(a, b)) for a, b in chunks], dim=1)
        finally:
            model.clear_kv_cache()
        worst = float((steps - full).abs().max() / full.abs().max())
        if worst > TOLERANCE:
            raise CheckFailed(f"cached logits differ by {worst:.1e} of the largest")
        return f"cached logits differ by at most {worst:.0e} of the largest"

    def tokenizer(self) -> str:
        """Ids within the model's vocabulary; text that it can read is given back."""
        tokenizer, size = tokenizers.load(self.directory), self.model.config.padded_vocab_size
        if tokenizer.vocab_size > size:
            raise CheckFailed(f"the tokenizer has {tokenizer.vocab_size:,} ids, the model {size:,}")
        readable = []
        for text in ("The cat sat.", "def f(x):\n    return x + 1\n", "é ü 漢字 🙂"):
            try:
                ids = tokenizer.encode(text)
            except TokenizerError:
                continue  # characters that it has never seen
            readable.append(text)
            if tokenizer.decode(ids) != text:
                raise CheckFailed(f"{text!r} comes back as {tokenizer.decode(ids)!r}")
        return f"{tokenizer.vocab_size:,} ids, {len(readable)} of 3 texts readable and given back"

    def text(self) -> str:
        """The same greedy text twice, as `lcp generate` writes it."""
        from litgpt_core.generation.engine import Engine
        from litgpt_core.generation.sampling import GREEDY

        engine = Engine.from_directory(self.directory, device="cpu", dtype="32", compile="false")
        prompt = engine.tokenizer.decode(self._tokens()[0, :4].tolist())
        written = [engine.generate_text(prompt, max_new_tokens=12, sampling=GREEDY) for _ in range(2)]
        if written[0] != written[1]:
            raise CheckFailed(f"{written[0]!r}, then {written[1]!r}")
        return f"{written[0]!r}"
