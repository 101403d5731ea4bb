"""Other names for settings and groups: those of nanoGPT, LitGPT and transformers, and a setting without its group.

`resolve_key` says which setting a name means. A slip of the keyboard is not another name: it stays an error, with the
nearest names.
"""

from __future__ import annotations

from litgpt_core.config.schema import MODEL_FORBIDDEN, TOP_LEVEL, settings
from litgpt_core.config.source import group_names
from litgpt_core.core.text import close_names

GROUPS = {
    "optimizer": "optim",
    "dataset": "data",
    "corpus": "data",
    "tok": "tokenizer",
    "arch": "model",
    "exp": "experiment",
    "recipe": "experiment",
    "wandb": "logger",
}
"""Other name -> group."""

SECTIONS = {**GROUPS, "train": "trainer", "training": "trainer", "eval": "trainer", "log": "logger"}
"""Other name before a dot -> section."""

_MEANINGS = {
    "optim.lr": ("learning_rate", "max_lr", "peak_lr"),
    "optim.schedule.lr_warmup_steps": ("warmup", "warmup_steps", "warmup_iters", "num_warmup_steps", "warmup_it"),
    "optim.schedule.kind": ("schedule", "lr_schedule", "scheduler", "lr_scheduler", "lr_scheduler_type"),
    "optim.weight_decay": ("wd",),
    "trainer.global_batch_size": ("batch_size", "batch", "bs", "train_batch_size", "total_batch_size"),
    "trainer.micro_batch_size": ("device_batch_size", "per_device_train_batch_size"),
    "trainer.epochs": ("epoch", "num_epochs", "n_epochs", "num_train_epochs", "max_epochs"),
    "trainer.max_steps": ("steps", "num_steps", "n_steps", "train_steps", "max_iters", "iters", "iterations"),
    "trainer.eval_interval": ("eval_every", "eval_steps", "val_interval", "eval_freq"),
    "trainer.save_interval": ("save_steps", "checkpoint_interval"),
    "trainer.log_interval": ("log_every", "logging_steps"),
    "trainer.max_norm": ("grad_clip", "clip", "max_grad_norm", "gradient_clip_val"),
    "trainer.accelerator": ("device",),
    "trainer.devices": ("gpus", "num_gpus", "n_gpus"),
    "trainer.num_nodes": ("nodes",),
    "trainer.precision": ("dtype",),
    "trainer.threads": ("num_threads", "n_threads"),
    "trainer.num_workers": ("workers",),
    "trainer.max_time": ("time", "time_limit"),
    "trainer.sample_prompts": ("prompt", "prompts"),
    "model.dropout": ("dropout",),
    "model.block_size": ("context", "context_length", "seq_len", "seq_length", "max_seq_length", "max_seq_len"),
    "model.n_layer": ("layers", "n_layers", "num_layers", "num_hidden_layers", "depth"),
    "model.n_head": ("heads", "n_heads", "num_heads", "num_attention_heads"),
    "model.n_embd": ("width", "hidden_size", "d_model", "dim", "n_embed", "embd"),
    "tokenizer.vocab_size": ("vocab", "n_vocab"),
    "data.path": ("file", "path", "text", "input", "train_file", "data_path", "data_dir", "input_file"),
    "run.name": ("name", "run_name", "experiment_name"),
    "run.dir": ("out_dir", "output_dir", "runs_dir", "out", "output", "save_dir"),
    "run.resume": ("resume", "continue"),
    "init_from": ("checkpoint", "checkpoint_dir", "base", "base_model", "pretrained", "from", "ckpt"),
    "logger.project": ("wandb_project",),
    "logger.group": ("wandb_group",),
}
"""Setting -> its other names."""

OTHER_NAMES = {other: key for key, others in _MEANINGS.items() for other in others}
"""Other name -> the setting."""

ELSEWHERE = {
    **dict.fromkeys(("config_name", "config", "c"), "+experiment=NAME; from_litgpt=FILE.yaml for LitGPT's own configs"),
    **dict.fromkeys(("dry_run", "print_config", "show_config"), "--cfg job"),
    **dict.fromkeys(
        ("gradient_accumulation_steps", "grad_accum", "accumulate_grad_batches", "accumulation_steps"),
        "trainer.micro_batch_size=N: a step adds up trainer.global_batch_size / N micro-batches",
    ),
}
"""Names of other programs without a counterpart -> what to type for the same."""

VALUES = {
    "trainer.accelerator": {"gpu": "cuda"},
    "trainer.precision": {
        **dict.fromkeys(("32", "fp32", "float32"), "32-true"),
        **dict.fromkeys(("bf16", "bfloat16"), "bf16-mixed"),
        **dict.fromkeys(("16", "fp16", "float16"), "16-mixed"),
    },
    "logger": {"false": "none", "off": "none", "null": "none", "true": "wandb"},
    "optim": {"adam": "adamw"},
    "tokenizer": {"character": "char", "bytes": "byte", "spm": "sentencepiece"},
}
"""Setting or group -> other spelling of a value -> the value."""


def resolve_key(name: str) -> str | None:
    """The setting or group that a name means; None for a name that means none.

    Args:
        name: As typed before `=`, without `+`: `max_steps`, `batch_size`, `train.lr`, `optimizer`.

    >>> resolve_key("batch_size"), resolve_key("trainer.learning_rate"), resolve_key("max_steps")
    ('trainer.global_batch_size', 'optim.lr', 'trainer.max_steps')
    """
    if _is_key(name):
        return name
    section, dot, rest = name.partition(".")
    if not dot:
        return GROUPS.get(name) or OTHER_NAMES.get(name) or _by_last_part(name)
    section = SECTIONS.get(section, section)
    if _is_key(f"{section}.{rest}"):
        return f"{section}.{rest}"
    if section not in TOP_LEVEL or (section == "model" and rest in MODEL_FORBIDDEN) or "." in rest:
        return None
    known = OTHER_NAMES.get(rest) or _by_last_part(rest)
    # `data.name` is one of several settings called `name`: the other names of one section are not those of another
    return known if known is not None and (known in settings() and rest not in ("name", "path")) else None


def near_keys(name: str, *, n: int = 3) -> list[str]:
    """The settings and groups most similar to an unknown name, best first, in full."""
    by_word: dict[str, str] = {group: group for group in [*group_names(), *GROUPS]} | OTHER_NAMES
    by_word |= {key.rsplit(".", 1)[-1]: key for key in settings() if _by_last_part(key.rsplit(".", 1)[-1]) == key}
    by_word |= {key: key for key in settings()} | {section: section for section in TOP_LEVEL}
    found = close_names(name, by_word, n=3 * n, cutoff=0.7)
    return list(dict.fromkeys(GROUPS.get(by_word[word], by_word[word]) for word in found))[:n]


def _is_key(name: str) -> bool:
    """Whether a name is a setting, a group, a section, or a place within a setting that is a table."""
    if name in settings() or name in group_names() or name in TOP_LEVEL:
        return True
    parts = name.split(".")
    return any(_is_table(".".join(parts[:length])) for length in range(2, len(parts)))


def _is_table(key: str) -> bool:
    return str(settings().get(key, "")).startswith("dict")


def _by_last_part(name: str) -> str | None:
    """The only setting whose last part is `name`."""
    found = [key for key in settings() if key.rsplit(".", 1)[-1] == name]
    return found[0] if len(found) == 1 else None
