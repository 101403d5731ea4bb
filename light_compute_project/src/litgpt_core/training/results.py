"""What a finished run leaves besides its checkpoints: `summary.json`, `loss.png` and the closing table."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from litgpt_core.core import machine
from litgpt_core.core.command_line import shown_command
from litgpt_core.core.packages import package_versions
from litgpt_core.core.source_code import git_state
from litgpt_core.core.text import two_digits
from litgpt_core.training.closing import Closing
from litgpt_core.training.early_stop import EarlyStop
from litgpt_core.training.metrics import MetricsRecorder, bits_per_byte
from litgpt_core.training.plan import Plan
from litgpt_core.training.rows import Row
from litgpt_core.training.wandb_folder import upload_command


def final_and_best(rows: list[Row]) -> dict[str, Row]:
    """The last row, and the row with the lowest validation loss."""
    validated = [row for row in rows if row["val_loss"] is not None]
    return {
        "final": dict(rows[-1]) if rows else {},
        "best": dict(min(validated, key=lambda row: row["val_loss"])) if validated else {},
    }


def summarise(
    plan: Plan,
    *,
    recorder: MetricsRecorder,
    n_params: int,
    closing: Closing,
    early_stop: EarlyStop,
    comparison: dict[str, Any] | None,
) -> dict[str, Any]:
    """The content of `summary.json`; plain values only.

    `final` and `best` are rows of the curve; `whole_split` is the closing validation over every token of the split.
    `final_weights` says which step's weights `final/` holds, `early_stop` under which settings the run ended before
    its last step (null if it did not), `before_after` what fine-tuning on conversations brought (absent otherwise).
    `wall_s` is this command, `train_s` all sessions of the run together.
    """
    device = plan.resolved.hardware.device
    rate, (peak, source) = recorder.usual_tokens_per_s(), plan.peak
    whole_split_loss, stopped = closing.whole_split_loss, early_stop.stopped_step is not None
    return {
        "name": plan.resolved.config.run.name,
        **final_and_best(recorder.rows),
        "whole_split": {
            "val_loss": whole_split_loss,
            "val_bpb": bits_per_byte(whole_split_loss, tokens_per_byte=plan.data.val_tokens_per_byte),
            "tokens": plan.data.val_targets,
        },
        "stopped_early": stopped,
        "early_stop": {"patience": early_stop.patience, "min_delta": early_stop.min_delta} if stopped else None,
        "best_step": closing.best_step,
        "final_weights": {
            "step": closing.final_step,
            "are": "best" if closing.final_step == closing.best_step else "last",
        },
        "references": plan.data.references,
        "val_tokens_per_byte": plan.data.val_tokens_per_byte,
        "n_params": n_params,
        "flops_per_token": plan.resolved.flops_per_token,
        "tokens_per_s": rate,
        "mfu": rate * plan.resolved.flops_per_token / peak if rate and peak else None,
        "peak_flops": peak,
        "peak_flops_source": source,
        "compiled": plan.resolved.hardware.compile,
        "compile_reason": plan.resolved.hardware.compile_reason,
        "compile_s": recorder.compile_s,
        "cpu_kernels": plan.resolved.hardware.cpu_kernels,
        "precision": plan.resolved.hardware.precision,
        "train_s": recorder.elapsed_s,
        "wall_s": time.perf_counter() - plan.started,
        "peak_memory_mb": machine.peak_memory_mb(device),
        "device": machine.device_name(device),
        "command": plan.command,
        "sample_prompts": plan.resolved.config.trainer.evaluation.sample_prompts,
        "data": {"name": plan.resolved.config.data.name, "fingerprint": plan.data.fingerprint},
        "git": git_state(),
        "versions": package_versions(),
        **({} if comparison is None else {"before_after": comparison}),
    }


def draw_loss(plan: Plan, *, rows: list[Row], summary: dict[str, Any]) -> None:
    """Draw `loss.png` of a run."""
    title = f"{summary['name']}: {summary['n_params'] / 1e6:.2f}M parameters, {summary['data']['name']}"
    draw_curves(
        rows,
        plan.folder.picture,
        title=f"{title}, {summary['device']}",
        references=summary["references"],
        val_tokens_per_byte=summary["val_tokens_per_byte"],
        whole_split_loss=summary["whole_split"]["val_loss"],
    )


def draw_curves(
    rows: list[Row],
    path: Path,
    *,
    title: str,
    references: dict[str, float],
    val_tokens_per_byte: float,
    whole_split_loss: float | None = None,
) -> None:
    """Draw training and validation loss against tokens, with reference lines and a second axis in bits per byte.

    Args:
        rows: Rows of `metrics.jsonl`.
        path: PNG to write.
        title: One line above the picture.
        references: Name of a reference model -> its loss on the same validation tokens, nats per token.
        val_tokens_per_byte: For the right-hand axis.
        whole_split_loss: The closing validation, drawn as a star.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(9, 5.4), dpi=130, layout="constrained")
    axes = figure.subplots()
    train = [(row["tokens"], row["train_loss"]) for row in rows if row["train_loss"] is not None]
    val = [(row["tokens"], row["val_loss"]) for row in rows if row["val_loss"] is not None]
    if train:
        axes.plot(*zip(*train, strict=True), color="#7a9cc6", linewidth=1.1, label="train")
    if val:
        label = "validation"
        axes.plot(*zip(*val, strict=True), color="#c2410c", linewidth=2, marker="o", markersize=3.5, label=label)
    if whole_split_loss is not None and rows:
        label = f"validation, whole split {whole_split_loss:.3f}"
        axes.plot(
            [rows[-1]["tokens"]], [whole_split_loss], "*", color="#7c2d12", markersize=11, linestyle="", label=label
        )
    for style, (name, loss) in zip(("--", ":", "-."), references.items(), strict=False):
        axes.axhline(loss, color="#525252", linewidth=1.2, linestyle=style, label=f"{name} {loss:.3f}")
    axes.set_xlabel("training tokens")
    axes.set_ylabel("loss (nats per token)")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_title(title, fontsize=11, loc="left")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    factor = bits_per_byte(1.0, tokens_per_byte=val_tokens_per_byte)
    right = axes.secondary_yaxis("right", functions=(partial(np.multiply, factor), partial(np.multiply, 1 / factor)))
    right.set_ylabel("bits per byte (of the validation text)")
    axes.spines["top"].set_visible(False)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png")
    temporary.replace(path)


def closing_table(summary: dict[str, Any]) -> Table:
    """The numbers a reader wants first, for the terminal."""
    final, best, references = summary["final"], summary["best"], summary["references"]
    table = Table(
        title=f"{summary['name']}: {summary['n_params']:,} parameters on {summary['device']}", title_justify="left"
    )
    for column, justify in (("", "left"), ("loss (nats/token)", "right"), ("bits per byte", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    whole = summary["whole_split"]
    table.add_row(
        "[bold]validation, whole split[/]", f"[bold]{whole['val_loss']:.4f}[/]", f"[bold]{whole['val_bpb']:.4f}[/]"
    )
    if best and best["step"] != final.get("step"):
        table.add_row(f"best validation, step {best['step']}", f"{best['val_loss']:.4f}", f"{best['val_bpb']:.4f}")
    if summary.get("stopped_early"):
        table.add_row(f"ended early; final/ is step {summary['final_weights']['step']}", "", "")
    if final.get("train_loss") is not None:
        table.add_row("training, last steps", f"{final['train_loss']:.4f}", "")
    for name, loss in references.items():
        bpb = bits_per_byte(loss, tokens_per_byte=summary["val_tokens_per_byte"])
        table.add_row(f"{name} model of the same tokens", f"{loss:.4f}", f"{bpb:.4f}")
    rate = summary["tokens_per_s"]
    facts = [f"{final.get('tokens', 0):,} tokens in {summary['train_s']:.0f} s, the command {summary['wall_s']:.0f} s"]
    facts += [f"{two_digits(rate)} tok/s"] if rate else []
    facts += [utilisation(summary)] if summary["mfu"] else []
    by_kernels = "by the training kernels" if summary.get("cpu_kernels") else "not compiled"
    facts += [f"compiled in {summary['compile_s']:.0f} s"] if summary["compiled"] else [by_kernels]
    facts += [f"peak memory {summary['peak_memory_mb']:,.0f} MB"]
    table.caption = ", ".join(facts)
    table.caption_justify = "left"
    return table


def utilisation(summary: dict[str, Any]) -> str:
    """How much of the device's matrix products the model's own arithmetic was: MFU against a data sheet's peak, on a
    CPU the share of what a large product was measured at.
    """
    share = f"{summary['mfu']:.0%}"
    if str(summary["peak_flops_source"]).startswith("measured"):
        return f"{share} of this CPU's measured matmul rate"
    return f"MFU {share}"


def next_commands(folder: Path, summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What to type next, with what it does; the prompt is the run's own where it can be typed."""
    typed = [p.strip() for p in summary.get("sample_prompts", []) if p.strip() and not set(p) & set('"\n$`\\!')]
    prompt = typed[0] if typed else "The"
    model = folder.name if folder.parent == Path("runs") else folder.as_posix()
    where = [] if folder.parent == Path("runs") else ["--dir", folder.parent.as_posix()]
    upload = upload_command(folder)
    return [
        ("continue a prompt", f'{shown_command("generate", model)} --prompt "{prompt}"'),
        ("talk to it", shown_command("chat", model)),
        ("a chat page and an API", shown_command("serve", model)),
        ("look at the curve", f"{folder.as_posix()}/loss.png"),
        ("all runs", shown_command("runs", "table", "--sort", "val_bpb", *where)),
        ("upstream's own generate", f'uv run litgpt generate {folder.as_posix()}/final --prompt "{prompt}"'),
        *([("upload to W&B", upload)] if upload else []),
    ]
