"""`environment.json` and `code.diff` of a run: everything its numbers depend on, written when its parts are built.

What the machine and the code say is `core`'s work; here is what the run knows: data, seeds, decisions, and its
sessions. `scripts/reproducibility_audit.py` reads all of it back.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from lightning import Trainer

from litgpt_core import checkpoint
from litgpt_core.checkpoint.layout import CHECKSUMS
from litgpt_core.checkpoint.verification import weights_file
from litgpt_core.config.diff import computing_sha256, flatten
from litgpt_core.core.environment import machine_facts
from litgpt_core.core.errors import LightComputeError
from litgpt_core.core.parsing import read_json
from litgpt_core.core.redaction import redact_command
from litgpt_core.core.source_code import code_state, encode
from litgpt_core.training.plan import Plan
from litgpt_core.training.run_folder import RunFolder, write_json


def record_environment(plan: Plan, trainer: Trainer, *, wandb_run_id: str | None) -> None:
    """Write both files. To be called on rank 0, after the Trainer has set torch's switches.

    Args:
        plan: The run.
        trainer: As built; knows how many processes there are.
        wandb_run_id: Under which a resumed run finds its dashboard again.
    """
    code = code_state()
    before = plan.folder.read_environment() if plan.folder.resume_from else {}
    facts = machine_facts(device=plan.resolved.hardware.device)
    facts |= run_facts(plan, trainer)
    facts["code"] = code.facts
    facts["sessions"] = [*(before.get("sessions") or before.get("sittings", [])), _session(plan, facts)]
    facts["wandb_run_id"] = wandb_run_id or before.get("wandb_run_id")
    keep_diff(plan.folder, code.diff)
    write_json(plan.folder.environment, facts)


def run_facts(plan: Plan, trainer: Trainer) -> dict[str, Any]:
    """What the run itself decides and reads: data, tokenizer, seeds, precision, processes, command."""
    config, hardware = plan.resolved.config, plan.resolved.hardware
    return {
        "precision": hardware.precision,
        "data_fingerprint": plan.data.fingerprint,
        **({"base_sha256": plan.base_sha256} if config.lora is not None else {}),
        **({"teacher_sha256": plan.teacher_sha256} if config.distill is not None else {}),
        **({"init_from": init_from_facts(Path(config.init_from).expanduser())} if config.init_from else {}),
        "decisions": {
            "precision": hardware.precision,
            "compile": hardware.compile,
            "compile_reason": hardware.compile_reason,
            "cpu_kernels": hardware.cpu_kernels,
            "flat": hardware.flat,
            "micro_batch": plan.resolved.micro_batch,
            "accumulate": plan.resolved.accumulate,
            "tokens_per_step": plan.resolved.tokens_per_step,
        },
        "processes": {
            "world_size": trainer.world_size,
            "num_nodes": trainer.num_nodes,
            "strategy": type(trainer.strategy).__name__,
        },
        "data": data_facts(plan.data.meta),
        "tokenizer": tokenizer_facts(plan.data.meta),
        "seeds": {key: value for key, value in flatten(config.plain).items() if key.endswith("seed")},
        "config_sha256": computing_sha256(config.plain),
        "command": redact_command(plan.command),
        "typed_in": str(Path.cwd()),
    }


def data_facts(meta: dict[str, Any]) -> dict[str, Any]:
    """Hashes of the corpus, of its split and of both shards, from meta.json of a prepared folder."""
    splits = meta.get("splits", {})
    return {
        "name": meta.get("name"),
        "fingerprint": meta.get("fingerprint"),
        "corpus_sha256": meta.get("corpus_sha256"),
        "split_sha256": (meta.get("split") or {}).get("sha256"),
        **{f"{side}_sha256": (splits.get(side) or {}).get("sha256") for side in ("train", "val")},
        **{f"{side}_tokens": (splits.get(side) or {}).get("tokens") for side in ("train", "val")},
    }


def tokenizer_facts(meta: dict[str, Any]) -> dict[str, Any]:
    """Kind, size and hashes of the tokenizer, from meta.json of a prepared folder."""
    stored = meta.get("tokenizer", {})
    return {key: stored.get(key) for key in ("kind", "vocab_size", "fingerprint", "files")}


def init_from_facts(directory: Path) -> dict[str, Any]:
    """Where a run starts from: the directory, and its weights' hash as its checksums.json says it; null without one."""
    try:
        found = checkpoint.resolve(directory)
        stored = read_json(found / CHECKSUMS)
        digest = stored[weights_file(found).name]["sha256"]
    except (LightComputeError, OSError, ValueError, KeyError, TypeError):
        digest = None
    return {"directory": str(directory), "weights_sha256": digest}


def _session(plan: Plan, facts: dict[str, Any]) -> dict[str, Any]:
    """One entry of `sessions`: what may change between the starts of one run."""
    resumed = plan.folder.resume_from
    return {
        "began_at": facts["recorded_at"],
        "from_step": (checkpoint.step_of(resumed) or 0) if resumed else 0,
        "command": facts["command"],
        "device_name": facts["device_name"],
        "threads": facts["threads"]["torch"],
        "world_size": facts["processes"]["world_size"],
        "precision": facts["precision"],
        "commit": facts["git"].get("commit"),
        "diff_sha256": facts["code"]["diff_sha256"],
        "package_sha256": facts["code"]["package_sha256"],
        "packages_sha256": facts["packages_sha256"],
        "config_sha256": facts["config_sha256"],
        "trainer": plan.resolved.config.plain["trainer"],
    }


def keep_diff(folder: RunFolder, diff: str) -> None:
    """`code.diff` is the latest session's; another one that stands there gets its hash into its name."""
    new = encode(diff)
    if folder.code_diff.is_file() and (old := folder.code_diff.read_bytes()) != new:
        folder.code_diff.replace(folder.path / f"code-{hashlib.sha256(old).hexdigest()[:12]}.diff")
    if new:
        temporary = folder.code_diff.with_name(".code.diff.tmp")
        temporary.write_bytes(new)
        temporary.replace(folder.code_diff)
