"""Plans as tables for a terminal: bytes as GB (10^9), times in the largest unit that fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from litgpt_core.core.durations import duration_text
from litgpt_core.core.text import count
from litgpt_core.model.cost import count_parameters
from litgpt_core.planning.memory import SHARE
from litgpt_core.planning.plan import CHUNK, Option, Terms, best
from litgpt_core.planning.recipe import Recipe

if TYPE_CHECKING:
    from rich.table import Table

GB = 1e9

PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "buffers")
"""Of a device's memory, as `cost.Memory` has them."""

SHORT = {
    f"trainer.loss_chunk_size={CHUNK}": "chunks",
    "trainer.activation_checkpointing=selective": "selective",
    "trainer.activation_checkpointing=full": "full",
    "trainer.cpu_offload=true": "offload",
    "trainer.gradient_sync=step": "sync once",
}
"""What was changed to make it fit, abbreviated for a table."""

WIDE_ENOUGH = 140
"""Columns of a terminal from which the parts are shown."""


ASSUMED = (
    "[dim]Memory is counted tensor by tensor. Speed assumes {mfu:.0%} of the data sheet's peak FLOP/s (--mfu) and 80 % "
    "of its link bandwidth. Compiled steps need less memory; kernel launches, which dominate steps of a few ms, are "
    "ignored. Method and checks: docs/distributed.md[/]"
)


def heading(recipe: Recipe, *, tokens: float) -> str:
    """What is planned, in one line."""
    c = recipe.model
    return (
        f"[bold]{c.name}[/]: {count_parameters(c):,} parameters, context {c.block_size:,}, {recipe.optimizer}, "
        f"{recipe.global_batch:,} sequences ({recipe.tokens_per_step:,} tokens) per step, {tokens:,} tokens in total"
    )


def table(found: Sequence[Option], *, terms: Terms, tokens: float, wide: bool) -> Table:
    """One row per option; with its parts where there is room for them."""
    from rich.table import Table

    gpu, parts = terms.gpu, PARTS if wide else ()
    title = f"{gpu.name}: {gpu.memory / GB:.0f} GB each, {terms.limit / GB:.0f} GB usable"
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for name in ("GPUs", "strategy", *parts, "peak GB", "micro-batch", "tokens/s", "run time", "fits"):
        made.add_column(name, justify="left" if name in ("strategy", "fits") else "right")
    chosen = best(found)
    for option in found:
        made.add_row(
            str(option.layout.devices),
            option.layout.strategy,
            *(gigabytes(getattr(option.memory, name)) for name in parts),
            *_speed(option, terms, tokens),
            style=_style(option, chosen),
        )
    return made


def overview(plans: Sequence[tuple[Terms, Sequence[Option]]], *, tokens: float) -> Table:
    """Several kinds of GPU: the best strategy of each on each number of them."""
    from rich.table import Table

    made = Table(header_style="bold")
    for name in ("GPU", "GB", "GPUs", "strategy", "peak GB", "micro-batch", "tokens/s", "run time", "fits"):
        made.add_column(name, justify="left" if name in ("GPU", "strategy", "fits") else "right")
    for terms, found in plans:
        for number in dict.fromkeys(option.layout.devices for option in found):
            those = [option for option in found if option.layout.devices == number]
            option = best(those) or min(those, key=lambda each: each.memory.peak)
            start = (terms.gpu.name, f"{terms.gpu.memory / GB:.0f}", str(number), option.layout.strategy)
            made.add_row(*start, *_speed(option, terms, tokens), style="" if option.fits else "dim")
    return made


def _speed(option: Option, terms: Terms, tokens: float) -> tuple[str, ...]:
    helped = ", ".join(short(change) for change in option.changes) or "yes"
    return (
        gigabytes(option.memory.peak),
        str(option.recipe.micro_batch),
        f"{option.time.tokens_per_s:,.0f}" if option.fits else "",
        _price(option, terms, tokens) if option.fits else "",
        helped if option.fits else "[red]no[/]",
    )


def _style(option: Option, chosen: Option | None) -> str:
    return "green" if option is chosen else "" if option.fits else "dim"


def _price(option: Option, terms: Terms, tokens: float) -> str:
    spent = duration_text(option.seconds(tokens))
    return spent if terms.cost_per_hour is None else f"{spent}, ${option.dollars(tokens, terms.cost_per_hour):,.2f}"


def verdict(found: Sequence[Option], *, terms: Terms, tokens: float) -> list[str]:
    """The cheapest option and the fastest, with what to type."""
    if not found:
        return []
    cheapest = best(found)
    if cheapest is None:
        return [
            f"Nothing here fits into {terms.limit / GB:.0f} GB ({SHARE['cuda']:.0%} of a {terms.gpu.name}): "
            "use more GPUs, larger ones (--gpu all), or a smaller model or context."
        ]
    fastest = max((option for option in found if option.fits), key=lambda option: option.time.tokens_per_s)
    lines = [_line("cheapest", cheapest, terms, tokens)]
    if not terms.gpu.bf16 and cheapest.recipe.precision != "32-true":
        lines.insert(0, f"[red]The {terms.gpu.name} has no bfloat16 hardware: use trainer.precision=32-true[/]")
    if fastest.layout.devices != cheapest.layout.devices:
        lines.append(_line("fastest", fastest, terms, tokens))
    return lines


def _line(word: str, option: Option, terms: Terms, tokens: float) -> str:
    number = option.layout.devices
    nodes = f" on {option.layout.nodes} machines (lcp slurm)" if option.layout.nodes > 1 else ""
    host = option.memory.host * min(number, option.layout.per_node)
    host_text = f", {gigabytes(host)} GB of host memory per machine" if host else ""
    said = f"{word}: {count(number, 'GPU')}{nodes}, {_price(option, terms, tokens)}{host_text}"
    return f"{said}: lcp train ... {' '.join(option.overrides)}"


def refusal(recipe: Recipe, number: int, *, micro_batch: int | None) -> str:
    """Why a number of GPUs has no rows."""
    together = number * (micro_batch or 1)
    size = max(1, round(recipe.global_batch / together)) * together
    return (
        f"{number} GPUs: trainer.global_batch_size={recipe.global_batch} does not divide into {number} x "
        f"{micro_batch or 1} sequences; trainer.global_batch_size={size} would"
    )


def gigabytes(size: float) -> str:
    """Three digits, more or less: 0.02, 1.64, 16.1, 128."""
    value = size / GB
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}" if value >= 0.005 else "0"


def short(change: str) -> str:
    """A setting that was changed to make a plan fit, abbreviated."""
    name, _, number = change.partition("=")
    return f"tensor {number}" if name == "trainer.tensor_parallel_size" else SHORT[change]
