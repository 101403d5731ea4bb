"""What fine-tuning on conversations brought: the model before the first step and the final one, side by side.

Both are measured alike: the loss over the whole held-out side, as validation computes it, and the most probable answer
(greedy) to a few held-out questions. The earlier half is written to `before.json`, so that a resumed run has it too;
the comparison goes to `before_after.md`, `summary.json` and the terminal.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from rich.table import Table

from litgpt_core import tokenizers
from litgpt_core.core.errors import CheckpointError, ConfigError, TokenizerError
from litgpt_core.data.module import TokenDataModule
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.request import GenerationRequest
from litgpt_core.generation.sampling_settings import SamplingSettings
from litgpt_core.model.fake_quant import without_fake_quantization
from litgpt_core.model.gpt import GPT
from litgpt_core.model.lora import without_adapters
from litgpt_core.prompts.directory import load_style
from litgpt_core.prompts.encode import encode_prompt
from litgpt_core.prompts.message import Message
from litgpt_core.training.closing import loss_over_split
from litgpt_core.training.metrics import bits_per_byte
from litgpt_core.training.module import TrainingModule
from litgpt_core.training.plan import Plan
from litgpt_core.training.run_folder import write_json, write_text

logger = logging.getLogger(__name__)

_SHOWN = 400  # characters of an answer in a table


class BeforeMeasure(Callback):
    """Measures the model when training is about to begin; a resumed run keeps what its first session measured."""

    def __init__(self, plan: Plan, *, data: TokenDataModule) -> None:
        self.plan, self.data = plan, data

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `before.json`."""
        assert isinstance(pl_module, TrainingModule)
        if trainer.global_step or self.plan.folder.resume_from is not None:
            return
        loss = loss_over_split(trainer, module=pl_module, data=self.data)
        self.plan.group.rank_zero_only(lambda: self._write(loss, model=pl_module.model))

    def _write(self, loss: float, *, model: GPT) -> None:
        said = [] if self.plan.resolved.shards_model else answers(self.plan, model)
        write_json(self.plan.folder.before, {**_numbers(self.plan, loss), "answers": said})
        logger.info("before: %.4f nats per token of the held-out answers", loss)


def answers(plan: Plan, model: GPT) -> list[str]:
    """The model's most probable answers to the held-out questions; none with `trainer.sample_tokens=0`."""
    tokenizer, style = tokenizers.load(plan.data.tokenizer_dir), load_style(plan.data.tokenizer_dir)
    limit = plan.resolved.config.trainer.evaluation.sample_tokens
    if style is None or not limit:
        return []
    random_state, written = torch.get_rng_state(), []
    engine = Engine(without_fake_quantization(without_adapters(model)), tokenizer)
    for messages in plan.data.held_out:
        try:
            ids = encode_prompt(style, tokenizer, [Message(**message) for message in messages[:-1]])
            request = GenerationRequest(
                prompt_ids=tuple(ids[-plan.resolved.model.block_size :]),
                max_new_tokens=limit,
                sampling=SamplingSettings(temperature=0.0),
                stop_ids=style.stop_tokens(tokenizer),
                stop=style.stop_strings(),
            )
            written.append("".join(delta.text for delta in engine.stream(request)).strip())
        except (CheckpointError, TokenizerError, ConfigError) as problem:  # logits that are not numbers, odd characters
            logger.warning("no answer to a held-out question: %s", problem.given)
            written.append("")
    torch.set_rng_state(random_state)
    return written


def compare(plan: Plan, *, model: GPT, whole_split_loss: float) -> dict[str, Any] | None:
    """The comparison as plain values, also written to `before_after.md`; None where nothing was measured before."""
    before = plan.folder.read_before()
    if not plan.data.held_out or not plan.resolved.config.init_from or not before:
        return None
    after = answers(plan, model)
    asked = plan.data.held_out
    rows = [
        {"question": m[-2]["content"], "answered": m[-1]["content"], "before": old, "after": new}
        for m, old, new in zip(asked, before["answers"], after, strict=False)
    ]
    comparison = {
        "before": {key: before[key] for key in ("val_loss", "val_bpb")},
        "after": _numbers(plan, whole_split_loss),
        "held_out_conversations": plan.data.meta["splits"]["val"]["documents"],
        "answers": rows,
    }
    write_text(plan.folder.comparison, as_markdown(comparison, name=plan.resolved.config.run.name))
    return comparison


def _numbers(plan: Plan, loss: float) -> dict[str, float]:
    return {"val_loss": loss, "val_bpb": bits_per_byte(loss, tokens_per_byte=plan.data.val_tokens_per_byte)}


def _measures(comparison: dict[str, Any]) -> list[tuple[str, float, float]]:
    before, after = comparison["before"], comparison["after"]
    return [
        ("validation loss (nats/token)", before["val_loss"], after["val_loss"]),
        ("bits per byte of the answers", before["val_bpb"], after["val_bpb"]),
    ]


def as_markdown(comparison: dict[str, Any], *, name: str) -> str:
    """The page `before_after.md`."""
    lines = [f"# {name}: before and after", ""]
    lines += [f"Over the {comparison['held_out_conversations']:,} held-out conversations, their answers only.", ""]
    lines += ["| | before | after | change |", "|---|---|---|---|"]
    for what, old, new in _measures(comparison):
        lines.append(f"| {what} | {old:.4f} | {new:.4f} | {new - old:+.4f} |")
    if comparison["answers"]:
        lines += ["", "The most probable answers to held-out questions:", ""]
        lines += ["| question | before | after | what was answered |", "|---|---|---|---|"]
        keys = ("question", "before", "after", "answered")
        lines += ["| " + " | ".join(_cell(row[key]) for key in keys) + " |" for row in comparison["answers"]]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", "<br>")):
        shown = shown.replace(sign, written)
    return shown.strip() or "(nothing)"


def comparison_table(comparison: dict[str, Any]) -> list[Table]:
    """The same for the terminal: the numbers, and the answers side by side."""
    numbers = Table(title="before and after", title_justify="left")
    numbers.add_column("")
    for column in ("before", "after", "change"):
        numbers.add_column(column, justify="right")
    for what, old, new in _measures(comparison):
        numbers.add_row(what, f"{old:.4f}", f"[bold]{new:.4f}[/]", f"{new - old:+.4f}")
    if not comparison["answers"]:
        return [numbers]
    texts = Table(title="most probable answers to held-out questions", title_justify="left", show_lines=True)
    for column in ("question", "before", "after"):
        texts.add_column(column, ratio=1, overflow="fold")
    for row in comparison["answers"]:
        texts.add_row(*(_plain(row[key]) for key in ("question", "before", "after")))
    return [numbers, texts]


def _plain(text: str) -> str:
    """Text as it is: no markup, no control characters."""
    from rich.markup import escape

    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."
    return escape("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in shown)) or "[dim](nothing)[/]"
