"""The steps of a recipe: one frozen dataclass per method; those that train are in `training_settings`."""

from __future__ import annotations

from dataclasses import dataclass

from litgpt_core.compression.step import BITS, Step, one_of, share
from litgpt_core.compression.training_settings import Distill, Qat, Reconstruct

CLIPS = ("absmax", "mse", "activations")


@dataclass(frozen=True, kw_only=True)
class Quantizing(Step):
    """What all steps that end in integers have in common."""

    stage = "quantize"
    bits: int = 4
    """Of the linear layers in blocks: 8, 4, or 3 and 2, which are stored as 4."""
    group: int = 32
    """Inputs per scale; the format has 32."""
    head: int | None = 8
    """Bits of the output layer and the embedding: 8, 4 or null to leave both as they are."""
    skip: tuple[str, ...] = ()
    """Layers whose name contains one of these stay as they are."""

    def problems(self) -> list[str]:
        """See `Step`."""
        return [
            *one_of("bits", self.bits, BITS),
            *one_of("head", self.head, (8, 4, None)),
            *one_of("group", self.group, (32,)),
        ]


@dataclass(frozen=True, kw_only=True)
class Round(Quantizing):
    """Round to nearest: w is replaced by the nearest multiple of its group's scale."""

    method = "round"
    clip: str = "mse"
    """absmax: the largest weight sets the scale; mse: the scale with the least squared error; activations: the error is
    weighted by the mean square of the inputs."""
    per: str = "group"
    """Weights that share a scale: group, channel (an output) or tensor."""

    @property
    def needs_text(self) -> bool:
        """See `Step`."""
        return self.clip == "activations"

    def problems(self) -> list[str]:
        """See `Step`."""
        return [
            *super().problems(),
            *one_of("clip", self.clip, CLIPS),
            *one_of("per", self.per, ("group", "channel", "tensor")),
        ]


@dataclass(frozen=True, kw_only=True)
class Gptq(Quantizing):
    """GPTQ (arXiv 2210.17323): column after column, what rounding loses is made up for by the columns that follow."""

    method = "gptq"
    clip: str = "activations"
    """How scales are chosen; see `round`."""
    damp: float = 0.01
    """Added to the diagonal of X^T X, as a share of its mean."""
    refit: bool = False
    """In the end, choose the scales again: those with the least error of the outputs for the codes that were found."""

    def problems(self) -> list[str]:
        """See `Step`."""
        return [*super().problems(), *one_of("clip", self.clip, CLIPS), *share("damp", self.damp)]


@dataclass(frozen=True, kw_only=True)
class Mixed(Quantizing):
    """4 or 8 bits per matrix under a budget: 8 where the loss is most sensitive per byte."""

    method = "mixed"
    budget: float = 5.0
    """Mean bits per weight of the linear layers in blocks, scales included: 4.5 is all 4-bit, 8.5 all 8-bit."""
    clip: str = "mse"
    """How scales are chosen; see `round`."""

    def problems(self) -> list[str]:
        """See `Step`."""
        wrong = [] if 4.5 <= self.budget <= 8.5 else [f"budget={self.budget!r}: bits per weight from 4.5 to 8.5"]
        return [*super().problems(), *one_of("clip", self.clip, CLIPS), *wrong]


@dataclass(frozen=True, kw_only=True)
class Awq(Step):
    """AWQ (arXiv 2306.00978): inputs with large activations get a finer grid; the model computes the same."""

    method = "awq"
    stage = "transform"
    bits: int = 4
    """Of the rounding that follows, whose error is minimised."""
    steps: int = 10
    """Exponents to try between 0 and 1."""

    def problems(self) -> list[str]:
        """See `Step`."""
        return [*one_of("bits", self.bits, BITS), *([] if self.steps > 0 else [f"steps={self.steps!r}: at least 1"])]


@dataclass(frozen=True, kw_only=True)
class Smooth(Step):
    """SmoothQuant (arXiv 2211.10438): moves outliers of activations into the weights; the model computes the same."""

    method = "smooth"
    stage = "transform"
    alpha: float = 0.5
    """0 moves nothing, 1 everything."""

    def problems(self) -> list[str]:
        """See `Step`."""
        return [] if 0 <= self.alpha <= 1 else [f"alpha={self.alpha!r}: a number from 0 to 1"]


@dataclass(frozen=True, kw_only=True)
class Rotate(Step):
    """A random Hadamard rotation of the residual stream (QuaRot, arXiv 2404.00456); RMSNorm only."""

    method = "rotate"
    stage = "transform"
    calibrated = False
    seed: int = 0
    """Of the signs."""


@dataclass(frozen=True, kw_only=True)
class Permute(Step):
    """Shuffles channels, hidden units and value dimensions; the model computes the same, on no grid of groups."""

    method = "permute"
    stage = "transform"
    calibrated = False
    seed: int = 0
    """Of the order."""


@dataclass(frozen=True, kw_only=True)
class Prune(Step):
    """Zeros: unstructured, which saves nothing by itself, or N:M, which is packed."""

    method = "prune"
    stage = "prune"
    score: str = "wanda"
    """magnitude: |w|; wanda (arXiv 2306.11695): |w| times the norm of its input; sparsegpt (arXiv 2301.00774): what
    removing w costs after the other weights of the row have made up for it."""
    sparsity: float = 0.5
    """Share of zeros, where there is no pattern."""
    pattern: str = ""
    """N:M such as 2:4: of M adjacent weights N remain."""
    damp: float = 0.01
    """As for gptq; sparsegpt only."""

    @property
    def needs_text(self) -> bool:
        """See `Step`."""
        return self.score != "magnitude"

    def problems(self) -> list[str]:
        """See `Step`."""
        wrong = [*one_of("score", self.score, ("magnitude", "wanda", "sparsegpt")), *share("damp", self.damp)]
        if self.pattern and self.pattern not in ("2:4", "4:8", "2:8", "6:8"):
            wrong.append(f"pattern={self.pattern!r}: 2:4, 4:8, 2:8 or 6:8")
        return [*wrong, *share("sparsity", self.sparsity)]


@dataclass(frozen=True, kw_only=True)
class Svd(Step):
    """Two thin matrices for one, of a given share of its parameters."""

    method = "svd"
    stage = "prune"
    share: float = 0.8
    """Parameters that remain, of every linear layer in a block."""
    kind: str = "whitened"
    """plain: nearest in weights; scaled (ASVD, arXiv 2312.05821): inputs weighted by their size; whitened (SVD-LLM,
    arXiv 2403.07378): nearest in outputs."""

    @property
    def needs_text(self) -> bool:
        """See `Step`."""
        return self.kind != "plain"

    def problems(self) -> list[str]:
        """See `Step`."""
        return [*share("share", self.share), *one_of("kind", self.kind, ("plain", "scaled", "whitened"))]


@dataclass(frozen=True, kw_only=True)
class Depth(Step):
    """Removes the blocks that change the residual stream least."""

    method = "depth"
    stage = "structure"
    remove: int = 1
    """Blocks."""

    def problems(self) -> list[str]:
        """See `Step`."""
        return [] if self.remove > 0 else [f"remove={self.remove!r}: at least 1"]


@dataclass(frozen=True, kw_only=True)
class Width(Step):
    """Removes the hidden units of every MLP that contribute least."""

    method = "width"
    stage = "structure"
    keep: float = 0.75
    """Share of hidden units that remains, rounded to a multiple of 32."""

    def problems(self) -> list[str]:
        """See `Step`."""
        return share("keep", self.keep)


@dataclass(frozen=True, kw_only=True)
class Heads(Step):
    """Removes whole groups of heads (a key/value head and the query heads that read it) that contribute least."""

    method = "heads"
    stage = "structure"
    keep: int = 1
    """Groups that remain in every block."""

    def problems(self) -> list[str]:
        """See `Step`."""
        return [] if self.keep > 0 else [f"keep={self.keep!r}: at least 1"]


@dataclass(frozen=True, kw_only=True)
class Experts(Step):
    """Merges the experts of every mixture that are used least into similar ones."""

    method = "experts"
    stage = "structure"
    keep: int = 4
    """Experts that remain in every mixture."""

    def problems(self) -> list[str]:
        """See `Step`."""
        return [] if self.keep > 0 else [f"keep={self.keep!r}: at least 1"]


KINDS: tuple[type[Step], ...] = (
    *(Depth, Width, Heads, Experts, Distill, Awq, Smooth, Rotate, Permute, Prune, Svd, Round, Gptq, Mixed),
    *(Reconstruct, Qat),
)
METHODS: dict[str, type[Step]] = {kind.method: kind for kind in KINDS}
"""Name in a recipe -> its step."""
